"""Differential expression between groups of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _logging
from ..posterior.comparison import PEER_SHARE, ComparisonOptions
from ..store.load import load
from ..store.ranking import TABLE, check_free, write_ranking
from ..store.slim import needs_counts
from ..store.write import actualise
from ..training.device import resolve_device
from ._assemble import check_choice, check_number
from ._compare_groups import REST, CallRule, Groupings, compare_groups
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

    from ..store.load import Fitted

UNSTORED = {"groups", "key_added", "device"}
"""Options that the result itself tells, or that do not shape it."""


def rank_genes_groups(
    adata: AnnData,
    groupby: str,
    *,
    groups: Sequence[str] | Literal["all"] = "all",
    reference: str = REST,
    mode: Literal["change", "vanilla"] = "change",
    test: Literal["three", "two"] = "three",
    delta: float | None = 0.25,
    pseudocount: float | None = None,
    fdr_target: float = 0.05,
    batch_correction: bool = True,
    n_samples: int = 5000,
    weights: Literal["uniform", "importance"] = "uniform",
    residuals: bool = True,
    interval: float = 0.95,
    min_counts: int = 10,
    lfc: Literal["tested", "scvi-tools"] = "tested",
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Rank genes by the model's probability that they differ between groups of cells.

    A draw takes a cell a of the group and a cell b of the reference, draws the latent state of each, decodes both in
    the same batch, and compares the proportions of every gene,

    .. math::

        \mathrm{lfc}_g = \log_2(\rho_{ag} + c) - \log_2(\rho_{bg} + c), \qquad
        p_g = \max\{P(\mathrm{lfc}_g \ge \delta),\ P(\mathrm{lfc}_g < -\delta)\}

    over `n_samples` draws. Genes are called in the order of p as long as the mean of 1 - p over those called, the
    expected share of false discoveries, is at most `fdr_target`. They are ranked by their scores, which also ask how
    well they were counted: among genes that surely change, those with more counts come first.

    The probabilities are posterior: they say how sure the model is, given that it is right. They are no p-values, and
    cells are not replicates: a difference between donors or samples that happen to make up a group is one here.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`. Counts that lie in a file stay there: memory is that of the draws
        (8 bytes x `n_samples` x genes) and of sums over the groups, whatever the number of cells.
    groupby
        Column of `obs` with the groups. Cells without one are left out.
    groups
        Groups to compare with the reference.
    reference
        Group to compare with, or `"rest"` for all other cells with a group.
    mode
        `"change"` asks whether a gene changes by at least `delta`; `"vanilla"` whether it is larger, as Lopez et al.
        2018 do, with p the probability that :math:`\rho_{ag} > \rho_{bg}`.
    test
        `"three"` ways: up, down or neither, p as above. `"two"`: p is the sum of both probabilities.
    delta
        Smallest log2 fold change that counts. `None` takes 0.6 times the size of the changes of the genes that do
        change, found by a mixture of three normals over all genes, and at least 0.1.
    pseudocount
        c; by default what the decoder gives to genes that are not expressed.
    fdr_target
        Expected share of false discoveries among the genes called.
    batch_correction
        Whether both cells are decoded in the same batch, every batch of the fit in an equal share of the draws, or each
        in its own.
    n_samples
        Draws.
    weights
        `"uniform"` takes the draws as they come from the encoder. `"importance"` weights them to follow the model's own
        posterior, and draws again by weight, from at most a thousand cells a side; weights are truncated from above.
        It takes some ten times as long, and guards against an encoder that is too sure or too vague.
    residuals
        Whether to add to the fold changes what the counts of the two groups show and the model does not expect, shrunk
        towards zero by what all genes show (adaptive shrinkage). A few genes that change between otherwise equal cells
        may not be worth a latent direction; without this, the model is certain that they do not change.
    interval
        Mass of the central credible interval of the fold change.
    min_counts
        A gene with fewer counts in the two groups together is not called: `proba_de` is set to 0.
    lfc
        `"tested"` reports the fold changes that the probabilities are of; `"scvi-tools"` those with a thousandth of the
        pseudocount, as scvi-tools 1.4 does.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"rank_genes_groups_{key}"` by default.
    random_state
        Seed of the draws. A group's result does not depend on which other groups are asked for.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `uns["rank_genes_groups_scvi"]`
        What `sc.tl.rank_genes_groups` writes, so that scanpy's functions and plots read it with
        `key="rank_genes_groups_scvi"`: `names`, `scores` (the mean of two standardised differences: of the model's mean
        proportions, in units of what counting leaves uncertain, and Welch's t of the log-normalised counts),
        `logfoldchanges` (mean), `pvals` (the
        posterior probability that the gene does **not** differ), `pvals_adj` (the expected share of false discoveries
        if the gene is called), `params`. Genes that are not modelled are left out.
    `uns["rank_genes_groups_scvi_table"]`
        The full table, read by :func:`scanpy_scvi.get.rank_genes_groups_df`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, no such column, or no such group.
    ValueError
        Where an option or a group cannot be used. `adata` stays as it was.

    References
    ----------
    Lopez et al. 2018, Nat Methods 15:1053. Boyeau et al. 2023, PNAS 120:e2209124120. Residuals: Stephens 2017,
    Biostatistics 18:275.

    Examples
    --------
    >>> import scanpy as sc
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> sv.tl.rank_genes_groups(adata, "cell_type", n_samples=200)
    >>> sc.get.rank_genes_groups_df(adata, "A549", key="rank_genes_groups_scvi").columns.to_list()
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    given = resolve_options(rank_genes_groups, locals())
    start = _logging.info("ranking genes")
    _check(given)
    fitted = load(adata, key, counts=False)
    key_added = f"rank_genes_groups_{key}" if key_added is None else key_added
    groupings = check_ranking(adata, groupby, key, groups=groups, reference=reference, key_added=key_added)
    options = ComparisonOptions(
        mode=mode,
        ways=test,
        delta=delta,
        pseudocount=pseudocount,
        n_draws=int(n_samples),
        batches=fitted.fitted_batches if batch_correction else None,
        weighted=weights == "importance",
        residuals=residuals,
        interval=interval,
        reported_with=PEER_SHARE if lfc == "scvi-tools" else 1.0,
    )
    if batch_correction and n_samples < fitted.spec.dims.n_batches:
        msg = (
            f"`n_samples` is {n_samples}, but the fit has {fitted.spec.dims.n_batches} batches, and each needs a draw. "
            "Pass more."
        )
        raise ValueError(msg)
    rule = CallRule(fdr_target, int(min_counts))
    if fitted.slim:
        options, given = _without_counts(options, given, key, fitted)
    table = compare_groups(
        fitted,
        fitted.read(adata),
        groupings,
        options,
        rule,
        random_state=int(random_state),
        device=resolve_device(device),
    )
    actualise(adata)
    params = {k: v for k, v in recorded(rank_genes_groups, given).items() if k not in UNSTORED}
    write_ranking(adata, key_added, table, params | {"method": "scvi", "use_raw": False})
    added = [f".uns[{key_added!r}]", f".uns[{key_added + TABLE!r}]"]
    _logging.closing_line("ranked genes", added=added, time=start)


def _without_counts(
    options: ComparisonOptions, given: Mapping[str, Any], key: str, fitted: Fitted
) -> tuple[ComparisonOptions, dict[str, Any]]:
    """Options where the counts were dropped; weights cannot do without them."""
    if options.weighted:
        raise needs_counts(key, fitted.entry)
    _logging.warning(
        "the counts were dropped by `tl.slim`: genes are ranked by the model alone, as with `residuals=False`; scores "
        "and the means `raw` and `normalized` are what it expects, and `nonzero` is NaN."
    )
    return replace(options, residuals=True), {**given, "residuals": False}  # the expected means are made of those draws


def check_ranking(
    adata: AnnData,
    groupby: str,
    key: str,
    *,
    groups: Iterable[str] | str = "all",
    reference: str = REST,
    key_added: str | None = None,
) -> Groupings:
    """Return which cells are to be compared, or raise where that cannot be, or the result could not be stored."""
    groupings = Groupings.of(adata, groupby, groups, reference)
    check_free(adata, f"rank_genes_groups_{key}" if key_added is None else key_added, groupings.asked)
    return groupings


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range."""
    check_choice(given["mode"], ("change", "vanilla"), "mode")
    check_choice(given["test"], ("three", "two"), "test")
    check_choice(given["weights"], ("uniform", "importance"), "weights")
    check_choice(given["lfc"], ("tested", "scvi-tools"), "lfc")
    ranges = {"delta": (0, np.inf), "pseudocount": (0, 1), "fdr_target": (0, 1), "interval": (1e-6, 1 - 1e-6)}
    for name, (low, high) in ranges.items():
        if given[name] is not None or name in {"fdr_target", "interval"}:
            check_number(given[name], low, high, name)
    if given["test"] == "two" and given["delta"] == 0:
        msg = '`delta` is 0 with `test="two"`, so that every gene would differ. Pass a larger `delta`.'
        raise ValueError(msg)
    for name in ("batch_correction", "residuals"):
        check_choice(given[name], (True, False), name)
    for name, low, high in (("n_samples", 10, 10**7), ("min_counts", 0, 10**9), ("random_state", 0, 2**63 - 1)):
        check_number(given[name], low, high, name, whole=True)
