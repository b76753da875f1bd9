"""The import rule, read from the source: imports point one way, and AnnData is known in few places.

    numerics -> modules -> training -> store, posterior, metrics -> tl, pp, get, datasets -> pl

Imports inside functions and under ``TYPE_CHECKING`` count: what a file names in its types, its reader must know.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import scanpy_scvi

PACKAGE = "scanpy_scvi"
ROOT = Path(scanpy_scvi.__file__).parent

LAYERS = (
    ("_docs", "_logging", "_replace"),  # words and output: every layer may use them
    ("_progress",),
    ("numerics",),
    ("modules",),
    ("training",),
    ("store", "posterior", "metrics"),
    ("tl", "pp", "get", "datasets"),
    ("pl",),
    ("_cli",),
    ("__init__", "__main__"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
KNOWS_ANNDATA = {"store", "tl", "pp", "get", "datasets", "pl", "_cli", "__main__"}
FORBIDDEN = {
    "_docs": {"torch", "numba"},
    "numerics": {"torch"},
    "metrics": {"torch", "numerics", "modules", "training"},
    "pl": {"torch", "modules", "training", "posterior"},
}


class Import(NamedTuple):
    """One imported name: the file, the line and the full dotted target."""

    source: str
    line: int
    target: str


def part_of(dotted: str) -> str:
    """First name below the package: ``scanpy_scvi.tl._scvi`` -> ``tl``."""
    names = dotted.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(path: Path, root: Path) -> list[Import]:
    """Everything that one file imports, wherever in the file, as absolute names."""
    names = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
    package = names[:-1]  # what one dot means, for a plain file and for __init__ alike
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            # `from .. import tl` names a part, `from ..tl import scvi` lies below one: keep the name in both cases
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            targets = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        else:
            continue
        found += [Import(".".join(names), node.lineno, target) for target in targets]
    return found


def violation(item: Import) -> str | None:
    """What is wrong with an import, or None."""
    here, package = part_of(item.source), item.target.split(".")[0]
    inside = package == PACKAGE
    there = part_of(item.target) if inside else package
    if inside and there not in RANK:  # `from . import __version__`: a plain name of the package
        there = "__init__"
    if there in FORBIDDEN.get(here, ()):
        return f"{here} must not import {there}"
    if there in {"anndata", "scanpy"}:
        return None if here in KNOWS_ANNDATA else f"{here} must not know {there}"
    if not inside or here == there or RANK[there] < RANK[here]:
        return None
    if there == "__init__" and item.target == f"{PACKAGE}.__version__":
        return None
    return f"{here} must not import {there}: imports point one way"


def violations(root: Path) -> list[str]:
    """Every broken rule below ``root``, as ``file:line: what``."""
    found = (item for path in sorted(root.rglob("*.py")) for item in imports_of(path, root))
    return [f"{item.source}:{item.line}: {what}" for item in found if (what := violation(item))]


def test_every_part_has_a_place():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert parts <= set(RANK), f"Name the layer of {sorted(parts - set(RANK))} in LAYERS."


def test_imports_point_one_way():
    assert violations(ROOT) == []


def test_the_checker_sees_the_package():
    """A walk that found no file, or no import between layers, would pass in silence."""
    seen = [item for path in ROOT.rglob("*.py") for item in imports_of(path, ROOT)]
    assert any(part_of(i.source) == "modules" and i.target.startswith("torch") for i in seen)
    assert any(part_of(i.source) == "training" and i.target.startswith(f"{PACKAGE}.modules") for i in seen)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("numerics/bad.py", "import torch", "numerics must not import torch"),
        ("numerics/deep/bad.py", "from ...modules import vae", "numerics must not import modules"),
        ("metrics/bad.py", "from torch import nn", "metrics must not import torch"),
        ("metrics/bad.py", "from ..tl import scvi", "metrics must not import tl"),
        ("modules/bad.py", "from anndata import AnnData", "modules must not know anndata"),
        (
            "modules/bad.py",
            "def f():\n    import scanpy_scvi.training",
            "modules must not import training",
        ),
        ("training/bad.py", "from .. import store", "training must not import store"),
        ("training/bad.py", "if TYPE_CHECKING:\n    from anndata import AnnData", "training must not know anndata"),
        ("posterior/bad.py", "import scanpy as sc", "posterior must not know scanpy"),
        ("posterior/bad.py", "from ..store import keys", "posterior must not import store"),
        ("store/__init__.py", "from ..tl import scvi", "store must not import tl"),
        ("tl/bad.py", "from ..pl import history", "tl must not import pl"),
        ("tl/bad.py", "import importlib\nimportlib.import_module('scanpy_scvi.pl')", "tl must not import pl"),
        ("pl/bad.py", "import torch.nn", "pl must not import torch"),
        ("pl/bad.py", "from ..modules.vae import VAE", "pl must not import modules"),
        ("_progress.py", "import anndata", "_progress must not know anndata"),
        ("_docs.py", "from .store import keys", "_docs must not import store"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line, complaint):
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(line)
    assert [complaint in found for found in violations(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("numerics/__init__.py", "import numba\nfrom .poisson import logpmf"),
        ("modules/vae.py", "import torch\nfrom ..numerics import poisson\nfrom .mlp import MLP"),
        ("store/write.py", "from anndata import AnnData\nfrom .. import __version__\nfrom ..modules.vae import VAE"),
        ("tl/_scvi.py", "from ..store.read import read\nfrom ..training import fit"),
        ("pl/_history.py", "import matplotlib.pyplot as plt\nfrom ..store.keys import keys"),
        ("__main__.py", "from . import tl\nimport scanpy"),
    ],
)
def test_a_proper_import_passes(tmp_path, file, line):
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(line)
    assert violations(tmp_path) == []


def loads_torch(*modules: str) -> dict[str, bool]:
    """Whether torch is loaded after importing each of some modules in a fresh process, also by what they import."""
    lines = [f"import {module}; print({module!r}, 'torch' in sys.modules)" for module in modules]
    code = "\n".join(["import sys", *lines])
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {module: loaded == "True" for module, loaded in map(str.split, answer.splitlines())}


def test_arrays_need_no_torch():
    assert set(loads_torch(f"{PACKAGE}.numerics", f"{PACKAGE}.metrics").values()) == {False}


def test_importing_a_part_leaves_torch_out():
    """Unless scanpy itself brings it: anndata 0.11 loads torch where it is installed."""
    loaded = loads_torch("scanpy", *(f"{PACKAGE}.{part}" for part in ("pl", "get", "datasets")))
    assert loaded.pop("scanpy") or set(loaded.values()) == {False}
