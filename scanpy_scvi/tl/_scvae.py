"""scVI with a mixture of normals as prior."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ._assemble import architecture_of, check_against_data, check_number, library_part, model_spec
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from ..store.read import Data

AUTO = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of components that are tried."""


@with_parameters_of(scvi)
def scvae(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    n_components: int | Sequence[int] | Literal["auto"] = 20,
    concentration: float = 1.0,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
    library: Literal["observed", "latent"] = "observed",
    n_latent: int = 20,
    n_hidden: int = 128,
    n_layers: int = 2,
    dropout_rate: float = 0.1,
    norm: Literal["batch", "layer", "none"] = "batch",
    inject_covariates: bool = True,
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.0,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.0,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "scvae",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit scVI with a Gaussian mixture as prior (scVAE), in place.

    Cells come in kinds, and a mixture says so: its components are fitted together with the network, so that clusters
    are part of the model rather than found afterwards,

    .. math::

        p(z) = \sum_{k=1}^{K} \pi_k \, N(z; \mu_k, \mathrm{diag}\, s_k^2), \qquad
        \mathrm{KL} = -\tfrac12 \sum_d (1 + \log 2 \pi v_d)
        - \mathbb{E}_{q} \log \sum_k \pi_k N(z; \mu_k, \mathrm{diag}\, s_k^2)

    with :math:`q(z \mid x) = N(m, \mathrm{diag}\, v)`; the expectation is taken at the draw that is decoded. The
    component is summed over, where Grønbech et al. infer it by a second network :math:`q(k \mid x)`: this takes one
    pass of the decoder rather than K, and for the same :math:`q(z \mid x)` its bound is at least as tight. Their
    likelihoods have no library size; here it is that of :func:`scvi`.

    Use it for new cells that look real (:func:`sample` and the prior agree), and where kinds of cells are distinct. The
    components are clusters of the latent space, several to a kind or several kinds to one; for clusters at a chosen
    resolution, take Leiden on `obsm["X_scvae"]`. Their numbers mean nothing beyond a fit: other seeds give others.
    Do not choose the number of components by labels; the held-out bound can (`"auto"`).

    Parameters
    ----------
    n_components
        Components K; some may stay without cells. A list of numbers takes the one with the best bound of held-out
        cells, `"auto"` that of 1, 2, 4, ..., 64, with no more tried after two that bring nothing. The first is fitted
        from its start, then each from the weights of that fit, with components at clusters of its cells. Look at the
        bounds of all (below): where they differ by less than a nat, the number hardly matters.
    concentration
        Dirichlet concentration of the weights :math:`\pi`, counted once per data set; 1 is flat, more keeps components
        from emptying, less lets them.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`, what :func:`scvi` writes under its name
    (`obsm["X_scvae"]`, `obsm["scvae_latent_var"]`, `layers["scvae_normalized"]`, `var["scvae_modelled"]`,
    `var["scvae_dispersion"]`, `uns["scvae"]`), and:

    `obsm["scvae_responsibilities"]`
        Probability of each component at the posterior mean of z, cells x `n_components`.
    `obs["scvae_component"]`
        The likeliest component; components are numbered by weight, the heaviest first.
    `uns["scvae"]["components"]`
        Their `names` in the order of the columns, `weights`, `means` and `sds`.
    `uns["scvae"]["candidates"]`
        Where several numbers were tried: `n_components` and the `bound` of each.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Grønbech et al. 2020, scVAE: variational auto-encoders for single-cell gene expression data, Bioinformatics
    36:4415, doi:10.1093/bioinformatics/btaa293.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvae(adata, batch_key="batch", n_components=5, max_epochs=3, progress=False)
    >>> adata.obsm["scvae_responsibilities"].shape
    (200, 5)
    """
    given = resolve_options(scvae, locals())
    architecture = architecture_of(given)
    numbers = _numbers(n_components, searched=validation_size > 0)
    check_number(concentration, 1e-12, np.inf, "concentration")

    def make_spec(data: Data) -> list[ModelSpec]:
        check_against_data(architecture, data.dims, batch_key, labels_key)
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        spec = model_spec(architecture, data.dims, part)
        options = {"n_latent": architecture.n_latent, "concentration": float(concentration)}
        return [replace(spec, prior=Part("mixture", {**options, "n_components": k})) for k in numbers]

    return fit_model(scvae, given, make_spec)


def _numbers(asked: Any, *, searched: bool) -> list[int]:
    """Numbers of components to try, rising; held-out cells must be there to choose by."""
    if isinstance(asked, str) and asked != "auto":
        msg = f"`n_components` is {asked!r}, but a number, a list of numbers or 'auto' was expected."
        raise ValueError(msg)
    several = AUTO if isinstance(asked, str) else np.atleast_1d(np.asarray(asked, dtype=object)).tolist()
    if not len(several):
        msg = "`n_components` is an empty list, but at least one number was expected."
        raise ValueError(msg)
    for k in several:
        check_number(k, 1, 10_000, "n_components", whole=True)
    numbers = sorted({int(k) for k in several})
    if len(numbers) > 1 and not searched:
        msg = (
            f"`n_components` is {asked!r}, which the bound of held-out cells decides, but `validation_size` is 0. Hold "
            "out some cells, or pass one number."
        )
        raise ValueError(msg)
    return numbers
