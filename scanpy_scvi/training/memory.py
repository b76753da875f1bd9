"""The weights of a model as a few flat vectors, so that a step of the optimiser is a few calls."""

from __future__ import annotations

import torch
from torch import nn

from ..modules.part import ModelPart

WIDE = 2**15
"""Weights from which a parameter is a vector of its own; smaller ones share one."""


class Block:
    """Parameters that share one flat vector of memory."""

    def __init__(self, parameters: list[nn.Parameter], *, fine: bool = False) -> None:
        self.parameters = parameters
        self.fine = fine
        """Whether gradients are so small that steps must not be damped."""
        self.weights = _flat(parameters[0]) if len(parameters) == 1 else _packed(parameters)
        """All weights, 1-D; the parameters are views of it."""

    def gradient(self) -> torch.Tensor:
        """Gradient of all weights, 1-D, zero where a parameter had none."""
        flat = [_gradient(p) for p in self.parameters]
        return flat[0] if len(flat) == 1 else torch.cat(flat)


def blocks(model: nn.Module, *, without: nn.Parameter | None = None) -> list[Block]:
    """Split the parameters of a model: each wide one alone, the others in memory that they share, fine ones apart."""
    fine = [p for part in model.modules() if isinstance(part, ModelPart) for p in part.fine_parameters()]
    fine = [p for p in fine if p.requires_grad]
    apart = {id(p) for p in [*fine, *([] if without is None else [without])]}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    wide = [[p] for p in parameters if p.numel() >= WIDE]
    small = [p for p in parameters if p.numel() < WIDE]
    shared = [Block(group) for group in [*wide, *([small] if small else [])]]
    return shared + ([Block(fine, fine=True)] if fine else [])


def unpack(parts: list[Block]) -> None:
    """Give every parameter its own memory again."""
    for block in parts:
        for parameter in block.parameters:
            parameter.data = parameter.data.clone()


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Gradient as 1-D, in the memory order of its parameter."""
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(_flat(parameter))
    if parameter.is_contiguous():
        return gradient.reshape(-1)
    if parameter.dim() == 2 and parameter.T.is_contiguous():
        return gradient.T.reshape(-1)
    return _flat(torch.empty_like(parameter, requires_grad=False).copy_(gradient))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """View a dense tensor as 1-D, in the order of its memory."""
    tensor = tensor.detach()
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _packed(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Move parameters into one vector, each in its memory order."""
    vector = torch.cat([_flat(p) for p in parameters])
    start = 0
    for p in parameters:
        p.data = vector.as_strided(p.shape, p.stride(), start)
        start += p.numel()
    return vector
