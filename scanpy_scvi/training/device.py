"""Which device to compute on."""

from __future__ import annotations

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """`auto`: CUDA where there is one, else the CPU. Anything else is passed to torch.

    Apple's `mps` is used only when asked for.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        msg = f"`device` is {device!r}, but torch cannot use it here ({error}). Pass 'auto', 'cpu', 'cuda' or 'mps'."
        raise ValueError(msg) from error
    return resolved
