"""``scanpy-scvi demo``: before and after, on cells whose identity is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scvi import fit_summary

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        parents=[common],
        allow_abbrev=False,
        help="integrate five libraries of known cell lines and draw the result",
        description="Fit scVI to five libraries of five cancer cell lines (sv.datasets.cell_lines), whose labels are "
        "known from the cells' genomes; write demo.h5ad and demo.png.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="folder to write to (./demo)")
    parser.set_defaults(run=run, describe=describe)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed without correction, fit, embed again, draw; return the numbers to be told."""
    import scanpy as sc

    from .. import datasets, tl
    from .figure import draw

    args.out.mkdir(parents=True, exist_ok=True)
    sc.settings.verbosity = args.verbosity
    start = time.perf_counter()
    adata = datasets.cell_lines()
    _embed_uncorrected(adata)
    before_fit = time.perf_counter()
    tl.scvi(adata, batch_key="batch")
    fit_seconds = time.perf_counter() - before_fit
    sc.pp.neighbors(adata, use_rep="X_scvi")
    sc.tl.umap(adata)
    summary = {
        **fit_summary(adata, "scvi"),
        "fit_seconds": fit_seconds,
        "before": scores(adata, "X_pca"),
        "after": scores(adata, "X_scvi"),
    }
    draw(adata, summary, args.out / "demo.png")
    write(adata, args.out / "demo.h5ad")
    files = {"picture": str(args.out / "demo.png"), "output": str(args.out / "demo.h5ad")}
    return {**summary, **files, "seconds": time.perf_counter() - start}


def _embed_uncorrected(adata: AnnData) -> None:
    """PCA and UMAP of log-normalised counts, as one would do without a batch correction."""
    import scanpy as sc

    plain = adata.copy()
    sc.pp.normalize_total(plain, target_sum=1e4)
    sc.pp.log1p(plain)
    sc.pp.pca(plain, n_comps=30)
    sc.pp.neighbors(plain, use_rep="X_pca")
    sc.tl.umap(plain)
    adata.obsm["X_pca"] = plain.obsm["X_pca"]
    adata.obsm["X_umap_uncorrected"] = plain.obsm["X_umap"]


def write(adata: AnnData, path: Path) -> None:
    """Write to a file that appears only when it is complete."""
    from .._replace import part_of, remove, replace

    part = part_of(path)
    try:
        adata.write_h5ad(part, compression="gzip")
        replace(part, path)
    finally:
        remove(part)


def scores(adata: AnnData, basis: str) -> dict[str, float]:
    """Score an embedding: labels kept together, and libraries mixed within a cell line."""
    from .. import metrics

    embedding, label, batch = adata.obsm[basis], adata.obs["cell_type"], adata.obs["batch"]
    return {
        "label_score": metrics.label_score(embedding, label),
        "batch_mixing": metrics.batch_mixing(embedding, batch),
        "ideal_batch_mixing": metrics.ideal_batch_mixing(batch, label),
    }


def describe(summary: dict[str, Any]) -> str:
    """Put the numbers of :func:`run` into words."""
    before, after = summary["before"], summary["after"]
    return "\n".join(
        [
            f"{summary['n_cells']:,} cells, {summary['n_genes']:,} genes; fitted in {summary['fit_seconds']:.1f} s, "
            f"{summary['seconds']:.1f} s in all",
            f"held-out ELBO {summary['elbo']:.1f} nats per cell ({summary['message']})",
            "                                             before   after",
            "neighbours' vote gives the right cell line   "
            f"{before['label_score']:6.3f}  {after['label_score']:6.3f}   (1 is best)",
            "neighbours from the cell's own library       "
            f"{before['batch_mixing']:6.3f}  {after['batch_mixing']:6.3f}   "
            f"({before['ideal_batch_mixing']:.3f} when perfectly mixed)",
            f"picture: {summary['picture']}",
            f"data:    {summary['output']}",
        ]
    )
