"""Read a function's options from its source, without importing it (and torch with it).

The signature stays the only place where an option is written down: name, type, default and, in the docstring, meaning.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PLAIN = {"bool": bool, "int": int, "float": float, "str": str}
SEQUENCES = {"Sequence", "Iterable", "Collection", "tuple", "list"}


class Kinds(NamedTuple):
    """What an option accepts."""

    literals: tuple[Any, ...] = ()
    types: tuple[type, ...] = ()
    none: bool = False
    many: bool = False

    def join(self, other: Kinds) -> Kinds:
        """Accept what either accepts."""
        literals = (*self.literals, *(x for x in other.literals if x not in self.literals))
        types = (*self.types, *(t for t in other.types if t not in self.types))
        return Kinds(literals, types, self.none or other.none, self.many or other.many)


class Option(NamedTuple):
    """One parameter of the function."""

    name: str
    default: str  # source text
    kinds: Kinds
    text: str  # from the docstring


def read_options(path: Path, function: str) -> list[Option]:
    """List the parameters of a function that have a default, in their order."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found:
        msg = f"{path.name} defines no function {function!r}."
        raise LookupError(msg)
    arguments, texts = found[0].args, parameter_texts(ast.get_docstring(found[0]) or "")
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)][::-1]
    pairs += [(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None]
    return [
        Option(arg.arg, ast.unparse(default), kinds_of(arg.annotation, path), texts.get(arg.arg, ""))
        for arg, default in pairs
    ]


def parameter_texts(docstring: str) -> dict[str, str]:
    """Split the Parameters section of a NumPy docstring into one paragraph a name, without markup."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", docstring, flags=re.DOTALL | re.MULTILINE)
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.group(1).splitlines() if section else ():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(" : ")[0].split(",")]
        for name in names if line.startswith(" ") else ():
            texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return {name: _without_markup(text) for name, text in texts.items()}


def _without_markup(text: str) -> str:
    text = re.sub(r":[\w:]+:`~?([^`<]+?)(?: <[^`]*>)?`", r"\1", text)
    return text.replace("``", "").replace("`", "")


def kinds_of(node: ast.expr | None, path: Path) -> Kinds:
    """Read an annotation; a name that is defined elsewhere in the package is looked up there."""
    if isinstance(node, ast.BinOp):
        return kinds_of(node.left, path).join(kinds_of(node.right, path))
    if isinstance(node, ast.Constant):
        return Kinds(none=node.value is None)
    if isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value).split(".")[-1]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return Kinds(literals=tuple(ast.literal_eval(item) for item in inner))
        if outer in SEQUENCES:
            return kinds_of(inner[0], path)._replace(many=True)
    if isinstance(node, ast.Name):
        return Kinds(types=(PLAIN[node.id],)) if node.id in PLAIN else _look_up(node.id, path)
    return Kinds()  # an array, a generator: nothing that can be typed on a command line


def _look_up(name: str, path: Path) -> Kinds:
    """Follow ``X = Literal[...]`` or ``from .y import X`` within the package."""
    if not path.is_file():
        return Kinds()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(node, ast.Assign | ast.AnnAssign):
            return kinds_of(node.value, path)
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _look_up(alias.name, _module_file(node, path))
    return Kinds()


def _module_file(node: ast.ImportFrom, path: Path) -> Path:
    folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
