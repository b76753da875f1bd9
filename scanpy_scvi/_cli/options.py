"""Turn the options of a function into options of a command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .signature import Kinds, Option

WORDS = {int: "INT", float: "FLOAT", str: "NAME", bool: "true|false"}


def add_options(parser: argparse._ArgumentGroup | argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Add one ``--name`` for each option; one that is not given leaves the function its own default."""
    for option in options:
        flag = "--" + option.name.replace("_", "-")
        common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": _help(option)}
        kinds = option.kinds
        if kinds.types == (bool,) and not kinds.literals:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif kinds.many:
            common |= {"nargs": "*", "action": "extend", "type": converter(kinds), "metavar": _metavar(kinds)}
            parser.add_argument(flag, **common)
        else:
            shown = kinds._replace(none=kinds.none and option.default != "None")  # what need not be typed
            parser.add_argument(flag, type=converter(kinds), metavar=_metavar(shown), **common)


def given_options(args: argparse.Namespace, options: Sequence[Option]) -> dict[str, Any]:
    """Return those options that were given, as the function's keyword arguments."""
    given = {option.name: getattr(args, option.name) for option in options if hasattr(args, option.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def converter(kinds: Kinds) -> Callable[[str], Any]:
    """Return a function that reads a word of the command line as the first kind that fits."""
    words = {str(literal): literal for literal in kinds.literals}
    if kinds.none:
        words["none"] = None
    if bool in kinds.types:
        words |= {"true": True, "false": False}
    numbers = [kind for kind in (int, float, str) if kind in kinds.types]

    def convert(text: str) -> Any:
        if text in words:
            return words[text]
        for number in numbers:
            try:
                return number(text)
            except ValueError:
                continue
        msg = f"{text!r} was found, {_metavar(kinds)} was expected"
        raise argparse.ArgumentTypeError(msg)

    return convert


def _metavar(kinds: Kinds) -> str:
    words = [*map(str, kinds.literals), *(WORDS[kind] for kind in kinds.types), *(["none"] if kinds.none else [])]
    return "|".join(words)


def _help(option: Option) -> str:
    known = option.default[:1].isdigit() or option.default[:1] in "'\"-" or option.default in ("True", "False")
    default = f" (default: {option.default.strip(chr(39))})" if known else ""
    return (option.text + default).strip().replace("%", "%%")
