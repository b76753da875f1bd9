"""Which shifts of perturbations count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ShiftRule(NamedTuple):
    """Which shifts are large enough to count."""

    min_shift: float
    """Delta, in standard deviations."""
    min_share: float
    """Rho, of the largest shift of the same perturbation."""
    min_errors: float
    """z, in standard errors."""

    def opens(self, shift: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
        """Whether |mu_kj| > max(delta, rho max_i |mu_ki|, z se_kj), (n_perturbations, n_latent)."""
        size = np.abs(shift)
        least = np.maximum(self.min_shift, self.min_share * size.max(1, keepdims=True, initial=0.0))
        opened: np.ndarray = size > np.maximum(least, self.min_errors * standard_error)
        return opened

    def price(self, n_cells: np.ndarray) -> np.ndarray:
        """Nats that a gate costs, max(n_k delta^2, z^2) / 2: what a shift of delta, or of z standard errors, brings."""
        price: np.ndarray = np.maximum(n_cells * self.min_shift**2, self.min_errors**2) / 2
        return price


def gate_probability(evidence: np.ndarray, price: np.ndarray, *, linear: bool = False) -> np.ndarray:
    """Probability q of an open gate that is best for what it brings, less its price.

    The largest value of evidence q + price log(1 - q) is at 1 - price / evidence, or at zero; with a `linear` price
    that of (evidence - price) q is at zero or one.
    """
    if linear:
        return (evidence > price).astype(np.float64)
    probability: np.ndarray = 1 - price / np.maximum(np.maximum(evidence, price), np.finfo(np.float64).tiny)
    return probability
