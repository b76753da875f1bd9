"""Checkpoints: states of a fit in files, to go on from after a crash."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _logging
from .array_file import read_arrays, read_text, write_arrays
from .fit_state import FitState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FORMAT = 2
"""Version of the layout of the files."""
INTERVAL = 60.0
"""Seconds between two checkpoints, at least."""
REST = 100.0
"""Times that a checkpoint took until the next, at least: so they take no more than a hundredth of the time."""
IDENTITY = "identity"
LONGEST = 40
"""Characters of a value that a message shows."""


class Checkpoints:
    """A folder in which the fits of one call leave their states, in files numbered in the order of the fits.

    Parameters
    ----------
    folder
        The folder; it is made.
    identity
        What the fits are of and by: data, model, settings, versions, as JSON can hold it. A state of others is refused.
    writes
        Whether states are written, or read alone, as by all processes but the first.

    Raises
    ------
    OSError
        Where the folder cannot be made.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, writes: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.identity, self.writes = folder, identity, writes
        self._fits: list[Checkpoint] = []

    def next_fit(self, start: str) -> Checkpoint:
        """Return the file of the next fit, whose model has the fingerprint `start` before it is fitted."""
        identity = {"format": FORMAT, **self.identity, "start": start}
        self._fits.append(Checkpoint(self.folder / f"fit-{len(self._fits) + 1}.npz", identity, writes=self.writes))
        return self._fits[-1]

    def remove(self) -> None:
        """Delete the files of all fits so far; the folder stays, and so do states that another call has left there."""
        for one in self._fits:
            one.remove()


class Checkpoint:
    """The file of one fit."""

    def __init__(self, path: Path, identity: Mapping[str, Any], *, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.identity: Mapping[str, Any] = json.loads(json.dumps(identity))  # as it comes back from the file
        self._due = time.monotonic() + INTERVAL
        self._told = False
        """Whether it was said that another fit has taken the name."""

    def read(self) -> FitState | None:
        """Return the state in the file; None where there is none.

        Raises
        ------
        ValueError
            Where the file is damaged, or of another fit.
        """
        if not self.path.exists():
            return None
        try:
            arrays = read_arrays(self.path)
            identity = json.loads(str(arrays.pop(IDENTITY)))
        except (ValueError, KeyError) as error:
            msg = f"The checkpoint {self.path} is cut short or damaged. Delete it to fit from the start."
            raise ValueError(msg) from error
        differs = _difference(identity, self.identity)
        if differs:
            msg = (
                f"The checkpoint {self.path} is of another fit: {differs}. Pass the same data and options, or another "
                "`checkpoint`, or delete that file to fit from the start."
            )
            raise ValueError(msg)
        _logging.info(f"going on from {self.path}")
        return FitState.of_arrays(arrays)

    def save_if_due(self, state: Callable[[], FitState]) -> None:
        """Write the state where the last one is old enough; a failure is a warning, and the last good file stays."""
        start = time.monotonic()
        if start < self._due or not self.writes or not self._is_free():
            return
        try:
            write_arrays(self.path, {IDENTITY: np.array(json.dumps(self.identity)), **state().arrays()})
        except OSError as error:
            left = "The one before it is kept" if self.path.exists() else "There is none yet"
            _logging.warning(f"no checkpoint could be written to {self.path} ({error}). {left}; the fit goes on.")
        end = time.monotonic()
        self._due = end + max(INTERVAL, REST * (end - start))

    def remove(self) -> None:
        """Delete the file, unless it is of another fit."""
        if self.writes and not self._is_anothers():
            self.path.unlink(missing_ok=True)

    def _is_free(self) -> bool:
        """Whether no other fit has left a state here since this one began, which is said once."""
        if not self._is_anothers():
            return True
        if not self._told:
            _logging.warning(
                f"{self.path} holds the state of another fit, which began at about the same time. It is left alone, "
                "and this fit goes on without a checkpoint; pass each its own `checkpoint`."
            )
        self._told = True
        return False

    def _is_anothers(self) -> bool:
        """Whether the file says that it is of another fit; one that cannot be read says nothing."""
        identity = read_text(self.path, IDENTITY) if self.path.exists() else None
        return identity is not None and _difference(json.loads(identity), self.identity) is not None


def _difference(there: Any, here: Any, name: str = "") -> str | None:
    """First difference of two nested mappings, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        inner = (
            _difference(there.get(key), here.get(key), f"{name}.{key}" if name else key) for key in {**there, **here}
        )
        return next(filter(None, inner), None)
    if there == here:
        return None
    shown = [json.dumps(value) for value in (there, here)]
    if any(len(text) > LONGEST or _is_fingerprint(value) for text, value in zip(shown, (there, here), strict=True)):
        return f"`{name}` differs"
    return f"`{name}` is {shown[0]} there and {shown[1]} here"


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 32 and not value.strip("0123456789abcdef")
