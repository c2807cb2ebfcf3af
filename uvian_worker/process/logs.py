"""Logging: one line per record, as text or JSON; arq logs warnings only."""

from __future__ import annotations

__all__ = ["configure"]

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from uvian_common.scrubbing import guard_logs, scrubbed

#: Attributes that every record has; all others were passed as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, extras, stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{k: _clean(v) for k, v in vars(record).items() if k not in _STANDARD},
        }
        if record.exc_info:
            document["trace"] = record.exc_text or scrubbed(self.formatException(record.exc_info))
        return orjson.dumps(document, default=lambda each: scrubbed(str(each))).decode()


def _clean(value: Any) -> Any:
    """A value that was passed as ``extra``, without secrets."""
    match value:
        case str():
            return scrubbed(value)
        case dict():
            return {str(name): _clean(each) for name, each in value.items()}
        case list() | tuple():
            return [_clean(each) for each in value]
        case _:
            return value


def configure(level: str = "INFO", style: Literal["text", "json"] = "text") -> None:
    """Send our records to stderr; calling it again replaces what was set.

    arq writes two lines per job at INFO, which costs a sixth of its throughput, so it logs warnings
    only. The runner writes one line when a job ends. From now on no logger of the process writes a
    secret of the settings.
    """
    guard_logs()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)-8s %(name)s  %(message)s", "%H:%M:%S")
    )
    ours = logging.getLogger("uvian")
    ours.handlers[:] = [handler]
    ours.setLevel(level)
    ours.propagate = False
    logging.getLogger("arq").setLevel(max(logging.WARNING, ours.level))
