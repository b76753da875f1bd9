"""A fitted model with room for categories that it has not seen: architecture surgery."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from .part import copy_weights
from .spec import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .cells import Dimensions
    from .spec import ModelSpec
    from .vae import VAE


class Columns(NamedTuple):
    """Where the columns of a covariate design lie after a growth."""

    kept: torch.Tensor
    """New position of each old column."""
    learned: torch.Tensor
    """Positions of the columns of new categories."""
    start: torch.Tensor
    """(old columns, learned columns): each learned one starts as this mixture of old ones."""


@dataclass(frozen=True)
class Growth:
    """What a model gains: categories behind those that it knows, of the batch and of other covariates.

    A variable with one category has no column in the design. Where it grows, its old category gets one too, which stays
    zero, so that old cells are where they were.
    """

    old: Dimensions
    new: Dimensions
    shares: tuple[np.ndarray, ...]
    """For the batch and for each other covariate: weights of old categories, of any sum, that new ones start from."""
    log_totals: tuple[np.ndarray, ...] = ()
    """Log totals of the cells of each new batch."""

    @cached_property
    def columns(self) -> Columns:
        """Columns of the covariate design."""
        kept: list[int] = []
        learned: list[int] = []
        mixtures, at, n_old = [], 0, 0
        sizes = zip(self._sizes(self.old), self._sizes(self.new), self.shares, strict=True)
        for before, after, share in sizes:
            has_columns = before > 1
            if has_columns:
                kept += range(at, at + before)
            for code in range(before, after):
                learned.append(at + code)
                mixture = np.zeros(self.old.n_covariates)
                if has_columns:
                    mixture[n_old : n_old + before] = share / share.sum()
                mixtures.append(mixture)
            at += after if after > 1 else 0
            n_old += before if has_columns else 0
        kept += range(at, at + self.old.n_continuous)
        start = np.stack(mixtures, axis=1) if mixtures else np.zeros((self.old.n_covariates, 0))
        return Columns(torch.tensor(kept).long(), torch.tensor(learned).long(), torch.from_numpy(start).float())

    @staticmethod
    def _sizes(dims: Dimensions) -> tuple[int, ...]:
        return (dims.n_batches, *dims.n_categories)

    @property
    def new_batches(self) -> slice:
        """Codes of the new batches."""
        return slice(self.old.n_batches, self.new.n_batches)

    def with_new_batches(self, rows: torch.Tensor) -> torch.Tensor:
        """Append to a table with a row for each old batch those of the new ones, each at the weighted mean."""
        share = torch.from_numpy(self.shares[0] / self.shares[0].sum()).to(rows.dtype)
        n_new = self.new.n_batches - self.old.n_batches
        return torch.cat([rows, (share @ rows).expand(n_new, -1)])


@runtime_checkable
class Grows(Protocol):
    """A module with weights of its own that depend on the categories of the data."""

    def grow(self, fitted: Any, growth: Growth) -> Mapping[str, torch.Tensor]:
        """Take over the weights of `fitted`, the same module of a model with fewer categories.

        Returns
        -------
        For each of its own parameters that has entries to be learned, under its name, which ones: bool, of its shape.
        """


@runtime_checkable
class GrowsOptions(Protocol):
    """A part whose options depend on the categories of the data."""

    @staticmethod
    def grown_options(options: Mapping[str, Any], growth: Growth) -> Mapping[str, Any]:
        """Return the options of the part in a model that has grown."""


class Grown(NamedTuple):
    """A model after its growth."""

    spec: ModelSpec
    model: VAE
    learned: dict[str, torch.Tensor]
    """For each parameter with entries of new categories, which entries those are, bool."""


@torch.no_grad()
def grow(spec: ModelSpec, model: VAE, growth: Growth) -> Grown:
    """Return the model with room for new categories; for old ones it computes what it did.

    Each module with weights that depend on categories says itself how it grows (:class:`Grows`); all other weights are
    copied. `model` stays as it is.
    """
    parts = {role: getattr(spec, role) for role in ROLES}
    for role, part in parts.items():
        kind = ROLES[role][part.name]
        if issubclass(kind, GrowsOptions):
            parts[role] = replace(part, options=kind.grown_options(part.options, growth))
    spec = replace(spec, dims=growth.new, **parts)
    grown = spec.build().float()
    learned: dict[str, torch.Tensor] = {}
    fitted = dict(model.named_modules())
    for name, module in grown.named_modules():
        if isinstance(module, Grows):
            prefix = f"{name}." if name else ""
            learned |= {prefix + own: entries for own, entries in module.grow(fitted[name], growth).items()}
        else:
            copy_weights(module, fitted[name])
    mine = "encoder."
    passive = [n for n in learned if n.startswith(mine) and not grown.encoder.learns_new(n.removeprefix(mine))]
    for name in passive:
        del learned[name]
    return Grown(spec, grown.eval(), learned)
