"""What cells would express if their latent state were shifted, and how far the error of the shift carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.group_sums import group_sums
from ..training.sources import blocks
from .counterfactual import Decoding, mean_decoded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable

PER = 1e4
"""Total that proportions and counts are scaled to."""


class Response(NamedTuple):
    """Mean expression per 10,000 before and after a shift, and its log2 fold change; arrays are (n_genes,), float64."""

    before: np.ndarray
    after: np.ndarray
    fold: np.ndarray
    error: np.ndarray
    """Standard error of the fold change."""


def predicted_response(
    model: VAE,
    table: CellTable,
    z: np.ndarray,
    shift: np.ndarray,
    errors: np.ndarray,
    *,
    pseudocount: float,
    device: torch.device,
) -> Response:
    r"""Decode cells before and after a shift of their latent states, each with its own batch and covariates.

    The error of the fold change f is carried over from those of the shift, to first order and as if these were
    independent, with central differences of one standard error:

    .. math:: s_g^2 = \sum_j \left( \frac{f_g(\mu + s_j e_j) - f_g(\mu - s_j e_j)}{2} \right)^2

    Parameters
    ----------
    model
        A fitted model.
    table
        The cells.
    z
        Their latent states without the shift, (n_cells, n_latent).
    shift
        Added to all, (n_latent,).
    errors
        Standard errors of the shift; latents with zero cost nothing.
    pseudocount
        Added to both means of a fold change.
    device
        Where to compute.
    """
    rows = np.arange(table.n_cells)

    def mean_at(moved: np.ndarray) -> np.ndarray:
        return mean_decoded(model, table, rows, z + moved, Decoding(PER), device=device)

    before, after = mean_at(np.zeros_like(shift)), mean_at(shift)
    variance = np.zeros(table.n_genes)
    for j in np.flatnonzero(errors):
        step = np.zeros_like(shift)
        step[j] = errors[j]
        up, down = (np.log2(mean_at(shift + side * step) + pseudocount) for side in (1, -1))
        variance += ((up - down) / 2) ** 2
    return Response(before, after, fold_change(after, before, pseudocount), np.sqrt(variance))


def fold_change(after: np.ndarray, before: np.ndarray, pseudocount: float) -> np.ndarray:
    """log2 fold change of means."""
    return np.log2(after + pseudocount) - np.log2(before + pseudocount)


class Counted(NamedTuple):
    """Counts per 10,000 of groups of cells, (n_groups, n_genes); NaN for groups of no cells."""

    mean: np.ndarray
    error: np.ndarray
    """Standard error of the mean, at least what one count more would change."""

    def fold_error(self, pseudocount: float) -> np.ndarray:
        """Standard error of the log2 fold change between the first two groups, to first order, (n_genes,)."""
        relative = self.error[:2] / (self.mean[:2] + pseudocount)
        error: np.ndarray = np.sqrt((relative**2).sum(0)) / np.log(2)
        return error


def counted_means(parts: Iterable[tuple[CellTable, np.ndarray]], n_groups: int) -> Counted:
    """Mean counts per 10,000 of a cell's total over the modelled genes.

    Parameters
    ----------
    parts
        Cells, some at a time, with the group of each, -1 for none.
    n_groups
        Number of groups.
    """
    total: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0
    n, one_count = np.zeros((n_groups, 1)), np.zeros((n_groups, 1))
    for table, codes in parts:
        scale, inside = PER * np.exp(-table.log_total.astype(np.float64)), codes >= 0
        rows = (block.rows for block in blocks(table.counts))
        sums = group_sums(rows, codes.astype(np.int64), scale, (n_groups, table.n_genes))
        total, squares = total + sums.scaled, squares + sums.squares
        n[:, 0] += np.bincount(codes[inside], minlength=n_groups)
        one_count[:, 0] += np.bincount(codes[inside], scale[inside], minlength=n_groups)
    with np.errstate(invalid="ignore"):
        mean = total / n
        variance = np.maximum(squares / n - mean**2, 0) / np.maximum(n - 1, 1)
        return Counted(mean, np.sqrt(np.maximum(variance, (one_count / n**2) ** 2)))
