"""Weights of scvi-tools under our names.

Its linear maps take [features, continuous covariates, one-hot covariates] side by side, the continuous ones in the
first layer alone. Ours keep the columns of covariates apart, one-hot ones first, in every layer that they enter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...modules.cells import Dimensions
    from .options import Options

Tensors = dict[str, torch.Tensor]
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Network(NamedTuple):
    """One network on both sides."""

    theirs: str
    """Prefix of its blocks in scvi-tools, to be followed by a number."""
    ours: str
    n_in: int
    n_layers: int
    norm: str
    takes_covariates: bool
    heads: Mapping[str, str]
    """Linear maps of its last hidden layer: their name and ours."""


def networks(options: Options, dims: Dimensions) -> tuple[Network, Network, Network]:
    """Encoder of z, encoder of the library, decoder; those that a model has no use for are in its file all the same."""
    norm, seen, n_layers = options.norm("encoder"), options.encode_covariates, options.n_layers
    of_z = {"z_encoder.mean_encoder": "encoder.mean", "z_encoder.var_encoder": "encoder.log_var"}
    of_library = {"l_encoder.mean_encoder": "library.location", "l_encoder.var_encoder": "library.log_var"}
    of_genes = {
        "decoder.px_scale_decoder.0": "decoder.logits",
        "decoder.px_r_decoder": "likelihood.dispersion.head",
        "decoder.px_dropout_decoder": "likelihood.zero_logits",
    }
    n_latent, of_decoder = options.n_latent, options.norm("decoder")
    prefixes = "z_encoder.encoder", "l_encoder.encoder", "decoder.px_decoder"
    z, library, decoder = (f"{prefix}.fc_layers.Layer " for prefix in prefixes)
    return (
        Network(z, "encoder.mlp.blocks.", dims.n_genes, n_layers, norm, seen, of_z),
        Network(library, "library.mlp.blocks.", dims.n_genes, 1, norm, seen, of_library),
        Network(decoder, "decoder.mlp.blocks.", n_latent, n_layers, of_decoder, takes_covariates=True, heads=of_genes),
    )


def n_one_hot(dims: Dimensions) -> int:
    """One-hot columns of the design."""
    return dims.n_covariates - dims.n_continuous


def shapes(options: Options, dims: Dimensions) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that a file of such a model holds."""
    width = options.n_hidden
    found: dict[str, tuple[int, ...]] = {}
    for network in networks(options, dims):
        for i in range(network.n_layers):
            columns = width if i else network.n_in
            if network.takes_covariates:
                columns += n_one_hot(dims) * (i == 0 or options.deeply_inject_covariates)
                columns += dims.n_continuous * (i == 0)
            block = f"{network.theirs}{i}"
            found |= {f"{block}.0.weight": (width, columns), f"{block}.0.bias": (width,)}
            if network.norm == "batch":
                found |= {f"{block}.1.{k}": () if k == "num_batches_tracked" else (width,) for k in NORM}
        for head in network.heads:
            of_library, of_z = head.startswith("l_"), head.startswith("z_")
            n_out = 1 if of_library else options.n_latent if of_z else dims.n_genes
            found |= {f"{head}.weight": (n_out, width), f"{head}.bias": (n_out,)}
    rows = {"gene": (), "gene-batch": (dims.n_batches,), "gene-label": (dims.n_labels,)}
    if options.dispersion in rows:
        found["px_r"] = (dims.n_genes, *rows[options.dispersion])
    if not options.use_observed_lib_size:
        found |= {"library_log_means": (1, dims.n_batches), "library_log_vars": (1, dims.n_batches)}
    return found


def used_networks(options: Options, dims: Dimensions) -> list[Network]:
    """Networks that the model has a use for, with the heads that it has a use for."""
    unused = {"decoder.px_dropout_decoder"} if options.gene_likelihood != "zinb" else set()
    if options.dispersion != "gene-cell" or options.gene_likelihood == "poisson":
        unused.add("decoder.px_r_decoder")
    found = [n for n in networks(options, dims) if not (n.theirs.startswith("l_") and options.use_observed_lib_size)]
    return [n._replace(heads={a: b for a, b in n.heads.items() if a not in unused}) for n in found]


def our_names(theirs: Mapping[str, torch.Tensor], options: Options, dims: Dimensions) -> Tensors:
    """Weights (or their gradients) of scvi-tools under our names; heads without use are left out."""
    ours: Tensors = {}
    for network in used_networks(options, dims):
        for i in range(network.n_layers):
            ours |= _block(theirs, network, i, options, dims)
        for a, b in network.heads.items():
            ours |= {f"{b}.{kind}": theirs[f"{a}.{kind}"] for kind in ("weight", "bias")}
    if options.gene_likelihood != "poisson" and options.dispersion != "gene-cell":
        px_r = theirs["px_r"]  # genes, or genes x rows
        ours["likelihood.dispersion.log_theta"] = px_r[None] if px_r.ndim == 1 else px_r.T
    for a, b in (("library_log_means", "library.prior_mean"), ("library_log_vars", "library.prior_var")):
        ours |= {b: theirs[a].squeeze(0)} if a in theirs and not options.use_observed_lib_size else {}
    return ours


def _block(
    theirs: Mapping[str, torch.Tensor], network: Network, layer: int, options: Options, dims: Dimensions
) -> Tensors:
    """One dense block: linear map and normalisation."""
    a, b = f"{network.theirs}{layer}", f"{network.ours}{layer}"
    weight = theirs[f"{a}.0.weight"]
    enters = network.takes_covariates and (layer == 0 or options.deeply_inject_covariates)
    n_categories = n_one_hot(dims) if enters else 0
    n_continuous = dims.n_continuous if enters else 0
    n_features = weight.shape[1] - n_categories - (n_continuous if layer == 0 else 0)
    ours = {f"{b}.linear.weight": weight[:, :n_features], f"{b}.linear.bias": theirs[f"{a}.0.bias"]}
    if n_categories + n_continuous:
        one_hot = weight[:, weight.shape[1] - n_categories :]
        continuous = weight[:, n_features : n_features + n_continuous]
        if layer:
            continuous = weight.new_zeros(len(weight), n_continuous)
        ours[f"{b}.linear.covariate_weight"] = torch.cat([one_hot, continuous], dim=1)
    return ours | {f"{b}.norm.{k}": theirs[f"{a}.1.{k}"] for k in NORM if f"{a}.1.{k}" in theirs}
