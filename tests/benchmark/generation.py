"""Can generated cells be told from real ones?

    python tests/benchmark/generation.py mouse_bladder cell_type --seeds 3

A third of the cells is held out. The model is fitted to the others, as many cells as are held out are generated, and a
random forest (50 principal components, 300 trees, 70 % of the cells to learn from) tries to tell the two apart: an
area under its ROC curve of 0.5 is ideal. The first row, real cells of the training part, says what can be reached.
The protocol is that of GRouNdGAN's authors, on library-normalised counts and on their log1p.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import scanpy_scvi as sv
from scanpy_scvi.posterior.generation import LatentCells, draw_counts, draw_latent
from scanpy_scvi.store.load import load

if TYPE_CHECKING:
    from scipy import sparse

TOTAL, N_GENES, TOP = 2e4, 1000, 100


def split(name: str, seed: int) -> tuple[ad.AnnData, ad.AnnData]:
    """Training and held-out cells over the variable genes of the former."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    rows = np.random.default_rng(seed).permutation(adata.n_obs)
    train = adata[rows[adata.n_obs // 3 :]].copy()
    logged = train.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=N_GENES)
    genes = logged.var_names[logged.var["highly_variable"]]
    parts = train[:, genes].copy(), adata[rows[: adata.n_obs // 3], genes].copy()
    return tuple(part[np.asarray(part.X.sum(1)).ravel() > 0].copy() for part in parts)


def normalised(counts: sparse.spmatrix) -> np.ndarray:
    x = np.asarray(counts.todense(), np.float64)
    return x * (TOTAL / x.sum(1, keepdims=True))


def told_apart(real: np.ndarray, generated: np.ndarray, seed: int) -> float:
    """Area under the curve of a random forest."""
    x, y = np.concatenate([real, generated]), np.repeat([0, 1], [len(real), len(generated)])
    x = PCA(50, random_state=seed).fit_transform(x)
    learn, test, y_learn, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    forest = RandomForestClassifier(300, random_state=seed).fit(learn, y_learn)
    return roc_auc_score(y_test, forest.predict_proba(test)[:, 1])


def gene_correlations(log: np.ndarray, genes: np.ndarray) -> np.ndarray:
    c = np.corrcoef(log[:, genes].T)
    return np.nan_to_num(c[np.triu_indices(len(genes), 1)])


def prior_cells(adata: ad.AnnData, n: int, seed: int) -> ad.AnnData:
    """Counts at z ~ N(0, I), with the covariates and the library of cells drawn at random."""
    fitted, rng = load(adata, "scvi"), np.random.default_rng(seed)
    table, device = fitted.read(adata), torch.device("cpu")
    latent, _ = draw_latent(fitted.model, table, random_state=seed, device=device)
    donors = rng.integers(adata.n_obs, size=n)
    z = rng.normal(size=(n, latent.z.shape[1])).astype(np.float32)
    cells = LatentCells(z, latent.log_library[donors], donors)
    return ad.AnnData(draw_counts(fitted.model, table, cells, random_state=seed, device=device))


def rows_of(name: str, groupby: str, seed: int, options: dict) -> list[dict]:
    """One row for each generator."""
    train, test = split(name, seed)
    sv.tl.scvi(train, normalized=False, progress=False, random_state=seed, **options)
    n, rng = test.n_obs, np.random.default_rng(seed)
    again = train[rng.choice(train.n_obs, n, replace=False)].copy()
    generators = {
        "real cells of the training part": again,
        "posterior predictive": sv.tl.sample(again, groupby=groupby, random_state=seed),
        "density of (z, library)": sv.tl.sample(train, n, random_state=seed),
        "density for each type": sv.tl.sample(train, n, groupby=groupby, random_state=seed),
        "density of z, library as observed": sv.tl.sample(train, n, library="observed", random_state=seed),
        "z from N(0, I), library as observed": prior_cells(train, n, seed),
    }
    real = normalised(test.X)
    top = np.argsort(-np.log1p(normalised(train.X)).var(0))[:TOP]
    judge = KNeighborsClassifier(15).fit(np.log1p(normalised(train.X)), train.obs[groupby])
    found = []
    for label, cells in generators.items():
        x = normalised(cells.X)
        log = np.log1p(x)
        kept = (judge.predict(log) == cells.obs[groupby]).mean() if groupby in cells.obs else np.nan
        correlation = np.corrcoef(gene_correlations(log, top), gene_correlations(np.log1p(real), top))[0, 1]
        found.append(
            {
                "generator": label,
                "forest, log1p": told_apart(np.log1p(real), log, seed),
                "forest, normalised": told_apart(real, x, seed),
                "gene-gene correlation": correlation,
                "type kept": kept,
                "zeros": (x == 0).mean(),
                "zeros, real": (real == 0).mean(),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("groupby")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--likelihood", default="nb")
    parser.add_argument("--dispersion", default="gene")
    given = parser.parse_args()
    options = {"likelihood": given.likelihood, "dispersion": given.dispersion}
    rows = [r for seed in range(given.seeds) for r in rows_of(given.name, given.groupby, seed, options)]
    table = pd.DataFrame(rows).groupby("generator", sort=False).agg(["mean", "std"])
    for generator, row in table.iterrows():
        cells = [
            f"{row[(c, 'mean')]:.3f} ± {row[(c, 'std')]:.3f}" for c in dict.fromkeys(table.columns.get_level_values(0))
        ]
        print("|", generator, "|", " | ".join(cells), "|")
    print(list(dict.fromkeys(table.columns.get_level_values(0))))


if __name__ == "__main__":
    main()
