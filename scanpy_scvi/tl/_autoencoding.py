"""The specification of autoencoders: what `tl.dca` and `tl.autoencoder` have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..modules.likelihoods import COUNT_LIKELIHOODS
from ..modules.spec import ModelSpec, Part
from ._assemble import check_number, model_spec

if TYPE_CHECKING:
    from ..store.read import Data
    from ._assemble import Architecture

AE_LIKELIHOODS = (*COUNT_LIKELIHOODS, "gaussian", "mse")
"""Counts; and log-normalised counts, with a variance for each gene, or with one for all."""


@dataclass(frozen=True)
class Autoencoding:
    """What makes an autoencoder of a network."""

    target_sum: float | None
    """Total that counts are brought to before their logarithm is taken; None for the median total."""
    corruption: float
    l2: float
    variational: bool = False
    noise_sd: float | None = None
    """Standard deviation of log-normalised counts where it is given; None where it is learned."""

    def check(self) -> None:
        """Raise a ValueError for what cannot be used."""
        if self.target_sum is not None:
            check_number(self.target_sum, 1e-6, np.inf, "target_sum")
        check_number(self.corruption, 0, 0.95, "corruption")
        check_number(self.l2, 0, np.inf, "l2")

    def total(self, data: Data) -> float:
        """Total that the counts of these cells are brought to."""
        return float(np.exp(np.median(data.table.log_total))) if self.target_sum is None else float(self.target_sum)

    @property
    def loadings_sd(self) -> float | None:
        """Standard deviation of the normal prior that the price of a linear decoder's weights comes to."""
        return 1 / math.sqrt(self.l2) if self.l2 else None


def autoencoder_spec(options: Architecture, how: Autoencoding, data: Data, library: Part) -> ModelSpec:
    """Build the specification; without hidden layers, both ways are linear."""
    total = how.total(data)
    reading: dict[str, Any] = {
        "deterministic": not how.variational,
        "input_total": total,
        "corruption": float(how.corruption),
        "l2": float(how.l2),
    }
    counts = options.likelihood in COUNT_LIKELIHOODS
    spec = model_spec(options if counts else replace(options, likelihood="nb"), data.dims, library)
    if options.n_layers:
        encoder = Part("mlp", {**spec.encoder.options, **reading})
        decoder = Part("mlp", {**spec.decoder.options, "l2": float(how.l2)})
    else:
        linear = {"n_latent": options.n_latent, "encode_covariates": options.encode_covariates}
        encoder = Part("linear", {**linear, **reading})
        decoder = Part("linear", {"n_latent": options.n_latent, "loadings_sd": how.loadings_sd})
    noise: dict[str, Any] = {"noise": "shared" if options.likelihood == "mse" else "gene"}
    if how.noise_sd is not None:
        noise = {"sd": float(how.noise_sd)}
    return replace(
        spec,
        encoder=encoder,
        decoder=decoder,
        likelihood=spec.likelihood if counts else Part("gaussian", {"total": total, **noise}),
        prior=Part("normal" if how.variational else "flat"),
    )
