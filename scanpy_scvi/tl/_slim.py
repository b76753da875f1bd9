"""An object to share: the fit and its results, without the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from .. import _logging
from ..posterior.latent import latent_moments, library_moments
from ..store.checks import listed, looks_like_counts
from ..store.keys import Keys
from ..store.load import fits_in, load
from ..store.slim import SLIM, Kept, counts_are_dropped, write_kept
from ..store.uns import to_uns
from ..store.write import actualise
from ..training.device import resolve_device
from ..training.threads import limited_to_useful

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from ..store.load import Fitted

CLOSE = 1e-3
"""How far stored latent states may be from what the model gives for the counts, beside their spread."""


def slim(
    adata: AnnData, *, key: str | Sequence[str] = "scvi", device: str = "auto", copy: bool = False
) -> AnnData | None:
    """Drop the counts and keep what later calls need of them, so that an atlas can be shared small.

    Dropped are `X`, `raw`, all layers that hold counts, and the normalized expression, which
    :func:`scanpy_scvi.tl.normalized_expression` makes again. Posterior mean and variance of each cell's latent state
    stay, and its total count and latent library are added. From them go on to work, with the same results,
    :func:`scanpy_scvi.tl.normalized_expression`, :func:`scanpy_scvi.tl.sample`, :func:`scanpy_scvi.tl.interpolate`,
    :func:`scanpy_scvi.tl.predict_perturbation` and :func:`scanpy_scvi.tl.differential_abundance`; the object can be a
    reference for new cells; cells may be left out.

    With less: :func:`scanpy_scvi.tl.rank_genes_groups` ranks by the model alone (`residuals=False`, which it says), and
    :func:`scanpy_scvi.tl.gene_correlation` needs `n_null=0` and has no correlations of the counts. Not without counts:
    :func:`scanpy_scvi.tl.condition_test`, :func:`scanpy_scvi.tl.log_likelihood`, :func:`scanpy_scvi.tl.trust`,
    :func:`scanpy_scvi.tl.posterior_predictive_check`, and new fits. They say so. Counts that are put back are used.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`. Other layers, `obsp` and all else stay. Of an object opened with
        ``backed="r"`` take a slim copy, which never holds the counts: ``slim(adata, copy=True)``.
    key
        Name of the fit; several where there are several, since all lose their counts.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.
    copy
        Whether to return a slim copy rather than to change `adata`; the counts are not copied.

    Returns
    -------
    `None`, or the slim copy. Written:

    `obs["scvi_log_total"]`
        Logarithm of the total count over the modelled genes, float32.
    `obs["scvi_log_library"]`, `obs["scvi_log_library_var"]`
        Posterior mean and variance of the log library, where it is latent.
    `obsm["X_scvi"]`, `obsm["scvi_latent_var"]`
        Where they were missing.
    `uns["scvi"]["slim"]`
        What was dropped.

    Raises
    ------
    KeyError
        Where there is no fit under `key`.
    ValueError
        Where other fits would lose their counts, a column would be overwritten, or `obsm["X_scvi"]` is not what the
        model gives for the counts. `adata` stays as it was.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.slim(adata)
    >>> adata.X is None
    True
    >>> sv.tl.normalized_expression(adata, genes=["gene_0"], inplace=False).shape
    (200, 1)
    """
    start = _logging.info("dropping counts")
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        msg = "`key` is empty, but the name of a fit was expected, or several. Name the fits whose counts may go."
        raise ValueError(msg)
    if adata.isbacked and not copy:
        msg = (
            "`adata` lies in a file, which cannot lose its counts. Pass `copy=True`, or call `adata.to_memory()` first."
        )
        raise ValueError(msg)
    others = [k for k in fits_in(adata) if k not in keys and not counts_are_dropped(adata, adata.uns[k])]
    if others:
        every = [*keys, *others]
        msg = f"`adata` also has the fits {listed(others)}, which would lose their counts. Pass `key={every!r}`."
        raise ValueError(msg)
    kept = {k: _keep(adata, k, device) for k in keys}
    dropped = _layers_to_drop(adata, keys)
    gone = [*(["X"] if adata.X is not None else []), *(["raw"] if adata.raw is not None else [])]
    gone += [f"layers[{name!r}]" for name in dropped]
    target = _copy_without(adata, dropped) if copy else adata
    if not copy:
        actualise(target)
        target.X = None
        target.raw = None
        for name in dropped:
            del target.layers[name]
    for k, values in kept.items():
        if values is not None:
            write_kept(target, Keys(k), values)
            target.uns[k] = {**target.uns[k], SLIM: to_uns({"dropped": gone})}
    _logging.closing_line(f"dropped {', '.join(gone) or 'nothing'}", time=start)
    return target if copy else None


def _keep(adata: AnnData, key: str, device: str) -> Kept | None:
    """What stands for the counts of a fit; None where they are gone already."""
    fitted = load(adata, key)
    if counts_are_dropped(adata, fitted.entry):
        return None
    table, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        found = latent_moments(fitted.model, table, device=torch_device)
        library = library_moments(fitted.model, table, device=torch_device)
    for slot, x in zip((fitted.keys.latent, fitted.keys.latent_var), found, strict=True):
        if slot in adata.obsm and x is not None:
            _check_same(adata, slot, x)
    _check_free(adata, fitted, latent_library=library is not None)
    return Kept(*found, table.log_total, library)


def _check_free(adata: AnnData, fitted: Fitted, *, latent_library: bool) -> None:
    """Raise a ValueError where a column that no earlier call wrote would be overwritten."""
    keys = fitted.keys
    names = [keys.log_total, *((keys.log_library, keys.log_library_var) if latent_library else ())]
    taken = [name for name in names if name in adata.obs]
    if taken and SLIM not in fitted.entry:
        msg = f"`adata.obs[{taken[0]!r}]` exists and was not written by `tl.slim`, which needs that name. Rename it."
        raise ValueError(msg)


def _check_same(adata: AnnData, slot: str, found: np.ndarray) -> None:
    """Raise a ValueError where something else is stored than the model gives."""
    stored = np.asarray(adata.obsm[slot])
    if stored.shape != found.shape or not np.allclose(stored, found, rtol=CLOSE, atol=CLOSE * float(found.std())):
        msg = (
            f"`adata.obsm[{slot!r}]` is not what the model gives for the counts: cells, counts or the fit have "
            "changed. Delete it, and it is written anew."
        )
        raise ValueError(msg)


def _layers_to_drop(adata: AnnData, keys: list[str]) -> list[str]:
    """Layers with counts, and the normalized expression of the fits."""
    own = {adata.uns[k]["params"].get("layer") for k in keys} | {Keys(k).normalized for k in keys}
    named = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X there too, as None
    return [name for name in named if name in own or looks_like_counts(adata.layers[name])]


def _copy_without(adata: AnnData, layers: list[str]) -> AnnData:
    """Copy all but the counts."""
    slots = {name: dict(getattr(adata, name)) for name in ("obsm", "varm", "obsp", "varp")}
    kept = {name: adata.layers[name] for name in adata.layers if name is not None and name not in layers}
    view = ad.AnnData(obs=adata.obs, var=adata.var, uns=dict(adata.uns), layers=kept, **slots)
    return view.copy()
