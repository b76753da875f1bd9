"""The file is the model: everything written survives `.h5ad` and `.zarr`, to the bit, into a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import anndata as ad
import h5py
import numpy as np
import pytest

import scanpy_scvi as sv

READ = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}

AGAIN = """
import sys, anndata as ad, numpy as np, scanpy_scvi as sv, torch
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import load
path, out = sys.argv[1:]
adata = (ad.read_zarr if path.endswith("zarr") else ad.read_h5ad)(path)
sv.tl.normalized_expression(adata, key_added="again")
table = sv.tl.normalized_expression(adata, n_samples=3, library_size="latent", inplace=False)
fitted = load(adata, "scvi")
z = latent_moments(fitted.model, fitted.read(adata), device=torch.device("cpu"))
layers = {"stored": adata.layers["scvi_normalized"], "again": adata.layers["again"]}
np.savez(out, latent=adata.obsm["X_scvi"], encoded=z.mean, variance=z.var, drawn=table, **layers)
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
        labels_key="label",
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
    np.testing.assert_array_equal(again["encoded"], fitted.obsm["X_scvi"])
    np.testing.assert_array_equal(again["variance"], fitted.obsm["scvi_latent_var"])
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


def test_old_versions_of_anndata_can_read_the_file(fitted, tmp_path):
    """Every item has an encoding that anndata 0.8 knows, and weights lie under flat dotted names."""
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    known = {"array", "categorical", "dataframe", "dict", "numeric-scalar", "string", "string-array"}
    found = set()
    with h5py.File(tmp_path / "fit.h5ad") as file:
        for slot in ("uns", "obs", "var", "obsm", "varm", "layers"):
            file[slot].visititems(lambda _, item: found.add(item.attrs["encoding-type"]))
        state = file["uns/scvi/state"]
        assert all(isinstance(item, h5py.Dataset) and item.dtype.kind in "fi" for item in state.values())
        assert "decoder.logits.weight" in state
    assert found <= known


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_all_functions_work_on_what_was_read(fitted, tmp_path, suffix):
    path = tmp_path / f"fit.{suffix}"
    write(fitted, path)
    back = READ[suffix](path)
    assert sv.get.convergence(back) == sv.get.convergence(fitted)
    assert sv.get.history(back).equals(sv.get.history(fitted))
    names = list(back.obs["batch"].cat.categories)
    table = sv.tl.normalized_expression(back, genes=["gene_3"], transform_batch=names[0], inplace=False)
    other = sv.tl.normalized_expression(fitted, genes=["gene_3"], transform_batch=names[0], inplace=False)
    assert table.equals(other)
    sv.tl.scvi(back, "batch", max_epochs=1, n_hidden=8, n_latent=2, progress=False)  # a fit of ours may be replaced
    assert back.obsm["X_scvi"].shape == (150, 2)
    assert "scvi_dispersion" not in back.varm
