"""The command line: fast help, exit codes, every option of `tl.scvi`, and both commands for real."""

import inspect
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import matplotlib.image as mpimg
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scanpy_scvi as sv
from scanpy_scvi._cli import demo, entry
from scanpy_scvi._cli import scvi as command
from scanpy_scvi._cli.options import converter
from scanpy_scvi._cli.signature import Kinds, kinds_of, parameter_texts, read_options

HEAVY = {"scanpy", "anndata", "numba", "torch", "numpy", "matplotlib"}
SMALL = ["--max-epochs", "3", "--no-progress", "--n-latent", "4"]


@pytest.fixture(autouse=True)
def _restore_verbosity():
    before = sc.settings.verbosity
    yield
    sc.settings.verbosity = before


@pytest.fixture
def counts(tmp_path):
    adata = sv.datasets.simulate(n_cells=150, n_genes=60, density=0.4, random_state=1)
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "scanpy_scvi", *map(str, words)], capture_output=True, text=True, **options
    )


# ---- help, version, usage


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["scvi", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from scanpy_scvi.__main__ import main\n"
        f"try: main({words})\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert run("scvi", "--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3 or min(seconds) < 3 * _seconds_of_bare_python()


def _seconds_of_bare_python():
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import argparse, ast, json"], check=True)
    return time.perf_counter() - start


def test_version():
    assert run("--version").stdout == f"scanpy-scvi {sv.__version__}\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "COMMAND"),
        (["fit"], "invalid choice: 'fit'"),
        (["scvi", "in.h5ad"], "OUT"),
        (["scvi", "in.h5ad", "out.h5ad", "--n-latent", "few"], "'few' was found, INT was expected"),
        (["scvi", "in.h5ad", "out.h5ad", "--likelihood", "normal"], "'normal' was found, "),
        (["scvi", "in.h5ad", "out.h5ad", "--n-lat", "3"], "unrecognized arguments"),
        (["demo", "--verbosity", "9"], "invalid choice"),
    ],
)
def test_wrong_usage_is_exit_code_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        entry.main(words)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


# ---- options from the signature


def test_options_are_those_of_the_function():
    parameters = inspect.signature(sv.tl.scvi).parameters
    options = read_options(command.SOURCE, "scvi")
    assert [option.name for option in options] == [name for name in parameters if name != "adata"]
    for option in options:
        assert option.text, f"{option.name} is not in the docstring"
        assert option.kinds.types or option.kinds.literals, f"{option.name} cannot be given"
        default = parameters[option.name].default
        if isinstance(default, str | int | float | tuple | None):
            assert option.default == repr(default)


def test_defaults_of_the_function_hold_where_nothing_is_given(counts, monkeypatch):
    given = {}
    monkeypatch.setattr(sv.tl, "scvi", lambda _, **options: given.update(options))
    monkeypatch.setattr(command, "fit_summary", lambda *_: {})
    args = entry.build_parser().parse_args(["scvi", str(counts), str(counts)])
    command.run(args)
    assert given == {"out": counts}
    words = ["--batch-key", "batch", "--no-early-stopping", "--max-epochs", "none", "--normalized", "false"]
    words += [
        "--categorical-covariate-keys",
        "donor",
        "sex",
        "--categorical-covariate-keys",
        "lane",
        "--mask-var",
        "none",
        "--penalties",
        "mmd",
        "entropy",
    ]
    args = entry.build_parser().parse_args(["scvi", str(counts), str(counts), *words])
    command.run(args)
    assert given == {
        "out": counts,
        "batch_key": "batch",
        "early_stopping": False,
        "max_epochs": None,
        "normalized": False,
        "categorical_covariate_keys": ("donor", "sex", "lane"),
        "mask_var": None,
        "penalties": ("mmd", "entropy"),
    }


SOURCE = '''
from __future__ import annotations
from typing import Literal
from .other import Kind
Device = Literal["cpu", "cuda"]
def fit(adata, key: str | None = None, *, mask: np.ndarray | str | None = _empty, kind: Kind = "a",
        device: Device | None = None, keys: Sequence[str] = (),
        n: int | Literal["auto"] = "auto", rate: float = 0.1, flag: bool = True):
    """Fit.

    Parameters
    ----------
    adata
        Counts.
    key, mask
        A column of :attr:`~anndata.AnnData.obs`,
        90% of the time ``batch``.

    Returns
    -------
    None.
    """
'''


@pytest.fixture
def source(tmp_path):
    (tmp_path / "other.py").write_text("from .deeper import Kind\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "__init__.py").write_text("from typing import Literal\nKind = Literal['a', 'b']\n")
    (tmp_path / "fit.py").write_text(SOURCE)
    return tmp_path / "fit.py"


def test_signature_is_read_from_the_source(source):
    options = {option.name: option for option in read_options(source, "fit")}
    assert {name: option.kinds for name, option in options.items()} == {
        "key": Kinds(types=(str,), none=True),
        "mask": Kinds(types=(str,), none=True),
        "kind": Kinds(literals=("a", "b")),
        "device": Kinds(literals=("cpu", "cuda"), none=True),
        "keys": Kinds(types=(str,), many=True),
        "n": Kinds(literals=("auto",), types=(int,)),
        "rate": Kinds(types=(float,)),
        "flag": Kinds(types=(bool,)),
    }
    assert options["rate"].default == "0.1"
    assert options["key"].text == options["mask"].text == "A column of anndata.AnnData.obs, 90% of the time batch."


def test_a_missing_function_is_said(source):
    with pytest.raises(LookupError, match="defines no function 'fat'"):
        read_options(source, "fat")


def test_percent_signs_survive_the_help(source, monkeypatch, capsys):
    monkeypatch.setattr(command, "SOURCE", source)
    monkeypatch.setattr(command, "read_options", lambda path, _: read_options(path, "fit"))
    with pytest.raises(SystemExit):
        entry.main(["scvi", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "90% of the time batch." in text
    assert "--flag, --no-flag" in text
    assert "--n auto|INT" in text
    assert "(default: 0.1)" in text


@pytest.mark.parametrize(
    ("kinds", "text", "value"),
    [
        (Kinds(types=(int, float)), "3", 3),
        (Kinds(types=(int, float)), "3.5", 3.5),
        (Kinds(types=(float,)), "3", 3.0),
        (Kinds(types=(float,)), "1e-3", 0.001),
        (Kinds(types=(str,), none=True), "none", None),
        (Kinds(types=(str,)), "none", "none"),
        (Kinds(literals=("auto",), types=(bool,)), "true", True),
        (Kinds(literals=("auto", 4)), "4", 4),
    ],
)
def test_words_are_read_as_the_first_kind_that_fits(kinds, text, value):
    read = converter(kinds)(text)
    assert read == value
    assert type(read) is type(value)


def test_docstrings_without_parameters_and_odd_annotations():
    assert parameter_texts("One line.") == {}
    assert kinds_of(None, Path("x.py")) == Kinds()


# ---- failures


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["no.h5ad", "out.h5ad"], "no.h5ad does not exist."),
        (["in.h5ad", "out.csv"], "out.csv ends in .csv, .h5ad or .zarr was expected."),
        (["in.h5ad", "nowhere/out.h5ad"], "does not exist. Make it first."),
        (["in.h5ad", "out.h5ad", "--batch-key", "bach"], "batch"),
    ],
)
def test_failure_is_one_sentence_and_exit_code_1(words, complaint, counts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert entry.main(["scvi", *words, "--json", *SMALL]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scanpy-scvi: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err
    assert not (tmp_path / "out.h5ad").exists()


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert entry.main(["scvi", str(tmp_path / "no.h5ad"), str(tmp_path / "out.h5ad"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("no 'x' in\n  obs"), "scanpy-scvi: no 'x' in obs\n"),
        (KeyboardInterrupt(), "scanpy-scvi: interrupted; nothing was written.\n"),
        (RuntimeError(), "scanpy-scvi: RuntimeError, without a message; run again with --debug.\n"),
    ],
)
def test_every_failure_has_words(error, sentence, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert entry.main(["demo"]) == 1
    assert capsys.readouterr().err == sentence


def test_a_broken_write_leaves_the_old_file(tmp_path, counts):
    adata = ad.read_h5ad(counts)
    adata.uns["odd"] = object()
    before = counts.read_bytes()
    with pytest.raises(Exception, match="odd"):
        demo.write(adata, counts)
    assert counts.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


# ---- the commands, for real


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_scvi_fits_and_writes(suffix, counts, tmp_path, capsys):
    out = tmp_path / f"out{suffix}"
    words = ["scvi", counts, out, "--batch-key", "batch", "--json", "--key-added", "fit"]
    words = [str(word) for word in [*words, "--checkpoint", tmp_path / "states", *SMALL]]
    if suffix == ".h5ad":  # a process of its own, which once is enough
        done = run(*words)
        assert done.returncode == 0, done.stderr
        told = done.stdout
    else:
        assert entry.main(words) == 0
        told = capsys.readouterr().out
    assert list((tmp_path / "states").iterdir()) == []
    summary = json.loads(told)
    fitted = ad.read_zarr(out) if suffix == ".zarr" else ad.read_h5ad(out)
    assert fitted.obsm["X_fit"].shape == (150, 4)
    assert summary["n_cells"] == 150
    assert summary["n_genes"] == 60
    assert summary["elbo"] == sv.get.convergence(fitted, "fit")["best_elbo"]
    assert summary["verdict"] == sv.get.convergence(fitted, "fit")["verdict"]
    assert 1 <= summary["n_epochs"] <= 3


def test_scvi_gives_what_the_function_gives(counts, capsys):
    adata = ad.read_h5ad(counts)
    sv.tl.scvi(adata, batch_key="batch", max_epochs=3, n_latent=4, progress=False)
    capsys.readouterr()
    assert entry.main(["scvi", str(counts), str(counts), "--batch-key", "batch", "--verbosity", "0", *SMALL]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert re.match(
        r"150 cells, 60 genes: .*\nHeld-out ELBO -\d+\.\d\d nats per cell, \d epochs, .* s\.\n", captured.out
    )
    assert np.array_equal(ad.read_h5ad(counts).obsm["X_scvi"], adata.obsm["X_scvi"])


@pytest.mark.slow
def test_demo_integrates_the_cell_lines(tmp_path):
    done = run("demo", "--out", tmp_path / "new" / "demo", "--json", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    before, after = summary["before"], summary["after"]
    assert before["label_score"] > 0.99
    assert after["label_score"] > 0.99
    assert before["batch_mixing"] > 0.6
    assert after["batch_mixing"] < after["ideal_batch_mixing"] + 0.15
    adata = ad.read_h5ad(summary["output"])
    assert {"X_scvi", "X_umap", "X_pca", "X_umap_uncorrected"} <= set(adata.obsm)
    assert isinstance(adata.obs["cell_type"].dtype, pd.CategoricalDtype)
    picture = mpimg.imread(summary["picture"])
    assert min(picture.shape[:2]) > 800
    assert len(np.unique((picture[..., :3] * 8).astype(int).reshape(-1, 3), axis=0)) > 20  # coloured dots are there
