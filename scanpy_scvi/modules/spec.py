"""A model as text: which parts, with which options."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .cells import Dimensions
from .decoders import DECODERS
from .encoders import ENCODERS
from .libraries import LIBRARIES
from .likelihoods import LIKELIHOODS
from .penalties import PENALTIES
from .priors import PRIORS
from .vae import VAE

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Part:
    """Name of a part, as in its folder's mapping, and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """The five parts of a model and the sizes they are built for; prints, compares and saves as JSON."""

    dims: Dimensions
    encoder: Part
    library: Part
    decoder: Part
    likelihood: Part
    prior: Part
    penalties: tuple[Part, ...] = ()

    def build(self) -> VAE:
        """Make the model, with fresh weights from torch's random state."""
        dims = self.dims
        decoder = DECODERS[self.decoder.name](dims, **self.decoder.options)
        return VAE(
            encoder=ENCODERS[self.encoder.name](dims, **self.encoder.options),
            library=LIBRARIES[self.library.name](dims, **self.library.options),
            decoder=decoder,
            likelihood=LIKELIHOODS[self.likelihood.name](dims, n_hidden=decoder.n_hidden, **self.likelihood.options),
            prior=PRIORS[self.prior.name](dims, **self.prior.options),
            penalties=[PENALTIES[penalty.name](dims, **penalty.options) for penalty in self.penalties],
        )

    def for_cells(self, n_cells: int) -> ModelSpec:
        """The same model for other cells, where it has a table of their latent states; else itself."""
        if "n_cells" not in self.encoder.options:
            return self
        return replace(self, encoder=Part(self.encoder.name, {**self.encoder.options, "n_cells": n_cells}))

    def to_json(self) -> str:
        """Write as JSON; penalties only where there are any."""
        content = asdict(self)
        if not self.penalties:
            del content["penalties"]
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what :meth:`to_json` wrote."""
        content = json.loads(text)
        dims = content.pop("dims")
        dims["n_categories"] = tuple(dims["n_categories"])
        penalties = tuple(Part(**part) for part in content.pop("penalties", ()))
        return cls(
            dims=Dimensions(**dims), penalties=penalties, **{role: Part(**part) for role, part in content.items()}
        )
