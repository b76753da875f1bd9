"""Files that lie: a clear error in bounded time and memory, and nothing of theirs is run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping

import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scanpy_scvi as sv
from scanpy_scvi.store import load
from scanpy_scvi.store.course import read_course

REFUSED = (KeyError, TypeError, ValueError)
SECONDS = 2.0
"""What a refusal may take; most take a thousandth of it."""


class Evil:
    """Anything that is done with it, but for looking at its type, is noted."""

    calls: list[str] = []  # noqa: RUF012


def _noted(name):
    def method(self, *args, **kwargs):
        Evil.calls.append(name)
        msg = f"{name} was called"
        raise AssertionError(msg)

    return method


NOTED = (
    *("__array__", "__array_interface__", "__bool__", "__call__", "__contains__", "__eq__", "__float__", "__format__"),
    *("__getattr__", "__getitem__", "__hash__", "__index__", "__int__", "__iter__", "__len__", "__lt__", "__repr__"),
    *("__reduce__", "__reduce_ex__", "__str__", "__gt__", "__bytes__", "__fspath__"),
)
for _name in NOTED:
    setattr(Evil, _name, _noted(_name))


def evil_array():
    """Two such objects in an array."""
    array = np.empty(2, object)
    array[0] = array[1] = Evil()
    return array


@pytest.fixture(scope="module")
def good() -> ad.AnnData:
    """A fit with every kind of column and part; do not change it."""
    adata = sv.datasets.simulate(n_cells=60, n_genes=30, density=0.5)
    adata.obs["age"] = np.linspace(20, 70, adata.n_obs)
    adata.obs["donor"] = [f"donor_{i % 3}" for i in range(adata.n_obs)]
    options = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"], "likelihood": "zinb"}
    options |= {"labels_key": "label", "dispersion": "gene-batch", "library": "latent"}
    sv.tl.scvi(adata, "batch", n_hidden=8, n_latent=2, max_epochs=2, progress=False, **options)
    return adata


def copied(value):
    """A deep copy of what an entry holds."""
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def with_entry(good, entry) -> ad.AnnData:
    """Return the cells with another entry."""
    adata = good.copy()
    adata.uns["scvi"] = entry
    return adata


def spec(change):
    """Change the specification as parsed JSON."""

    def spoil(entry):
        content = json.loads(entry["spec"])
        change(content)
        entry["spec"] = json.dumps(content)

    return spoil


def option(role, name, value):
    return spec(lambda content: content[role]["options"].update({name: value}))


def dims(**sizes):
    return spec(lambda content: content["dims"].update(sizes))


def put(*path_and_value):
    """Replace what lies under a path."""
    *path, last, value = path_and_value

    def spoil(entry):
        for key in path:
            entry = entry[key]
        entry[last] = value() if callable(value) else value

    return spoil


def drop(*path):
    def spoil(entry):
        for key in path[:-1]:
            entry = entry[key]
        del entry[path[-1]]

    return spoil


W = "decoder.logits.weight"
LONG = "x" * 100_000
MUTATIONS = {
    # schema
    "schema is text": (put("schema", "1"), TypeError, "schema.*str"),
    "schema is an object": (put("schema", Evil), TypeError, "schema.*Evil"),
    "schema is newer": (put("schema", 99), ValueError, "schema 99"),
    "schema is enormous": (put("schema", 10**400), ValueError, "schema.*bits"),
    "schema is negative": (put("schema", -1), ValueError, "schema.*-1"),
    # specification
    "spec is a number": (put("spec", 3), TypeError, "'spec'.*int"),
    "spec is an object": (put("spec", Evil), TypeError, "'spec'.*Evil"),
    "spec is no JSON": (put("spec", "import os"), ValueError, "spec.*cannot be read"),
    "spec is deeply nested": (put("spec", "[" * 60_000), ValueError, "spec.*nested"),
    "spec is long": (put("spec", " " * 10**7), ValueError, "10,000,000 characters"),
    "spec has a long number": (put("spec", "1" * 50_000), ValueError, "spec.*cannot be read"),
    "spec has NaN": (option("encoder", "dropout_rate", float("nan")), ValueError, "NaN is not finite"),
    "spec has infinity": (option("library", "norm_momentum", float("inf")), ValueError, "Infinity is not finite"),
    "spec overflows": (
        lambda e: put("spec", e["spec"].replace('"dropout_rate": 0.1', '"dropout_rate": 1e999'))(e),
        ValueError,
        "dropout_rate",
    ),
    "spec is a list": (put("spec", "[]"), ValueError, "must have dims"),
    "a part is a path": (spec(lambda c: c["prior"].update(name="../../etc/passwd")), ValueError, r"etc/passwd.*prior"),
    "a part is a list": (spec(lambda c: c["prior"].update(name=["normal"])), ValueError, "a list is no prior"),
    "a part has more": (spec(lambda c: c["prior"].update(module="os")), ValueError, "prior must have a name"),
    "an option is unknown": (option("decoder", "__class__", "x"), ValueError, "no option '__class__'"),
    "an option is missing": (spec(lambda c: c["decoder"]["options"].pop("n_latent")), ValueError, "lacks.*'n_latent'"),
    "an option is text": (option("decoder", "n_hidden", "8"), ValueError, "'n_hidden'.*whole number"),
    "an option is true": (option("decoder", "n_hidden", True), ValueError, "'n_hidden'.*whole number"),
    "a choice is unknown": (option("encoder", "norm", "evil"), ValueError, "'norm'.*'batch'"),
    "a choice is a list": (option("likelihood", "dispersion", []), ValueError, "'dispersion'.*'gene'"),
    "a rate is 7": (option("encoder", "dropout_rate", 7), ValueError, "'dropout_rate'.*from 0 to 1"),
    "a billion layers": (option("encoder", "n_layers", 10**9), ValueError, "'n_layers'.*64"),
    "a wide layer": (option("decoder", "n_hidden", 2**30), ValueError, r"shape.*1073741824"),
    "an impossible layer": (option("decoder", "n_hidden", 2**40), ValueError, "'n_hidden'.*whole number"),
    "a size overflows": (
        lambda e: [option(r, "n_hidden", 2**31 - 1)(e) for r in ("encoder", "decoder")],
        ValueError,
        "spec.*cannot be read|shape",
    ),
    "no layers": (option("encoder", "n_layers", 0), ValueError, "'n_layers'.*from 1"),
    "a trillion genes": (dims(n_genes=10**12), ValueError, r"dims\.n_genes"),
    "many genes": (dims(n_genes=10**9), ValueError, "n_genes 1000000000, but 30"),
    "many batches": (dims(n_batches=10**9), ValueError, "n_batches 1000000000, but 2"),
    "many labels": (dims(n_labels=4), ValueError, "n_labels 4, but 3"),
    "other categories": (dims(n_categories=[3, 3]), ValueError, "n_categories"),
    "negative covariates": (dims(n_continuous=-1), ValueError, "n_continuous"),
    "priors of other batches": (option("library", "prior_mean", [1.0] * 5), ValueError, "5 prior means"),
    "priors that are text": (option("library", "prior_mean", ["1", "2"]), ValueError, "'prior_mean'"),
    # weights
    "state is a list": (put("state", [1]), TypeError, "'state'.*list"),
    "state is an object": (put("state", Evil), TypeError, "'state'.*Evil"),
    "a weight is missing": (drop("state", W), ValueError, f"'{W}' differ"),
    "a weight is a path": (put("state", "../../../tmp/x", np.ones(1)), ValueError, r"'\.\./\.\./\.\./tmp/x' differ"),
    "a weight has a long name": (put("state", LONG, np.ones(1)), ValueError, "xxx….*differ"),
    "a weight has no name": (put("state", "", np.ones(1)), ValueError, "'' differ"),
    "a weight's name is a number": (put("state", 7, np.ones(1)), TypeError, "key of .*state.* type int"),
    "weights of objects": (put("state", W, evil_array), TypeError, f"{W}.*O"),
    "weights of text": (put("state", W, np.array([["a"]])), TypeError, f"{W}.*U"),
    "complex weights": (put("state", W, np.ones((30, 8), complex)), TypeError, f"{W}.*c16"),
    "weights of dates": (put("state", W, np.zeros((30, 8), "M8[s]")), TypeError, f"{W}.*M8"),
    "weights of records": (put("state", W, np.zeros((30, 8), [("a", "f4")])), TypeError, f"{W}.*V4"),
    "weights in a list": (put("state", W, [[1.0]]), TypeError, f"{W}.*list"),
    "whole weights": (put("state", W, np.ones((30, 8), int)), TypeError, f"{W}.*i8"),
    "weights are an object": (put("state", W, Evil), TypeError, f"{W}.*Evil"),
    "NaN weights": (put("state", W, np.full((30, 8), np.nan)), ValueError, f"{W}.*NaN or infinite"),
    "weights too large for the model": (put("state", W, np.full((30, 8), 1e300)), ValueError, f"{W}.*NaN or infinite"),
    "weights of another shape": (put("state", W, np.ones((8, 30))), ValueError, rf"{W}.*\(8, 30\).*\(30, 8\)"),
    "weights of no size": (put("state", W, np.ones((0, 8))), ValueError, rf"{W}.*\(0, 8\)"),
    "weights that claim memory": (
        lambda e: [
            option("decoder", "n_hidden", 2**20)(e),
            put("state", W, np.broadcast_to(np.float32(0), (30, 2**20)))(e),
        ],
        ValueError,
        "shape",
    ),
    "shared weights": (put("state", W, np.broadcast_to(np.float32(0), (30, 8))), ValueError, f"{W}.*one number"),
    "negative variances": (
        put("state", "encoder.mlp.blocks.0.norm.running_var", np.full(8, -1.0)),
        ValueError,
        "running_var.*negative",
    ),
    # names of genes
    "var_names are numbers": (put("var_names", np.arange(30)), TypeError, "var_names.*int"),
    "var_names are objects": (put("var_names", evil_array), TypeError, "var_names.*Evil"),
    "var_names are missing": (drop("var_names"), ValueError, "lacks 'var_names'"),
    "var_names repeat": (put("var_names", np.array(["gene_1"] * 30, object)), ValueError, "var_names.*'gene_1' twice"),
    "var_names are few": (put("var_names", np.array(["gene_1"], object)), ValueError, "n_genes 30, but 1 var_names"),
    "var_names claim memory": (
        put("var_names", np.broadcast_to(np.array("a"), (10**12,))),
        ValueError,
        "var_names.*claims the shape",
    ),
    "var_names are others": (
        put("var_names", np.array([f"/etc/{i}" for i in range(30)], object)),
        KeyError,
        "30 of the model's 30 genes.*'/etc/0'",
    ),
    "var_names are long": (
        put("var_names", np.array([f"{LONG}{i}" for i in range(30)], object)),
        KeyError,
        "30 of the model's 30 genes",
    ),
    # categories
    "categories are a list": (put("categories", []), TypeError, "categories.*list"),
    "no batches": (drop("categories", "batch"), ValueError, r"categories.* lacks 'batch'"),
    "batches repeat": (put("categories", "batch", np.array(["a", "a"], object)), ValueError, "batch.*'a' twice"),
    "batches are others": (put("categories", "batch", np.array(["a", "b"], object)), ValueError, "not seen"),
    "batches are numbers": (put("categories", "batch", np.array([1, 2])), TypeError, "batch.*int"),
    "weights of batches are NaN": (
        put("categories", "batch_weights", np.array([np.nan, 1])),
        ValueError,
        "batch_weights.*nan",
    ),
    "weights of batches are negative": (
        put("categories", "batch_weights", np.array([-1.0, 2])),
        ValueError,
        "batch_weights.*-1",
    ),
    "weights of batches add up to 5": (
        put("categories", "batch_weights", np.array([2.0, 3])),
        ValueError,
        "batch_weights.*adds up to 5",
    ),
    "weights of other batches": (put("categories", "batch_weights", np.ones(3) / 3), ValueError, "3 numbers, but 2"),
    "no spread": (put("categories", "continuous_sd", np.zeros(1)), ValueError, "continuous_sd.*value 0"),
    "an infinite mean": (put("categories", "continuous_mean", np.full(1, np.inf)), ValueError, "continuous_mean.*inf"),
    "an offset that is text": (put("categories", "log_size_factor_offset", "0"), TypeError, "log_size_factor.*str"),
    "an offset that is NaN": (put("categories", "log_size_factor_offset", np.nan), ValueError, "log_size_factor.*nan"),
    "an offset that is enormous": (put("categories", "log_size_factor_offset", 10**400), ValueError, "offset.*inf"),
    "categories under other numbers": (
        put("categories", "categorical", {"7": np.array(["a"], object)}),
        ValueError,
        "categorical.*lacks '0'",
    ),
    # options of the call
    "params are a list": (put("params", []), TypeError, "params.*list"),
    "no batch_size": (drop("params", "batch_size"), ValueError, "params.*lacks 'batch_size'"),
    "batch_size is text": (put("params", "batch_size", "128"), TypeError, "batch_size.*str"),
    "batch_size is enormous": (put("params", "batch_size", 10**30), ValueError, "batch_size.*bits"),
    "batch_size is negative": (put("params", "batch_size", -5), ValueError, "batch_size.*-5"),
    "layer is a list": (put("params", "layer", ["counts"]), TypeError, "layer.*list"),
    "layer is a path": (put("params", "layer", "../../etc/passwd"), KeyError, r"'\.\./\.\./etc/passwd' was not found"),
    "layer is long": (put("params", "layer", LONG), ValueError, "layer.*100,000 characters"),
    "batch_key is lost": (drop("params", "batch_key"), ValueError, "lacks 'batch_key'"),
    "batch_key is an object": (put("params", "batch_key", Evil), TypeError, "batch_key.*Evil"),
    "batch_key is empty": (put("params", "batch_key", ""), KeyError, "'' was not found"),
    "covariates are lost": (drop("params", "continuous_covariate_keys"), ValueError, "0 names, but the model 1"),
    "covariates are numbers": (put("params", "categorical_covariate_keys", np.array([1])), TypeError, "covariate.*int"),
    "size factors from nowhere": (put("params", "size_factor_key", "age"), ValueError, "size factors"),
}


def refusal(function, *args, **kwargs) -> Exception:
    """Return the error of a call that must be refused, soon and in few words."""
    start = time.perf_counter()
    with pytest.raises(REFUSED) as caught:
        function(*args, **kwargs)
    assert time.perf_counter() - start < SECONDS
    assert len(str(caught.value)) < 1000
    return caught.value


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_lie_is_named(name, good):
    spoil, error, words = MUTATIONS[name]
    entry = copied(good.uns["scvi"])
    spoil(entry)
    adata = with_entry(good, entry)
    Evil.calls.clear()
    at_load = "was not found" not in words and "not seen" not in words  # what the cells lack shows when they are read
    for function in (*((load,) if at_load else ()), ask):
        caught = refusal(function, adata, "scvi")
        assert type(caught) is error
        assert re.search(words, str(caught)), str(caught)
    assert Evil.calls == []


def ask(adata, key):
    return sv.tl.normalized_expression(adata, key=key, inplace=False)


def test_there_are_enough_of_them():
    assert len(MUTATIONS) >= 30


# what is read beside the model

BESIDE = {
    "history is text": (put("history", "x"), sv.get.history, TypeError, "'history'.*str"),
    "history has objects": (put("history", "kl", evil_array), sv.get.history, TypeError, "'kl'.*object"),
    "history is a table": (put("history", "kl", np.ones((2, 2))), sv.get.history, TypeError, "'kl'.*one number"),
    "history is uneven": (put("history", "kl", np.ones(7)), sv.get.history, ValueError, "unequal length"),
    "history has no epochs": (drop("history", "epoch"), sv.get.history, ValueError, "no epochs"),
    "convergence is a list": (put("convergence", []), sv.get.convergence, TypeError, "'convergence'.*list"),
    "convergence has objects": (put("convergence", "message", Evil), sv.get.convergence, TypeError, "'message'.*Evil"),
    "the course is missing": (drop("training"), "course", ValueError, "lacks 'training'"),
    "the course is text": (put("training", "x"), "course", TypeError, "'training'.*str"),
    "the course has text": (put("training", "learning_rate", "1"), "course", TypeError, "'learning_rate'.*str"),
    "the course has NaN": (put("training", "adam_eps", np.nan), "course", ValueError, "'adam_eps'.*nan"),
    "the course is endless": (
        put("convergence", "best_epoch", 10**12),
        "course",
        ValueError,
        "'best_epoch'.*from 0 to 2",
    ),
    "the held-out cells are objects": (put("validation_cells", evil_array), "course", TypeError, "validation_cells"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_lie_beside_the_model_is_named(name, good):
    spoil, function, error, words = BESIDE[name]
    entry = copied(good.uns["scvi"])
    spoil(entry)
    Evil.calls.clear()
    if function == "course":
        caught = refusal(sv.tl.gene_correlation, with_entry(good, entry), ["gene_0", "gene_1"])
    else:
        caught = refusal(function, with_entry(good, entry))
    assert type(caught) is error
    assert re.search(words, str(caught)), str(caught)
    assert Evil.calls == []


LATENTS = {
    "NaN": (lambda x: np.where(x == x[0], np.nan, x), "NaN or infinite.*'cell_0'"),
    "no columns": (lambda x: x[:, :0], r"shape \(60, 0\)"),
    "text": (lambda x: x.astype(str), "real numbers"),
    "objects": (lambda x: np.full(x.shape, None, object), "real numbers"),
    "one number": (lambda x: np.broadcast_to(x[:1, :1], x.shape), "one number"),
}


@pytest.mark.parametrize("name", LATENTS)
def test_latent_states_that_are_none(name, good):
    spoil, words = LATENTS[name]
    adata = good.copy()
    adata.obsm["X_scvi"] = spoil(good.obsm["X_scvi"])
    caught = refusal(sv.tl.integration_scores, adata)
    assert isinstance(caught, (TypeError, ValueError))
    assert re.search(words, str(caught)), str(caught)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a/b", LONG, "scvi\0", 7, None, ["scvi"], ("scvi",)])
def test_keys_that_name_nothing(key, good):
    for function in (load, ask, lambda adata, key: sv.get.history(adata, key)):
        caught = refusal(function, good, key)
        assert isinstance(caught, KeyError if isinstance(key, str) else TypeError)


def test_other_entries_are_not_looked_at(good):
    adata = good.copy()
    Evil.calls.clear()
    adata.uns["other"] = Evil()
    adata.uns["another"] = {"schema": Evil(), "spec": Evil(), "state": Evil(), "history": 1, "convergence": 2}
    assert np.isfinite(ask(adata, "scvi")).all(axis=None)
    sv.get.convergence(adata)
    assert Evil.calls == []


# anything at all

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, 10**400, -(10**400), 0, -1, True]),
    st.floats(),
    st.floats(width=32).map(np.float32),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
)
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "../x", "a/b", "\0", LONG[:5000], "[" * 5000, "{}", "null", "1e999"])
)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
ARRAYS = st.one_of(
    st.builds(
        np.zeros, SHAPES, st.sampled_from(["f4", "f8", "i8", "u1", "?", "c8", "O", "U3", "S2", "M8[s]", "f2", "i4,f4"])
    ),
    st.builds(lambda n: np.broadcast_to(np.float32(1), (n, n)), st.sampled_from([3, 10**6])),
    st.just(None).map(lambda _: evil_array()),
    st.lists(st.floats(width=32), max_size=4).map(lambda x: np.array(x, np.float32)),
    st.lists(TEXTS, max_size=4).map(lambda x: np.array(x, object)),
)
LEAVES = st.one_of(NUMBERS, TEXTS, ARRAYS, st.none(), st.binary(max_size=9), st.just(None).map(lambda _: Evil()))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def paths(value, path=()):
    """Every place in an entry."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, Mapping):
            yield from paths(inner, (*path, key))


@st.composite
def changes(draw, places):
    """Where to do what: replace, delete or add."""
    path = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(["replace", "replace", "delete", "add"]))
    if kind == "delete":
        return [("delete", path, None)]
    if kind == "add":
        return [("replace", (*path[:-1], draw(TEXTS)), draw(VALUES))]
    return [("replace", path, draw(VALUES))]


def apply(entry, found):
    for kind, path, value in found:
        inner = entry
        for key in path[:-1]:
            inner = inner[key]
        if kind == "delete":
            del inner[path[-1]]
        else:
            inner[path[-1]] = value


def assert_harmless(adata):
    """Every call works, or says in short why it cannot."""
    Evil.calls.clear()
    start = time.perf_counter()
    for function in (load, ask, sv.get.history, sv.get.convergence):
        try:
            function(adata, "scvi")
        except REFUSED as error:
            assert len(str(error)) < 1000  # noqa: PT017
    try:
        read_course(adata.uns["scvi"], "scvi")
    except REFUSED as error:
        assert len(str(error)) < 1000  # noqa: PT017
    assert Evil.calls == []
    assert time.perf_counter() - start < 5 * SECONDS


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_change_of_an_entry_is_harmless(good, data):
    places = list(paths(good.uns["scvi"]))
    entry = copied(good.uns["scvi"])
    apply(entry, data.draw(changes(places)))
    assert_harmless(with_entry(good, entry))


JSONS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from([10**30, 2**31 - 1])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_change_of_the_specification_is_harmless(good, data):
    content = json.loads(good.uns["scvi"]["spec"])
    path = data.draw(st.sampled_from(list(paths(content))))
    apply(content, [(data.draw(st.sampled_from(["replace", "delete"])), path, data.draw(JSONS))])
    entry = copied(good.uns["scvi"])
    entry["spec"] = json.dumps(content)
    assert_harmless(with_entry(good, entry))


# memory

CLAIMS = """
import json, resource, sys, time, anndata as ad, numpy as np
from scanpy_scvi.store import load
adata = ad.read_h5ad(sys.argv[1])
entry, spec = adata.uns["scvi"], json.loads(adata.uns["scvi"]["spec"])
load(adata, "scvi")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 256 * 2**20,) * 2)
for role in ("encoder", "decoder", "library"):
    for name, size in (("n_hidden", 2**31 - 1), ("n_hidden", 10**8), ("n_latent", 10**9), ("n_layers", 64)):
        if name in spec[role]["options"]:
            claim = json.loads(json.dumps(spec))
            claim[role]["options"][name] = size
            adata.uns["scvi"] = {**entry, "spec": json.dumps(claim)}
            start = time.perf_counter()
            try:
                load(adata, "scvi")
            except ValueError as error:
                print(role, name, size, time.perf_counter() - start, str(error)[:80])
            else:
                sys.exit("not refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_huge_claims_take_no_memory(good, tmp_path):
    """A quarter of a gigabyte is all that a process has left in which terabytes are claimed."""
    good.write_h5ad(tmp_path / "fit.h5ad")
    run = [sys.executable, "-c", CLAIMS, str(tmp_path / "fit.h5ad")]
    answer = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120)
    lines = answer.stdout.splitlines()
    assert len(lines) >= 10
    assert max(float(line.split()[3]) for line in lines) < SECONDS


def test_loading_leaves_torchs_compiler_alone(good, tmp_path):
    """The model is made without memory first; some functions of torch would load its compiler for it."""
    good.write_h5ad(tmp_path / "fit.h5ad")
    code = "import sys, anndata as ad; from scanpy_scvi.store import load; load(ad.read_h5ad(sys.argv[1]), 'scvi')"
    code += "; print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    run = [sys.executable, "-c", code, str(tmp_path / "fit.h5ad")]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout.split() == ["False", "False"]


# the file itself, as anndata reads it


def to_group(file, path):
    del file[path]
    file.create_group(path)


def to_dataset(file, path, value):
    attributes = dict(file[path].attrs)
    del file[path]
    file[path] = value
    file[path].attrs.update(attributes)


FILES = {
    "weights are a group": lambda f: to_group(f, f"uns/scvi/state/{W}"),
    "weights are text": lambda f: to_dataset(f, f"uns/scvi/state/{W}", "x"),
    "weights are bytes": lambda f: to_dataset(f, f"uns/scvi/state/{W}", np.zeros((30, 8), "S3")),
    "weights are empty": lambda f: to_dataset(f, f"uns/scvi/state/{W}", np.zeros((0, 0), "f4")),
    "weights are opaque": lambda f: to_dataset(f, f"uns/scvi/state/{W}", np.zeros(3, "V7")),
    "weights are nested arrays": lambda f: to_dataset(f, f"uns/scvi/state/{W}", np.zeros(3, "(2,)f4")),
    "the state is an array": lambda f: to_dataset(f, "uns/scvi/state", np.ones(3)),
    "the spec is an array": lambda f: to_dataset(f, "uns/scvi/spec", np.ones(3)),
    "the spec is a group": lambda f: to_group(f, "uns/scvi/spec"),
    "the names are numbers": lambda f: to_dataset(f, "uns/scvi/var_names", np.ones(30)),
    "the params are text": lambda f: to_dataset(f, "uns/scvi/params", "x"),
    "the state has a group": lambda f: f.create_group("uns/scvi/state/more/and/more"),
    "the state is linked to itself": lambda f: f["uns/scvi/state"].__setitem__("again", f["uns/scvi/params"]),
    "the entry is a number": lambda f: to_dataset(f, "uns/scvi", 3.0),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_anndata_reads(name, good, tmp_path):
    path = tmp_path / "fit.h5ad"
    good.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        FILES[name](file)
    try:
        adata = ad.read_h5ad(path)
    except Exception:
        return  # anndata's own refusal
    for function in (load, ask):
        refusal(function, adata, "scvi")
