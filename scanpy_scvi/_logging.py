"""Messages in scanpy's text shape, at scanpy's verbosity.

The logger is ``logging.getLogger("scanpy_scvi")``. What it shows follows ``sc.settings.verbosity``, read at every call:

=========  ==========================================
verbosity  shown
=========  ==========================================
0          errors
1          warnings and closing lines (the default)
2          what is being computed, and how long it took
3          hints and details
4          everything
=========  ==========================================

Public functions call it as scanpy's do::

    start = _logging.info("training scvi")
    ...
    _logging.closing_line("scvi converged", added=[".obsm['X_scvi']"], time=start)

Scanpy is never imported here: as long as nobody has imported it, its default verbosity holds.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from logging import DEBUG, ERROR, INFO, WARNING
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

HINT = (INFO + DEBUG) // 2  # as in scanpy
CLOSING = WARNING + 1  # shown at the default verbosity, without looking like a warning
LEVELS = (ERROR, WARNING, INFO, HINT, DEBUG)  # by verbosity
PREFIXES = {INFO: "", CLOSING: "", HINT: "--> ", DEBUG: "    "}


def _settings() -> Any | None:
    """Scanpy's settings, or None while scanpy is not imported."""
    return getattr(sys.modules.get("scanpy"), "settings", None)


def verbosity() -> int:
    """Return ``sc.settings.verbosity`` as a number from 0 to 4; 1 while scanpy is not imported.

    Returns
    -------
    0 errors, 1 warnings, 2 info, 3 hints, 4 debug.

    Examples
    --------
    >>> import scanpy as sc
    >>> with sc.settings.verbosity.override(3):
    ...     verbosity()
    3
    """
    settings = _settings()
    return 1 if settings is None else min(max(int(settings.verbosity), 0), 4)


class _Formatter(logging.Formatter):
    """`computing x`, `--> hint`, `WARNING: …`; then details and the time taken."""

    def format(self, record: logging.LogRecord) -> str:
        text = PREFIXES.get(record.levelno, f"{record.levelname}: ") + record.getMessage()
        deep = getattr(record, "deep", None)
        if deep and LEVELS[verbosity()] < record.levelno:
            text = f"{text}: {deep}"
        passed = getattr(record, "time_passed", None)
        if passed is not None:
            passed = timedelta(seconds=int(passed.total_seconds()))
            text = text.replace("{time_passed}", str(passed)) if "{time_passed}" in text else f"{text} ({passed})"
        return text


class _Handler(logging.Handler):
    """Write to ``sc.settings.logfile`` if that is a path, else to stderr (stdout in a notebook), as scanpy does."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= LEVELS[verbosity()] and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            path = getattr(_settings(), "logpath", None)
            if path is None:
                _print(text, sys.stdout if "ipykernel" in sys.modules else sys.stderr)
            else:
                with path.open("a") as file:
                    print(text, file=file)
        except Exception:  # logging's own rule: a message that cannot be written stops no computation
            self.handleError(record)


def _print(text: str, stream: TextIO) -> None:
    """Print without tearing a progress line that may be open."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print(text, file=stream)
    else:
        tqdm.tqdm.write(text, file=stream)
    stream.flush()


def _make_logger() -> logging.Logger:
    logging.addLevelName(HINT, "HINT")
    logging.addLevelName(CLOSING, "CLOSING")
    logger = logging.getLogger("scanpy_scvi")
    if not logger.handlers:
        handler = _Handler()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
        logger.setLevel(1)  # the handler decides, at every call
        logger.propagate = False
    return logger


logger = _make_logger()


def _log(level: int, msg: str, time: datetime | None, deep: str | None) -> datetime:
    now = datetime.now(UTC)
    passed = None if time is None else now - time
    logger.log(level, msg, extra={"time_passed": passed, "deep": deep})
    return now


def error(msg: str, *, time: datetime | None = None, deep: str | None = None) -> datetime:
    """Log an error, shown at every verbosity; parameters as :func:`info`."""
    return _log(ERROR, msg, time, deep)


def warning(msg: str, *, time: datetime | None = None, deep: str | None = None) -> datetime:
    """Log a warning, shown from verbosity 1; parameters as :func:`info`."""
    return _log(WARNING, msg, time, deep)


def info(msg: str, *, time: datetime | None = None, deep: str | None = None) -> datetime:
    """Log what is being done, shown from verbosity 2.

    Parameters
    ----------
    msg
        The message. ``{time_passed}`` in it is replaced by the time taken.
    time
        What an earlier call returned: the time since then is added as ``(0:00:12)``.
    deep
        Details, shown where the verbosity is higher than this message needs.

    Returns
    -------
    The time now, to be passed as `time` to a later call.

    Examples
    --------
    >>> start = info("computing neighbors")
    >>> later = info("    finished", time=start, deep="added `.obsp['distances']`")
    """
    return _log(INFO, msg, time, deep)


def hint(msg: str, *, time: datetime | None = None, deep: str | None = None) -> datetime:
    """Log a hint (``--> …``), shown from verbosity 3; parameters as :func:`info`."""
    return _log(HINT, msg, time, deep)


def debug(msg: str, *, time: datetime | None = None, deep: str | None = None) -> datetime:
    """Log a detail for developers, shown at verbosity 4; parameters as :func:`info`."""
    return _log(DEBUG, msg, time, deep)


def closing_line(msg: str, *, added: Sequence[str] = (), time: datetime | None = None) -> datetime:
    """Log the last line of a public function: what came out and where it was written; shown from verbosity 1.

    Parameters
    ----------
    msg
        What happened, in a few words.
    added
        The slots that were written, for instance ``[".obsm['X_scvi']"]``.
    time
        What :func:`info` returned at the start.

    Returns
    -------
    The time now.

    Examples
    --------
    >>> now = closing_line("scvi converged after 80 epochs", added=[".obsm['X_scvi']", ".uns['scvi']"])
    """
    slots = ", ".join(f"`{slot}`" for slot in added)
    return _log(CLOSING, f"{msg}: added {slots}" if slots else msg, time, None)
