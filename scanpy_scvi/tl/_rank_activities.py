"""Activities of gene sets, or factors, compared between groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import _logging
from ..posterior import LatentMoments, latent_moments
from ..posterior.activities import ActivityDifference, compare_activities
from ..posterior.effects import expected_fdr, log_odds
from ..store.load import load
from ..store.results import check_slot, write_result
from ..store.uns import from_uns_strings
from ..store.write import actualise
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_number
from ._compare_groups import REST, Groupings
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from ..store.load import Fitted

UNSTORED = {"key_added", "device", "groups"}
"""Options that do not shape the result, or that it tells itself."""


def rank_activities(
    adata: AnnData,
    groupby: str,
    *,
    groups: Sequence[str] | Literal["all"] = "all",
    reference: str = REST,
    delta: float = 0.25,
    fdr_target: float = 0.05,
    n_samples: int = 5000,
    key: str = "vega",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Rank gene sets, or factors, by the model's probability that their activities differ between groups of cells.

    A draw takes a cell a of the group and a cell b of the reference, and the latent state of each from its posterior.
    For each dimension d of z,

    .. math::

        p_d = \max\{P(z_{ad} - z_{bd} \ge \delta \sigma_d),\ P(z_{ad} - z_{bd} \le -\delta \sigma_d)\}, \qquad
        \mathrm{effect}_d = (\bar z_{ad} - \bar z_{bd}) / \sigma_d

    with :math:`\sigma_d` the standard deviation of z within the groups, since the scale of a latent dimension is
    arbitrary. `n_samples` pairs of cells are drawn; given a pair, the probability is computed exactly.

    The question is about cells: do two cells, one of each group, differ? Between equal groups, p is 0.43 for the
    default `delta`, and an effect of one standard deviation makes it 0.70. The probabilities are posterior, no
    p-values, and cells are not replicates. Works for fits with a linear decoder, whose latent dimensions have a
    meaning: :func:`vega`, :func:`ldvae`.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    groupby
        Column of `obs` with the groups. Cells without one are left out.
    groups
        Groups to compare with the reference.
    reference
        Group to compare with, or `"rest"` for all other cells with a group.
    delta
        Smallest difference that counts, in standard deviations within the groups.
    fdr_target
        Expected share of false discoveries among the sets called.
    n_samples
        Pairs of cells.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"rank_activities_{key}"` by default.
    random_state
        Seed of the pairs. A group's result does not depend on which other groups are asked for.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `uns["rank_activities_vega"]`
        `params`, and `activities`: a table with a row for each group and set, likeliest first within a group, read by
        :func:`scanpy_scvi.get.rank_activities_df`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, no such column, or no such group.
    ValueError
        For a fit whose decoder is not linear, or an option or group that cannot be used.

    References
    ----------
    Seninge et al. 2021, Nat Commun 12:5684. Lopez et al. 2018, Nat Methods 15:1053.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> keratins = ["KRT7", "KRT8", "KRT18", "KRT19", "KRT81"]
    >>> sets = {"keratins": keratins, "HLA": ["HLA-A", "HLA-B", "HLA-C", "HLA-E", "B2M"]}
    >>> sv.tl.vega(adata, sets, max_epochs=5, progress=False)
    >>> sv.tl.rank_activities(adata, "cell_type")
    >>> sorted(sv.get.rank_activities_df(adata, "A549")["names"])
    ['HLA', 'keratins']
    """
    given = resolve_options(rank_activities, locals())
    start = _logging.info("ranking activities")
    _check(given)
    fitted = load(adata, key)
    names = activity_names(adata, fitted)
    groupings = Groupings.of(adata, groupby, groups, reference)
    key_added = f"rank_activities_{key}" if key_added is None else key_added
    check_slot(adata, key_added, {"params", "activities"}, found="holds no ranking of activities")
    cells = fitted.read(adata)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):  # as in the fit: the same bits
        latent = latent_moments(fitted.model, cells, device=resolve_device(device))
    tables = [_compare(latent, groupings, group, names, given) for group in groupings.asked]
    actualise(adata)
    params = {k: v for k, v in recorded(rank_activities, given).items() if k not in UNSTORED}
    write_result(adata, key_added, params, {"activities": pd.concat(tables, ignore_index=True)})
    _logging.closing_line("ranked activities", added=[f".uns[{key_added!r}]"], time=start)


def activity_names(adata: AnnData, fitted: Fitted) -> tuple[str, ...]:
    """Names of the latent dimensions of a fit, or raise where they have no meaning of their own."""
    loadings = fitted.model.decoder.loadings()
    key = fitted.keys.uns
    if loadings is None:
        msg = (
            f"The fit `adata.uns[{key!r}]` has a decoder that is not linear, so a single latent dimension means "
            "nothing. Pass the `key` of a fit by `tl.vega` or `tl.ldvae`."
        )
        raise ValueError(msg)
    stored = adata.uns[key].get("gene_sets")
    return tuple(f"factor {i}" for i in range(loadings.shape[1])) if stored is None else from_uns_strings(stored)


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range."""
    check_number(given["delta"], 0, np.inf, "delta")
    check_number(given["fdr_target"], 0, 1, "fdr_target")
    check_number(given["n_samples"], 10, 10**7, "n_samples", whole=True)
    check_number(given["random_state"], 0, 2**63 - 1, "random_state", whole=True)


def _compare(
    latent: LatentMoments, groupings: Groupings, group: str, names: tuple[str, ...], given: Mapping[str, Any]
) -> pd.DataFrame:
    """Compare a group with its reference; one row for each latent dimension."""
    codes = groupings.sides(group)
    rows = [np.flatnonzero(np.isin(groupings.codes, side)) for side in codes]
    spread = latent.spread()
    first, second = (LatentMoments(latent.mean[r], spread[r]) for r in rows)
    rng = np.random.default_rng([int(given["random_state"]), codes[0][0] + 1])
    delta = float(given["delta"])
    found = compare_activities(first, second, delta=delta, n_pairs=int(given["n_samples"]), rng=rng)
    table = _columns(found, names, given["fdr_target"])
    named = {"group": group, "reference": groupings.reference, "delta": delta}
    return table.assign(**named, n_cells1=len(rows[0]), n_cells2=len(rows[1]))


def _columns(found: ActivityDifference, names: tuple[str, ...], fdr_target: float) -> pd.DataFrame:
    """Return the table, likeliest first."""
    fdr = expected_fdr(found.differs)
    table = pd.DataFrame(
        {
            "names": names,
            "proba": found.differs,
            "proba_up": found.p_up,
            "proba_down": found.p_down,
            "bayes_factor": log_odds(found.differs),
            "fdr": fdr,
            "is_different": fdr <= fdr_target,
            "effect": found.effect,
            "mean1": found.mean1,
            "mean2": found.mean2,
            "sd": found.sd,
        }
    )
    return table.iloc[np.lexsort((-np.abs(found.effect), -found.differs))]
