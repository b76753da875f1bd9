"""An autoencoder that is scored on non-zero entries alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._docs import with_parameters_of
from ._model import fit_model
from ._observed_only import observed_only
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData


@with_parameters_of(scvi)
def autoimpute(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    l2: float = 1.0,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    n_latent: int = 200,
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "autoimpute",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit AutoImpute, an autoencoder of one layer that looks at non-zero entries alone, in place.

    With :math:`y_{ng} = \log(1 + T x_{ng} / \ell_n)`,

    .. math::

        z_n = \mathrm{sigmoid}(E y_n + V s_n + a), \qquad
        \min_{E, D} \; \sum_n \sum_{g:\, x_{ng} > 0} (y_{ng} - D z_n - U s_n - b)_g^2
        + \tfrac{\lambda}{2} \left( \lVert E \rVert^2 + \lVert D \rVert^2 \right)

    so that zeros, taken for values that were missed, are filled in from cells that are alike where there are counts.

    Use it to compare with published results, or to see what such a loss does. Do not use it to find out where a gene is
    expressed: **a loss over non-zero entries can never learn that a zero is real**, so what it fills in is too high
    everywhere, most of all for rare genes, and markers of one kind of cell appear in all others. :func:`scvi` and
    :func:`dca` score zeros by what counting explains. There are no variances: of :func:`rank_genes_groups`,
    probabilities know how cells differ, but not how uncertain each of them is.

    Parameters
    ----------
    l2
        :math:`\lambda`, counted once per data set.
    target_sum
        T; `None` for the median total.
    n_latent
        Units of the layer; the original has 2,000 and all cells in one minibatch.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_autoimpute"]`
        z, cells x `n_latent`, within 0 and 1.
    `varm["autoimpute_loadings"]`
        D, genes x `n_latent`; NaN for genes not modelled.
    `layers["autoimpute_normalized"]`, `var["autoimpute_modelled"]`
        :math:`e^y - 1` at the decoded y, scaled to 10,000, averaged over batches as of :func:`scvi`.
    `uns["autoimpute"]`
        The fitted model, parameters, history and a verdict on convergence.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled. `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Talwar et al. 2018, AutoImpute: Autoencoder based imputation of single-cell RNA-seq data, Sci Rep 8:16329,
    doi:10.1038/s41598-018-34688-x.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.autoimpute(adata, n_latent=20, max_epochs=3, progress=False)
    >>> adata.obsm["X_autoimpute"].shape
    (200, 20)
    """
    given = resolve_options(autoimpute, locals())
    return fit_model(autoimpute, given, observed_only(given, 1, {"activation": "sigmoid"}))
