"""Publishing a served index in the background: patient with what fails, and given up when the server stops."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from api.serving import activity
from search.catalog.catalog import NEWEST
from search.errors import PublicationStopped, SearchError
from search.index import Index

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
"""Seconds after a failure until the next try, doubled each time: one may cost minutes, and fill the disk again."""
SOON = 1.0
"""Seconds after a success beside which much was changed."""

LOG = logging.getLogger("lookalike")


def publish_patiently(index: Index, stop: threading.Event) -> None:
    """Publish until searches would be no faster with another generation, or `stop` is set.

    What fails is told once, tried again after a while, and costs no answer until then.
    """
    with suppress(Exception):  # what it says is about to be mended, or found and told there
        _tell_damage(index)
    pause, told = FIRST_PAUSE, ""
    while True:
        try:
            with activity.HERE.working():
                if _published(index, stop):
                    return
            wait, pause, told = SOON, FIRST_PAUSE, ""
        except PublicationStopped:
            return
        except Exception as error:
            ours = isinstance(error, SearchError)
            message = str(error) if ours else f"{type(error).__name__}: {error}."
            if message != told:
                text = "The index %s could not be published, which is tried again later: %s"
                LOG.warning(text, index.path, message, exc_info=not ours)
            wait, pause, told = pause, min(2 * pause, LONGEST_PAUSE), message
        if stop.wait(wait):
            return


def _published(index: Index, stop: threading.Event) -> bool:
    """One try. Returns whether nothing is left to publish: others may have done it, or changed much meanwhile."""
    if index.unpublished():
        with index.writer() as writer, writer.transaction():
            pass  # where nothing can be written, that is known now, not in some minutes
        index.publish(stop=stop)
        index.refresh()
    return not index.unpublished()


def _tell_damage(index: Index) -> None:
    named = index.catalog.changes(since=NEWEST).generation
    index.refresh()
    read = index.info().generation
    if named is not None and (read is None or read < named):
        text = "The generation %s of the index %s cannot be read: it is made again from the catalog."
        LOG.warning(text, named, index.path)
