"""Maximum-likelihood mean, dispersion and zero inflation of each gene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse
from scipy.special import expit

from .. import _logging
from ..store.checks import check_empty_cells, get_matrix
from ..store.covariates import log_size_factors
from ..store.read import read_counts, resolve_mask
from ..store.uns import to_uns
from ..store.write import actualise
from ._gene_fits import GeneFits, fit_genes
from ._likelihood_tests import BoundaryTest, boundary_test, in_words, judge
from ._variances import Variances, variances

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = (
    *("mean", "dispersion", "zero_inflation"),
    *("variance", "variance_nb", "variance_zinb"),
    *("lr_overdispersion", "pval_overdispersion", "padj_overdispersion"),
    *("lr_zero_inflation", "pval_zero_inflation", "padj_zero_inflation"),
)


def fit_dispersion(
    adata: AnnData,
    *,
    likelihood: Literal["nb", "zinb"] = "nb",
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    size_factor_key: str | None = None,
    key_added: str = "marginal",
    copy: bool = False,
) -> AnnData | None:
    r"""Fit each gene by maximum likelihood, and say which likelihood the counts ask for.

    Every gene g by itself, with the size factor :math:`s_n` of cell n (its total over the modelled genes, scaled to a
    mean of one), is fitted by

    .. math::

        x_{ng} \sim \mathrm{Poisson}(s_n m_g), \quad x_{ng} \sim \mathrm{NB}(s_n m_g, \theta_g), \quad
        x_{ng} \sim \pi_g \, [x = 0] + (1 - \pi_g) \, \mathrm{NB}(s_n m_g, \theta_g)

    (variance :math:`\mu + \mu^2 / \theta`). Likelihood ratios test whether a gene varies more than Poisson counts
    (:math:`1/\theta_g > 0`) and whether it has more zeros than a negative binomial (:math:`\pi_g > 0`). Both hypotheses
    lie on a boundary, where the ratio follows a 50:50 mixture of :math:`\chi^2_0` and :math:`\chi^2_1`; p-values are
    adjusted after Benjamini and Hochberg over the genes with counts. The verdict is the family with the lowest BIC,
    summed over genes.

    These are marginal fits: what a gene varies between cell types counts as dispersion, and a gene that is off in most
    of them can look zero-inflated. A model that knows the cell's state needs less of both, so zero inflation that is
    rare here is not there at all, while some of it need not mean that `tl.scvi` wants ``likelihood="zinb"``.

    Parameters
    ----------
    adata
        Annotated counts, cells x genes. A view becomes an object of its own.
    likelihood
        Whose mean and dispersion to write. All three are fitted and compared in any case.
    layer
        Layer that holds the counts; `X` by default.
    mask_var
        Genes to fit: a bool column of `var`, a bool array, or `None` for all. By default (`"auto"`) those in
        `var["highly_variable"]`, where that exists.
    size_factor_key
        Numeric column of `obs` with size factors to use in place of totals; they are scaled to a mean of one.
    key_added
        First part of the names of all results.
    copy
        Whether to return a changed copy rather than to change `adata`.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added` (float64; NaN for genes outside the mask):

    `var["marginal_mean"]`
        Mean m of a cell of average library; without the inflated zeros under ``"zinb"``. 0 for a gene without counts,
        for which all that follows is NaN.
    `var["marginal_dispersion"]`
        Inverse dispersion :math:`\theta`, from 1e-8 to 1e6; 1e6 is as good as a Poisson distribution.
    `var["marginal_zero_inflation"]`
        Probability :math:`\pi` of an inflated zero; only with ``likelihood="zinb"``.
    `var["marginal_variance"]`, `var["marginal_variance_nb"]`, `var["marginal_variance_zinb"]`
        Mean square of :math:`x_{ng} - s_n \bar x_g` over cells: as observed, and as the two fits expect. What depth
        explains is not in it, so that Poisson counts have :math:`\bar x_g`, their mean.
    `var["marginal_lr_overdispersion"]`, `var["marginal_pval_overdispersion"]`, `var["marginal_padj_overdispersion"]`
        Likelihood ratio (twice the difference of log-likelihoods), p-value and adjusted p-value, NB against Poisson.
    `var["marginal_lr_zero_inflation"]`, `var["marginal_pval_zero_inflation"]`, `var["marginal_padj_zero_inflation"]`
        The same, ZINB against NB.
    `uns["marginal"]`
        ``params``; ``n_cells``; ``n_genes`` with counts; ``log_likelihood``, ``aic`` and ``bic`` by family;
        ``share_overdispersed`` and ``share_zero_inflated``, of the genes with counts at a false discovery rate of 5 %;
        ``likelihood``, the family that the counts ask for; ``verdict``, the same in a sentence.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be fitted, and if `key_added` is taken by something else. `adata` stays as it was.

    References
    ----------
    Self and Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood ratio tests under
    nonstandard conditions, Journal of the American Statistical Association 82:605-610.

    Svensson (2020), Droplet scRNA-seq is not zero-inflated, Nature Biotechnology 38:147-150.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()[:, :100].copy()
    >>> sv.pp.fit_dispersion(adata)
    >>> adata.uns["marginal"]["likelihood"]
    'nb'
    """
    start = _logging.info("fitting genes")
    if likelihood not in ("nb", "zinb"):
        msg = f"`likelihood` is {likelihood!r}, but one of 'nb', 'zinb' was expected."
        raise ValueError(msg)
    _check_free(adata, key_added)
    mask = resolve_mask(adata, mask_var)
    counts, factors = _read(adata, layer, mask, size_factor_key)
    fits = fit_genes(counts, factors)

    tested = fits.poisson.mean > 0
    overdispersed = boundary_test(fits.poisson.log_likelihood, fits.nb.log_likelihood, tested)
    inflated = boundary_test(fits.nb.log_likelihood, fits.zinb.log_likelihood, tested)
    verdict = judge(fits, adata.n_obs, tested)
    message = in_words(verdict, overdispersed, inflated, adata.n_obs)
    mask_name = mask_var if isinstance(mask_var, str) else "none" if mask_var is None else "array"
    params = {"likelihood": likelihood, "layer": layer, "mask_var": mask_name, "size_factor_key": size_factor_key}
    entry = {
        "params": params,
        "n_cells": adata.n_obs,
        "n_genes": int(tested.sum()),
        **verdict._asdict(),
        "share_overdispersed": overdispersed.share,
        "share_zero_inflated": inflated.share,
        "verdict": message,
    }
    target = adata.copy() if copy else adata
    actualise(target)
    columns = _columns(fits, overdispersed, inflated, likelihood) | _variance_columns(variances(counts, factors, fits))
    _write(target, key_added, mask, columns)
    target.uns[key_added] = to_uns(entry)
    _logging.closing_line(message, added=[f".var['{key_added}_*']", f".uns['{key_added}']"], time=start)
    return target if copy else None


def _check_free(adata: AnnData, key: str) -> None:
    """Raise a ValueError where a name of the results holds something else."""
    entry = adata.uns.get(key)
    if isinstance(entry, Mapping) and {"bic", "verdict"} <= set(entry):
        return
    taken = [f"uns[{key!r}]"] if key in adata.uns else []
    taken += [f"var[{name!r}]" for name in (f"{key}_{column}" for column in COLUMNS) if name in adata.var]
    if taken:
        msg = (
            f"`adata.{taken[0]}` exists and was not written by this function, but `key_added={key!r}` would overwrite "
            "it. Pass another `key_added`, or delete it first."
        )
        raise ValueError(msg)


def _read(
    adata: AnnData, layer: str | None, mask: np.ndarray, size_factor_key: str | None
) -> tuple[sparse.csc_array, np.ndarray]:
    """Counts of the modelled genes, and size factors with a mean of one."""
    rows = read_counts(adata, get_matrix(adata, layer), layer, mask).rows(0, adata.n_obs)
    shape = (adata.n_obs, int(mask.sum()))
    counts = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=shape).tocsc()
    factors = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    check_empty_cells(factors, adata.obs_names, masked=not mask.all())
    if size_factor_key is not None:
        factors = np.exp(log_size_factors(adata, size_factor_key))
    return counts, factors / factors.mean()


def _columns(
    fits: GeneFits, overdispersed: BoundaryTest, inflated: BoundaryTest, likelihood: str
) -> dict[str, np.ndarray]:
    """Columns of `var` by the last part of their name, for the modelled genes."""
    chosen = fits.nb if likelihood == "nb" else fits.zinb
    columns = {"mean": chosen.mean, "dispersion": chosen.theta}
    if likelihood == "zinb":
        columns["zero_inflation"] = expit(fits.zinb.zero_logits)
    for name, test in (("overdispersion", overdispersed), ("zero_inflation", inflated)):
        columns |= {f"lr_{name}": test.statistic, f"pval_{name}": test.pval, f"padj_{name}": test.pval_adj}
    return columns


def _variance_columns(found: Variances) -> dict[str, np.ndarray]:
    return {"variance": found.observed, "variance_nb": found.nb, "variance_zinb": found.zinb}


def _write(adata: AnnData, key: str, mask: np.ndarray, columns: dict[str, Any]) -> None:
    """Write the columns, NaN outside the mask, in place of those of an earlier call."""
    for name in COLUMNS:
        if f"{key}_{name}" in adata.var:
            del adata.var[f"{key}_{name}"]
    for name, values in columns.items():
        column = np.full(adata.n_vars, np.nan)
        column[mask] = values
        adata.var[f"{key}_{name}"] = column
