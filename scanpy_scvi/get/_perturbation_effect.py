"""What a perturbation does to genes: predicted, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ._perturbation_tables import known, perturbation_fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from ..posterior.perturbation_response import Counted, Response
    from ..store.load import Fitted
    from ..training.batches import CellTable
    from ._perturbation_tables import PerturbationFit

QUANTILE = 1.959964
"""Standard errors to either side of a 95% interval."""
CHUNK = 8192
"""Cells whose counts are read at a time."""


class Sides(NamedTuple):
    """Cells with a perturbation, and those that it is compared with, as row numbers."""

    perturbed: np.ndarray
    reference: np.ndarray
    is_control: bool
    """Whether the reference has no perturbation."""
    parts: list[str]
    """The perturbations that were asked for, one by one."""


def perturbation_effect(
    adata: AnnData,
    perturbation: str,
    *,
    key: str = "svae",
    genes: Sequence[str] | None = None,
    n_decoded: int = 1000,
    pseudocount: float = 0.1,
    random_state: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    r"""Return what a perturbation does to each gene, as the model predicts it and as it was counted.

    Control cells are decoded as they are and with the perturbation's shift, each in its own batch,

    .. math::

        \hat f_g = \log_2 \frac{c + 10^4\, \mathrm{mean}_n\, \rho_g(z_n + \gamma_k \mu_k,\, s_n)}
                               {c + 10^4\, \mathrm{mean}_n\, \rho_g(z_n,\, s_n)},

    with c the `pseudocount`. Beside it stands the same ratio of mean counts per 10,000 of the cells that have the
    perturbation and of control cells. Where both agree, the sparse shift tells what the perturbation does; a gene that
    is far from the diagonal, as the target of a knockdown often is, changes in a way that is not one of the latents'.

    The interval carries the standard errors of the open shifts over to the fold change. It says nothing of gates that
    may be wrong, nor of the decoder.

    Parameters
    ----------
    adata
        Annotated counts with a fit by :func:`scanpy_scvi.tl.svae`.
    perturbation
        Name of a perturbation; ``"A+B"`` adds the shifts of both, whether or not there are cells with both.
    key
        The ``key_added`` of the fit.
    genes
        Names of the genes wanted, in their order; all modelled genes by default.
    n_decoded
        Most control cells that are decoded; more are drawn from without replacement. All are counted.
    pseudocount
        Added to means per 10,000, so that genes with hardly any counts have no large fold changes.
    random_state
        Seed of which control cells are decoded.
    device
        ``"auto"`` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    Table by gene with the columns

    ``predicted``, ``low``, ``high``
        Predicted log2 fold change and its 95% interval.
    ``observed``, ``observed_error``
        That of the counts, and its standard error, from the variance over cells.
    ``predicted_mean``, ``predicted_reference``, ``observed_mean``, ``observed_reference``
        Means per 10,000 with the perturbation and without, which these are of.
    ``n_cells``, ``n_reference``
        Cells that were counted. Cells with other perturbations besides count on neither side.

    Without a control the reference is all other cells, and the basal states of all cells (each without its own shift)
    are decoded. Where no cell has the perturbation, or the counts were dropped, the observed columns are NaN.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key, no such perturbation, or no such gene.
    ValueError
        If `perturbation` is the control, or an option is out of range.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> name = sv.get.perturbations(adata).obs_names[0]
    >>> table = sv.get.perturbation_effect(adata, name, genes=["gene_0", "gene_1"])
    >>> table.index.to_list(), bool((table["low"] <= table["high"]).all())
    (['gene_0', 'gene_1'], True)
    """
    from ..store.load import load  # which brings torch, and `import scanpy_scvi.get` should not

    fit = perturbation_fit(adata, key)
    _check(n_decoded, pseudocount)
    fitted = load(adata, key, counts=False)
    wanted = _wanted(fitted, genes)
    sides = _sides(adata, fit, fitted.columns.labels_key or fit.perturbation_key, perturbation)
    rng = np.random.default_rng(random_state)
    basal = sides.reference if sides.is_control else np.arange(adata.n_obs)
    drawn = basal if len(basal) <= n_decoded else np.sort(rng.choice(basal, n_decoded, replace=False))
    response = _predicted(adata, fit, fitted, drawn, sides.parts, pseudocount, device)
    counted = _counted(adata, fitted, sides)
    return _table(fitted, response, counted, sides, pseudocount).loc[wanted]


def _check(n_decoded: int, pseudocount: float) -> None:
    if isinstance(n_decoded, bool) or int(n_decoded) != n_decoded or n_decoded < 1:
        msg = f"`n_decoded` is {n_decoded!r}, but a whole number of cells of at least 1 was expected."
        raise ValueError(msg)
    if not 0 < pseudocount < np.inf:
        msg = f"`pseudocount` is {pseudocount!r}, but a number above 0 was expected."
        raise ValueError(msg)


def _wanted(fitted: Fitted, genes: Sequence[str] | None) -> list[str]:
    """Names of genes to return; a KeyError for those that are not modelled."""
    present = list(fitted.present_names)
    if genes is None:
        return present
    wanted = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    missing = [gene for gene in wanted if gene not in set(present)]
    if missing:
        where = f"`adata.var[{fitted.keys.modelled!r}]`"
        msg = f"The genes {', '.join(map(repr, missing[:3]))} are not modelled. {where} tells which are."
        raise KeyError(msg)
    return wanted


def _sides(adata: AnnData, fit: PerturbationFit, column: str, perturbation: str) -> Sides:
    """Which cells are compared; labels are told apart as in the fit."""
    from ..store.covariates import group_names
    from ..store.perturbations import read_perturbations

    if perturbation in fit.control:
        msg = f"{perturbation!r} is the control, which has no effect. Name a perturbation."
        raise ValueError(msg)
    codes, labels = group_names(adata, column, "perturbation_key")
    asked = len(labels)
    everything = [*labels, perturbation, *fit.control]
    read = read_perturbations(everything, list(fit.control) or None)
    of_label = [read.perturbation[read.label == i] for i in range(asked + 1)]
    parts = [read.names[k] for k in of_label[asked]]
    for part in parts:
        known(fit, part, fit.names, "perturbation")
    same = [i for i in range(asked) if set(of_label[i]) == set(of_label[asked])]
    control = [i for i in range(asked) if i in read.control]
    perturbed = np.flatnonzero(np.isin(codes, same))
    reference = np.flatnonzero(np.isin(codes, control))
    if len(reference):
        return Sides(perturbed, reference, is_control=True, parts=parts)
    return Sides(perturbed, np.flatnonzero((codes >= 0) & ~np.isin(codes, same)), is_control=False, parts=parts)


def _predicted(
    adata: AnnData,
    fit: PerturbationFit,
    fitted: Fitted,
    rows: np.ndarray,
    parts: list[str],
    pseudocount: float,
    device: str,
) -> Response:
    """Decode the basal states of some cells with and without the shifts."""
    from ..posterior.perturbation_response import predicted_response
    from ..training.device import resolve_device
    from ..training.threads import limited_to_useful

    slot = fitted.keys.basal
    if slot not in adata.obsm:
        msg = f"`adata.obsm` has no {slot!r}, the latent states without shifts, which `tl.svae` writes. Fit again."
        raise KeyError(msg)
    z = np.asarray(adata.obsm[slot])[rows]
    chosen = [fit.names.index(part) for part in parts]
    shifts = fit.effects.to_numpy(float)[chosen]
    errors = np.where(shifts != 0, fit.wide("standard_error")[chosen], 0)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        return predicted_response(
            fitted.model,
            fitted.read(adata[rows]),
            z,
            shifts.sum(0),
            np.sqrt((errors**2).sum(0)),
            pseudocount=pseudocount,
            device=resolve_device(device),
        )


def _counted(adata: AnnData, fitted: Fitted, sides: Sides) -> Counted:
    """Mean counts per 10,000 of both sides, NaN where they cannot be told."""
    from ..posterior.perturbation_response import Counted, counted_means

    if fitted.slim:
        unknown = np.full((2, len(fitted.var_names)), np.nan)
        return Counted(unknown, unknown)

    def parts() -> Iterator[tuple[CellTable, np.ndarray]]:
        rows = np.concatenate([sides.perturbed, sides.reference])
        codes = np.repeat([0, 1], [len(sides.perturbed), len(sides.reference)])
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield fitted.read(adata[rows[chunk]]), codes[chunk]

    return counted_means(parts(), 2)


def _table(fitted: Fitted, response: Response, counted: Counted, sides: Sides, pseudocount: float) -> pd.DataFrame:
    from ..posterior.perturbation_response import fold_change

    half = QUANTILE * response.error
    columns = {
        "predicted": response.fold,
        "low": response.fold - half,
        "high": response.fold + half,
        "observed": fold_change(counted.mean[0], counted.mean[1], pseudocount),
        "observed_error": counted.fold_error(pseudocount),
        "predicted_mean": response.after,
        "predicted_reference": response.before,
        "observed_mean": counted.mean[0],
        "observed_reference": counted.mean[1],
        "n_cells": len(sides.perturbed),
        "n_reference": len(sides.reference),
    }
    return pd.DataFrame(columns, index=pd.Index(fitted.var_names, dtype=str))
