"""A model as text: which parts, with which options."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .decoders import DECODERS
from .encoders import ENCODERS
from .libraries import LIBRARIES
from .likelihoods import LIKELIHOODS
from .options import check_options, read_dimensions
from .penalties import PENALTIES
from .priors import PRIORS
from .vae import VAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from .cells import Dimensions


ROLES: Mapping[str, Mapping[str, type[nn.Module]]] = {
    "encoder": ENCODERS,
    "library": LIBRARIES,
    "decoder": DECODERS,
    "likelihood": LIKELIHOODS,
    "prior": PRIORS,
}
"""Parts of each role by name."""


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
        """Read what :meth:`to_json` wrote; anything else is a TypeError or ValueError, before a model is built."""
        try:
            content = json.loads(text, parse_constant=_refuse)
        except RecursionError as error:
            msg = "the text is nested too deeply"
            raise ValueError(msg) from error
        if type(content) is not dict or not {"dims", *ROLES} <= set(content) <= {"dims", *ROLES, "penalties"}:
            msg = f"the text must have {', '.join(['dims', *ROLES])}"
            raise TypeError(msg)
        parts = {role: _read_part(role, ROLES[role], content[role]) for role in ROLES}
        sizes = {part.options["n_latent"] for part in parts.values() if "n_latent" in part.options}
        if len(sizes) > 1:
            msg = f"the parts have different n_latent: {', '.join(map(str, sorted(sizes)))}"
            raise ValueError(msg)
        penalties = content.get("penalties", [])
        if type(penalties) is not list:
            msg = "the penalties must be a list"
            raise TypeError(msg)
        priced = tuple(_read_part("penalty", PENALTIES, penalty) for penalty in penalties)
        return cls(dims=read_dimensions(content["dims"]), penalties=priced, **parts)


def _refuse(constant: str) -> None:
    msg = f"the number {constant} is not finite"
    raise ValueError(msg)


def _read_part(role: str, parts: Mapping[str, type[nn.Module]], content: Any) -> Part:
    """Part of a role, if there is one of that name with those options."""
    if type(content) is not dict or not {"name"} <= set(content) <= {"name", "options"}:
        msg = f"the {role} must have a name and options"
        raise TypeError(msg)
    name, options = content["name"], content.get("options", {})
    if type(name) is not str or name not in parts:
        shown = repr(name[:60]) if type(name) is str else f"a {type(name).__name__}"
        msg = f"{shown} is no {role} of this version, which has {', '.join(map(repr, parts)) or 'none'}"
        raise ValueError(msg)
    check_options(parts[name], options, given=frozenset({"n_hidden"} if role == "likelihood" else ()))
    return Part(name, options)
