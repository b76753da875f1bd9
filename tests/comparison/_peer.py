"""scvi-tools: one epoch of training, and what it says of all cells with z and the library at their posterior means."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scvi
import torch
from _weights import Answers, Variant

if TYPE_CHECKING:
    import anndata as ad

Tensors = dict[str, torch.Tensor]


def train(adata: ad.AnnData, variant: Variant, *, max_epochs: int = 1, **columns: Any) -> scvi.model.SCVI:
    """Fit SCVI; `columns` are the keys of its `setup_anndata`."""
    scvi.settings.seed = 0
    scvi.settings.verbosity = 40
    norms = {"use_batch_norm": "none", "use_layer_norm": "none"}
    norms |= {} if variant.norm == "none" else {f"use_{variant.norm}_norm": "both"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's advice on workers, devices, its own dependencies
        scvi.model.SCVI.setup_anndata(adata, **columns)
        model = scvi.model.SCVI(
            adata,
            gene_likelihood=variant.likelihood,
            n_layers=variant.n_layers,
            n_hidden=variant.n_hidden,
            n_latent=variant.n_latent,
            dropout_rate=variant.dropout_rate,
            dispersion=variant.dispersion,
            use_observed_lib_size=variant.library == "observed",
            encode_covariates=variant.encode_covariates,
            deeply_inject_covariates=variant.inject_covariates,
            **norms,
        )
        model.train(max_epochs, accelerator="cpu", enable_progress_bar=False, logger=False, batch_size=32)
    model.module.eval()
    return model


def all_cells(model: scvi.model.SCVI) -> Tensors:
    """Every cell as one minibatch of the peer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tensors,) = model._make_data_loader(adata=model.adata, batch_size=model.adata.n_obs)
    return tensors


@torch.no_grad()
def away_from_kinks(module: Any, tensors: Tensors, margin: float = 1e-5) -> np.ndarray:
    """Rows of the cells all of whose units lie off zero before the ReLU, by more than float32 may err there.

    At the kink the gradient is not defined: rounding alone says whether a unit's whole gradient of a cell counts.
    """
    distances: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, a: distances.append(a.abs().amin(1)))
        for layer in module.modules()
        if isinstance(layer, torch.nn.BatchNorm1d)
    ]
    try:
        at_the_mean(module.eval(), tensors)
    finally:
        for hook in hooks:
            hook.remove()
    return np.flatnonzero(torch.stack(distances).amin(0) > margin)


def at_the_mean(module: Any, tensors: Tensors, **generative: Any) -> tuple[dict, dict]:
    """Its inference and generative outputs with z and a latent library at their posterior means."""
    inference = module.inference(**module._get_inference_input(tensors))
    inference["z"] = inference["qz"].loc
    if inference["ql"] is not None:
        inference["library"] = inference["ql"].loc
    return inference, module.generative(**module._get_generative_input(tensors, inference), **generative)


@torch.no_grad()
def ask_peer(module: Any, tensors: Tensors, likelihood: str) -> Answers:
    """Its answers, in its own float32."""
    inference, generative = at_the_mean(module, tensors)
    px, loss = generative["px"], module.loss(tensors, inference, generative)
    poisson = likelihood == "poisson"
    return Answers(
        q_mean=inference["qz"].loc,
        q_var=inference["qz"].scale.square(),
        rho=px.scale,
        mu=px.rate if poisson else px.mu,
        theta=None if poisson else torch.atleast_2d(px.theta),
        zero_logits=px.zi_logits if likelihood == "zinb" else None,
        nll=loss.reconstruction_loss["reconstruction_loss"],
        kl=loss.kl_local["kl_divergence_z"],
        kl_library=loss.kl_local["kl_divergence_l"],
    )


def nll64(answers: Answers, x: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """Its formula of the reconstruction, evaluated in float64 on its own float32 parameters.

    `eps` is what it adds inside logarithms; 1e-8 is its default, 1e-300 takes it away.
    """
    from scvi.distributions._negative_binomial import log_nb_positive, log_zinb_positive

    x, mu = x.double(), answers.mu.double()
    if answers.theta is None:
        return -torch.distributions.Poisson(mu).log_prob(x).sum(1)
    theta = answers.theta.double().expand_as(mu)
    if answers.zero_logits is None:
        return -log_nb_positive(x, mu, theta, eps=eps).sum(1)
    return -log_zinb_positive(x, mu, theta, answers.zero_logits.double(), eps=eps).sum(1)


def counts(adata: ad.AnnData) -> torch.Tensor:
    """Counts as a dense tensor."""
    return torch.from_numpy(np.asarray(adata.X.toarray(), dtype=np.float32))
