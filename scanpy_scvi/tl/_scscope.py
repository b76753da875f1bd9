"""An autoencoder that reads each cell again with its zeros filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._docs import with_parameters_of
from ._assemble import check_number
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
def scscope(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    n_recurrence: int = 2,
    l2: float = 1.0,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    n_latent: int = 50,
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "scscope",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit a recurrent autoencoder after scScope, in place: codes of cells whose zeros are filled in step by step.

    With :math:`y^{(1)}_{ng} = \log(1 + T x_{ng} / \ell_n)`, for :math:`t = 1, \dots, R`

    .. math::

        h^{(t)}_n &= \mathrm{relu}(E y^{(t)}_n + V s_n + a), \\
        y^{(t+1)}_n &= y^{(1)}_n + 1[x_n = 0] \odot (Q\, \mathrm{relu}(P h^{(t)}_n + p) + q), \\
        z_n &= (h^{(1)}_n, \dots, h^{(R)}_n), \qquad
        \min \; \sum_n \sum_{g:\, x_{ng} > 0} (y^{(1)}_{ng} - (D z_n + U s_n + b)_g)^2
        + \tfrac{\lambda}{2} \lVert W \rVert^2

    The original fills from the decoded :math:`h^{(t)}` rather than from :math:`h^{(t)}`, and decodes and scores each
    step by itself; here one linear map reads all steps, so the state that is stored is the state that is decoded.

    Use it to compare with published results. What the loss over non-zero entries means for imputed values is said in
    :func:`autoimpute`: zeros are never learned from. For the same job take :func:`scvi` or :func:`dca`.

    Parameters
    ----------
    n_recurrence
        Steps R; with one, nothing is filled in.
    l2
        :math:`\lambda`, counted once per data set, for all weights W.
    target_sum
        T; `None` for the median total.
    n_latent
        Codes of a step.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_scscope"]`
        z, cells x (`n_recurrence` times `n_latent`), the codes of the first step first.
    `varm["scscope_loadings"]`
        D, genes x (`n_recurrence` times `n_latent`); NaN for genes not modelled.
    `layers["scscope_normalized"]`, `var["scscope_modelled"]`
        :math:`e^y - 1` at the decoded y, scaled to 10,000, averaged over batches as of :func:`scvi`.
    `uns["scscope"]`
        The fitted model, parameters, history and a verdict on convergence.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled. `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Deng et al. 2019, Scalable analysis of cell-type composition from single-cell transcriptomics using deep recurrent
    learning, Nat Methods 16:311, doi:10.1038/s41592-019-0353-7.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scscope(adata, n_latent=10, max_epochs=3, progress=False)
    >>> adata.obsm["X_scscope"].shape
    (200, 20)
    """
    given = resolve_options(scscope, locals())
    check_number(n_recurrence, 1, 100, "n_recurrence", whole=True)
    make_spec = observed_only(given, int(n_recurrence), {"n_steps": int(n_recurrence)})
    return fit_model(scscope, given, make_spec)
