"""Counts of cells that nobody has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse

from ..training.batches import CellTable, minibatches
from ..training.history import active_dimensions
from ..training.in_turn import in_turn
from ..training.random import seeded
from .density import Density

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..modules.vae import VAE

CHUNK = 512
MOST_TRIES = 1000
"""Times that a cell without any count is drawn again."""


class LatentUse(NamedTuple):
    """How a model uses its latent space."""

    active: np.ndarray
    """Which dimensions of z are active (Burda et al. 2016), (n_latent,)."""
    unit: float
    """Standard deviation of z that counts as one."""


class LatentCells(NamedTuple):
    """What counts are drawn from; arrays of one row a cell."""

    z: np.ndarray
    """(n, n_latent), float32."""
    log_library: np.ndarray
    """(n,), float32."""
    donors: np.ndarray
    """Cell of the data whose covariates are used, (n,)."""


@torch.no_grad()
def draw_latent(
    model: VAE, table: CellTable, *, random_state: int, device: torch.device
) -> tuple[LatentCells, LatentUse]:
    """One draw from the posterior of each cell of the data, and how the latent space is used."""
    model = model.to(device).eval()
    means, z, log_library = [], [], []
    rows = np.arange(table.n_cells)
    with seeded(random_state, device):
        for _, there in in_turn(table, CHUNK):
            cells = there.to(device)
            posterior = model.encode(cells)
            means.append(posterior.mean.cpu())
            z.append(posterior.sample().cpu())
            log_library.append(model.library(cells).log_library.cpu())
    variance = torch.cat(means).double().var(0, correction=0).numpy()
    active = active_dimensions(variance, scale_is_set=model.prior.sets_scale)
    unit = 1.0 if model.prior.sets_scale or not active.any() else float(np.sqrt(variance.max()))
    return LatentCells(torch.cat(z).numpy(), torch.cat(log_library).numpy(), rows), LatentUse(active, unit)


class Generated(NamedTuple):
    """New cells in random order, and how many components the density of each group has."""

    cells: LatentCells
    n_components: dict[int, int]


def new_cells(
    latent: LatentCells, use: LatentUse, codes: np.ndarray, wanted: Mapping[int, int], rng: np.random.Generator
) -> Generated:
    """Draw latent states and libraries jointly, from a density of each group.

    Dimensions that are not active say nothing of the cells, and the decoder does not hear them: they are drawn by
    themselves, as the density has better uses for its parameters.

    Parameters
    ----------
    latent
        Draws of the cells of the data.
    use
        How the latent space is used.
    codes
        Group of each cell of the data.
    wanted
        How many cells of each group.
    rng
        Source of randomness.
    """
    parts, n_components = [], {}
    active, unit = use
    joint = np.column_stack([latent.z[:, active] / unit, latent.log_library]).astype(np.float64)
    for code, n in wanted.items():
        if n:
            rows = np.flatnonzero(codes == code)
            density = Density(joint[rows], rng)
            points, donors = density.draw(n, rng)
            z = rng.normal(latent.z[rows].mean(0), latent.z[rows].std(0), (n, len(active)))
            z[:, active] = points[:, :-1] * unit
            parts.append(LatentCells(z, points[:, -1], rows[donors]))
            n_components[code] = len(density.weights)
    order = rng.permutation(sum(len(part.donors) for part in parts))
    z, log_library, donors = (np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True))
    return Generated(LatentCells(z.astype(np.float32), log_library.astype(np.float32), donors), n_components)


@torch.no_grad()
def draw_counts(
    model: VAE, table: CellTable, latent: LatentCells, *, random_state: int, device: torch.device
) -> sparse.csr_matrix:
    """Counts at given latent states and libraries, float32; a cell that comes out empty is drawn again."""
    model = model.to(device).eval()
    chunks = []
    with seeded(random_state, device):
        for rows in minibatches(np.arange(len(latent.donors)), CHUNK):
            counts = np.zeros((len(rows), table.n_genes), np.float32)
            empty = np.arange(len(rows))
            for _ in range(MOST_TRIES):
                at = rows[empty]
                cells = table.take(latent.donors[at]).to(device)
                z, log_library = (torch.from_numpy(a[at]).to(device) for a in (latent.z, latent.log_library))
                counts[empty] = model.likelihood.sample(model.decode(z, cells), log_library, cells).cpu().numpy()
                empty = empty[~counts[empty].any(1)]
                if not len(empty):
                    break
            else:
                size = float(np.exp(latent.log_library[rows[empty[0]]]))
                msg = (
                    f"A cell with a library size of {size:.3g} got no count in {MOST_TRIES} draws. Ask for larger "
                    "libraries."
                )
                raise ValueError(msg)
            chunks.append(sparse.csr_matrix(counts))
    return sparse.vstack(chunks, format="csr", dtype=np.float32)
