"""Whether data, model and results still belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _logging
from ..posterior import ExpressionRequest, latent_moments, normalized_expression
from ..posterior.points import shortfall
from ..store import belonging
from ..store.finding import Finding, as_text, worst
from ..store.keys import Keys
from ..store.load import find_entry, load
from ..store.scale import stored_scale
from ..training.device import resolve_device
from ..training.threads import limited_to_useful

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from anndata import AnnData

    from ..store.load import Fitted
    from ..training.batches import CellTable

N_CELLS = 500
"""Cells that are encoded and decoded again."""


def verify(adata: AnnData, *, key: str = "scvi", device: str = "auto") -> dict[str, Any]:
    """Say whether data, model and results still belong together, in one sentence each.

    An AnnData is changed in many hands: genes are subset or renamed, counts are normalised in place, cells are
    exchanged, results are copied from elsewhere. This looks at what lies in `adata` now: whether the model can be
    rebuilt; whether its genes are there, and in which order; whether the counts are those of the fit, by their
    fingerprint (of the same cells in the same order); whether all covariates are known to the model; whether the latent
    means and the normalized layer are what the model gives for the counts, by encoding and decoding up to 500 cells,
    evenly spaced, again (without an encoder, whether their latent states are likeliest); whether labels were
    transferred from the reference that the cells were mapped to; which versions of packages have changed.

    The report is printed, one line each, and returned. Nothing is raised for what is found, and `adata` stays as it is.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    key
        Name of the fit.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    Plain data that ``json.dumps`` takes:

    ``"level"``
        The worst level found: ``"ok"``, ``"note"`` (harmless, but know it), ``"warning"`` (look at it) or ``"error"``
        (results cannot be trusted).
    ``"findings"``
        A list of ``{"level", "topic", "message"}``, as printed. Topics are ``model``, ``versions``, ``genes``,
        ``counts``, ``covariates``, ``latent``, ``normalized`` and ``mapping``.

    Raises
    ------
    KeyError
        Where no fit is stored under `key`.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> sv.tl.verify(adata)["level"]
    'ok'
    >>> adata.X *= 2
    >>> [f["topic"] for f in sv.tl.verify(adata)["findings"] if f["level"] == "error"]
    ['counts', 'latent']
    """
    torch_device = resolve_device(device)
    if not (isinstance(key, str) and key in adata.uns):
        find_entry(adata, key)  # raises
    findings = list(_findings(adata, key, torch_device))
    heading = f"verification of {adata.n_obs:,} cells x {adata.n_vars:,} genes with `uns[{key!r}]`"
    _logging.closing_line(as_text(heading, findings))
    return {"level": worst(findings), "findings": [f._asdict() for f in findings]}


def _findings(adata: AnnData, key: str, device: torch.device) -> Iterator[Finding]:
    """Go as far as the object allows: what cannot be read ends it with the sentence of the reader."""
    keys = Keys(key)
    if belonging.lacks_model(adata.uns[key]):
        yield Finding("note", "model", "left out by `store_model=False`, so results cannot be compared with it")
        yield belonging.version_finding(adata.uns[key])
        return
    try:
        entry, fitted = find_entry(adata, key), load(adata, key, counts=False)
    except (KeyError, ValueError, TypeError) as error:
        yield Finding("error", "model", str(error.args[0]))
        return
    yield belonging.model_finding(entry)
    yield belonging.version_finding(entry)
    yield belonging.gene_finding(adata, keys, fitted.gene_positions)
    try:
        table = fitted.read(adata)
        if fitted.slim:
            yield Finding("note", "counts", "dropped by `tl.slim`, so nothing can be compared with them")
        else:
            yield belonging.count_finding(adata, entry, table.counts)
    except (KeyError, ValueError, TypeError) as error:
        yield Finding("error", "counts", str(error.args[0]))
        return
    yield belonging.covariate_finding(fitted.columns, fitted.categories)
    yield from _recomputed(adata, fitted, table, device)
    mapping = belonging.mapping_finding(adata, keys)
    if mapping is not None:
        yield mapping


def _recomputed(adata: AnnData, fitted: Fitted, table: CellTable, device: torch.device) -> Iterator[Finding]:
    """Compare stored results with what the model gives for some of the cells of `table`."""
    keys = fitted.keys
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(N_CELLS, adata.n_obs)).astype(np.int64))
    points = fitted.model.encoder.representations() is not None
    if fitted.slim or points:
        fitted = load(adata[rows], keys.key_added, counts=not fitted.slim)  # which reads what is stored of these cells
    table = table.subset(rows)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        if fitted.slim:
            pass  # the model reads what is stored
        elif keys.latent not in adata.obsm:
            yield Finding("note", "latent", f"`obsm[{keys.latent!r}]` is not there")
        elif points:
            gap = shortfall(fitted.model, table, device=device)
            yield belonging.points_finding(gap, f"obsm[{keys.latent!r}]")
        else:
            again = latent_moments(fitted.model, table, device=device).mean
            yield belonging.latent_finding(np.asarray(adata.obsm[keys.latent])[rows], again, f"obsm[{keys.latent!r}]")
        if keys.normalized in adata.layers:
            try:
                scale = stored_scale(fitted.entry, keys.key_added)
            except (TypeError, ValueError) as error:
                yield Finding("warning", "normalized", str(error.args[0]))
                return
            weights = np.asarray(fitted.categories.batch_weights)
            request = ExpressionRequest(weights, scale.library_size, roots=scale.roots)
            chunks = normalized_expression(fitted.model, table, request, genes=None, device=device)
            decoded = np.concatenate([values for _, values in chunks])
            present = fitted.gene_positions >= 0
            stored = np.asarray(adata.layers[keys.normalized][rows][:, fitted.gene_positions[present]])
            yield belonging.normalized_finding(stored, decoded[:, present], f"layers[{keys.normalized!r}]")
