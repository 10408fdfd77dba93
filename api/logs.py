"""The log for the operator: one line an event on stderr, for people or for machines."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Literal

LogFormat = Literal["text", "json"]
REQUEST: ContextVar[str | None] = ContextVar("request", default=None)
"""The id of the request that is being answered."""


class _Named(logging.Filter):
    """Adds the request's id to what is logged while it is answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = REQUEST.get()
        return True


def install(form: LogFormat) -> None:
    """Log everything of ours, and warnings of others, in this form."""
    handler = logging.StreamHandler()
    handler.addFilter(_Named())
    handler.setFormatter(_json() if form == "json" else logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lookalike").setLevel(logging.INFO)
    # For people a line a request is noise: metrics count them, and problems say what they are.
    logging.getLogger("lookalike.access").setLevel(logging.INFO if form == "json" else logging.WARNING)
    # What clients send is answered and counted; a line for each is theirs to fill the log with.
    for others in ("python_multipart", "uvicorn.error"):
        logging.getLogger(others).setLevel(logging.ERROR)


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["message", "levelname", "name"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="at",
    )
