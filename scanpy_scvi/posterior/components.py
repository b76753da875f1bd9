"""Components of a mixture prior, and which cells they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ..modules.priors import GaussianMixture

if TYPE_CHECKING:
    import numpy as np

    from ..modules.vae import VAE

CHUNK = 8192


class Components(NamedTuple):
    """What a mixture prior is made of; float32."""

    weights: np.ndarray
    """(n_components,)."""
    means: np.ndarray
    """(n_components, n_latent)."""
    sds: np.ndarray
    responsibilities: np.ndarray
    """p(component | z) at the cells' z, (n_cells, n_components)."""

    def parameters(self) -> dict[str, np.ndarray]:
        """Weights, means and standard deviations."""
        return {"weights": self.weights, "means": self.means, "sds": self.sds}


@torch.no_grad()
def components_at(model: VAE, z: np.ndarray) -> Components | None:
    """Components of the prior and their responsibilities for cells at `z`, on the CPU; None for other priors."""
    prior = model.prior
    if not isinstance(prior, GaussianMixture):
        return None
    parts = [prior.responsibilities(torch.from_numpy(z[i : i + CHUNK])) for i in range(0, len(z), CHUNK)]
    weights, means, sds = prior.logits.softmax(0), prior.means, prior.log_sd.exp()
    return Components(*(t.detach().numpy().copy() for t in (weights, means, sds, torch.cat(parts))))
