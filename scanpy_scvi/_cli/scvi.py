"""``scanpy-scvi scvi IN OUT``: read, fit, write."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_options, given_options
from .processes import device_of, joined, launched
from .signature import ROOT, read_options

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData

SOURCE = ROOT / "tl" / "_scvi.py"
NOT_HERE = {"copy", "out"}  # the output file is the copy


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser, with an option for every option of ``tl.scvi``."""
    options = [option for option in read_options(SOURCE, "scvi") if option.name not in NOT_HERE]
    parser = commands.add_parser(
        "scvi",
        parents=[common],
        allow_abbrev=False,
        usage="scanpy-scvi scvi IN OUT [--batch-key NAME] [options]",
        help="fit scVI to the counts in a file",
        description="Fit scVI to the counts in IN, and write everything into OUT: both may be .h5ad or .zarr.",
    )
    parser.add_argument("input", metavar="IN", type=Path, help="counts, .h5ad or .zarr")
    parser.add_argument("output", metavar="OUT", type=Path, help="file to write, .h5ad or .zarr; may be IN")
    add_options(parser.add_argument_group("options of scanpy_scvi.tl.scvi"), options)
    parser.set_defaults(run=run, describe=describe, options=options)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Read, fit, write; return the numbers to be told, None in all processes of a run but the first."""
    here, options = launched(), given_options(args, args.options)
    if here.size == 1:
        return _run(args, options)
    from ..training.ranks import NotFirst, fitting_together

    device = options.get("device", "auto")
    with joined(here, device) as ranks, fitting_together(ranks):
        options["device"] = device_of(here, device)
        if not ranks.rank:
            return _run(args, options)
        args.verbosity, options["progress"] = 0, False  # one speaks
        with suppress(NotFirst):
            _run(args, options)
    return None


def _run(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    import scanpy as sc

    from .. import tl
    from ..store.opened import open_file

    sc.settings.verbosity = args.verbosity
    start = time.perf_counter()
    tl.scvi(args.input, out=args.output, **options)
    seconds = time.perf_counter() - start
    with open_file(args.output, options.get("layer")) as written:
        summary = fit_summary(written.adata, options.get("key_added", "scvi"))
    return {"input": str(args.input), "output": str(args.output), **summary, "seconds": seconds}


def fit_summary(adata: AnnData, key: str) -> dict[str, Any]:
    """Return what there is to say about a fit."""
    from .. import get

    end = get.convergence(adata, key)
    return {
        "n_cells": adata.n_obs,
        "n_genes": int(adata.var[f"{key}_modelled"].sum()),
        "key": key,
        "n_epochs": len(get.history(adata, key)),
        "elbo": float(end["best_elbo"]),
        "verdict": str(end["verdict"]),
        "message": str(end["message"]),
    }


def describe(summary: dict[str, Any]) -> str:
    """Put the numbers of :func:`run` into words."""
    return (
        f"{summary['n_cells']:,} cells, {summary['n_genes']:,} genes: {summary['message']}.\n"
        f"Held-out ELBO {summary['elbo']:.2f} nats per cell, {summary['n_epochs']} epochs, "
        f"{summary['seconds']:.1f} s.\nWritten to {summary['output']} (latent space: obsm['X_{summary['key']}'])."
    )
