"""Networks of ours as networks of scvi-tools, wider where covariates must be carried through.

There, covariates enter no output layer, and continuous ones the first layer alone. Where ours have weights on them
further on, hidden units carry them there: a unit with weight one on a one-hot column is that column, since the
rectifier leaves a zero and a one as they are, and a continuous covariate c is max(c, 0) - max(-c, 0), two units. Batch
normalisation of these units is the identity. All hidden layers have one width there, so the rest is filled with units
that are zero.

Continuous covariates are standardised here and not there: (c - m) / s is folded into weights and bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from .names import Network, Tensors, n_one_hot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...modules.cells import Dimensions

NORM_EPS = 1e-3


class Scale(NamedTuple):
    """Means and standard deviations of the continuous covariates, float64."""

    mean: torch.Tensor
    sd: torch.Tensor


class Carried(NamedTuple):
    """Covariates that hidden units carry."""

    one_hot: torch.Tensor
    """Columns of the one-hot design, one unit each."""
    continuous: torch.Tensor
    """Columns of the continuous covariates, two units each."""

    @property
    def n_units(self) -> int:
        """Hidden units that it takes."""
        return len(self.one_hot) + 2 * len(self.continuous)

    def weights_on(self, covariate_weight: torch.Tensor | None, n_out: int, dims: Dimensions) -> torch.Tensor:
        """Weights of the carrying units that stand for weights on covariates, (n_out, n_units)."""
        if covariate_weight is None:
            return torch.zeros(n_out, self.n_units)
        continuous = covariate_weight[:, n_one_hot(dims) + self.continuous]
        return torch.cat([covariate_weight[:, self.one_hot], continuous, -continuous], dim=1)


def carried(ours: Mapping[str, torch.Tensor], network: Network, dims: Dimensions) -> Carried:
    """Find the covariates that have weights where scvi-tools has none."""
    split = n_one_hot(dims)
    of_heads = [w for head in network.heads.values() if (w := ours.get(f"{head}.covariate_weight")) is not None]
    deep = (ours.get(f"{network.ours}{i}.linear.covariate_weight") for i in range(1, network.n_layers))
    of_layers = [w for w in deep if w is not None]
    return Carried(_used([w[:, :split] for w in of_heads]), _used([w[:, split:] for w in of_heads + of_layers]))


def _used(weights: list[torch.Tensor]) -> torch.Tensor:
    """Columns with any weight that is not zero."""
    if not weights:
        return torch.zeros(0, dtype=torch.long)
    return (torch.cat(weights) != 0).any(0).nonzero().ravel()


def their_network(
    ours: Mapping[str, torch.Tensor],
    network: Network,
    dims: Dimensions,
    scale: Scale,
    *,
    width: int,
    inject_covariates: bool,
) -> Tensors:
    """Hidden layers and heads of one network, all `width` units wide, under the names of scvi-tools."""
    units = carried(ours, network, dims)
    theirs: Tensors = {}
    for i in range(network.n_layers):
        weight, bias = (
            _first_layer(ours, network, dims, scale, units)
            if i == 0
            else _deep_layer(ours, network, i, dims, units, width, inject_covariates=inject_covariates)
        )
        name = f"{network.theirs}{i}"
        theirs |= {f"{name}.0.weight": _tall(weight, width).float(), f"{name}.0.bias": _tall(bias, width).float()}
        if network.norm == "batch":
            theirs |= _norm(ours, f"{network.ours}{i}.norm", f"{name}.1", width)
    for a, b in network.heads.items():
        weight = ours[f"{b}.weight"]
        on_units = units.weights_on(ours.get(f"{b}.covariate_weight"), len(weight), dims)
        rest = weight.new_zeros(len(weight), width - weight.shape[1] - units.n_units)
        theirs |= {f"{a}.weight": torch.cat([weight, on_units, rest], dim=1), f"{a}.bias": ours[f"{b}.bias"]}
    return theirs


def _first_layer(
    ours: Mapping[str, torch.Tensor], network: Network, dims: Dimensions, scale: Scale, units: Carried
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight on [features, continuous, one-hot] and bias, with the carrying units below."""
    weight, bias, on_covariates = _linear(ours, f"{network.ours}0.linear", dims, enters=network.takes_covariates)
    split = n_one_hot(dims) if network.takes_covariates else 0
    one_hot, continuous = on_covariates[:, :split], on_covariates[:, split:]
    eye, eye_c = torch.eye(split, dtype=bias.dtype), torch.eye(continuous.shape[1], dtype=bias.dtype)
    if units.n_units:
        signed = torch.cat([eye_c[units.continuous], -eye_c[units.continuous]])
        one_hot = torch.cat([one_hot, eye[units.one_hot], eye.new_zeros(len(signed), split)])
        continuous = torch.cat([continuous, eye_c.new_zeros(len(units.one_hot), len(eye_c)), signed])
    if continuous.shape[1]:
        continuous = continuous / scale.sd
    bias = _tall(bias, len(one_hot)) - (continuous @ scale.mean if continuous.shape[1] else 0)
    return torch.cat([_tall(weight, len(one_hot)), continuous, one_hot], dim=1), bias


def _deep_layer(
    ours: Mapping[str, torch.Tensor],
    network: Network,
    layer: int,
    dims: Dimensions,
    units: Carried,
    width: int,
    *,
    inject_covariates: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight on [hidden units, one-hot] and bias, with the carrying units below."""
    enters = network.takes_covariates and inject_covariates
    weight, bias, on_covariates = _linear(ours, f"{network.ours}{layer}.linear", dims, enters=enters)
    n_hidden, n_units = weight.shape[1], units.n_units
    on_units = units.weights_on(on_covariates, len(weight), dims).to(weight.dtype) if enters else None
    hidden = weight.new_zeros(len(weight) + n_units, width)
    hidden[: len(weight), :n_hidden] = weight
    if on_units is not None:
        on_units[:, : len(units.one_hot)] = 0  # one-hot columns enter here by themselves
        hidden[: len(weight), n_hidden : n_hidden + n_units] = on_units
    hidden[len(weight) :, n_hidden : n_hidden + n_units] = torch.eye(n_units, dtype=weight.dtype)
    one_hot = on_covariates[:, : n_one_hot(dims) if enters else 0]
    return torch.cat([hidden, _tall(one_hot, len(hidden))], dim=1), _tall(bias, len(hidden))


def _linear(
    ours: Mapping[str, torch.Tensor], name: str, dims: Dimensions, *, enters: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, bias and weight on covariates of a linear map in float64; zeros where no covariates enter ours."""
    weight, bias = ours[f"{name}.weight"].double(), ours[f"{name}.bias"].double()
    none = weight.new_zeros(len(weight), dims.n_covariates if enters else 0)
    return weight, bias, ours.get(f"{name}.covariate_weight", none).double()


def _tall(values: torch.Tensor, height: int, fill: float = 0.0) -> torch.Tensor:
    """Fill up with further rows."""
    return torch.cat([values, values.new_full((height - len(values), *values.shape[1:]), fill)])


def _norm(ours: Mapping[str, torch.Tensor], a: str, b: str, width: int) -> Tensors:
    """Batch normalisation, which leaves the further units as they are."""
    fills = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - NORM_EPS}
    theirs = {f"{b}.{kind}": _tall(ours[f"{a}.{kind}"], width, fill) for kind, fill in fills.items()}
    return theirs | {f"{b}.num_batches_tracked": ours[f"{a}.num_batches_tracked"]}
