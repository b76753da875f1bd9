"""Results as `tl` stores them, made up rather than fitted."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

KEY = "rank_genes_groups_scvi"


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plt.close("all")


def table_of(group: str, n_genes: int, rng: np.random.Generator, n_draws: int) -> pd.DataFrame:
    """One group's table: a tenth of the genes far up, a tenth far down, ranked as `tl` ranks."""
    mean = rng.normal(0, 0.5, n_genes)
    mean[: n_genes // 10] += rng.uniform(3, 5, n_genes // 10)
    mean[-(n_genes // 10) :] -= rng.uniform(3, 5, n_genes // 10)
    sd = rng.uniform(0.3, 1.2, n_genes)
    not_de = np.clip(np.exp(-np.abs(mean) / sd), 1 / (n_draws + 1), 1)
    table = pd.DataFrame(
        {
            "names": [f"GENE{i}" for i in range(n_genes)],
            "scores": np.sign(mean) * -np.log(not_de),
            "proba_de": 1 - not_de,
            "proba_not_de": not_de,
            "is_de": not_de < 0.1,
            "lfc_mean": mean,
            "lfc_median": mean + 0.01,
            "lfc_std": sd,
            "lfc_low": mean - 2 * sd,
            "lfc_high": mean + 2 * sd,
            "nonzero1": 0.5,
            "nonzero2": 0.5,
            "delta": 0.25,
            "group": group,
            "reference": "rest",
        }
    )
    return table.iloc[np.lexsort((-mean, -table["scores"]))]


@pytest.fixture
def ranked() -> ad.AnnData:
    """Three groups ranked by 5,000 draws."""
    rng = np.random.default_rng(0)
    groups = ["B cells", "CD14+ monocytes", "T cells"]
    table = pd.concat([table_of(group, 200, rng, 5000) for group in groups], ignore_index=True)
    for column in ("group", "reference", "names"):
        table[column] = pd.Categorical(table[column])
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    params = {"groupby": "cell_type", "reference": "rest", "key": "scvi", "n_samples": 5000, "interval": 0.95}
    adata.uns[KEY] = {"params": params}
    adata.uns[f"{KEY}_table"] = table
    return adata


@pytest.fixture
def embedded() -> ad.AnnData:
    """600 cells of three unequal groups in six latent dimensions, of which two tell the groups and two are not used."""
    rng = np.random.default_rng(0)
    names = np.array(["rare", "Monocytes, classical", "T cells"])
    label = names[rng.choice(3, 600, p=[0.05, 0.45, 0.5])]
    z = rng.normal(size=(600, 6)) * [0.5, 0.01, 0.9, 0.4, 0.01, 0.7]
    z[:, 0] += 2.0 * (label == "rare")
    z[:, 5] -= 1.5 * (label == "T cells")
    adata = ad.AnnData(np.ones((600, 2), np.float32), obsm={"X_scvi": z.astype(np.float32)})
    adata.obs["label"] = pd.Categorical(label, categories=names)
    return adata
