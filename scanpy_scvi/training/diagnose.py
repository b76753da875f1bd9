"""Where a non-finite loss arose."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.vae import VAE, Bound


class Culprit(NamedTuple):
    """The first cell with a non-finite loss."""

    cell: int
    """Position in the data set."""
    gene: int
    """Position among the modelled genes: the largest count of the cell."""
    batch: int
    """Batch code."""
    term: str
    """Which term of the bound, or the weights."""


class NonFiniteLoss(FloatingPointError):  # noqa: N818  # it is what the user sees as a FloatingPointError
    """The loss is infinite or NaN."""

    def __init__(self, culprit: Culprit) -> None:
        super().__init__(f"the loss is not finite: {culprit}")
        self.culprit = culprit


def diagnose(model: VAE, cells: Cells, bound: Bound) -> Culprit:
    """Name the first cell whose bound is not finite, its largest count, and the term at fault."""
    broken = ~torch.isfinite(bound.loss())
    i = int(broken.int().argmax())
    broken_weights = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    terms = [name for name, value in zip(bound._fields, bound.terms()[:, i], strict=False) if not torch.isfinite(value)]
    terms += ["penalties"] if bound.penalty is not None and not torch.isfinite(bound.penalty) else []
    start, end = int(cells.counts.indptr[i]), int(cells.counts.indptr[i + 1])
    largest = start + int(cells.counts.data[start:end].argmax()) if end > start else None
    return Culprit(
        cell=int(cells.index[i]),
        gene=-1 if largest is None else int(cells.counts.indices[largest]),
        batch=int(cells.batch[i]),
        term=f"the weights {broken_weights[0]!r}" if broken_weights else ", ".join(terms),
    )
