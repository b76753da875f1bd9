"""Where in latent space samples have more or fewer cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import _logging
from ..posterior import latent_moments
from ..posterior.abundance import choose_bandwidth, log_fold_change, sample_log_densities
from ..store.abundance import check_free, write_abundance
from ..store.checks import listed
from ..store.covariates import group_names
from ..store.load import load
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from anndata import AnnData

UNSTORED = {"key_added", "device"}


def differential_abundance(
    adata: AnnData,
    sample_key: str,
    *,
    condition_key: str | None = None,
    group: str | None = None,
    reference: str | None = None,
    bandwidth: float | None = None,
    max_cells: int = 5000,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Density of every sample at every cell, and the log ratio between two groups of samples.

    The density of sample s is the mixture of its cells' posteriors, and cell n is where it is looked at:

    .. math::

        f_s(n) = \frac{1}{N_s} \sum_{i \in s,\, i \ne n} N\big(m_n;\ m_i,\ \mathrm{diag}(v_i + h^2)\big), \qquad
        \mathrm{lfc}_n = \log_2 \frac{\frac1{|A|} \sum_{s \in A} f_s(n)}{\frac1{|B|} \sum_{s \in B} f_s(n)}

    with m and v the mean and variance of the posterior of z. A cell is left out of its own sample's mixture (then
    :math:`N_s` counts one less): it would vouch for itself. Every sample counts the same, however many cells it has.

    **What it can tell.** Shares are compared: where one kind of cell is lost, all others gain a little. Samples are
    the replicates. The range of the log ratio when one sample is left out, `..._lfc_low` to `..._lfc_high`, shows
    whether one sample alone makes the difference; it is no confidence interval, and with one or two samples a side
    nothing is known about the variation between samples. Where neither side has cells, both densities are tails, and
    their ratio means little. A fit with the sample as its batch has removed part of what samples differ in.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    sample_key
        Column of `obs` with the sample of each cell; cells without one are part of none.
    condition_key
        Column of `obs` with the condition; one for each sample. Without it only the densities are written.
    group
        Condition of the samples A; all but `reference` by default.
    reference
        Condition of the samples B. Needed with `condition_key`.
    bandwidth
        h, in units of the prior's standard deviation. The posteriors of deeply sequenced cells are narrow, and with
        some hundred cells a sample their mixture is rough. By default the smallest of some values between 0 and 1.6
        with which the density at the median cell is an average of 60 cells; 0 takes the posteriors as they are, as
        MrVI does.
    max_cells
        Most cells that the mixture of a sample is made of; from a larger sample so many are drawn.
    key
        Name of the fit.
    key_added
        Begins the names of what is written; `f"{key}_abundance"` by default.
    random_state
        Seed of the choice of cells in samples of more than `max_cells`.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch, for the posteriors.

    Returns
    -------
    `None`. Written:

    `obsm["scvi_abundance"]`
        Natural log of the densities, cells x samples, float32.
    `obs["scvi_abundance_lfc"]`
        The log2 ratio; with `condition_key` only.
    `obs["scvi_abundance_lfc_low"]`, `obs["scvi_abundance_lfc_high"]`
        Its least and largest value when one sample is left out; where both sides have at least two.
    `uns["scvi_abundance"]`
        `params`, the `bandwidth`, the names of the `samples` in the order of the columns, how many cells each has
        (`n_cells`), and the `conditions` of the samples.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, no such column, or no such condition.
    ValueError
        Where an option cannot be used, a sample has a single cell, or has cells of two conditions.

    References
    ----------
    Boyeau et al. 2022, Deep generative modeling for quantifying sample-level heterogeneity in single-cell omics,
    bioRxiv 2022.10.04.510898 (MrVI).

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, n_batches=4, density=0.3)
    >>> adata.obs["condition"] = adata.obs["batch"].isin(["batch_0", "batch_1"]).map({True: "a", False: "b"})
    >>> sv.tl.scvi(adata, max_epochs=5, progress=False)
    >>> sv.tl.differential_abundance(adata, "batch", condition_key="condition", reference="a")
    >>> adata.obsm["scvi_abundance"].shape
    (200, 4)
    """
    given = resolve_options(differential_abundance, locals())
    start = _logging.info("comparing the densities of samples")
    if bandwidth is not None:
        check_number(bandwidth, 0, np.inf, "bandwidth")
    check_number(max_cells, 2, np.inf, "max_cells", whole=True)
    check_number(random_state, 0, 2**63 - 1, "random_state", whole=True)
    fitted = load(adata, key, counts=False)
    slot = f"{key}_abundance" if key_added is None else key_added
    check_free(adata, slot)
    samples = _Samples.of(adata, sample_key, condition_key)
    sides = _sides(samples, condition_key, group, reference)
    cells, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        latent = latent_moments(fitted.model, cells, device=torch_device)
    if bandwidth == 0 and latent.var is None:
        msg = (
            f"`bandwidth` is 0, but the fit under {key!r} gives cells no variance, so they have no density without one."
        )
        raise ValueError(msg)
    most, seed = int(max_cells), int(random_state)
    moments = latent.mean, latent.spread()
    if bandwidth is None:
        bandwidth = choose_bandwidth(*moments, samples.codes)
    densities = sample_log_densities(
        *moments, samples.codes, max_cells=most, bandwidth=float(bandwidth), random_state=seed
    )
    entry = {
        "params": {k: v for k, v in recorded(differential_abundance, given).items() if k not in UNSTORED},
        "bandwidth": float(bandwidth),
        "samples": samples.names,
        "n_cells": samples.n_cells,
        "conditions": samples.conditions,
    }
    change = None if sides is None else log_fold_change(densities, *sides)
    added = write_abundance(adata, slot, densities, change, entry)
    _logging.closing_line(f"densities of {len(samples.names)} samples", added=added, time=start)


class _Samples(NamedTuple):
    """Which cells are of which sample."""

    codes: np.ndarray
    names: list[str]
    n_cells: np.ndarray
    conditions: list[str] | None
    """Condition of each sample; `""` for none."""

    @classmethod
    def of(cls, adata: AnnData, sample_key: str, condition_key: str | None) -> _Samples:
        codes, names = group_names(adata, sample_key, "sample_key")
        n_cells = np.bincount(codes[codes >= 0], minlength=len(names))
        if (n_cells < 2).any():
            alone = listed(np.asarray(names, object)[n_cells < 2])
            msg = (
                f"The samples {alone} of `adata.obs[{sample_key!r}]` have a single cell, but a density needs at least "
                "two. Leave them out: set them to missing."
            )
            raise ValueError(msg)
        if not names:
            msg = f"`adata.obs[{sample_key!r}]` names no sample, but at least one was expected."
            raise ValueError(msg)
        if condition_key is None:
            return cls(codes, names, n_cells, None)
        of_cell, known = group_names(adata, condition_key, "condition_key")
        conditions = []
        for sample, name in enumerate(names):
            found = np.unique(of_cell[codes == sample])
            if len(found) > 1:
                several = listed([known[c] if c >= 0 else "missing" for c in found])
                msg = (
                    f"Sample {name!r} has cells of the conditions {several}, but a sample has one. Combine the two "
                    "columns to a new `sample_key`."
                )
                raise ValueError(msg)
            conditions.append(known[found[0]] if found[0] >= 0 else "")
        return cls(codes, names, n_cells, conditions)


def _sides(
    samples: _Samples, condition_key: str | None, group: str | None, reference: str | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Columns of the samples that are compared with each other."""
    if samples.conditions is None:
        if group is not None or reference is not None:
            msg = "`group` and `reference` are conditions, but `condition_key` was not given. Pass it."
            raise ValueError(msg)
        return None
    known = sorted(set(samples.conditions) - {""})
    for name, argument in ((reference, "reference"), (group, "group")):
        if (name is None and argument == "reference") or (name is not None and str(name) not in known):
            msg = f"`{argument}` is {name!r}, but `adata.obs[{condition_key!r}]` has the conditions {listed(known)}."
            raise KeyError(msg)
    conditions = np.asarray(samples.conditions, object)
    against = conditions == str(reference)
    chosen = ~against & (conditions != "") if group is None else conditions == str(group)
    if not chosen.any() or (chosen & against).any():
        msg = f"`group` is {group!r} and `reference` {reference!r}, but two different conditions were expected."
        raise ValueError(msg)
    return np.flatnonzero(chosen), np.flatnonzero(against)
