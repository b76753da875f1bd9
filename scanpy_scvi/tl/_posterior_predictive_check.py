"""Whether a fitted model describes the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _logging
from ..posterior.predictive import PredictiveCheck, predictive_check
from ..store.load import load
from ..store.results import check_slot, write_result
from ..store.write import actualise
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from anndata import AnnData

    from ..posterior.statistics import Replicated

SUFFIX = "_ppc"


def posterior_predictive_check(
    adata: AnnData,
    *,
    n_samples: int = 25,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Compare the counts with counts that the model draws for the same cells.

    A replicate is a whole count matrix,

    .. math:: z_n \sim q(z \mid x_n), \qquad \ell_n \sim q(\ell \mid x_n) \text{ or given}, \qquad
        \tilde x_{ng} \sim p(x_g \mid z_n, \ell_n, s_n)

    Four statistics T of every gene (over cells) and of every cell (over genes) are computed of the counts and of
    `n_samples` replicates: mean, variance, fraction of zeros, coefficient of variation. The tail probability
    :math:`P(T(\tilde x) \ge T(x))` is near one half where the model describes them and near 0 or 1 where it does not.
    Ties count half. The variance has divisor n; the coefficient of variation is the standard deviation over the mean.

    Calibration asks whether central predictive intervals of single counts hold as many counts as they should. Counts
    are discrete, so few intervals have exactly the level asked for. What is used instead is where a count lies among
    its replicates, ties broken at random (the randomised probability integral transform, with the expectation over the
    random number in place of a draw), which is uniform for a calibrated model.

    The model has seen the cells that it is asked about: each replicate starts from :math:`q(z \mid x_n)`. A check of
    this kind is therefore lenient. What it finds wrong is wrong; what it does not find may be.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    n_samples
        Replicates; tail probabilities are known to within one in so many.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"{key}_ppc"` by default.
    random_state
        Seed of the draws.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written to `uns["scvi_ppc"]`:

    `genes`
        Table of the modelled genes: for each statistic `mean`, `variance`, `zero_fraction`, `cv` its observed value
        under that name, the mean over replicates (`mean_replicated`, …) and the tail probability (`mean_tail`, …).
    `cells`
        The same of the cells.
    `calibration`
        Table of `level` and `coverage`, for all `genes` together and by mean count (most counts of a rare gene are
        zero, which tells little), with the number of genes.
    `summary`
        For genes and cells (`of`) and each `statistic`: mean `observed` and `replicated` value, Spearman `correlation`
        between the two, median of the `relative_error`, and the shares that lie `below` or `above` all replicates, each
        `expected` to be 1 / (`n_samples` + 1).
    `params`
        The options of the call.

    Raises
    ------
    KeyError
        Where there is no fit under `key`.
    ValueError
        Where an option cannot be used. `adata` stays as it was.

    See Also
    --------
    scanpy_scvi.pl.posterior_predictive_check : draws it.

    References
    ----------
    Gelman, Meng and Stern 1996, Statistica Sinica 6:733. Czado, Gneiting and Held 2009, Biometrics 65:1254.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.posterior_predictive_check(adata, n_samples=10)
    >>> adata.uns["scvi_ppc"]["genes"].columns[:3].to_list()
    ['mean', 'mean_replicated', 'mean_tail']
    """
    given = resolve_options(posterior_predictive_check, locals())
    start = _logging.info("comparing counts with replicates")
    check_number(n_samples, 10, 1000, "n_samples", whole=True)
    check_number(random_state, 0, 2**63 - 1, "random_state", whole=True)
    fitted = load(adata, key)
    key_added = f"{key}{SUFFIX}" if key_added is None else key_added
    check_slot(adata, key_added, {"params", "genes", "cells", "calibration", "summary"})
    cells, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        found = predictive_check(
            fitted.model,
            cells,
            genes=fitted.present,
            n_samples=int(n_samples),
            random_state=int(random_state),
            device=torch_device,
        )
    content = {
        "genes": _table(found.genes, pd.Index(fitted.present_names)),
        "cells": _table(found.cells, adata.obs_names),
        "calibration": _calibration(found),
        "summary": _summary(found, int(n_samples)),
    }
    actualise(adata)
    params = {k: v for k, v in recorded(posterior_predictive_check, given).items() if k not in {"key_added", "device"}}
    write_result(adata, key_added, params, content)
    _logging.closing_line("compared counts with replicates", added=[f".uns[{key_added!r}]"], time=start)


def _table(found: dict[str, Replicated], index: pd.Index) -> pd.DataFrame:
    """Three columns for each statistic."""
    columns = {}
    for name, values in found.items():
        for suffix, field in (("", "observed"), ("_replicated", "replicated"), ("_tail", "tail")):
            columns[name + suffix] = getattr(values, field)
    return pd.DataFrame(columns, index=index)


def _calibration(found: PredictiveCheck) -> pd.DataFrame:
    group, n_genes, level, coverage = found.coverage
    return pd.DataFrame({"genes": group, "n_genes": n_genes, "level": level, "coverage": coverage})


def _summary(found: PredictiveCheck, n_samples: int) -> pd.DataFrame:
    """One row for genes or cells and statistic."""
    rows = []
    for of, statistics in (("genes", found.genes), ("cells", found.cells)):
        for name, values in statistics.items():
            observed, replicated, tail = (a[~np.isnan(values.tail)] for a in values)
            positive = observed > 0
            error = np.abs(replicated[positive] / observed[positive] - 1)
            edge = 1 / (n_samples + 1)
            rows.append(
                {
                    "of": of,
                    "statistic": name,
                    "observed": observed.mean(),
                    "replicated": np.nanmean(replicated),
                    "correlation": pd.Series(observed).corr(pd.Series(replicated), method="spearman"),
                    "relative_error": np.nanmedian(error) if len(error) else np.nan,
                    "below": (tail > 1 - 0.75 * edge).mean(),
                    "above": (tail < 0.75 * edge).mean(),
                    "expected": edge,
                }
            )
    return pd.DataFrame(rows)
