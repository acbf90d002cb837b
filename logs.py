"""The log: one line an event, as text for people or JSON for programs; secrets never appear in it.

Set by --log-format, `log_format:` of the station file, SKRD4AD_LOG_FORMAT; SKRD4AD_LOG: the level.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, get_args

from .errors import ConfigError
from .redaction import redacted

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
FORMAT_VARIABLE, LEVEL_VARIABLE = "SKRD4AD_LOG_FORMAT", "SKRD4AD_LOG"
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


_handler: logging.Handler = logging.NullHandler()
"""Ours, once `configure` was called."""


class TextFormatter(logging.Formatter):
    """A line for people; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, thread, message and what `fields` adds."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": redacted(record.getMessage()),
        }
        line |= {key: _plain(value) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure(form: Format | None = None, prefix: str = "") -> None:
    """Log to stderr. None: as the environment says, else text. Children inherit the choice.

    Raises ConfigError for a format or level in the environment that does not exist.
    `prefix` tells the lines of a child process apart from the line's own.
    """
    global _handler
    root = logging.getLogger()
    if _handler in root.handlers:
        root.removeHandler(_handler)
    elif root.handlers:
        return  # somebody runs us inside their own program and logs in their own way
    chosen = form or os.environ.get(FORMAT_VARIABLE, "text")
    wanted = os.environ.get(LEVEL_VARIABLE, "INFO")
    level = logging.getLevelName(wanted.upper())
    if chosen not in FORMATS:
        raise ConfigError(f"{FORMAT_VARIABLE}={chosen} is no form of the log", "text or json")
    if not isinstance(level, int):
        raise ConfigError(f"{LEVEL_VARIABLE}={wanted} is no level", "DEBUG, INFO, WARNING or ERROR")
    os.environ[FORMAT_VARIABLE] = chosen
    _handler = logging.StreamHandler()
    _handler.setFormatter(JsonFormatter() if chosen == "json" else TextFormatter(prefix + TEXT))
    root.addHandler(_handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_crash


def is_json() -> bool:
    """Whether the log is read by a program, so that nothing else may be written between."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def with_fields(**fields: object) -> Mapping[str, Mapping[str, object]]:
    """For `extra=`: keys of their own in a JSON line, nothing in a line of text."""
    return {"fields": fields}


def _plain(value: object) -> object:
    if isinstance(value, str):
        return redacted(value)
    return value if value is None or isinstance(value, bool | int | float) else redacted(str(value))


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A bug of ours keeps its traceback, but not what it may quote."""
    if is_json():
        logging.getLogger(__package__).critical("crashed", exc_info=(kind, error, trace))
    else:
        sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
