"""Differential expression between conditions, over donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _logging
from ..posterior.donors import Question
from ..store.condition_table import check_condition_key, write_condition_test
from ..store.load import load
from ..store.write import actualise
from ..training.device import resolve_device
from ._assemble import check_choice, check_number
from ._compare_conditions import LevelName, LevelOptions, compare_conditions
from ._condition_units import Columns, DesignName
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

UNSTORED = {"groups", "key_added", "device"}
"""Options that the result itself tells, or that do not shape it."""


def condition_test(
    adata: AnnData,
    condition_key: str,
    *,
    donor_key: str,
    reference: str,
    groupby: str | None = None,
    groups: Sequence[str] | Literal["all"] = "all",
    design: DesignName = "auto",
    level: LevelName = "observed",
    delta: float = 0.25,
    fdr_target: float = 0.05,
    batch_correction: bool = True,
    normalize: bool = True,
    n_samples: int = 500,
    min_cells: int = 10,
    min_counts: int = 10,
    interval: float = 0.95,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Test in each group of cells which genes change with a condition in the population of donors.

    Cells are no replicates; donors are. The quantity asked for is the mean over donors of each donor's shift,

    .. math::

        \beta_g = \frac1n \sum_j \big(y_{jg} - y_{jg}^{\text{ref}}\big)
        \quad\text{or}\quad
        \beta_g = \frac1{n_1} \sum_j y_{jg} - \frac1{n_2} \sum_{j'} y_{j'g}^{\text{ref}},

    where the donors have cells in both conditions (paired), or each in one (unpaired). Every donor counts the same,
    whatever its cells. The level of gene g in donor j is the logarithm of its share of the donor's counts,
    :math:`y_{jg} = \log_2(x_{jg} / L_j + c)`, with c half a count in a donor of average size, less the bias that the
    logarithm of a few counts has.

    The variance between donors is estimated for each gene and moderated over genes (Smyth 2004), which gives the
    estimate of :math:`\beta_g` a t distribution; a prior of all :math:`\beta_g` with its mode at 0 is found from all
    estimates (Stephens 2017). Then :math:`p_g = \max\{P(\beta_g \ge \delta), P(\beta_g < -\delta)\}`, and genes are
    called in the order of p as long as the mean of 1 - p over those called is at most `fdr_target`.

    The model's own view of each donor, :math:`\log_2(\bar\rho_{jg} + c)` with the mean over `n_samples` draws of the
    donor's cells decoded in all batches alike, is given beside it as `lfc_model`, and tested with `level="denoised"`.
    In simulations it is the weaker witness: see :doc:`/differential_expression`.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    condition_key
        Column of `obs` with the conditions. Cells without one are left out.
    donor_key
        Column of `obs` with the donors, the replicates. Cells without one are left out.
    reference
        Condition with which every other is compared.
    groupby
        Column of `obs` with groups, such as cell types, that are tested one by one; by default all cells are one group.
    groups
        Groups to test. Of `"all"`, those with too few donors are left out, with a warning; one that is named is an
        error then.
    design
        `"auto"` tells it from the data, for each comparison: paired where at least two donors, and at least half of
        them, have cells in both conditions; the other donors are then left out. Otherwise unpaired; a donor in both
        conditions then counts as one on each side, which errs on the side of caution.
    level
        `"observed"`: the level above. `"denoised"`: what the model believes of the donor, which shrinks changes, so
        that fewer are found. The variance between donors is that of the observed levels in either case, since a model
        shares its errors between donors.
    delta
        Smallest log2 fold change that counts.
    fdr_target
        Expected share of false discoveries among the genes called.
    batch_correction
        Whether the batches of the fit are accounted for: the share of a donor's cells in each batch is a covariate of
        the comparison of donors, and the model's draws are decoded in all batches alike.
    normalize
        Whether changes are relative to those of the typical gene: the median over genes of a donor's distance from the
        mean donor is subtracted. Proportions add up to one, so without it many genes fall where a few rise much.
    n_samples
        Draws of each donor in each condition.
    min_cells
        Fewest cells of a donor in a condition and group; donors with fewer are left out there.
    min_counts
        A gene with fewer counts in a comparison is not tested.
    interval
        Mass of the central credible interval of the fold change.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"condition_test_{key}"` by default.
    random_state
        Seed of the draws. What is drawn of a donor depends on names alone, not on the order of the cells.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `uns["condition_test_scvi"]`
        `params`, the options of the call, and `table`, one row for each group, condition and gene, read by
        :func:`scanpy_scvi.get.condition_test_df`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, no such column, condition or group.
    ValueError
        Where a comparison has fewer than two donors a side, where the batch tells the conditions apart, or an option
        cannot be used. `adata` stays as it was.

    References
    ----------
    Smyth 2004, Stat Appl Genet Mol Biol 3:3 (variances). Stephens 2017, Biostatistics 18:275 (prior of the changes).
    Squair et al. 2021, Nat Commun 12:5692 (why donors, not cells).

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=600, density=0.3)
    >>> adata.obs["donor"] = [f"donor_{i % 6}" for i in range(600)]
    >>> adata.obs["treated"] = ["yes" if i % 6 < 3 else "no" for i in range(600)]
    >>> sv.tl.scvi(adata, max_epochs=2, progress=False)
    >>> sv.tl.condition_test(adata, "treated", donor_key="donor", reference="no", n_samples=50)
    >>> table = sv.get.condition_test_df(adata)
    >>> int(table["donors1"].iloc[0]), bool(table["paired"].iloc[0])
    (3, False)
    """
    given = resolve_options(condition_test, locals())
    start = _logging.info("testing conditions")
    _check(given)
    fitted = load(adata, key)
    key_added = f"condition_test_{key}" if key_added is None else key_added
    check_condition_key(adata, key_added)
    columns = Columns(adata, condition_key, groupby=groupby, donor_key=donor_key, reference=reference, groups=groups)
    if batch_correction and n_samples < fitted.spec.dims.n_batches:
        msg = (
            f"`n_samples` is {n_samples}, but the fit has {fitted.spec.dims.n_batches} batches, and each needs a draw. "
            "Pass more."
        )
        raise ValueError(msg)
    options = LevelOptions(
        level=level,
        normalize=normalize,
        batch_correction=batch_correction,
        n_samples=int(n_samples),
        min_counts=int(min_counts),
        random_state=int(random_state),
        device=resolve_device(device),
    )
    comparisons = columns.comparisons(design, int(min_cells))
    table = compare_conditions(
        fitted,
        fitted.read(adata),
        comparisons,
        options,
        Question(delta, fdr_target, interval),
        skip=columns.every_group and len(columns.groups) > 1,
    )
    actualise(adata)
    params = {k: v for k, v in recorded(condition_test, given).items() if k not in UNSTORED}
    write_condition_test(adata, key_added, table, params)
    _logging.closing_line("tested conditions", added=[f".uns[{key_added!r}]"], time=start)


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range."""
    check_choice(given["design"], ("auto", "paired", "unpaired"), "design")
    check_choice(given["level"], ("observed", "denoised"), "level")
    for name in ("batch_correction", "normalize"):
        check_choice(given[name], (True, False), name)
    for name, low, high in (("delta", 0, np.inf), ("fdr_target", 0, 1), ("interval", 1e-6, 1 - 1e-6)):
        check_number(given[name], low, high, name)
    whole = {"n_samples": (1, 10**7), "min_cells": (1, 10**9), "min_counts": (1, 10**9), "random_state": (0, 2**63 - 1)}
    for name, (low, high) in whole.items():
        check_number(given[name], low, high, name, whole=True)
