"""Penalties as users ask for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..modules.cells import Dimensions
from ..modules.options import check_options
from ..modules.penalties import PENALTIES
from ..modules.spec import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.spec import ModelSpec


def penalty_parts(asked: Sequence[str | tuple[str, Mapping[str, Any]]]) -> tuple[Part, ...]:
    """Penalties with all their options, those that were not given at their defaults.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, one that comes twice, and options that are not what they should be.
    """
    parts = tuple(_part(one) for one in ([asked] if isinstance(asked, str) else asked))
    _check_once([part.name for part in parts])
    return parts


def with_penalties(spec: ModelSpec, asked: Sequence[Part], least: int) -> ModelSpec:
    """Add penalties to those that a model has; `least` is the size of the smallest minibatch.

    Raises
    ------
    ValueError
        Where one means nothing for the model or the minibatches, or it has one of that name already.
    """
    priced = (*spec.penalties, *asked)
    _check_once([part.name for part in priced])
    for part in priced:
        PENALTIES[part.name](spec.dims, **part.options).check_use(spec, least)
    return replace(spec, penalties=priced)


def _part(one: Any) -> Part:
    """Read a name, or a pair of a name and options."""
    name, given = one if isinstance(one, (tuple, list)) and len(one) == 2 else (one, {})
    if not isinstance(name, str) or not isinstance(given, Mapping):
        msg = (
            f"`penalties` holds {one!r}, but names were expected, or pairs of a name and a dictionary of options, as "
            'in `penalties=("mmd", ("entropy", {"weight": 0.1}))`.'
        )
        raise TypeError(msg)
    if name not in PENALTIES:
        msg = f"`penalties` names {name!r}, but one of {', '.join(map(repr, PENALTIES))} was expected."
        raise ValueError(msg)
    kind = PENALTIES[name]
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY}
    options = defaults | {k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()}
    try:
        check_options(kind, options)
        kind(Dimensions(n_genes=1), **options)
    except (TypeError, ValueError) as error:
        msg = f"The options of the penalty {name!r} cannot be used: {error}. It has {', '.join(map(repr, defaults))}."
        raise type(error)(msg) from error
    return Part(name, options)


def _check_once(names: Sequence[str]) -> None:
    """Raise a ValueError for a name that comes twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"The penalty {twice[0]!r} comes twice. Name it once, with the options that you want."
        raise ValueError(msg)
