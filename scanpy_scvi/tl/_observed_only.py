"""The specification of autoencoders that are scored where there are counts, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..modules.spec import ModelSpec, Part
from ._assemble import architecture_of, check_against_data, model_spec
from ._autoencoding import Autoencoding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..store.read import Data

FIXED = {
    "likelihood": "nb",  # stands for none: it is replaced
    "dispersion": "gene",
    "library": "observed",
    "n_hidden": 1,
    "n_layers": 1,
    "dropout_rate": 0.0,
    "norm": "none",
    "inject_covariates": True,
}
SD = math.sqrt(0.5)
"""With this the negative log density is the squared error, up to a constant."""


def observed_only(given: Mapping[str, Any], n_steps: int, reading: Mapping[str, Any]) -> Callable[[Data], ModelSpec]:
    """Check the options of a call; return what makes the model for the data: codes, a linear map, and squared errors.

    Parameters
    ----------
    given
        Options of the call, with `target_sum`, `l2` and `encode_covariates`; `n_latent` are the codes of a step.
    n_steps
        Steps; the latent state is the codes of all.
    reading
        Options of the encoder.
    """
    architecture = architecture_of({**given, **FIXED})
    n_latent = n_steps * int(architecture.n_latent)
    how = Autoencoding(given["target_sum"], corruption=0.0, l2=given["l2"])
    how.check()

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, given["batch_key"], None)
        total = how.total(data)
        encoder = {"n_latent": n_latent, "input_total": total, "l2": float(how.l2), **reading}
        encoder["encode_covariates"] = bool(given["encode_covariates"])
        return replace(
            model_spec(architecture, data.dims, Part("observed")),
            encoder=Part("recurrent", encoder),
            decoder=Part("linear", {"n_latent": n_latent, "loadings_sd": how.loadings_sd}),
            likelihood=Part("gaussian", {"total": total, "sd": SD, "observed_only": True}),
            prior=Part("flat"),
        )

    return make_spec
