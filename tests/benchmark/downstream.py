"""What is asked of a fit whose counts stay in a file: seconds and peak memory of each function.

    OMP_NUM_THREADS=1 python tests/benchmark/downstream.py --cells 20000 80000 --buffer-mib 4 [--genes 2000]
        [--density 0.05 --functions trust ... --kind h5ad --epochs 2 --folder DIR --out downstream.jsonl]
    OMP_NUM_THREADS=1 python tests/benchmark/downstream.py --file fitted.h5ad [--batch batch --label label]

Without `--file`, counts are simulated as in `out_of_core.py` and fitted there, from file to file, for `--epochs`. Each
function then runs in a process of its own, on the fitted file opened with its counts left in it (`.h5ad`:
``read_h5ad(backed="r")``; `.zarr`: ``sparse_dataset``). The cells to be mapped are those of the fitted file again,
under new batches or those of the fit. Prints a JSON line for each: wall and CPU seconds (all threads) of opening and
of the call, and the peak of resident memory (the kernel's high-water mark) less what the process had after its imports,
`opened_mib` of which were there when the file had been opened: `obs`, `obsm`, `uns`, which anndata reads.

Counts of up to one buffer are read whole. So that few cells say what many do, `--buffer-mib` makes the buffer smaller;
the default is that of the package. What grows with the cells at a small buffer is what a function needs for each cell.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

N_GENES_ASKED, MAPPED_EPOCHS = 10, 2
KINDS = ("h5ad", "gzip", "zarr2", "zarr3")


class Stored(NamedTuple):
    """A fitted file, and columns of its `obs`."""

    path: Path
    batch: str
    label: str
    draws: int = 5000
    """Those of a comparison of groups."""

    def opened(self) -> ad.AnnData:
        """All but the counts."""
        import anndata as ad

        if self.path.suffix == ".h5ad":
            return ad.read_h5ad(self.path, backed="r")
        import zarr

        group = zarr.open_group(self.path, mode="r")
        parts = {name: ad.io.read_elem(group[name]) for name in ("obs", "var", "obsm", "varm", "uns") if name in group}
        return ad.AnnData(ad.io.sparse_dataset(group["X"]), **parts)

    def query(self, *, new: bool) -> ad.AnnData:
        """The same cells without a fit, of new batches or of those that it knows."""
        adata = self.opened()
        adata.obsm.clear()
        adata.uns.clear()
        adata.var.drop(columns=list(adata.var.columns), inplace=True)
        if new:
            column = adata.obs[self.batch]
            adata.obs[self.batch] = column.cat.rename_categories([f"new_{name}" for name in column.cat.categories])
        return adata


def genes_differ(stored: Stored) -> None:
    """Rank genes of all groups."""
    import scanpy_scvi as sv

    sv.tl.rank_genes_groups(stored.opened(), stored.label, n_samples=stored.draws)


def genes_differ_weighted(stored: Stored) -> None:
    """Rank genes of one group with weighted draws."""
    import scanpy_scvi as sv

    adata = stored.opened()
    options = {"groups": [adata.obs[stored.label].iloc[0]], "weights": "importance", "n_samples": stored.draws}
    sv.tl.rank_genes_groups(adata, stored.label, **options)


def expression(stored: Stored) -> None:
    """Normalized expression of a few genes."""
    import scanpy_scvi as sv

    adata = stored.opened()
    sv.tl.normalized_expression(adata, genes=list(adata.var_names[:N_GENES_ASKED]), inplace=False)


def maps_known(stored: Stored) -> None:
    """Map cells of batches that the reference knows."""
    import scanpy_scvi as sv

    sv.tl.map_query(stored.query(new=False), stored.path, progress=False)


def maps_new(stored: Stored) -> None:
    """Map cells of new batches, whose columns are fitted."""
    import scanpy_scvi as sv

    options = {"max_epochs": MAPPED_EPOCHS, "early_stopping": False, "progress": False}
    sv.tl.map_query(stored.query(new=True), stored.opened(), **options)


def labels(stored: Stored) -> None:
    """Transfer labels between latent states, which needs no counts."""
    import scanpy_scvi as sv

    sv.tl.transfer_labels(stored.opened(), stored.path, stored.label)


def trust(stored: Stored) -> None:
    """Judge the cells."""
    import scanpy_scvi as sv

    sv.tl.trust(stored.opened())


def slim(stored: Stored) -> None:
    """Write the fit without its counts."""
    import scanpy_scvi as sv

    with tempfile.TemporaryDirectory(dir=stored.path.parent) as folder:
        sv.tl.slim(stored.opened(), copy=True).write_h5ad(Path(folder) / "slim.h5ad")


def verify(stored: Stored) -> None:
    """Load the model, and check that it belongs to the counts."""
    import scanpy_scvi as sv

    sv.tl.verify(stored.opened())


def log_likelihood(stored: Stored) -> None:
    """Bounds of the cells."""
    import scanpy_scvi as sv

    sv.tl.log_likelihood(stored.opened(), n_samples=2)


FUNCTIONS: dict[str, Callable[[Stored], None]] = {
    function.__name__: function
    for function in (
        genes_differ,
        genes_differ_weighted,
        expression,
        maps_known,
        maps_new,
        labels,
        trust,
        slim,
        verify,
        log_likelihood,
    )
}


def small_buffer(n_bytes: int) -> None:
    """Let one buffer hold so many bytes."""
    from scanpy_scvi.store import backed_counts
    from scanpy_scvi.training import shuffle, sources

    backed_counts.ONE_BUFFER = shuffle.ONE_BUFFER = sources.ONE_BUFFER = n_bytes


def child(args: argparse.Namespace) -> dict[str, Any]:
    """Call one function in this process."""
    from footprint import forget_peak, resident

    import scanpy_scvi as sv

    _ = sv.tl.scvi
    if args.buffer_mib is not None:
        small_buffer(int(args.buffer_mib * 2**20))
    stored = Stored(args.file, args.batch, args.label)
    after_imports = resident()
    adata = stored.opened()
    found = {"function": args.functions[0], "kind": args.file.suffix[1:], "cells": adata.n_obs, "genes": adata.n_vars}
    opened = resident() - after_imports
    del adata
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    FUNCTIONS[args.functions[0]](stored)
    return found | {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "opened_mib": round(opened, 1),
        "peak_mib": round(resident("VmHWM") - after_imports, 1),
        "buffer_mib": args.buffer_mib,
    }


def fitted_file(args: argparse.Namespace, cells: int, folder: Path) -> Path:
    """Simulate counts and fit them, from file to file, unless that was done before."""
    from out_of_core import write

    import scanpy_scvi as sv

    suffix = ".zarr" if args.kind.startswith("zarr") else ".h5ad"
    path = folder / f"fitted_{cells}_{args.genes}_{args.kind}{suffix}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        options = {"cells": cells, "genes": args.genes, "density": args.density, "kinds": [args.kind]}
        write(Path(part), argparse.Namespace(**options))
        name = {"h5ad": "x.h5ad", "gzip": "x_gzip.h5ad"}.get(args.kind, f"x{args.kind[-1]}.zarr")
        fitting = {"max_epochs": args.epochs, "normalized": False, "progress": False}
        sv.tl.scvi(Path(part) / name, "batch", out=path, **fitting)
    return path


def measure(args: argparse.Namespace, path: Path) -> None:
    """Run every function in a process of its own."""
    from _common import answer_of

    for name in args.functions:
        command = [sys.executable, __file__, "--child", "--file", str(path), "--functions", name]
        command += ["--batch", args.batch, "--label", args.label]
        command += [] if args.buffer_mib is None else ["--buffer-mib", str(args.buffer_mib)]
        answer_of(command, args.out)


def main() -> None:
    """Make the files and measure each function on each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--kind", choices=KINDS, default="h5ad")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", default="batch")
    parser.add_argument("--label", default="label")
    parser.add_argument("--functions", nargs="+", choices=list(FUNCTIONS), default=list(FUNCTIONS))
    parser.add_argument("--buffer-mib", type=float)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # anndata's advice on shards, and libraries' on each other
    if args.child:
        print(json.dumps(child(args)))
        return
    if args.file is not None:
        measure(args, args.file)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for cells in args.cells:
            measure(args, fitted_file(args, cells, args.folder or Path(temporary)))


if __name__ == "__main__":
    main()
