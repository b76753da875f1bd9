"""A fitted scvi-tools model under our names: its options, its weights, and what both sides say of the same cells.

Nothing here imports scvi-tools: the committed fixture is checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from scanpy_scvi.modules import VAE, Cells, Dimensions, ModelSpec, Part

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Variant:
    """One model, in the words of `tl.scvi`."""

    likelihood: str = "nb"
    n_layers: int = 1
    library: str = "observed"
    dispersion: str = "gene"
    n_hidden: int = 128
    n_latent: int = 10
    norm: str = "batch"
    encode_covariates: bool = False
    inject_covariates: bool = True
    dropout_rate: float = 0.1

    def __str__(self) -> str:
        return f"{self.likelihood}-{self.n_layers}-{self.library}-{self.dispersion}"


ISSUE_VARIANTS = [
    Variant(likelihood, n_layers, library, dispersion)
    for likelihood in ("nb", "zinb")
    for n_layers in (1, 2)
    for library in ("observed", "latent")
    for dispersion in ("gene", "gene-batch")
]


class Answers(NamedTuple):
    """What a model says of n cells with z at its posterior mean, and a latent library at its own."""

    q_mean: torch.Tensor
    q_var: torch.Tensor
    rho: torch.Tensor
    mu: torch.Tensor
    theta: torch.Tensor | None
    zero_logits: torch.Tensor | None
    nll: torch.Tensor
    kl: torch.Tensor
    kl_library: torch.Tensor


def spec(variant: Variant, dims: Dimensions, prior_mean: list[float], prior_var: list[float]) -> ModelSpec:
    """Specify the same model with our parts; the prior is that of a latent library, one number per batch."""
    shared = {"n_hidden": variant.n_hidden, "norm": variant.norm}
    network = {
        **shared,
        "n_layers": variant.n_layers,
        "n_latent": variant.n_latent,
        "inject_covariates": variant.inject_covariates,
    }
    encoder = {**network, "encode_covariates": variant.encode_covariates, "dropout_rate": variant.dropout_rate}
    latent = {"prior_mean": prior_mean, "prior_var": prior_var, "dropout_rate": variant.dropout_rate, **shared}
    return ModelSpec(
        dims=dims,
        encoder=Part("mlp", encoder),
        library=Part("latent", latent) if variant.library == "latent" else Part("observed"),
        decoder=Part("mlp", network),
        likelihood=Part(
            variant.likelihood, {} if variant.likelihood == "poisson" else {"dispersion": variant.dispersion}
        ),
        prior=Part("normal"),
    )


def our_names(theirs: Mapping[str, torch.Tensor], variant: Variant, dims: Dimensions) -> dict[str, torch.Tensor]:
    """Weights (or their gradients) of scvi-tools under our names; heads that the model has no use for are left out.

    Their linear maps take [features, continuous covariates, one-hot covariates] side by side, the continuous ones in
    the first layer alone; ours keep the covariates' columns apart, one-hot ones first, in every layer.
    """
    ours: dict[str, torch.Tensor] = {}
    given = dims.n_covariates if variant.encode_covariates else 0
    for i in range(variant.n_layers):
        ours |= _block(
            theirs, f"z_encoder.encoder.fc_layers.Layer {i}", f"encoder.mlp.blocks.{i}", i, given, variant, dims
        )
        ours |= _block(
            theirs,
            f"decoder.px_decoder.fc_layers.Layer {i}",
            f"decoder.mlp.blocks.{i}",
            i,
            dims.n_covariates,
            variant,
            dims,
        )
    pairs = {
        "z_encoder.mean_encoder": "encoder.mean",
        "z_encoder.var_encoder": "encoder.log_var",
        "decoder.px_scale_decoder.0": "decoder.logits",
    }
    if variant.library == "latent":
        ours |= _block(theirs, "l_encoder.encoder.fc_layers.Layer 0", "library.mlp.blocks.0", 0, 0, variant, dims)
        pairs |= {"l_encoder.mean_encoder": "library.location", "l_encoder.var_encoder": "library.log_var"}
        for a, b in (("library_log_means", "library.prior_mean"), ("library_log_vars", "library.prior_var")):
            ours |= {b: theirs[a].squeeze(0)} if a in theirs else {}
    if variant.likelihood == "zinb":
        pairs["decoder.px_dropout_decoder"] = "likelihood.zero_logits"
    if variant.likelihood != "poisson" and variant.dispersion == "gene-cell":
        pairs["decoder.px_r_decoder"] = "likelihood.dispersion.head"
    elif variant.likelihood != "poisson":
        px_r = theirs["px_r"]  # genes, or genes x rows
        ours["likelihood.dispersion.log_theta"] = px_r[None] if px_r.ndim == 1 else px_r.T
    return ours | {f"{b}.{kind}": theirs[f"{a}.{kind}"] for a, b in pairs.items() for kind in ("weight", "bias")}


def _block(
    theirs: Mapping[str, torch.Tensor],
    a: str,
    b: str,
    layer: int,
    n_covariates: int,
    variant: Variant,
    dims: Dimensions,
) -> dict[str, torch.Tensor]:
    """One dense block: linear map and batch normalisation."""
    weight = theirs[f"{a}.0.weight"]
    n_covariates = n_covariates if layer == 0 or variant.inject_covariates else 0
    n_continuous = min(dims.n_continuous, n_covariates)
    n_one_hot = n_covariates - n_continuous
    n_in = weight.shape[1] - n_one_hot - (n_continuous if layer == 0 else 0)
    ours = {f"{b}.linear.weight": weight[:, :n_in], f"{b}.linear.bias": theirs[f"{a}.0.bias"]}
    if n_covariates:
        continuous = (
            weight[:, n_in : n_in + n_continuous] if layer == 0 else weight.new_zeros(len(weight), n_continuous)
        )
        one_hot = weight[:, weight.shape[1] - n_one_hot :]
        ours[f"{b}.linear.covariate_weight"] = torch.cat([one_hot, continuous], dim=1)
    kept = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return ours | {f"{b}.norm.{k}": theirs[f"{a}.1.{k}"] for k in kept if f"{a}.1.{k}" in theirs}


def our_model(theirs: Mapping[str, torch.Tensor], variant: Variant, dims: Dimensions) -> VAE:
    """Our model with their weights, in evaluation mode."""
    prior = [0.0] * dims.n_batches, [1.0] * dims.n_batches  # what is in the weights replaces it
    model = spec(variant, dims, *prior).build()
    model.load_state_dict(our_names(theirs, variant, dims))  # strict: every weight of ours is set
    return model.eval()


def ask(model: VAE, cells: Cells, z: torch.Tensor | None = None) -> Answers:
    """Our answers; `z` is the posterior mean unless given."""
    posterior = model.encode(cells)
    z = posterior.mean if z is None else z
    output, log_library = model.decode(z, cells), model.library.mean(cells)
    rho, log_theta = model.likelihood.proportions(output), model.likelihood.log_theta(output, cells)
    inflated = hasattr(model.likelihood, "zero_logits")
    return Answers(
        q_mean=posterior.mean,
        q_var=posterior.var,
        rho=rho,
        mu=log_library.exp()[:, None] * rho,
        theta=None if log_theta is None else log_theta.exp(),
        zero_logits=model.likelihood.zero_logits(output.hidden) if inflated else None,
        nll=model.likelihood.nll(output, log_library, cells),
        kl=model.prior.kl(posterior, z, cells),
        kl_library=model.library(cells).kl,
    )
