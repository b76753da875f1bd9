"""Options of simulated perturbations, and the two sets of them that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

Protocol = Literal["reference", "corrected"]
SoftmaxOver = Literal["cells", "genes"]
GENE_TOTAL = 1e6
"""Expected total of a gene in the reference protocol."""


@dataclass(frozen=True)
class Options:
    """What :func:`scanpy_scvi.datasets.simulate_perturbations` is asked for; its docstring says what each means."""

    softmax_over: SoftmaxOver
    replace_targets: bool
    theta: float | tuple[float, float]
    depth: float | None  # None: GENE_TOTAL counts of each gene, which only a softmax over cells can give
    depth_sd: float
    control_fraction: float
    escaping_fraction: float
    n_batches: int
    batch_effect: float
    confounded_fraction: float
    latent_correlation: float
    unequal_cells: float


REFERENCE = Options(
    softmax_over="cells",
    replace_targets=True,
    theta=np.inf,
    depth=None,
    depth_sd=0.0,
    control_fraction=0.0,
    escaping_fraction=0.0,
    n_batches=1,
    batch_effect=0.0,
    confounded_fraction=0.0,
    latent_correlation=0.0,
    unequal_cells=0.0,
)
CORRECTED = Options(
    softmax_over="genes",
    replace_targets=False,
    theta=(2.0, 10.0),
    depth=4000.0,
    depth_sd=0.4,
    control_fraction=0.2,
    escaping_fraction=0.1,
    n_batches=2,
    batch_effect=0.3,
    confounded_fraction=0.2,
    latent_correlation=0.3,
    unequal_cells=0.5,
)
LIMITS = {
    "depth": (10, 1e9),
    "depth_sd": (0, 1),
    "control_fraction": (0, 0.99),
    "escaping_fraction": (0, 1),
    "batch_effect": (0, 10),
    "confounded_fraction": (0, 1),
    "latent_correlation": (0, 0.99),
    "unequal_cells": (0, 2),
}


def read_options(protocol: Protocol, **given: Any) -> Options:
    """Options of a protocol, with those that are given (not None) in their place."""
    check_choice(protocol, get_args(Protocol), "protocol")
    base = REFERENCE if protocol == "reference" else CORRECTED
    options = replace(base, **{name: value for name, value in given.items() if value is not None})
    check_choice(options.softmax_over, get_args(SoftmaxOver), "softmax_over")
    check_choice(options.replace_targets, (True, False), "replace_targets")
    if options.softmax_over == "genes" and options.depth is None:
        options = replace(options, depth=CORRECTED.depth)
    for name, (low, high) in LIMITS.items():
        if getattr(options, name) is not None:
            check_number(getattr(options, name), low, high, name)
    check_number(options.n_batches, 1, np.inf, "n_batches", whole=True)
    _check_theta(options.theta)
    return options


def _check_theta(theta: float | tuple[float, float]) -> None:
    limits = tuple(theta) if isinstance(theta, Sequence) else (theta, theta)
    if len(limits) != 2 or not all(_is_number(t) and t >= 0.01 for t in limits) or limits[0] > limits[1]:
        msg = f"`theta` is {theta!r}, but a number of at least 0.01 (np.inf: Poisson) or (low, high) was expected."
        raise ValueError(msg)
    if limits[0] < limits[1] == np.inf:
        msg = f"`theta` is {theta!r}: genes are drawn evenly between the two, which must be finite."
        raise ValueError(msg)


def check_choice(value: Any, choices: tuple[Any, ...], name: str) -> None:
    """Raise a ValueError that lists the choices."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        msg = f"`{name}` is {value!r}, but one of {', '.join(map(repr, choices))} was expected."
        raise ValueError(msg)


def check_number(value: Any, low: float, high: float, name: str, *, whole: bool = False) -> None:
    """Raise a ValueError unless low <= value <= high, and finite."""
    if not _is_number(value) or np.isinf(value) or not low <= value <= high or (whole and value != int(value)):
        limits = f"of at least {low:g}" if np.isinf(high) else f"from {low:g} to {high:g}"
        msg = f"`{name}` is {value!r}, but a {'whole ' if whole else ''}number {limits} was expected."
        raise ValueError(msg)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
