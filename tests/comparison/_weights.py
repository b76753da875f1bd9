"""A fitted scvi-tools model under our names: its options, its weights, and what both sides say of the same cells.

Nothing here imports scvi-tools: the committed fixture is checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from scanpy_scvi.store.scvi_tools.names import our_names
from scanpy_scvi.store.scvi_tools.options import Options, model_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from scanpy_scvi.modules import VAE, Cells, Dimensions


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


def options(variant: Variant) -> Options:
    """Return the same options in the words of scvi-tools."""
    return Options(
        n_hidden=variant.n_hidden,
        n_latent=variant.n_latent,
        n_layers=variant.n_layers,
        dropout_rate=variant.dropout_rate,
        dispersion=variant.dispersion,
        gene_likelihood=variant.likelihood,
        use_observed_lib_size=variant.library == "observed",
        encode_covariates=variant.encode_covariates,
        deeply_inject_covariates=variant.inject_covariates,
        use_batch_norm="both" if variant.norm == "batch" else "none",
        use_layer_norm="both" if variant.norm == "layer" else "none",
    )


def our_model(theirs: Mapping[str, torch.Tensor], variant: Variant, dims: Dimensions) -> VAE:
    """Our model with their weights, in evaluation mode."""
    prior = [0.0] * dims.n_batches, [1.0] * dims.n_batches  # what is in the weights replaces it
    model = model_spec(options(variant), dims, *prior).build()
    model.load_state_dict(our_names(theirs, options(variant), dims))  # strict: every weight of ours is set
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
