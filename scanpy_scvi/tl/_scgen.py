"""The autoencoder of scGen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ._assemble import architecture_of, check_against_data
from ._autoencoding import AE_LIKELIHOODS, Autoencoding, autoencoder_spec
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

    from ..store.read import Data

NOISE_SD = 1.0
"""With this the negative log density is half the squared error, up to a constant."""


@with_parameters_of(scvi)
def scgen(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    target_sum: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    n_latent: int = 100,
    n_hidden: int = 800,
    n_layers: int = 2,
    dropout_rate: float = 0.2,
    norm: Literal["batch", "layer", "none"] = "batch",
    encode_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    kl_weight: float = 5e-5,
    kl_warmup: float = 0.0,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "scgen",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit the autoencoder of scGen to log-normalised counts, in place; a wide one with hardly any prior.

    With :math:`y_{ng} = \log(1 + T x_{ng} / \ell_n)` computed from the counts, T being the `target_sum`,

    .. math::

        z_n \sim q = N(f(y_n, s_n), \mathrm{diag}\, v(y_n, s_n)), \qquad
        \min_{f, v, g} \; \sum_n \Big[ \tfrac12 \sum_g (y_{ng} - g_g(z_n, s_n))^2
        + \beta \, \mathrm{KL}(q \,\|\, N(0, I)) \Big]

    which is a normal density of variance one, and with :math:`\beta` = 5e-5 (`kl_weight`) nearly an autoencoder: z has
    room for all that sets cells apart, and a scale of its own. What makes it scGen is what is asked of it afterwards,
    :func:`predict_perturbation` with `key="scgen"`: a difference between conditions added to latent states.

    Use it for that, and beside a fit of counts: :func:`scvi` with the condition as its `batch_key`, which is exchanged
    in the decoder, is the first to compare with; the shift works on any fit without it. It is no model of counts.
    Squared errors of logarithms take the noise of shallow cells for signal, its `layers["scgen_normalized"]` lies below
    mean counts, and the ELBO in its history counts the whole KL, which was hardly priced: it says nothing beside that
    of another model. `tl.scgen` itself must not be given the condition as `batch_key`: then its latent space is fitted
    to be free of it, and there is no shift to be found.

    **Kept of the original**: two hidden layers of 800 and 100 latent dimensions, batch normalisation, dropout of 0.2 in
    the encoder, the squared error and the weight of the KL, Adam at a rate of 1e-3. **Left out**: leaky ReLU (plain
    here), its starting weights (here decoding starts at the average cell), dropout in the decoder, the ReLU on the
    output, 300 epochs of minibatches of 32 (here 128, until held-out cells say that it is enough, with averaged
    weights), a draw of z in place of its mean for what is predicted, and the resampling of cell types, which is
    `balance="resample"` of :func:`predict_perturbation`. Covariates are ours: the original has none.

    Parameters
    ----------
    target_sum
        T; `None` for the median total, as in :func:`scanpy.pp.normalize_total`.
    batch_key
        Column of `obs` with a technical batch to correct for; not the condition.
    kl_weight
        :math:`\beta`. The fit is stopped and judged by the held-out bound under this weight.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_scgen"]`, `obsm["scgen_latent_var"]`
        Posterior mean of z, cells x `n_latent`, and its posterior variance.
    `layers["scgen_normalized"]`, `var["scgen_modelled"]`
        As of :func:`scvi`; from :math:`e^y - 1` at the mean of y, scaled to the same total for all cells.
    `uns["scgen"]`
        The fitted model, parameters, history and a verdict on convergence.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Lotfollahi, Wolf, Theis 2019, scGen predicts single-cell perturbation responses, Nat Methods 16:715,
    doi:10.1038/s41592-019-0494-8.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scgen(adata, n_hidden=64, n_latent=20, max_epochs=5, progress=False)
    >>> new = sv.tl.predict_perturbation(
    ...     adata, "batch", source="batch_0", target="batch_1", cell_type_key="label", min_cells=5, key="scgen"
    ... )
    >>> new.X.shape == ((adata.obs["batch"] == "batch_0").sum(), adata.n_vars)
    True
    """
    given = resolve_options(scgen, locals())
    fixed = {"likelihood": "mse", "library": "observed", "dispersion": "gene", "inject_covariates": True}
    architecture = architecture_of(given | fixed, likelihoods=AE_LIKELIHOODS)
    how = Autoencoding(target_sum, corruption=0.0, l2=0.0, variational=True, noise_sd=NOISE_SD)
    how.check()

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, None)
        return autoencoder_spec(architecture, how, data, Part("observed"))

    return fit_model(scgen, given, make_spec)
