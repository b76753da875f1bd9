"""Write the golden files of the current schema: small fits that together use every part and option.

    python tests/golden/make.py [folder]

Files of a released schema are never written again: they stand for what users have on their disks. Run this once, with
the code of the release, when `store.keys.SCHEMA` has risen.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import numpy as np

import scanpy_scvi as sv
from scanpy_scvi.store.keys import SCHEMA

SMALL = {"n_hidden": 8, "n_latent": 3, "max_epochs": 3, "progress": False}
AWKWARD = ["CD4+/CD25 T", "ü"]


def cells(seed: int, n_cells: int = 80, n_genes: int = 32) -> ad.AnnData:
    """Simulated counts with columns of every kind."""
    simulated = sv.datasets.simulate(n_cells=n_cells, n_genes=n_genes, density=0.5, random_state=seed)
    adata = ad.AnnData(simulated.X, simulated.obs[["batch", "label"]].copy(), simulated.var[[]].copy())  # without truth
    rng = np.random.default_rng(seed)
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories(AWKWARD)
    adata.obs["donor"] = rng.choice(["x/1", "y 2", "ß"], adata.n_obs)
    adata.obs["age"] = rng.normal(50, 9, adata.n_obs).round(1)
    adata.obs["size_factor"] = rng.lognormal(0, 0.3, adata.n_obs)
    return adata


def nb() -> ad.AnnData:
    """All defaults."""
    adata = cells(0)
    sv.tl.scvi(adata, "batch", **SMALL)
    return adata


def zinb_covariates() -> ad.AnnData:
    """Zero inflation, dispersion by batch, a latent library, and covariates of both kinds."""
    adata = cells(1)
    sv.tl.scvi(
        adata,
        "batch",
        likelihood="zinb",
        dispersion="gene-batch",
        library="latent",
        labels_key="label",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
        **SMALL,
    )
    return adata


def poisson_size_factors() -> ad.AnnData:
    """Poisson counts in a layer, size factors, layer normalisation."""
    adata = cells(2)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray()).astype(np.float32)
    sv.tl.scvi(adata, layer="counts", likelihood="poisson", size_factor_key="size_factor", norm="layer", **SMALL)
    return adata


def gene_cell_mask() -> ad.AnnData:
    """Dispersion by cell, some of the genes, covariates in the first layer alone, no normalisation, another key."""
    adata = cells(3)
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 4 != 1
    options = {"dispersion": "gene-cell", "norm": "none", "inject_covariates": False, "encode_covariates": False}
    sv.tl.scvi(adata, "batch", n_layers=1, key_added="other", **options, **SMALL)
    return adata


def peer_preset_labels() -> ad.AnnData:
    """The architecture of scvi-tools, dispersion by label, no held-out cells."""
    adata = cells(4)
    options = {"preset": "scvi-tools", "likelihood": "nb", "dispersion": "gene-label", "labels_key": "label"}
    sv.tl.scvi(adata, "batch", validation_size=0.0, **options, **SMALL)
    return adata


FITS = (nb, zinb_covariates, poisson_size_factors, gene_cell_mask, peer_preset_labels)


def write(folder: Path) -> None:
    """Write `schema_<n>_<fit>.h5ad`, and one of them as `.zarr`, each compressed: small files are mostly padding."""
    for fit in FITS:
        name = f"schema_{SCHEMA}_{fit.__name__}{'.zarr' if fit is poisson_size_factors else '.h5ad'}"
        with TemporaryDirectory() as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2 data")
            adata, path = fit(), Path(temporary) / name
            (adata.write_zarr if path.suffix == ".zarr" else adata.write_h5ad)(path)
            shutil.make_archive(str(folder / name), "gztar", temporary, name)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
