"""Can generated cells be told from real ones?

    python tests/benchmark/generation.py mouse_bladder cell_type --seeds 3
    python tests/benchmark/generation.py pbmc3k cell_type --largest --seeds 3

Over the 1,000 most variable genes, models are fitted to one half of the cells (of the largest type alone, if asked
for), and generate as many cells as the other half has. `metrics.generation` compares these with the half that no model
has seen; the half that the models were fitted to is the control. The genes are chosen from all cells: chosen from one
half, they would be those that happen to vary more in that half, and tell the halves apart. With `--limits` come three
rows that need no fit: independent negative binomials, fitted by maximum likelihood to the training half and to the very
half that they are compared with, and the training half with every gene's shares shuffled over the cells.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import chain
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom

import scanpy_scvi as sv
from scanpy_scvi.posterior.generation import LatentCells, draw_counts, draw_latent
from scanpy_scvi.store.load import load

N_GENES = 1000
MODELS = {
    "scvi": ("scvi", {}),
    "scvi, gene-cell": ("scvi", {"dispersion": "gene-cell"}),
    "ldvae": ("ldvae", {}),
    "scvae": ("scvae", {}),
    "dgd": ("dgd", {}),
}
MEASURES = (*sv.metrics.GenerationScores._fields, "real_zeros", "seconds")


def cells_of(name: str, groupby: str, *, largest: bool) -> ad.AnnData:
    """Cells with counts over the most variable genes."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    if largest:
        adata = adata[adata.obs[groupby] == adata.obs[groupby].value_counts().index[0]].copy()
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=N_GENES)
    adata = adata[:, logged.var["highly_variable"].to_numpy()]
    return adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()


def prior_cells(adata: ad.AnnData, key: str, n: int, seed: int) -> ad.AnnData:
    """Counts at z ~ N(0, I), with the covariates and the library of cells drawn at random."""
    fitted, rng = load(adata, key), np.random.default_rng(seed)
    table, device = fitted.read(adata), torch.device("cpu")
    latent, _ = draw_latent(fitted.model, table, random_state=seed, device=device)
    donors = rng.integers(adata.n_obs, size=n)
    z = rng.normal(size=(n, latent.z.shape[1])).astype(np.float32)
    cells = LatentCells(z, latent.log_library[donors], donors)
    return ad.AnnData(draw_counts(fitted.model, table, cells, random_state=seed, device=device))


def negative_binomials(adata: ad.AnnData, n: int, rng: np.random.Generator) -> ad.AnnData:
    """Counts of genes that share nothing but the total, each with its own most probable mean and dispersion."""
    x = adata.X.toarray().astype(float)
    total = x.sum(1)
    share = x.sum(0) / total.sum()

    def loss(log_theta: float, gene: int) -> float:
        theta = np.exp(log_theta)
        return -nbinom.logpmf(x[:, gene], theta, theta / (theta + total * share[gene])).sum()

    found = [minimize_scalar(loss, bounds=(-4, 9), args=(g,), method="bounded").x for g in range(x.shape[1])]
    theta = np.exp(found)
    mean = rng.choice(total, n)[:, None] * share
    return ad.AnnData(rng.poisson(rng.gamma(theta, mean / theta)).astype(np.float32))


def shuffled_genes(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Each gene's shares as they are, in an order of their own, at the totals of cells drawn at random."""
    x = adata.X.toarray().astype(float)
    total = x.sum(1, keepdims=True)
    shares = rng.permuted(x / total, axis=0)
    shares /= shares.sum(1, keepdims=True)
    return ad.AnnData(np.round(shares * rng.permutation(total)).astype(np.float32))


def limits(train: ad.AnnData, test: ad.AnnData, seed: int):
    """Yield what can be reached without what genes have in common, named."""
    rng = np.random.default_rng(seed)
    yield "negative binomials of the training half", negative_binomials(train, test.n_obs, rng), np.nan
    yield "negative binomials of the compared half", negative_binomials(test, test.n_obs, rng), np.nan
    yield "genes of the training half, shuffled", shuffled_genes(train, rng), np.nan


def generators(train: ad.AnnData, n: int, groupby: str | None, seed: int, models: list[str]):
    """Yield the name of each generator, its cells and the seconds of the fit."""
    for name in models:
        function, options = MODELS[name]
        start = time.perf_counter()
        getattr(sv.tl, function)(train, normalized=False, progress=False, random_state=seed, key_added="fit", **options)
        seconds = time.perf_counter() - start
        yield name, sv.tl.sample(train, n, groupby=groupby, key="fit", random_state=seed), seconds
        if name == "scvi":
            again = sv.tl.sample(train, key="fit", random_state=seed)
            again.obs[groupby or "none"] = train.obs[groupby].to_numpy() if groupby else ""
            yield "scvi, posterior predictive", again, np.nan
            yield "scvi, z from N(0, I)", prior_cells(train, "fit", n, seed), np.nan


def rows_of(adata: ad.AnnData, groupby: str | None, seed: int, models: list[str], *, limited: bool) -> list[dict]:
    """One row for each generator, after that of the control."""
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    half = adata.n_obs // 2
    train, test = adata[order[:half]].copy(), adata[order[half:]].copy()
    rows, made = [], generators(train, test.n_obs, groupby, seed, models)
    for name, cells, seconds in chain(limits(train, test, seed) if limited else (), made):
        labels = {}
        if groupby is not None and groupby in cells.obs:
            named = zip(("real", "generated", "control"), (test, cells, train), strict=True)
            labels = {f"{role}_labels": some.obs[groupby].to_numpy() for role, some in named}
        found = sv.metrics.generation(test.X, cells.X, control=train.X, random_state=seed, **labels)
        control = {"generator": "real cells", **found.control._asdict(), "real_zeros": found.real_zeros}
        if not rows:
            rows.append(control)
        elif labels:
            rows[0] = control  # of which labels tell more
        generated = found.generated._asdict()
        rows.append({"generator": name, **generated, "real_zeros": found.real_zeros, "seconds": seconds})
        print(
            f"seed {seed}: {name}: raw {generated['forest_raw']:.3f}, control {rows[0]['forest_raw']:.3f}", flush=True
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("groupby")
    parser.add_argument("--largest", action="store_true", help="the largest group alone")
    parser.add_argument("--limits", action="store_true", help="rows of what can be reached, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    given = parser.parse_args()
    adata = cells_of(given.name, given.groupby, largest=given.largest)
    groupby = None if given.largest else given.groupby
    rows = [
        row for seed in range(given.seeds) for row in rows_of(adata, groupby, seed, given.models, limited=given.limits)
    ]
    table = pd.DataFrame(rows).groupby("generator", sort=False)[list(MEASURES)].agg(["mean", "std"])
    print("| generator |", " | ".join(MEASURES), "|")
    for generator, row in table.iterrows():
        cells = (f"{row[(m, 'mean')]:.3f} ± {row[(m, 'std')]:.3f}" for m in MEASURES)
        print("|", generator, "|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
