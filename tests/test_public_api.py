"""Conventions of the public functions, by inspection: signatures, docstrings, pages, and what importing costs."""

from __future__ import annotations

import importlib
import inspect
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import scanpy_scvi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

WITH_ADATA = ("pp", "tl", "pl", "get")
PARTS = (*WITH_ADATA, "datasets", "metrics", "numerics")
SHARED_BY_KERNELS = ("numerics.softmax",)  # for authors of a new kernel, who read its source
DOCS = Path(__file__).parents[1] / "docs"
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", flags=re.MULTILINE)
# {name} and %(name)s, but not LaTeX (\mathrm{x}, w_{ng}, \sigma^{2}), a dictionary ({"a": 1}) or f"{key}_normalized"
PLACEHOLDER = re.compile(r"(?<![\\\w^_}\"'])\{\w+\}|%\(\w+\)")


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and submodules that a module offers: its ``__all__``, or else what it defines without underscore."""
    own = (n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__)
    names = getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]
    return ((name, getattr(module, name)) for name in names)


def functions(module: ModuleType, prefix: str) -> Iterator[tuple[str, Callable]]:
    """Every public Python function below a module, under its dotted name."""
    for name, value in members(module):
        if f"{prefix}.{name}" in SHARED_BY_KERNELS:
            continue
        if inspect.ismodule(value):
            yield from functions(value, f"{prefix}.{name}")
        elif inspect.isfunction(value):
            yield f"{prefix}.{name}", value


PUBLIC = {
    name: function
    for part in PARTS
    for name, function in functions(importlib.import_module(f"scanpy_scvi.{part}"), part)
}
every_function = pytest.mark.parametrize("name", PUBLIC)


def sections(function: Callable) -> dict[str, str]:
    """Sections of a docstring by title; what stands before the first under ``""``."""
    pieces = SECTION.split(inspect.cleandoc(function.__doc__ or ""))
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def documented_parameters(text: str) -> list[str]:
    """Names in a Parameters section, in order; ``a, b`` on one line are two."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(" ")]
    return [name.strip().lstrip("*") for line in lines for name in line.split(" : ")[0].split(",")]


def test_the_public_functions_are_found():
    assert {"tl.scvi", "tl.normalized_expression", "pp.check", "pp.fit_dispersion"} <= set(PUBLIC)
    assert {"datasets.cell_lines", "metrics.label_score"} <= set(PUBLIC)
    assert any(name.startswith("numerics.zero_inflated.") for name in PUBLIC)


@every_function
def test_docstring_names_the_actual_parameters(name):
    documented = documented_parameters(sections(PUBLIC[name]).get("Parameters", ""))
    assert sorted(documented) == sorted(inspect.signature(PUBLIC[name]).parameters)


@every_function
def test_docstring_says_what_comes_back_and_shows_it(name):
    found = sections(PUBLIC[name])
    assert found[""].split("\n")[0].rstrip().endswith("."), "the first line is one sentence"
    assert {"Returns", "Examples"} <= set(found)
    assert ">>>" in found["Examples"]


@every_function
def test_no_placeholder_is_left(name):
    assert PLACEHOLDER.findall(PUBLIC[name].__doc__ or "") == []


@every_function
def test_types_live_in_the_signature(name):
    signature = inspect.signature(PUBLIC[name])
    bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert bare == []
    assert signature.return_annotation is not signature.empty


@every_function
def test_adata_comes_first_and_options_need_their_name(name):
    parameters = list(inspect.signature(PUBLIC[name]).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if name.split(".")[0] in WITH_ADATA:
        names = [p.name for p in positional]
        # new cells and what they are compared with are two objects, so `adata` would not say which
        assert names[0] == "adata" or names[:2] == ["query", "reference"]
        assert len(positional) <= (2 if names[0] == "adata" else 3)
    options = [p.name for p in positional[2:] if p.default is not p.empty]
    assert options == []


@every_function
def test_randomness_is_repeatable_by_default(name):
    seed = inspect.signature(PUBLIC[name]).parameters.get("random_state")
    assert seed is None or seed.default == 0


@every_function
@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not part of this copy")
def test_has_an_api_page(name):
    part = name.split(".")[0]
    listed = re.findall(r"^ {0,8}([\w.]+)$", (DOCS / "api" / f"{part}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert name in listed, f"Add {name} to docs/api/{part}.md."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("adata\n    Counts.\na, b\n    Two.\n*args\n    More.", ["adata", "a", "b", "args"]),
        ("", []),
    ],
)
def test_parameters_are_read_from_the_text(text, found):
    assert documented_parameters(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{adata}", ["{adata}"]),
        ("    %(layer)s", ["%(layer)"]),
        (r"\mathrm{softmax}(z_{n})^{2} and {'a': 1} and {} and 10 % (of all) and f'{key}_normalized'", []),
    ],
)
def test_placeholders_are_told_from_formulas(text, found):
    assert PLACEHOLDER.findall(text) == found


def seconds_and_torch(statement: str) -> tuple[float, bool]:
    """CPU seconds of a fresh process that runs a statement, and whether torch was loaded in it."""
    code = f"{statement}\nimport sys, time\nprint(time.process_time(), 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, torch = answer.stdout.split()
    return float(seconds), torch == "True"


def test_importing_is_cheap_and_leaves_torch_out():
    """CPU time, not wall time, of alternating fresh processes: a busy machine must not decide."""
    runs = [(seconds_and_torch("import scanpy"), seconds_and_torch("import scanpy_scvi")) for _ in range(3)]
    assert not any(ours[1] for _, ours in runs)
    scanpy, ours = (statistics.median(pair[i][0] for pair in runs) for i in range(2))
    assert ours <= 1.15 * scanpy


@pytest.mark.parametrize("name", scanpy_scvi.__all__)
def test_every_attribute_is_reachable_and_listed(name):
    assert name in dir(scanpy_scvi)
    assert getattr(scanpy_scvi, name) is not None


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scanpy_scvi.nonsense  # noqa: B018


@pytest.mark.slow
def test_neighbors_at_the_size_where_pynndescent_takes_over():
    """From 8,192 cells on scanpy asks pynndescent; 0.7.0 of it breaks the call, hence the bound in pyproject.toml."""
    rng = np.random.default_rng(0)
    latent = np.r_[rng.normal(0, 1, (4096, 10)), rng.normal(20, 1, (4096, 10))].astype(np.float32)
    adata = ad.AnnData(obsm={"X_scvi": latent}, shape=(8192, 0))
    sc.pp.neighbors(adata, use_rep="X_scvi")
    rows, columns = adata.obsp["distances"].nonzero()
    assert np.bincount(rows).min() >= 14  # 15 neighbours, the cell itself may be one
    assert ((rows < 4096) == (columns < 4096)).all()  # two clouds far apart
