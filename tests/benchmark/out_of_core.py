"""Seconds per epoch and peak memory of `tl.scvi` on a file, beside the same in memory, and the bound of both.

    OMP_NUM_THREADS=1 python tests/benchmark/out_of_core.py --cells 20000 --buffer-mib 4 [--genes 2000 --density 0.05]
        [--kinds memory h5ad gzip zarr2 zarr3 peer --epochs 4 --rounds 1 --folder DIR --out out_of_core.jsonl]

Counts are simulated and written in pieces, sorted by label and then by batch, the worst order for reading in blocks;
at no time are they all in memory. Each fit runs in a process of its own: `memory` reads the .h5ad whole, the others
leave it where it is. Seconds of an epoch lie between ends of epochs, the first left out; wall and CPU of all threads.
Peak is the high-water mark of resident memory in the whole process, less what it had after its imports. `peer` is
scvi-tools on the uncompressed .h5ad, opened with `backed="r"`, as its documentation has it.

Counts of up to one buffer are read whole. So that few cells say what many do, `--buffer-mib` makes the buffer smaller;
the default buffer is that of the package. A small buffer of 256 blocks has small ones, which are slower to read:
`--block 250` reads as a large file of such chunks is read, but mixes less, so its bounds say nothing. Prints a JSON
line for each fit, then ratios to `memory`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad
    from scipy import sparse

    Ends = list[tuple[float, float]]

KINDS = ("memory", "h5ad", "gzip", "zarr2", "zarr3", "peer")
FROM_H5AD = {"memory", "h5ad", "peer"}
N_LABELS, TEMPLATES, PIECE = 10, 1000, 4096


def pieces(n_cells: int, n_genes: int, density: float) -> Iterator[tuple[sparse.csr_matrix, np.ndarray, np.ndarray]]:
    """Counts, labels and batches of some cells at a time, sorted by both."""
    from scipy import sparse

    import scanpy_scvi as sv

    template = sv.datasets.simulate(n_cells=TEMPLATES, n_genes=n_genes, n_labels=N_LABELS, density=density)
    rate, theta = template.layers["true_rate"], template.var["true_dispersion"].to_numpy()
    label, batch = template.obs["label"].cat.codes.to_numpy(), template.obs["batch"].cat.codes.to_numpy()
    order = np.lexsort((batch, label))
    rng = np.random.default_rng(0)
    for start in range(0, n_cells, PIECE):
        cells = np.arange(start, min(start + PIECE, n_cells))
        which = order[cells * TEMPLATES // n_cells]  # each template's cells lie side by side
        mu = rate[which]
        x = rng.poisson(mu * rng.standard_gamma(theta, size=mu.shape) / theta).astype(np.float32)
        x[x.sum(1) == 0, 0] = 1
        yield sparse.csr_matrix(x), label[which], batch[which]


def write(folder: Path, args: argparse.Namespace) -> None:
    """Write files of all kinds, piece by piece."""
    import anndata as ad
    import h5py
    import pandas as pd
    import zarr

    open_ = {"h5ad": lambda: h5py.File(folder / "x.h5ad", "w"), "gzip": lambda: h5py.File(folder / "x_gzip.h5ad", "w")}
    for version in (2, 3):
        open_[f"zarr{version}"] = lambda v=version: zarr.open_group(folder / f"x{v}.zarr", mode="w", zarr_format=v)
    for kind, make in open_.items():
        if kind not in args.kinds and not (kind == "h5ad" and FROM_H5AD & set(args.kinds)):
            continue
        group, columns = make(), ([], [])
        options = {"compression": "gzip"} if kind == "gzip" else {}
        for x, label, batch in pieces(args.cells, args.genes, args.density):
            if "X" in group:
                ad.io.sparse_dataset(group["X"]).append(x)
            else:
                # chunks as they would be, were all written at once
                guess = max(4096, int(16384 * 2 ** np.log10(args.cells * args.genes * args.density * 4 / 2**20)) // 4)
                guess = guess if kind in {"h5ad", "gzip"} else 16 * guess
                ad.io.write_elem(group, "X", x, dataset_kwargs={"chunks": (guess,), **options})
            columns[0].append(label)
            columns[1].append(batch)
        label, batch = (pd.Categorical(np.concatenate(c).astype(str)) for c in columns)
        obs = pd.DataFrame({"label": label, "batch": batch}, index=[f"cell_{n}" for n in range(args.cells)])
        for key, table in (("obs", obs), ("var", pd.DataFrame(index=[f"gene_{g}" for g in range(args.genes)]))):
            ad.io.write_elem(group, key, table)
        if "h5ad" in kind or kind == "gzip":
            group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            group.close()


def opened(folder: Path, kind: str):
    """AnnData of a kind."""
    import anndata as ad

    if kind == "memory":
        return ad.read_h5ad(folder / "x.h5ad")
    if kind in {"h5ad", "gzip", "peer"}:
        return ad.read_h5ad(folder / ("x_gzip.h5ad" if kind == "gzip" else "x.h5ad"), backed="r")
    import zarr

    group = zarr.open_group(folder / f"x{kind[-1]}.zarr", mode="r")
    obs, var = (ad.io.read_elem(group[key]) for key in ("obs", "var"))
    return ad.AnnData(ad.io.sparse_dataset(group["X"]), obs=obs, var=var)


def child(args: argparse.Namespace) -> dict:
    """Fit in this process."""
    from footprint import forget_peak, resident

    kind = args.kinds[0]
    fit = (peer_fit if kind == "peer" else our_fit)(args)
    after_imports = resident()
    forget_peak()
    start = time.perf_counter()
    ends, bound = fit(opened(args.folder, kind))
    wall, cpu = np.median(np.diff(ends, axis=0), axis=0)
    return {
        "kind": kind,
        "cells": args.cells,
        "genes": args.genes,
        "buffer_mib": args.buffer_mib,
        "block": args.block,
        "epochs": args.epochs,
        "seconds_per_epoch": round(float(wall), 2),
        "cpu_per_epoch": round(float(cpu), 2),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(resident("VmHWM") - after_imports),
        "after_imports_mib": round(after_imports),
        "bound": None if bound is None else round(bound, 3),
    }


def our_fit(args: argparse.Namespace) -> Callable[[ad.AnnData], tuple[Ends, float | None]]:
    """`tl.scvi`, imported; it returns ends of epochs and the held-out bound."""
    import scanpy_scvi as sv
    from scanpy_scvi._progress import ProgressLine
    from scanpy_scvi.store import backed_counts
    from scanpy_scvi.training import shuffle

    if args.buffer_mib is not None:
        backed_counts.ONE_BUFFER = shuffle.ONE_BUFFER = int(args.buffer_mib * 2**20)
    if args.block is not None:
        shuffle.LEAST_BLOCK, shuffle.FEWEST_BLOCKS = args.block, 1
    ends: Ends = []
    ProgressLine.update = lambda *_: ends.append((time.perf_counter(), time.process_time()))
    scvi = sv.tl.scvi

    def fit(adata: ad.AnnData) -> tuple[Ends, float | None]:
        scvi(adata, "batch", max_epochs=args.epochs, early_stopping=False, normalized=False, progress=False)
        return ends, float(adata.uns["scvi"]["convergence"]["best_elbo"])

    return fit


def peer_fit(args: argparse.Namespace) -> Callable[[ad.AnnData], tuple[Ends, float | None]]:
    """The same of scvi-tools; its bound is of other held-out cells, and left out."""
    import scvi
    from lightning.pytorch.callbacks import Callback

    ends: Ends = []

    class Mark(Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            ends.append((time.perf_counter(), time.process_time()))

    def fit(adata: ad.AnnData) -> tuple[Ends, float | None]:
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        quiet = {"enable_progress_bar": False, "logger": False}
        scvi.model.SCVI(adata).train(args.epochs, accelerator="cpu", callbacks=[Mark()], **quiet)
        return ends, None

    return fit


def main() -> None:
    """Write the files and measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--buffer-mib", type=float)
    parser.add_argument("--block", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        warnings.simplefilter("ignore")
        print(json.dumps(child(args)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "x.h5ad").exists():
            folder.mkdir(parents=True, exist_ok=True)
            warnings.simplefilter("ignore")  # anndata's advice on shards
            write(folder, args)
        measure(args, folder)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Run the kinds in turn, `rounds` times."""
    from _common import answer_of

    found: dict[str, list[dict]] = {}
    for _ in range(args.rounds):
        for kind in args.kinds:
            command = [sys.executable, __file__, "--child", "--kinds", kind, "--folder", str(folder)]
            command += ["--cells", str(args.cells), "--genes", str(args.genes), "--epochs", str(args.epochs)]
            command += [] if args.buffer_mib is None else ["--buffer-mib", str(args.buffer_mib)]
            command += [] if args.block is None else ["--block", str(args.block)]
            found.setdefault(kind, []).append(answer_of(command, args.out))
    if "memory" not in found:
        return
    fields = ("seconds_per_epoch", "cpu_per_epoch", "bound")
    medians = {k: [np.median([line[f] or np.nan for line in v]) for f in fields] for k, v in found.items()}
    base = medians["memory"]
    for kind, (wall, cpu, bound) in medians.items():
        ratios = {"epoch": round(wall / base[0], 2), "cpu": round(cpu / base[1], 2)}
        if not np.isnan(bound):
            ratios["bound_percent"] = round(100 * (bound - base[2]) / abs(base[2]), 3)
        print(json.dumps({"kind": kind, **ratios}))


if __name__ == "__main__":
    main()
