"""Errors on the way from a file to an embedding.

IndexerError
├── ImageRejected      one image that cannot be used: data in the report, never the end of a run
├── ModelUnavailable   the model is not on this machine and cannot be fetched
├── ModelUnsupported   the model is here, but cannot do what was asked of it
├── NoPatches          a space whose model sees no patches, so that none can be compared
├── PrecisionTooLow    int8 would lose too many neighbours
├── WorkerFailed       no decoding process can be started (in worker.py)
├── SourceMissing      a source folder or file that is not there
├── ListInvalid        a --files-from list that cannot be read
└── MetadataInvalid    a --metadata file that cannot be read
"""

from __future__ import annotations

from typing import ClassVar


class IndexerError(Exception):
    """Base of everything `indexer` raises on purpose; its message is made for the user."""

    exit_code: ClassVar[int] = 2


class ImageRejected(IndexerError):
    """One image cannot be decoded or is over a limit; the message is the reason given in the report."""


class ModelUnavailable(IndexerError):
    """The model's files are not available here; the message says how to get them."""


class ModelUnsupported(IndexerError):
    """The model cannot serve this layer, pooling, precision or device; the message names what it offers."""


class SourceMissing(IndexerError):
    """A source does not exist or cannot be listed: never taken for an empty folder."""


class ListInvalid(IndexerError):
    """A list of files is malformed; the message says how, as the end of a sentence."""


class MetadataInvalid(IndexerError):
    """A metadata file is malformed; the message names the line."""


class NoPatches(IndexerError):
    """A space whose vectors do not come from a vision transformer's patches."""

    def __init__(self, space: str, model: str) -> None:
        super().__init__(
            f"The space {space} has no patches to compare: its vectors come from {model}, which is not a vision "
            "transformer, or tell words. Name a space of a vision transformer, such as the default one."
        )


class PrecisionTooLow(IndexerError):
    """A precision that would lose too many neighbours, by measurement; the message has the figures."""
