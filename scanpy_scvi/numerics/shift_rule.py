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
