"""The file is the model: everything written survives `.h5ad` and `.zarr`, to the bit, into a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import anndata as ad
import numpy as np
import pytest

import scanpy_scvi as sv

READ = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}

AGAIN = """
import sys, anndata as ad, numpy as np, scanpy_scvi as sv
path, out = sys.argv[1:]
adata = (ad.read_zarr if path.endswith("zarr") else ad.read_h5ad)(path)
sv.tl.normalized_expression(adata, key_added="again")
table = sv.tl.normalized_expression(adata, n_samples=3, library_size="latent", inplace=False)
x = adata.obsm["X_scvi"]
np.savez(out, latent=x, stored=adata.layers["scvi_normalized"], again=adata.layers["again"], drawn=table)
"""


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    """A fit with every kind of covariate, and category names that files find hard."""
    adata = sv.datasets.simulate(n_cells=150, n_genes=40, n_batches=3, density=0.5)
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories(["CD4+/CD25 T", "b c", "ü"])
    rng = np.random.default_rng(0)
    adata.obs["donor"] = rng.choice(["x/1", "y 2"], adata.n_obs)
    adata.obs["age"] = rng.normal(50, 9, adata.n_obs)
    adata.var["highly_variable"] = np.arange(adata.n_vars) < 30
    sv.tl.scvi(
        adata,
        "batch",
        labels_key="label" if "label" in adata.obs else None,
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
        dispersion="gene-batch",
        library="latent",
        likelihood="zinb",
        max_epochs=3,
        n_hidden=16,
        n_latent=4,
        progress=False,
    )
    return adata


def write(adata: ad.AnnData, path) -> None:
    if path.suffix == ".h5ad":
        adata.write_h5ad(path)
    else:
        adata.write_zarr(path)


def leaves(value, path=""):
    """Every stored value under its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}" if path else str(key))
    else:
        yield path, value


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_new_process_gives_the_same_bits(fitted, tmp_path, suffix):
    path, out = tmp_path / f"fit.{suffix}", tmp_path / "again.npz"
    write(fitted, path)
    subprocess.run([sys.executable, "-c", AGAIN, str(path), str(out)], check=True)
    again = np.load(out)
    np.testing.assert_array_equal(again["latent"], fitted.obsm["X_scvi"])
    np.testing.assert_array_equal(again["stored"], fitted.layers["scvi_normalized"])
    np.testing.assert_array_equal(again["again"], fitted.layers["scvi_normalized"])
    drawn = sv.tl.normalized_expression(fitted, n_samples=3, library_size="latent", inplace=False)
    np.testing.assert_array_equal(again["drawn"], drawn)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_every_value_survives(fitted, tmp_path, suffix):
    path = tmp_path / f"fit.{suffix}"
    write(fitted, path)
    back = READ[suffix](path)
    stored, found = dict(leaves(dict(fitted.uns["scvi"]))), dict(leaves(dict(back.uns["scvi"])))
    assert set(stored) == set(found)
    for name, value in stored.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value), err_msg=name)
    for slot in ("obsm", "varm", "layers"):
        for key, value in getattr(fitted, slot).items():
            np.testing.assert_array_equal(getattr(back, slot)[key], value, err_msg=f"{slot}[{key}]")
    np.testing.assert_array_equal(back.var["scvi_modelled"], fitted.var["scvi_modelled"])


def test_only_plain_values_are_stored(fitted):
    """No None, no pickle: numbers, strings, and arrays of them, under keys without a slash."""
    for path, value in leaves(dict(fitted.uns["scvi"])):
        assert value is not None, path
        if isinstance(value, np.ndarray) and value.dtype == object:
            assert all(isinstance(v, str) for v in value.ravel()), path
        else:
            assert isinstance(value, (str, bool, int, float)) or value.dtype.kind in "biuf", path
    state = fitted.uns["scvi"]["state"]
    assert not any("/" in key or isinstance(value, Mapping) for key, value in state.items())
    assert "encoder.mean.weight" in state
    columns = [*fitted.obs.columns, *fitted.var.columns, *fitted.obsm, *fitted.varm, *fitted.layers]
    assert not any("/" in str(c) for c in columns)


def test_genes_and_categories_are_matched_by_name(fitted):
    """Other order of genes, further genes, other order of categories: the same numbers."""
    expected = sv.tl.normalized_expression(fitted, inplace=False)
    order = np.random.default_rng(1).permutation(fitted.n_vars)
    other = fitted[::-1, order].copy()
    names = list(other.obs["batch"].cat.categories)
    other.obs["batch"] = other.obs["batch"].cat.reorder_categories(names[::-1])
    found = sv.tl.normalized_expression(other, inplace=False)
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=2e-5)


def test_what_is_stored_is_checked(fitted):
    def broken(change):
        adata = fitted.copy()
        change(adata.uns["scvi"])
        return adata

    def drop(entry):
        del entry["state"]["encoder.mean.bias"]

    def reshape(entry):
        entry["state"]["encoder.mean.bias"] = np.zeros(7, np.float32)

    def newer(entry):
        entry["schema"] = 99

    for change, words in ((drop, "encoder.mean.bias"), (reshape, "shape"), (newer, "newer")):
        with pytest.raises(ValueError, match=words):
            sv.tl.normalized_expression(broken(change), inplace=False)
    with pytest.raises(KeyError, match="genes are not in"):
        sv.tl.normalized_expression(fitted[:, 5:].copy(), inplace=False)
    with pytest.raises(KeyError, match="holds no fitted model"):
        sv.tl.normalized_expression(fitted, key="other")
