"""scVI without an encoder."""

from __future__ import annotations

import math
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

NO_ENCODER = {"dropout_rate": 0.0, "encode_covariates": False, "library": "observed"}


@with_parameters_of(scvi)
def dgd(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    n_components: int = 20,
    component_sd: float = 0.3,
    concentration: float = 1.0,
    decoder_l2: float = 100.0,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    labels_key: str | None = None,
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
    n_latent: int = 20,
    n_hidden: int = 128,
    n_layers: int = 1,
    inject_covariates: bool = True,
    max_epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
    penalties: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    validation_size: float = 0.1,
    early_stopping: bool = True,
    normalized: bool | Literal["auto"] = "auto",
    groupby: str | None = None,
    key_added: str = "dgd",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit a deep generative decoder (DGD) to raw counts, in place: scVI without an encoder.

    Each cell's latent state is a parameter of its own, found together with the decoder and with a Gaussian mixture
    :math:`\phi` over the latent space, by

    .. math::

        \max_{z, W, \phi} \; \sum_n \left[ \log p(x_n \mid z_n, s_n, W) + \log p(z_n \mid \phi) \right]
        + \log p(\phi) - \tfrac{\lambda}{2} \lVert W \rVert^2, \qquad
        p(z \mid \phi) = \sum_k \pi_k \, N(z; \mu_k, \mathrm{diag}\, s_k^2)

    with the counts as in :func:`scvi`, a Dirichlet prior on :math:`\pi`, the softball prior
    :math:`-\log(1 + e^{5 (\lVert \mu_k \rVert / \sqrt{D} - 1)})` on the means of D dimensions, and
    :math:`\log s \sim N(\log` `component_sd` :math:`, 0.05^2)`. Priors of :math:`\phi` count once per data set. That
    of s is narrow since free states may gather at the means, where the density has no bound as s goes to zero; and
    :math:`\lambda` must be positive, or z shrinks while the weights grow.

    Use it for few cells, from some hundreds to a few thousand, where an encoder has not enough to learn from. It has
    its price. There is no posterior variance: states are points, so the probabilities of :func:`rank_genes_groups` know
    how cells differ, but not how uncertain each of them is. A new cell is placed by an optimisation, which takes
    milliseconds a cell rather than microseconds. Memory is that of several tables of cells x `n_latent`. Held-out cells
    are placed by optimisation too before they are scored, so their bound in the history, :math:`\log p(x, z)` at the
    best z, is not comparable with those of models with an encoder; :func:`log_likelihood` is. Batches are mixed less
    than by :func:`scvi`. Do not choose anything by how well components match labels.

    Parameters
    ----------
    n_components
        Components K of the mixture; some may stay without cells.
    component_sd
        Where the prior of the components' standard deviations is centred; states spread over about one in each
        dimension.
    concentration
        Dirichlet concentration of the weights :math:`\pi`; 1 is flat.
    decoder_l2
        :math:`\lambda`, counted once per data set: weights of the decoder, biases and covariates left out, are normal
        with variance :math:`1/\lambda`.
    n_layers
        Hidden layers of the decoder. They are not normalised, since that would take the scale of the weights away that
        :math:`\lambda` is about.
    inject_covariates
        Whether covariates enter every layer, the output layer included, or the first alone.
    learning_rate
        Step size of Adam; that of latent states is ten times as large, as each is moved once in an epoch.

    Returns
    -------
    `None`, or the changed copy. Written, with the default `key_added`:

    `obsm["X_dgd"]`
        The latent states, cells x `n_latent`. The fit is stored here and in `uns["dgd"]`: later functions read the
        states from `obsm`, and cells that have none (an AnnData to which `uns["dgd"]` was copied) get them when they
        are needed.
    `obsm["dgd_responsibilities"]`
        Probability of each component at z, cells x `n_components`.
    `obs["dgd_component"]`
        The likeliest component; components are numbered by weight, the heaviest first.
    `layers["dgd_normalized"]`, `var["dgd_modelled"]`, `var["dgd_dispersion"]`
        As of :func:`scvi`.
    `uns["dgd"]`
        The fitted decoder and mixture, parameters, history and a verdict on convergence; the `components`.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled, with what was found, what was expected and what to do. `adata` stays as it
        was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates; names cell, gene and batch.

    References
    ----------
    Schuster and Krogh 2023, The deep generative decoder: MAP estimation of representations improves modelling of
    single-cell RNA data, Bioinformatics 39:btad497, doi:10.1093/bioinformatics/btad497.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.dgd(adata, batch_key="batch", n_components=5, max_epochs=5, progress=False)
    >>> adata.obsm["X_dgd"].shape
    (200, 20)
    """
    given = resolve_options(dgd, locals())
    architecture = architecture_of({**given, **NO_ENCODER, "norm": "none"})
    check_number(n_components, 1, 10_000, "n_components", whole=True)
    check_number(component_sd, 1e-3, np.inf, "component_sd")
    check_number(concentration, 1e-12, np.inf, "concentration")
    check_number(decoder_l2, 1e-6, np.inf, "decoder_l2")

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, labels_key)
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        spec = model_spec(architecture, data.dims, part)
        mixture = {
            "n_latent": architecture.n_latent,
            "n_components": int(n_components),
            "concentration": float(concentration),
            "radius": math.sqrt(architecture.n_latent),
            "sd": float(component_sd),
            "sd_width": 0.1,
        }
        return replace(
            spec,
            encoder=Part("free", {"n_latent": architecture.n_latent, "n_cells": data.table.n_cells}),
            decoder=Part("mlp", {**spec.decoder.options, "l2": float(decoder_l2)}),
            prior=Part("mixture", mixture),
        )

    return fit_model(dgd, given, make_spec)
