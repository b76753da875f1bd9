"""Parameter texts that model functions share, written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

SECTION = re.compile(r"^Parameters\n-{3,}\n(.*?)(?=^\w[\w ]*\n-{3,}$|\Z)", flags=re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^(\w[\w, ]*)\n((?:[ ]+.*\n|\n)*)", flags=re.MULTILINE)


def with_parameters_of(source: Callable[..., object]) -> Callable[[F], F]:
    """Complete a function's Parameters section: what it leaves out is taken from `source`, in the signature's order.

    Raises
    ------
    ValueError
        For a parameter that neither describes.
    """

    def complete(function: F) -> F:
        doc = inspect.cleandoc(function.__doc__ or "") + "\n"
        own, shared = _entries(doc), _entries(inspect.cleandoc(source.__doc__ or "") + "\n")
        texts = []
        for name in inspect.signature(function).parameters:
            if name not in own and name not in shared:
                msg = f"`{function.__name__}` and `{source.__name__}` do not describe the parameter {name!r}."
                raise ValueError(msg)
            texts.append(f"{name}\n{own.get(name, shared.get(name))}")
        section = "Parameters\n----------\n" + "".join(texts) + "\n"
        function.__doc__ = SECTION.sub(lambda _: section, doc, count=1)
        return function

    return complete


def _entries(doc: str) -> dict[str, str]:
    """Text of each parameter, indented; names on one line share one."""
    found = SECTION.search(doc)
    entries = {}
    for names, text in ENTRY.findall(found.group(1) if found else ""):
        for name in names.split(","):
            entries[name.strip()] = text.rstrip() + "\n"
    return entries
