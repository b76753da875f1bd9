"""Whether data, model and results still belong together: what can be said without running the model."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from .checks import listed
from .finding import Finding
from .identity import WEIGHTS_ID, counts_id, names_id, space_id, weights_id
from .typed import is_mapping, whole
from .write import VERSIONED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ..training.sources import CountSource
    from .covariates import Categories, ColumnKeys
    from .keys import Keys


def lacks_model(entry: object) -> bool:
    """Whether a fit was stored without its model."""
    return is_mapping(entry) and WEIGHTS_ID in entry and "state" not in entry


def model_finding(entry: Mapping[str, Any]) -> Finding:
    """The model was rebuilt."""
    return Finding("ok", "model", f"rebuilt from schema {int(entry['schema'])}; its weights are {weights_id(entry)}")


def version_finding(entry: Mapping[str, Any]) -> Finding:
    """Which packages have other versions than at the fit."""
    stored = entry.get("versions")
    if not is_mapping(stored):
        return Finding("note", "versions", "the fit kept none")
    now = {"scanpy-scvi": __version__, **{name: version(name) for name in VERSIONED}}
    other = [f"{name} {stored[name]} (now {now[name]})" for name in now if name in stored and stored[name] != now[name]]
    if not other:
        return Finding("ok", "versions", "the same as at the fit")
    return Finding("note", "versions", f"fitted with {', '.join(other)}; last digits of results may differ")


def gene_finding(adata: ad.AnnData, keys: Keys, positions: np.ndarray) -> Finding:
    """Whether the model's genes are there, in their order, and marked; `positions` are -1 for absent ones."""
    present = positions[positions >= 0]
    if keys.modelled in adata.var:
        marked = np.zeros(adata.n_vars, bool)
        marked[present] = True
        wrong = np.flatnonzero(adata.var[keys.modelled].to_numpy(dtype=bool) != marked)
        if len(wrong):
            names = listed(adata.var_names[wrong], most=3)
            found = f"`var[{keys.modelled!r}]` is wrong for {len(wrong):,} genes (first: {names})"
            return Finding("error", "genes", f"{found}: names or rows of `var` were exchanged. Fit again")
    absent = len(positions) - len(present)
    which = "all" if not absent else f"{len(present):,} of"
    text = f"{which} {len(positions):,} genes of the model found by name"
    if (np.diff(present) < 0).any():
        return Finding("note", "genes", f"{text}, in another order than at the fit; they are matched by name")
    return Finding("ok", "genes", text)


def count_finding(adata: ad.AnnData, entry: Mapping[str, Any], counts: CountSource) -> Finding:
    """Whether cells and counts are those of the fit."""
    stored = entry.get("data")
    if not is_mapping(stored) or not {"n_cells", "cells", "counts"} <= set(stored):
        return Finding("note", "counts", "the fit kept no fingerprint of its data, so they cannot be compared")
    n_then = whole(stored["n_cells"], "data['n_cells']", 0, 2**63 - 1)
    if names_id(adata.obs_names) != stored["cells"]:
        what = "other cells, or their order," if n_then == adata.n_obs else f"{adata.n_obs:,} cells"
        return Finding("note", "counts", f"{what} where the fit had {n_then:,}, so the counts cannot be compared")
    if counts_id(counts) != stored["counts"]:
        message = "changed since the fit: results do not describe them. Restore the counts of the fit, or fit again"
        return Finding("error", "counts", message)
    return Finding("ok", "counts", f"{n_then:,} cells with the counts of the fit")


def latent_finding(stored: np.ndarray, again: np.ndarray, slot: str, tolerance: float = 1e-3) -> Finding:
    """Whether stored latent means are what the model gives for the counts, in units of each dimension's spread."""
    if stored.shape != again.shape:
        found = f"`{slot}` has {stored.shape[-1]} columns, but the model has {again.shape[1]} dimensions"
        return Finding("error", "latent", f"{found}: it is from another fit. Fit again, or map again")
    spread = np.maximum(again.std(0, dtype=np.float64), 1e-6)
    gap = np.abs(stored - again) / spread
    worst = float(gap.max()) if np.isfinite(gap).all() else np.inf
    if worst > tolerance:
        share = float((~(gap <= tolerance)).any(1).mean())
        found = f"`{slot}` is not what the model gives for the counts of {share:.0%} of {len(again):,} cells"
        return Finding("error", "latent", f"{found}: counts, covariates or results changed. Fit again, or map again")
    return Finding(
        "ok", "latent", f"`{slot}` is what the model gives for the counts ({len(again):,} cells encoded again)"
    )


def points_finding(gap: np.ndarray, slot: str, nats: float = 1.0, share: float = 0.1) -> Finding:
    """Whether stored latent states of a fit without an encoder are the best ones for the counts, by `gap` in nats."""
    short = float((~(gap <= nats)).mean())
    if short > share:
        found = f"`{slot}` is not where the counts are likeliest for {short:.0%} of {len(gap):,} cells"
        return Finding("error", "latent", f"{found}: counts, covariates or results changed. Fit again, or map again")
    return Finding("ok", "latent", f"`{slot}` is where the counts are likeliest ({len(gap):,} cells optimised further)")


def normalized_finding(stored: np.ndarray, again: np.ndarray, slot: str, tolerance: float = 1e-2) -> Finding:
    """Whether the stored layer is what the model gives; a relative gap, for entries of some size."""
    gap = np.abs(stored - again) / (np.abs(again) + 1e-3)
    if not (gap <= tolerance).all():
        share = float((~(gap <= tolerance)).any(1).mean())
        found = f"`{slot}` is not what the model gives by default for {share:.0%} of {len(again):,} cells"
        remedy = (
            "written with other options, or from another fit? `scanpy_scvi.tl.normalized_expression` writes it anew"
        )
        return Finding("warning", "normalized", f"{found}: {remedy}")
    return Finding("ok", "normalized", f"`{slot}` is what the model gives ({len(again):,} cells decoded again)")


def mapping_finding(adata: ad.AnnData, keys: Keys) -> Finding | None:
    """How the cells came to this model, where they were mapped, and whether labels came from where they lie."""
    reference = str(space_id(adata, keys.key_added))
    transfer = adata.uns.get(keys.transfer)
    if is_mapping(transfer) and str(transfer.get("reference_id", reference)) != reference:
        found = f"labels come from the reference {transfer['reference_id']}, the latent space from {reference}"
        return Finding(
            "error", "mapping", f"{found}. Call `scanpy_scvi.tl.transfer_labels` with the latter's reference"
        )
    if not is_mapping(adata.uns.get(keys.mapping)):
        return None
    return Finding("ok", "mapping", f"cells were mapped to the reference with weights {reference}")


def covariate_finding(columns: ColumnKeys, categories: Categories) -> Finding:
    """Covariates could be read with the model's categories."""
    if columns.batch_key is None:
        return Finding("ok", "covariates", "the model has no batches")
    n = len(categories.batch)
    return Finding("ok", "covariates", f"every batch in `obs[{columns.batch_key!r}]` is one of the model's {n}")
