"""Sizes of files with a fit in them, and how long it takes to open them.

    python tests/benchmark/files.py [data set …]

Reads data sets from the folder named by SCANPY_SCVI_DATA, fits for two epochs (weights take the same room after any
number), writes the object as it is, slim, and without the model, gzip-compressed as the data are, and prints sizes
beside the file without a fit. Times are medians of 21 in one process on one thread: of rebuilding the model from an
object in memory, and of opening a file as a reference beside opening it whole.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store import load
from scanpy_scvi.store.reference import as_reference

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = ("hspc_4libraries", "pbmc_facs")
REPEATS = 21


def median_seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median wall seconds of a call, the first left out."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def megabytes(adata: ad.AnnData, path: Path) -> float:
    """Size of a file, MB."""
    adata.write_h5ad(path, compression="gzip")
    return path.stat().st_size / 1e6


def measure(name: str, folder: Path, *, n_top: int | None) -> None:
    """Print one row."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    bare = megabytes(adata, folder / "bare.h5ad")
    if n_top is not None:
        totals = np.ravel(adata.X.sum(0))
        adata.var["highly_variable"] = np.isin(np.arange(adata.n_vars), np.argsort(totals)[-n_top:])
    batch = "batch" if "batch" in adata.obs else None
    sv.tl.scvi(adata, batch, max_epochs=2, normalized=True, progress=False)
    sizes = {"all": megabytes(adata, folder / "all.h5ad")}
    del adata.layers["scvi_normalized"]
    path = folder / "fit.h5ad"
    sizes["fit"] = megabytes(adata, path)
    slim = sv.tl.slim(adata, copy=True)
    sizes["slim"] = megabytes(slim, folder / "slim.h5ad")
    without = adata.copy()
    without.uns["scvi"] = {k: v for k, v in adata.uns["scvi"].items() if k not in {"state", "spec"}}
    sizes["no model"] = megabytes(without, folder / "without.h5ad")
    model = median_seconds(lambda: load(adata, "scvi"))
    whole, part = (median_seconds(lambda read=read: read(path), 5) for read in (ad.read_h5ad, as_reference))
    weights = sum(np.asarray(v).nbytes for v in adata.uns["scvi"]["state"].values()) / 1e6
    n_genes = int(adata.var["scvi_modelled"].sum())
    print(f"{name} {adata.shape}, {n_genes} genes modelled; bare {bare:.1f} MB; weights {weights:.1f} MB")
    print("   ", {k: f"{v:.1f} MB ({v / bare:.2f})" for k, v in sizes.items()})
    print(f"    model {1e3 * model:.0f} ms; whole file {1e3 * whole:.0f} ms, as a reference {1e3 * part:.0f} ms")


def atlas(folder: Path, n_cells: int = 1_000_000) -> None:
    """Open a large file: the time without its counts, and the memory that this takes."""
    import resource

    small = sv.datasets.simulate(n_cells=1000, n_genes=2000)
    sv.tl.scvi(small, "batch", max_epochs=2, normalized=False, progress=False)
    big = ad.AnnData(
        X=sparse.vstack([small.X] * (n_cells // small.n_obs), format="csr"),
        obs=small.obs[["batch", "label"]]
        .iloc[np.arange(n_cells) % 1000]
        .set_axis([f"cell_{i}" for i in range(n_cells)]),
        var=small.var[["scvi_modelled"]],
        obsm={k: np.tile(small.obsm[k], (n_cells // 1000, 1)) for k in ("X_scvi", "scvi_latent_var")},
        uns={"scvi": small.uns["scvi"]},
    )
    path = folder / "atlas.h5ad"
    big.write_h5ad(path)
    print(f"{n_cells:,} cells, {path.stat().st_size / 1e9:.2f} GB", flush=True)
    del big
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = median_seconds(lambda: as_reference(path), 3)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
    print(f"    as a reference {part:.2f} s, peak memory +{more / 1e6:.2f} GB")
    print(f"    whole {median_seconds(lambda: ad.read_h5ad(path), 1):.2f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        for data in sys.argv[1:] or DATA:
            for n_top in (2000, None):
                measure(data, Path(temporary), n_top=n_top)
        if not sys.argv[1:]:
            atlas(Path(temporary))
