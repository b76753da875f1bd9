"""What is done to counts before an encoder looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..cells import Cells, Counts


def to_total(cells: Cells, total: float) -> torch.Tensor:
    """Factors that bring each cell's counts to the same total, (n,)."""
    return total * torch.exp(-cells.log_total)


def thinned(counts: Counts, share: float) -> Counts:
    """Each molecule kept with probability 1 - `share`, and what is kept divided by that: counts of the same mean."""
    kept = torch.binomial(counts.data, torch.full_like(counts.data, 1 - share))
    return counts._replace(data=kept / (1 - share))
