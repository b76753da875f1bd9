"""A fit of ours -> the files that `scvi.model.SCVI.load` opens."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch

from ...modules.likelihoods import COUNT_LIKELIHOODS
from .names import Tensors, shapes, used_networks
from .options import Options, init_params
from .widen import Scale, carried, their_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ...modules.spec import ModelSpec
    from ..load import Fitted
    from .options import Where


def options_of(spec: ModelSpec) -> Options:
    """Return the options of scvi-tools for a model of ours, before it is widened.

    Raises
    ------
    ValueError
        For a model that scvi-tools cannot express, with the reason.
    """
    encoder, decoder = spec.encoder.options, spec.decoder.options
    names = {role: getattr(spec, role).name for role in ("encoder", "library", "decoder", "likelihood", "prior")}
    expected = {"encoder": "mlp", "decoder": "mlp", "prior": "normal"}
    for role, name in expected.items():
        if names[role] != name:
            raise ValueError(_cannot(f"its {role} is {names[role]!r}, and that of `SCVI` is {name!r}"))
    if names["likelihood"] not in COUNT_LIKELIHOODS:
        raise ValueError(_cannot(f"its likelihood is {names['likelihood']!r}, of log-normalised counts"))
    if encoder.get("deterministic") or encoder.get("input_total") is not None:
        raise ValueError(_cannot("its encoder gives points, or reads normalised counts, and that of `SCVI` does not"))
    if names["library"] == "size_factor":
        reason = "with size factors, the decoder of scvi-tools ends in a softplus, and that of the fit in a softmax"
        raise ValueError(_cannot(reason))
    if encoder["n_layers"] != decoder["n_layers"]:
        raise ValueError(_cannot("its encoder and decoder have different numbers of layers"))
    if names["library"] == "latent" and spec.library.options["norm"] != encoder["norm"]:
        raise ValueError(_cannot("the encoder of its library is normalised in another way than that of z"))
    return Options(
        n_hidden=max(encoder["n_hidden"], decoder["n_hidden"], spec.library.options.get("n_hidden", 1)),
        n_latent=encoder["n_latent"],
        n_layers=encoder["n_layers"],
        dropout_rate=float(encoder["dropout_rate"]),
        dispersion=spec.likelihood.options.get("dispersion", "gene"),
        gene_likelihood=names["likelihood"],
        use_observed_lib_size=names["library"] == "observed",
        encode_covariates=bool(encoder.get("encode_covariates") or spec.library.options.get("encode_covariates")),
        deeply_inject_covariates=any(part.get("inject_covariates", True) for part in (encoder, decoder)),
        use_batch_norm=_where(encoder["norm"] == "batch", decoder["norm"] == "batch"),
        use_layer_norm=_where(encoder["norm"] == "layer", decoder["norm"] == "layer"),
    )


def _where(encoder: bool, decoder: bool) -> Where:  # noqa: FBT001
    named = {(True, True): "both", (True, False): "encoder", (False, True): "decoder", (False, False): "none"}
    return cast("Where", named[encoder, decoder])


def _cannot(reason: str) -> str:
    return f"The fit cannot be written for scvi-tools: {reason}."


def their_state(fitted: Fitted) -> tuple[Options, Tensors]:
    """Options and weights of the same model in scvi-tools; parts that it has no use for are zero."""
    spec, dims = fitted.spec, fitted.spec.dims
    ours = {name: tensor.detach().cpu().float() for name, tensor in fitted.model.state_dict().items()}
    if torch.any(ours.pop("encoder.log_input_scale", torch.zeros(1))):
        reason = (
            "it encodes cells of a new batch at the depth of the reference, and the encoder of scvi-tools reads counts "
            "as they are. Write the reference's model instead"
        )
        raise ValueError(_cannot(reason))
    options = options_of(spec)
    used = used_networks(options, dims)
    widths = [len(ours[f"{n.ours}0.linear.bias"]) + carried(ours, n, dims).n_units for n in used]
    width = max(widths)
    for network in used:
        if network.norm == "layer" and width > len(ours[f"{network.ours}0.linear.bias"]):
            reason = (
                "covariates that enter its output layer, or continuous ones that enter later layers, need further "
                "hidden units there, which layer normalisation would mix with the others. Fit with `norm='batch'` or "
                "`inject_covariates=False`"
            )
            raise ValueError(_cannot(reason))
    options = replace(options, n_hidden=width)
    means = fitted.categories.continuous_mean, fitted.categories.continuous_sd
    scale = Scale(*(torch.tensor(values, dtype=torch.float64) for values in means))
    theirs: Tensors = {}
    for network in used:
        inject = options.deeply_inject_covariates
        theirs |= their_network(ours, network, dims, scale, width=width, inject_covariates=inject)
    if "likelihood.dispersion.log_theta" in ours:
        log_theta = ours["likelihood.dispersion.log_theta"]
        theirs["px_r"] = log_theta[0] if options.dispersion == "gene" else log_theta.T
    if not options.use_observed_lib_size:
        theirs["library_log_means"] = ours["library.prior_mean"][None]
        theirs["library_log_vars"] = ours["library.prior_var"][None]
    return options, _complete(theirs, shapes(options, dims))


def _complete(theirs: Tensors, expected: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Put the tensors in order, and zeros (ones for variances) where the model has no use for them."""
    found: Tensors = OrderedDict()
    for name, shape in expected.items():
        blank = torch.ones if name.endswith("running_var") else torch.zeros
        tensor = theirs.get(name, blank(shape))
        counts = name.endswith("num_batches_tracked")
        found[name] = tensor.long() if counts else tensor.float().contiguous().clone()
        assert tuple(tensor.shape) == shape, name
    return found


def model_content(fitted: Fitted, attributes: Mapping[str, Any], var_names: Any) -> dict[str, Any]:
    """What is pickled: plain containers, text, numbers, NumPy arrays and tensors."""
    options, state = their_state(fitted)
    weights: dict[str, Any] = OrderedDict(state)
    weights["pyro_param_store"] = {"params": {}, "constraints": {}}
    return {
        "model_state_dict": weights,
        "var_names": var_names,
        "attr_dict": {**attributes, "init_params_": init_params(options)},
    }


def save(folder: Path, files: Mapping[str, ad.AnnData | dict[str, Any]]) -> None:
    """Write AnnDatas and pickles by file name, all or none of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as aside:
        for name, content in files.items():
            if isinstance(content, dict):
                torch.save(content, Path(aside) / name)
            else:
                content.write_h5ad(Path(aside) / name)
        for name in files:
            (Path(aside) / name).replace(folder / name)
