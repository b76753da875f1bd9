"""One of several models that differ in their priors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .batches import CellTable, minibatches
from .fit import EVALUATION_BATCH, FitResult, fit
from .random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..modules.spec import ModelSpec
    from ..modules.vae import VAE
    from .config import TrainingConfig

PATIENCE = 2
"""Models in a row that are no better than one before them, after which no more are tried."""
MOST_PLACES = 20_000
"""Cells that a prior is started at, at most."""


class Candidates(NamedTuple):
    """What was tried."""

    n_components: np.ndarray
    bound: np.ndarray
    """Held-out bound of each, nats per cell."""


class Chosen(NamedTuple):
    """A fitted model, and what it was chosen from."""

    spec: ModelSpec
    model: VAE
    result: FitResult
    candidates: Candidates | None


def choose(
    specs: Sequence[ModelSpec],
    data: CellTable,
    config: TrainingConfig,
    *,
    prepare: Callable[[VAE], None] | None = None,
    **options: Any,
) -> Chosen:
    """Fit each model, and return the one with the best bound of held-out cells.

    Where there are several, the first is fitted from its start, and then every one, the first again, from the weights
    of that fit but for its own prior, which starts at the cells' latent states: so all had the same beginnings, and
    each takes but a few epochs. Models should be in rising size: after two that bring nothing, no more are tried.
    An interrupt that is to keep what there is ends the choice.

    Parameters
    ----------
    specs
        The models, which may differ in their priors alone.
    data, config, **options
        As for :func:`.fit`.
    prepare
        Gives a new model what its specification does not hold.
    """
    model = specs[0].build().float()
    if prepare is not None:
        prepare(model)
    result = fit(model, data, config, **options)
    if len(specs) == 1 or result.convergence.verdict == "interrupted":
        return Chosen(specs[0], model, result, None)
    found: list[Chosen] = []
    places = _places(model, data, config.random_state)
    for spec in specs:
        with seeded(config.random_state):
            again = _with_prior_at(spec, model, places)
        result = fit(again, data, replace(config, start_from_data=False), **options)
        found.append(Chosen(spec, again, result, None))
        best = int(np.argmax([_bound(f) for f in found]))
        if result.convergence.verdict == "interrupted" or len(found) - 1 - best >= PATIENCE:
            break
    sizes = np.array([int(f.spec.prior.options["n_components"]) for f in found])
    candidates = Candidates(sizes, np.array([_bound(f) for f in found]))
    return max(found, key=_bound)._replace(candidates=candidates)


def _bound(fitted: Chosen) -> float:
    return fitted.result.convergence.best_elbo


@torch.no_grad()
def _places(model: VAE, data: CellTable, seed: int) -> torch.Tensor:
    """A draw of z for each of up to `MOST_PLACES` cells."""
    device = next(model.parameters()).device
    rows = np.sort(np.random.default_rng(seed).permutation(data.n_cells)[:MOST_PLACES])
    with seeded(seed, device):
        parts = [model.encode(data.take(part).to(device)).sample() for part in minibatches(rows, EVALUATION_BATCH)]
    return torch.cat(parts)


def _with_prior_at(spec: ModelSpec, model: VAE, places: torch.Tensor) -> VAE:
    """A model with the weights of another, and with a prior of its own that starts at `places`."""
    new = spec.build().float()
    shared = {name: t for name, t in model.state_dict().items() if not name.startswith("prior.")}
    new.load_state_dict(shared, strict=False)
    new.prior.set_places(places)
    return new.train()
