"""Data and helpers for all tests: small simulated counts, the embedded real ones, and real ones where they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import pytest
from hypothesis import settings

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode puts no folder on the path

settings.register_profile("busy", deadline=None)  # the time of an example is that of a shared machine
settings.load_profile("busy")

QUICK = {"max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False}
"""Options of a fit that takes a twentieth of a second."""


@pytest.fixture(scope="session")
def simulated() -> ad.AnnData:
    """120 cells x 100 genes in two batches of three labels; do not change it."""
    return sv.datasets.simulate(n_cells=120, n_genes=100, density=0.3)


@pytest.fixture
def adata(simulated: ad.AnnData) -> ad.AnnData:
    """A copy of :func:`simulated` to work on, with a continuous covariate `age` and a categorical one, `donor`."""
    adata = simulated.copy()
    adata.obs["age"] = [20.0 + (7 * i) % 41 for i in range(adata.n_obs)]
    adata.obs["donor"] = [f"donor_{i % 3}" for i in range(adata.n_obs)]
    return adata


@pytest.fixture(scope="session")
def quick_fit() -> Callable[..., None]:
    """`tl.scvi` with a tiny model and few epochs."""

    def fit(adata: ad.AnnData, batch_key: str | None = "batch", **options: object) -> ad.AnnData | None:
        return sv.tl.scvi(adata, batch_key, **(QUICK | options))

    return fit


@pytest.fixture(scope="session")
def fitted(simulated: ad.AnnData, quick_fit: Callable[..., None]) -> ad.AnnData:
    """:func:`simulated` after a quick fit; do not change it."""
    fitted = simulated.copy()
    quick_fit(fitted)
    return fitted


@pytest.fixture(scope="session")
def cell_lines() -> ad.AnnData:
    """Return the embedded real data; do not change it."""
    return sv.datasets.cell_lines()


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], ad.AnnData]:
    """Read a data set by name from the folder named by SCANPY_SCVI_DATA, or skip the test. Mark it `real_data`."""

    def read(name: str) -> ad.AnnData:
        folder = os.environ.get("SCANPY_SCVI_DATA")
        if not folder:
            pytest.skip("SCANPY_SCVI_DATA does not name a folder with real data")
        path = Path(folder) / f"{name}.h5ad"
        if not path.exists():
            pytest.skip(f"{path.name} is not in the folder named by SCANPY_SCVI_DATA")
        return ad.read_h5ad(path)

    return read
