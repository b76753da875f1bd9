"""Options of parts that come from a file, checked against the parts' own signatures."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from .cells import Dimensions

if TYPE_CHECKING:
    from torch import nn

MOST = 2**31 - 1
"""Largest size that is believed."""
MOST_OF = {"n_layers": 64}
"""Options that every unit of costs time, whatever is stored."""
LEAST_OF = {"n_links": 0, "n_free": 0}
"""Sizes that may be none at all."""
SHARES = ("corruption", "dropout_rate", "norm_momentum")
"""Options from 0 to 1."""


def check_options(part: type[nn.Module], options: Any, *, given: frozenset[str] = frozenset()) -> None:
    """Raise a TypeError or ValueError unless `options` can be passed to a part.

    Parameters
    ----------
    part
        Its class; the annotations of its constructor say what is allowed.
    options
        What was read.
    given
        Options that are not stored, since whoever builds the model passes them.
    """
    if type(options) is not dict:
        msg = f"the options of {part.__name__} are no dictionary"
        raise TypeError(msg)
    wanted = {name: p for name, p in _parameters(part).items() if name not in given}
    unknown = [name for name in options if name not in wanted]
    if unknown:
        msg = f"{part.__name__} has no option {unknown[0][:60]!r}"
        raise TypeError(msg)
    for name, (hint, needed) in wanted.items():
        if name not in options and needed:
            msg = f"{part.__name__} lacks the option {name!r}"
            raise TypeError(msg)
        if name in options and not _is(options[name], hint, name):
            msg = f"the option {name!r} of {part.__name__} is not what it should be: {_expected(hint, name)}"
            raise ValueError(msg)


def _parameters(part: type[nn.Module]) -> dict[str, tuple[Any, bool]]:
    """Annotation of each keyword-only parameter of a constructor, and whether it must be given."""
    hints = get_type_hints(part.__init__, localns={"Sequence": Sequence, "Mapping": Mapping, "Dimensions": Dimensions})
    parameters = inspect.signature(part).parameters.values()
    return {p.name: (hints[p.name], p.default is p.empty) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _is(value: Any, hint: Any, name: str) -> bool:
    """Whether a value that JSON gave is of an annotated type and within its limits."""
    if hint is NoneType:
        return value is None
    if get_origin(hint) in {Union, UnionType}:
        return any(_is(value, one, name) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is Sequence:
        return type(value) is list and all(_is(v, get_args(hint)[0], name) for v in value)
    if hint is int:
        return type(value) is int and LEAST_OF.get(name, 1) <= value <= MOST_OF.get(name, MOST)
    if hint is float:
        return _is_number(value) and (name not in SHARES or 0 <= value <= 1)
    return hint in {bool, str} and type(value) is hint


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**300
    return type(value) is float and math.isfinite(value)


def _expected(hint: Any, name: str) -> str:
    if hint is int:
        return f"a whole number from {LEAST_OF.get(name, 1)} to {MOST_OF.get(name, MOST)}"
    if hint is float:
        return "a number from 0 to 1" if name in SHARES else "a finite number"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return str(getattr(hint, "__name__", hint))


def read_dimensions(content: Any) -> Dimensions:
    """Sizes as they were read; what is not there has its default."""
    if type(content) is not dict or not {"n_genes"} <= set(content) <= set(Dimensions.__dataclass_fields__):
        msg = f"dims must have {', '.join(Dimensions.__dataclass_fields__)}"
        raise TypeError(msg)
    sizes = {name: size for name, size in content.items() if name != "n_categories"}
    categories = content.get("n_categories", [])
    if type(categories) is not list:
        msg = "dims.n_categories is no list"
        raise TypeError(msg)
    for name, size in [*sizes.items(), *(("n_categories", size) for size in categories)]:
        least = 0 if name == "n_continuous" else 1
        if type(size) is not int or not least <= size <= MOST:
            msg = f"dims.{name} must be whole numbers from {least} to {MOST}"
            raise ValueError(msg)
    return Dimensions(**sizes, n_categories=tuple(categories))
