"""The doctor before the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .. import _logging
from ..modules.likelihoods import COUNT_LIKELIHOODS
from ..store.cost import CostOptions
from ..store.covariates import ColumnKeys, column_names
from ..store.examine import examine
from ._report import report_dict, report_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData


def check(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    n_latent: int = 20,
    n_hidden: int = 128,
    n_layers: int = 2,
    max_epochs: int | None = None,
    batch_size: int = 128,
    device: str = "auto",
    key_added: str = "scvi",
) -> dict[str, Any]:
    r"""Look at the data before a fit, and say what would go wrong and what is odd.

    Takes the arguments of :func:`scanpy_scvi.tl.scvi` and reports, one line each: whether these are raw counts and if
    not which layer looks like them; empty cells and genes; cells whose library is out of line; batches too small to
    learn from; a batch that coincides with a label; covariates that are missing, constant or extreme; how many genes
    are modelled; what the fit will cost in time and memory. What `tl.scvi` would raise is an ``ERROR`` line with the
    same sentence, all of them at once. Nothing is raised for what is found, and `adata` stays as it is.

    A library (total over the modelled genes) is out of line if it has fewer than 20 counts, or if its logarithm is more
    than 6 MAD from the median of its batch. How far batch and label coincide is measured by Cramér's V, corrected for
    chance: 0 if the label is spread evenly over the batches, 1 if one decides the other. Correcting for a batch that
    coincides with the biology removes the biology; no method can tell the two apart.

    The time is measured, by fitting a sample of the cells for a second (and compiling, the first time); the memory is
    computed. Both are estimates.

    Parameters
    ----------
    adata
        Annotated counts, cells x genes; also a view or a file opened with ``backed="r"``, which is read in chunks.
    batch_key
        Column of `obs` with the batch to correct for.
    layer
        Layer that holds the counts; `X` by default.
    mask_var
        Genes to model: a bool column of `var`, a bool array, or `None` for all. By default (`"auto"`) those in
        `var["highly_variable"]`, where that exists.
    labels_key
        Column of `obs` with labels: the biology that correcting for the batch must not remove.
    categorical_covariate_keys
        Further categorical columns of `obs` to correct for.
    continuous_covariate_keys
        Numeric columns of `obs` to correct for.
    size_factor_key
        Numeric column of `obs` with size factors.
    likelihood, n_latent, n_hidden, n_layers, max_epochs, batch_size, device
        As in :func:`scanpy_scvi.tl.scvi`; they decide what the fit costs.
    key_added
        Name of the results; reported if it is taken.

    Returns
    -------
    The report as plain data that ``json.dumps`` takes; `None` stands for what could not be read.

    ``"level"``
        The worst level found: ``"ok"``, ``"note"``, ``"warning"`` or ``"error"``. With ``"error"``, `tl.scvi` would
        raise.
    ``"findings"``
        A list of ``{"level", "topic", "message"}``, as printed.
    ``"counts"``
        ``layer``; ``are_counts``; ``largest`` value; share of ``zeros``; ``count_layers``, all places that look like
        counts (`None` is `X`).
    ``"cells"``
        ``n``; ``n_empty`` over all genes; ``n_empty_modelled`` and ``empty_modelled`` (names, ten at most) over the
        modelled genes; ``library_min``, ``library_median``, ``library_max``; ``n_extreme`` and ``extreme`` (names, ten
        at most).
    ``"genes"``
        ``n``; ``n_modelled``; ``n_empty``; ``n_empty_modelled`` and ``empty_modelled`` (names, ten at most).
    ``"batches"``
        ``key``; ``names`` and ``n_cells`` of each.
    ``"confounding"``
        For `labels_key` and every other grouping in `obs`: ``column``, ``cramers_v``, ``n_groups``, ``n_in_one_batch``.
    ``"cost"``
        ``max_epochs``; ``seconds_per_epoch``; ``seconds`` for all of them; ``memory_bytes`` on top of the data, made of
        ``counts_bytes``, ``parameters_bytes``, ``minibatch_bytes`` and ``normalized_bytes`` (where the normalized layer
        is written); ``free_bytes``.

    Raises
    ------
    ValueError
        If the likelihood or the device is unknown.

    References
    ----------
    Bergsma (2013), A bias-correction for Cramér's V and Tschuprow's T, Journal of the Korean Statistical Society
    42:323-328, doi:10.1016/j.jkss.2012.10.002.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> report = sv.pp.check(adata, batch_key="batch", labels_key="cell_type")
    >>> report["level"], report["counts"]["are_counts"], report["genes"]["n_modelled"]
    ('note', True, 2000)
    """
    if likelihood not in COUNT_LIKELIHOODS:
        msg = f"`likelihood` is {likelihood!r}, but one of {', '.join(map(repr, COUNT_LIKELIHOODS))} was expected."
        raise ValueError(msg)
    columns = ColumnKeys(
        batch_key=batch_key,
        labels_key=labels_key,
        categorical_covariate_keys=column_names(categorical_covariate_keys, "categorical_covariate_keys"),
        continuous_covariate_keys=column_names(continuous_covariate_keys, "continuous_covariate_keys"),
        size_factor_key=size_factor_key,
    )
    options = CostOptions(likelihood, n_latent, n_hidden, n_layers, max_epochs, batch_size, device)
    found = examine(adata, columns, options, layer=layer, mask_var=mask_var, key_added=key_added)
    _logging.closing_line(report_text(adata, found))
    return report_dict(adata, found, layer)
