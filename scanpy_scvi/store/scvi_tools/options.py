"""The options of `scvi.model.SCVI`, and the same model of our parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ...modules.spec import ModelSpec, Part
from .pickled import Name
from .values import as_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...modules.cells import Dimensions
    from ...modules.mlp import Norm

Where = Literal["encoder", "decoder", "both", "none"]
NORM_MOMENTUM = 0.01
CHOICES: dict[str, tuple[Any, ...]] = {
    "dispersion": ("gene", "gene-batch", "gene-label", "gene-cell"),
    "gene_likelihood": ("zinb", "nb", "poisson"),
    "use_batch_norm": ("encoder", "decoder", "both", "none"),
    "use_layer_norm": ("encoder", "decoder", "both", "none"),
}
FIXED: dict[str, tuple[Any, str]] = {
    "latent_distribution": ("normal", "z is transformed by a softmax, for which there is no part here"),
    "log_variational": (True, "the encoder here takes log(1 + x)"),
    "batch_representation": ("one-hot", "batches enter as one-hot columns here, not as embeddings"),
    "var_activation": (None, "the posterior's variance is an exponential here"),
    "extra_encoder_kwargs": (None, "encoders are built in one way here"),
    "extra_decoder_kwargs": (None, "decoders are built in one way here"),
}
"""Options that must have one value, and why."""
WITHOUT_EFFECT = ("batch_embedding_kwargs", "extra_payload_autotune")


@dataclass(frozen=True)
class Options:
    """Options that shape the model, under the names and with the defaults of scvi-tools 1.4."""

    n_hidden: int = 128
    n_latent: int = 10
    n_layers: int = 1
    dropout_rate: float = 0.1
    dispersion: str = "gene"
    gene_likelihood: str = "zinb"
    use_observed_lib_size: bool = True
    encode_covariates: bool = False
    deeply_inject_covariates: bool = True
    use_batch_norm: Where = "both"
    use_layer_norm: Where = "none"

    def norm(self, network: Literal["encoder", "decoder"]) -> Norm:
        """Normalisation of one of the two networks."""
        if self.use_batch_norm in (network, "both"):
            return "batch"
        return "layer" if self.use_layer_norm in (network, "both") else "none"


NAMED = ("n_hidden", "n_latent", "n_layers", "dropout_rate", "dispersion", "gene_likelihood", "use_observed_lib_size")
"""Those that `SCVI` names; it passes the others on."""


def init_params(options: Options) -> dict[str, dict[str, Any]]:
    """Arguments of `SCVI` as a file holds them."""
    given = asdict(options)
    named = {name: given.pop(name) for name in NAMED}
    return {"kwargs": {"kwargs": given}, "non_kwargs": {**named, "latent_distribution": "normal"}}


def read_options(stored: Any) -> Options:
    """Options from the arguments of `SCVI` that a file holds.

    Raises
    ------
    ValueError
        For an option that our parts cannot express, with the reason.
    """
    stored = as_mapping(stored, "init_params_")
    if "non_kwargs" not in stored:
        msg = "it was saved by scvi-tools older than 0.15: open and save it with scvi-tools 1.x first"
        raise ValueError(msg)
    given = dict(as_mapping(stored["non_kwargs"], "init_params_"))
    for group in as_mapping(stored.get("kwargs", {}), "init_params_").values():
        given |= as_mapping(group, "init_params_")
    for name, (value, reason) in FIXED.items():
        found = given.pop(name, value)
        if found != value and found != {}:
            msg = f"its option {name}={_shown(found)} cannot be expressed ({reason})"
            raise ValueError(msg)
    known = {field.name: type(field.default) for field in fields(Options)}
    for name, value in list(given.items()):
        if name in WITHOUT_EFFECT or (name not in known and value is None):
            del given[name]
        elif name not in known:
            msg = f"its option {name[:40]!r} is not known"
            raise ValueError(msg)
        else:
            _check(name, value, known[name])
    options = Options(**given)
    _check_norms(options)
    return options


def _check(name: str, value: Any, kind: type) -> None:
    kinds = (int, float) if kind is float else (kind,)
    good = type(value) in kinds
    if kind in (int, float):
        good = good and (value >= 1 if kind is int else 0 <= value < 1)
    if not good or value not in CHOICES.get(name, (value,)):
        among = f" (one of {', '.join(map(repr, CHOICES[name]))} can be read)" if name in CHOICES else ""
        msg = f"its option {name}={_shown(value)} cannot be read{among}"
        raise ValueError(msg)


def _check_norms(options: Options) -> None:
    for network in ("encoder", "decoder"):
        if options.use_batch_norm in (network, "both") and options.use_layer_norm in (network, "both"):
            msg = f"its {network} has batch and layer normalisation, but networks here have one of them"
            raise ValueError(msg)


def _shown(value: Any) -> str:
    """Short form of a value from a file."""
    if isinstance(value, (str, int, float, bool, Name)):
        return str(value)[:60]
    return f"<{type(value).__name__}>"


def model_spec(
    options: Options, dims: Dimensions, prior_mean: Sequence[float] = (), prior_var: Sequence[float] = ()
) -> ModelSpec:
    """Specify the same model with our parts; the priors are those of a latent library, one number for each batch."""
    shared = {"n_hidden": options.n_hidden, "norm_momentum": NORM_MOMENTUM}
    network = {
        **shared,
        "n_layers": options.n_layers,
        "n_latent": options.n_latent,
        "inject_covariates": options.deeply_inject_covariates,
    }
    seen = {
        "norm": options.norm("encoder"),
        "dropout_rate": options.dropout_rate,
        "encode_covariates": options.encode_covariates,
    }
    library = Part("observed")
    if not options.use_observed_lib_size:
        prior = {"prior_mean": list(prior_mean), "prior_var": list(prior_var)}
        library = Part("latent", {**shared, **seen, **prior})
    poisson = options.gene_likelihood == "poisson"
    return ModelSpec(
        dims=dims,
        encoder=Part("mlp", {**network, **seen}),
        library=library,
        decoder=Part("mlp", {**network, "norm": options.norm("decoder")}),
        likelihood=Part(options.gene_likelihood, {} if poisson else {"dispersion": options.dispersion}),
        prior=Part("normal"),
    )
