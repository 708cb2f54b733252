"""How log records are written: as text or as JSON, one line each, with the request id of the call they belong to.

Callers of `logging` give fields of their own as `extra={"fields": {...}}`.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

from lockstep.server.core import request_id
from lockstep.server.log_writer import LogWriter

_log = logging.getLogger("lockstep")
LogFormat = Literal["text", "json"]


def configure(log_format: LogFormat, writer: LogWriter) -> None:
    """Give what is logged from now on, from INFO up, to a writer."""
    handler = _WriterHandler(writer)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    if log_format == "json":  # whatever is written is an object
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


class _WriterHandler(logging.Handler):
    """Formats in the thread that logs, since records hold what changes; writes in the writer's."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the line over; what cannot be formatted is told as `logging` tells it."""
        try:
            self._writer.write(self.format(record))
        except Exception:
            self.handleError(record)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("ended by %s", kind.__name__, exc_info=(kind, error, traceback))


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, and the traceback on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(fields_text)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Add the fields to the line."""
        record.fields_text = "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """An object a line: time (RFC 3339, UTC), level, logger, message, fields, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        document: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = dict(getattr(record, "fields", {}))
    if (known := request_id.known()) is not None:
        fields.setdefault("request_id", known)
    return fields


def _plain(value: object) -> str:
    """Return a value as one word, quoted where it is none; `name:value,...` of a table."""
    text = ",".join(f"{key}:{one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
