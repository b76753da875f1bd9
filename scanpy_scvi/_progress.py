"""The one progress line of a fit."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from ._logging import verbosity

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


def show_progress(progress: bool | None) -> bool:  # noqa: FBT001  (the user's own three-valued option)
    """Say whether a progress line is to be shown.

    Parameters
    ----------
    progress
        ``False`` never; ``True`` always; ``None`` in a terminal or a notebook, so that log files stay clean.
        At ``sc.settings.verbosity = 0`` there is none in any case.

    Returns
    -------
    Whether to show it.

    Examples
    --------
    >>> show_progress(False)
    False
    """
    if progress is False or verbosity() == 0:
        return False
    return progress is True or "ipykernel" in sys.modules or sys.stderr.isatty()


class ProgressLine:
    """One tqdm line: epochs done, train and held-out ELBO, time left.

    Parameters
    ----------
    total
        Number of epochs that are planned.
    enabled
        Whether anything is shown (see :func:`show_progress`).

    Examples
    --------
    >>> with ProgressLine(2, enabled=False) as line:
    ...     line.update(1, train_elbo=-410.2, validation_elbo=-412.7)
    """

    def __init__(self, total: int, enabled: bool) -> None:  # noqa: FBT001
        self._bar = _open_bar(total) if enabled else None

    def update(self, epoch: int, train_elbo: float, validation_elbo: float | None = None) -> None:
        """Show that `epoch` epochs (counted from 1) are done; the ELBOs are per cell, in nats."""
        if self._bar is None:
            return
        held_out = "" if validation_elbo is None else f", held-out {validation_elbo:.1f}"
        self._bar.set_postfix_str(f"ELBO train {train_elbo:.1f}{held_out}", refresh=False)
        self._bar.update(epoch - self._bar.n)

    def close(self) -> None:
        """Finish the line: what was reached counts as everything."""
        if self._bar is not None:
            self._bar.total = self._bar.n or self._bar.total
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._bar is not None:  # interrupted or failed: leave the line as it was
            self._bar.close()


def _open_bar(total: int) -> Any:
    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm warns and then draws text, which is what we want there.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    shape = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}"
    return tqdm(total=total, desc="epoch", bar_format=shape, dynamic_ncols=True)
