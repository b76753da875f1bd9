"""Fits of `tl.svae` to a screen, and what cells that were held out say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import scanpy_scvi as sv
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.posterior.counterfactual import Decoding, mean_decoded
from scanpy_scvi.posterior.generation import draw_counts, draw_latent
from scanpy_scvi.store.load import load
from scanpy_scvi.training.batches import minibatches
from scanpy_scvi.training.random import seeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad
    from scipy import sparse

    from scanpy_scvi.store.load import Fitted
    from scanpy_scvi.training.batches import CellTable

METHODS: dict[str, dict[str, Any]] = {
    "svae+": {},
    "ivae": {"method": "ivae"},
    "vae, rotated": {"method": "vae"},
    "vae": {"method": "vae", "init": "cold"},
}
"""Rows of the tables, and the options that make them; all else is as by default."""
UNSHIFTED = ("vae, rotated", "vae")
"""Those whose prior knows no perturbations."""
KEY, CPU, CHUNK, PER_10K = "svae", torch.device("cpu"), 512, 1e4
MOST_CONTROLS = 500
"""Control cells that are decoded, at most."""


class Columns(NamedTuple):
    """Columns of `obs`, and the name of the control."""

    perturbation: str
    control: str
    batch: str | None


def fit(adata: ad.AnnData, columns: Columns, method: str, seed: int, options: dict[str, Any]) -> None:
    """Fit in place."""
    given = {"batch_key": columns.batch, "random_state": seed, "normalized": False, "progress": False}
    sv.tl.svae(adata, columns.perturbation, control=columns.control, **given, **METHODS[method], **options)


def transfer(cells: ad.AnnData, reference: ad.AnnData) -> ad.AnnData:
    """Perturbations of cells that the fit has not seen, appended to its tables; a copy with these."""
    cells = cells.copy()
    sv.tl.svae_transfer(cells, reference)
    return cells


def targets(adata: ad.AnnData) -> dict[str, frozenset[str]]:
    """Latent dimensions that each perturbation hits."""
    table = adata.uns[KEY]["targets"]
    hit = table[table["is_target"].to_numpy(bool)].astype({"perturbation": str, "latent": str})
    found = hit.groupby("perturbation")["latent"].agg(frozenset)
    return {str(name): found.get(str(name), frozenset()) for name in adata.uns[KEY]["effects"].index}


def shifts(adata: ad.AnnData, *, every: bool = False) -> pd.DataFrame:
    """Perturbations x latent dimensions: the shifts that count, or `every` one as estimated, also where closed."""
    effects = adata.uns[KEY]["effects"]
    effects = effects.set_axis(effects.index.astype(str), axis=0).set_axis(effects.columns.astype(str), axis=1)
    if not every:
        return effects
    table = adata.uns[KEY]["targets"].astype({"perturbation": str, "latent": str})
    wide = table.pivot(index="perturbation", columns="latent", values="shift")
    return wide.loc[effects.index, effects.columns]


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared targets among all of two perturbations; 0 where neither has one."""
    return len(first & second) / max(len(first | second), 1)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two shifts; 0 where one is zero."""
    length = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / length) if length > 0 else 0.0


def open_share(adata: ad.AnnData, names: Iterable[str]) -> float:
    """Share of some perturbations with a target."""
    hit = targets(adata)
    return float(np.mean([bool(hit[name]) for name in names]))


def read(reference: ad.AnnData, cells: ad.AnnData, columns: Columns) -> tuple[Fitted, CellTable]:
    """A fit, and cells as it wants them, whose perturbations it does not know: the decoder does not look at them."""
    bare = cells.copy()
    bare.obs[columns.perturbation] = pd.Categorical([columns.control] * bare.n_obs)
    fitted = load(reference, KEY).on(bare)
    return fitted, fitted.read(bare)


def latent(reference: ad.AnnData, cells: ad.AnnData, columns: Columns) -> np.ndarray:
    """Posterior means of cells, (n_cells, n_latent)."""
    fitted, table = read(reference, cells, columns)
    return latent_moments(fitted.model, table, device=CPU).mean


class Evidence(NamedTuple):
    """Importance weights of cells by the same draws of z, whatever their shift."""

    log_weights: np.ndarray
    """Under the prior of control cells, (n_draws, n_cells)."""
    z: np.ndarray
    """(n_draws, n_cells, n_latent)."""

    def under(self, shift: np.ndarray) -> np.ndarray:
        """Logarithms of weights with a prior N(shift, I); a shift for all cells, or one for each."""
        return self.log_weights + ((self.z - 0.5 * shift) * shift).sum(-1)

    def of(self, cells: np.ndarray) -> Evidence:
        """Some of the cells."""
        return Evidence(self.log_weights[:, cells], self.z[:, cells])


@torch.no_grad()
def evidence(reference: ad.AnnData, cells: ad.AnnData, columns: Columns, *, n_samples: int, seed: int) -> Evidence:
    """Weights p(x | z) p(z | control) / q(z | x) of draws from q."""
    fitted, table = read(reference, cells, columns)
    model, weights, states = fitted.model, [], []
    with seeded(seed, CPU):
        for rows in minibatches(np.arange(table.n_cells), CHUNK):
            part = table.take(rows)
            posterior, log_library = model.encode(part), model.library.mean(part)
            draws = [posterior.sample() for _ in range(n_samples)]
            terms = [
                model.prior.log_prob(z, part)
                - posterior.log_prob(z)
                - model.likelihood.nll(model.decode(z, part), log_library, part)
                for z in draws
            ]
            weights.append(torch.stack(terms).double().numpy())
            states.append(torch.stack(draws).numpy())
    return Evidence(np.concatenate(weights, axis=1), np.concatenate(states, axis=1))


def gain(weights: Evidence, shift: np.ndarray) -> float:
    """Mean over cells of the bound with a shift, less that with the prior of controls, nats."""
    return sv.metrics.iwelbo(weights.under(shift)).mean - sv.metrics.iwelbo(weights.log_weights).mean


def some_controls(reference: ad.AnnData, columns: Columns, seed: int) -> ad.AnnData:
    """Control cells of a fit, a sample of many."""
    rows = np.flatnonzero((reference.obs[columns.perturbation] == columns.control).to_numpy())
    if len(rows) > MOST_CONTROLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_CONTROLS, replace=False))
    return reference[rows]


class Decoded:
    """Control cells of a fit, and what they would express under shifts."""

    def __init__(self, reference: ad.AnnData, columns: Columns, seed: int) -> None:
        self.fitted, self.table = read(reference, some_controls(reference, columns, seed), columns)
        self.mean = latent_moments(self.fitted.model, self.table, device=CPU).mean
        self.drawn = draw_latent(self.fitted.model, self.table, random_state=seed, device=CPU)[0]
        self.seed = seed

    def mean_expression(self, shift: np.ndarray) -> np.ndarray:
        """Mean expected counts per 10,000, (n_genes,)."""
        rows = np.arange(self.table.n_cells)
        how = Decoding(PER_10K)
        return mean_decoded(self.fitted.model, self.table, rows, self.mean + shift, how, device=CPU)

    def mean_log_counts(self, shift: np.ndarray) -> np.ndarray:
        """Mean of log2(1 + counts per 10,000) over counts that are drawn, (n_genes,)."""
        states = self.drawn._replace(z=(self.drawn.z + shift).astype(np.float32))
        counts = draw_counts(self.fitted.model, self.table, states, random_state=self.seed, device=CPU)
        return np.asarray(log_counts(counts).mean(0)).ravel()


def log_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log2(1 + counts per 10,000), sparse as the counts are."""
    total = np.asarray(counts.sum(1)).ravel()
    scaled = counts.multiply(PER_10K / np.maximum(total, 1)[:, None]).tocsr()
    scaled.data = np.log2(1 + scaled.data)
    return scaled


def by_label(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which cells are taken when a share of those of each label is, bool."""
    taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        taken[rows[: round(share * len(rows))]] = True
    return taken


def with_null(adata: ad.AnnData, columns: Columns, shares: Iterable[float], seed: int) -> tuple[ad.AnnData, list[str]]:
    """Some control cells, relabelled at random as perturbations that do nothing."""
    labels = adata.obs[columns.perturbation].astype(str).to_numpy().astype(object)
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(labels == columns.control))
    sizes = [round(share * len(rows)) for share in shares]
    names = [f"null_{i}" for i in range(len(sizes))]
    for name, part in zip(names, np.split(rows, np.cumsum(sizes)), strict=False):
        labels[part] = name
    return relabelled(adata, columns, labels), names


def relabelled(adata: ad.AnnData, columns: Columns, labels: np.ndarray) -> ad.AnnData:
    """A copy with other perturbations."""
    adata = adata.copy()
    adata.obs[columns.perturbation] = pd.Categorical(labels.astype(str))
    return adata
