"""Counts of any number of cells at the density of real data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
from scipy import sparse

import scanpy_scvi as sv

TEMPLATES = 1000
CHUNK = 1000


def real_density(n_genes: int) -> float:
    """Share of non-zero entries that real data have: 9 % for a selection of variable genes, 5 % for thousands more.

    `hspc_4libraries` has 8.8 % and 8.9 %, `kang_pbmc_ifnb` 5.0 % and 6.3 %, `pbmc_facs` 3.9 % and 5.1 %.
    """
    return 0.09 if n_genes <= 5000 else 0.05


def simulated(n_cells: int, n_genes: int, density: float | None = None, *, seed: int = 0) -> ad.AnnData:
    """Draw NB counts, CSR in float32, two batches in `obs["batch"]`.

    :func:`scanpy_scvi.datasets.simulate` gives means and inverse dispersions of a thousand cells; every cell here is a
    new draw from one of them, so that nothing dense is ever as large as the result. A cell without counts gets one.
    """
    density = real_density(n_genes) if density is None else density
    template = sv.datasets.simulate(n_cells=TEMPLATES, n_genes=n_genes, n_labels=10, density=density, random_state=seed)
    rate, theta = template.layers["true_rate"], template.var["true_dispersion"].to_numpy()
    rng = np.random.default_rng(seed)
    which = rng.integers(TEMPLATES, size=n_cells)
    chunks = []
    for start in range(0, n_cells, CHUNK):
        mu = rate[which[start : start + CHUNK]]
        x = rng.poisson(mu * rng.standard_gamma(theta, size=mu.shape) / theta).astype(np.float32)
        x[x.sum(1) == 0, 0] = 1
        chunks.append(sparse.csr_matrix(x))
    obs = template.obs.iloc[which][["batch"]].set_axis([f"cell_{n}" for n in range(n_cells)])
    return ad.AnnData(sparse.vstack(chunks, format="csr"), obs=obs, var=template.var[[]])


def simulated_file(n_cells: int, n_genes: int, density: float | None = None) -> Path:
    """Keep the same in a file, so that a new process need not draw it."""
    density = real_density(n_genes) if density is None else density
    path = Path(tempfile.gettempdir()) / f"simulated_{n_cells}_{n_genes}_{density:g}.h5ad"
    if not path.exists():
        part = path.with_suffix(".part")
        simulated(n_cells, n_genes, density).write_h5ad(part)
        part.rename(path)
    return path
