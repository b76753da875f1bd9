"""Whether two groupings of the cells coincide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .checks import listed
from .finding import Finding

COINCIDE = 0.9
"""Cramér's V from which two groupings count as the same thing."""
LINKED = 0.5
"""Cramér's V from which a link is worth a warning."""
CHANCE = 0.01
"""Largest probability, were label and batch independent, of a label that keeps to one batch by chance."""


class Association(NamedTuple):
    """How a label is spread over the batches."""

    cramers_v: float
    """Cramér's V, corrected for chance: 0 independent, 1 one decides the other."""
    confined: np.ndarray
    """Codes of the labels that occur in one batch only, and not by chance."""
    batch_of: np.ndarray
    """Code of the batch with most cells of each label, (n_labels,)."""
    n_batches: int
    n_labels: int


def association(batch: np.ndarray, label: np.ndarray) -> Association:
    r"""Measure how much of a label the batch decides.

    With observed counts O, row and column totals R and C of the batch x label table of n cells with r rows, c columns,

    .. math::

        \varphi^2 = \sum \frac{O^2}{R C} - 1, \quad
        V = \sqrt{\frac{\max(0, \varphi^2 - (r-1)(c-1)/(n-1))}{\min(\tilde r, \tilde c) - 1}}, \quad
        \tilde r = r - \frac{(r-1)^2}{n-1}

    (Bergsma 2013, J. Korean Stat. Soc. 42:323). V is 1 also where one grouping is finer than the other.

    Parameters
    ----------
    batch, label
        Codes from 0, (n_cells,).
    """
    table = np.zeros((int(batch.max()) + 1, int(label.max()) + 1))
    np.add.at(table, (batch, label), 1)
    used = table.sum(0) > 0
    share = table[table.sum(1) > 0].sum(1) / table.sum()
    present = table[table.sum(1) > 0]
    by_chance = (share[:, None] ** table.sum(0)).max(0)
    confined = np.flatnonzero(used & ((present > 0).sum(0) == 1) & (by_chance < CHANCE))
    r, c = len(present), int(used.sum())
    return Association(_cramers_v(present[:, used]), confined, table.argmax(0), r, c)


def _cramers_v(table: np.ndarray) -> float:
    (r, c), n = table.shape, table.sum()
    if min(r, c) < 2 or n < 3:
        return 0.0
    expected = np.outer(table.sum(1), table.sum(0))
    phi2 = max(0.0, float((table**2 / expected).sum()) - 1 - (r - 1) * (c - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return min(1.0, float(np.sqrt(phi2 / smaller))) if smaller > 0 else 0.0


def confounding_finding(
    found: Association, batch_key: str, label_key: str, batch_names: tuple[str, ...], label_names: tuple[str, ...]
) -> Finding:
    """Put an association into words: what correcting for the batch would do to the label."""
    pair = f"`obs[{batch_key!r}]` and `obs[{label_key!r}]`"
    v = f"Cramér's V {found.cramers_v:.2f}"
    where = [f"{label_names[k]!r} in {batch_names[found.batch_of[k]]!r}" for k in found.confined[:3]]
    more = ", …" if len(found.confined) > 3 else ""
    occur = "occurs" if len(found.confined) == 1 else "occur"
    confined = f"{len(found.confined)} of {found.n_labels} labels {occur} in one batch only ({', '.join(where)}{more})"
    remedy = f"Pass a batch that cuts across {label_key!r}, or none, if {label_key!r} is what you study."
    if found.cramers_v >= COINCIDE:
        message = f"{pair} coincide ({v}): correcting for the batch removes what sets the labels apart. {remedy}"
        return Finding("warning", "confounding", message)
    if found.cramers_v >= LINKED or len(found.confined) > found.n_labels / 2:
        tail = f", and {confined}" if len(found.confined) else ""
        message = (
            f"{pair} are strongly linked ({v}){tail}: correcting for the batch removes part of what sets the labels "
            f"apart. {remedy}"
        )
        return Finding("warning", "confounding", message)
    if len(found.confined):
        message = (
            f"{confined}, though {pair} are not strongly linked ({v}): nothing in the data tells those labels from an "
            "effect of their batch, so judge them with care."
        )
        return Finding("note", "confounding", message)
    message = f"{pair} are spread over each other ({v}): what the batch explains is not the label"
    return Finding("ok", "confounding", message)


def same_grouping_finding(v_by_key: dict[str, float], batch_key: str) -> list[Finding]:
    """Name other columns that coincide with the batch."""
    same = [key for key, v in v_by_key.items() if v >= COINCIDE]
    if not same:
        return []
    message = (
        f"{listed(same)} in `obs` and the batch {batch_key!r} coincide: correcting for the batch removes those "
        "differences too, which is right for technical columns and wrong for the biology you study."
    )
    return [Finding("note", "confounding", message)]
