"""Files of every released schema open, and give what they gave when they were written."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

import scanpy_scvi as sv
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import SCHEMA, load

FOLDER = Path(__file__).parents[1] / "golden"
FILES = {path.name.removesuffix(".tar.gz"): path for path in sorted(FOLDER.glob("schema_*.tar.gz"))}
every_file = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Read a golden file, a fresh object every time."""
    folder = tmp_path_factory.mktemp("golden")

    def read(name: str) -> tuple[ad.AnnData, str]:
        if not (folder / name).exists():
            with tarfile.open(FILES[name]) as archive:
                archive.extractall(folder, filter="data")
        adata = (ad.read_zarr if name.endswith(".zarr") else ad.read_h5ad)(folder / name)
        return adata, next(key for key, entry in adata.uns.items() if "spec" in entry)

    return read


def assert_close(found, stored):
    """To 1e-5 of each value, or of the largest one for those near zero."""
    np.testing.assert_allclose(found, stored, rtol=1e-5, atol=1e-5 * float(np.nanmax(np.abs(stored))))


def test_there_are_files_of_every_schema():
    numbers = {int(re.match(r"schema_(\d+)_", name)[1]) for name in FILES}
    assert numbers == set(range(1, SCHEMA + 1)), "Run tests/golden/make.py with the code of the new schema."
    assert {Path(name).suffix for name in FILES} == {".h5ad", ".zarr"}


@every_file
def test_the_model_gives_what_is_stored(name, opened):
    adata, key = opened(name)
    fitted = load(adata, key)
    with torch.no_grad():
        mean, var = latent_moments(fitted.model, fitted.read(adata), device=torch.device("cpu"))
    assert_close(mean, adata.obsm[f"X_{key}"])
    assert_close(var, adata.obsm[f"{key}_latent_var"])
    stored = adata.layers[f"{key}_normalized"].copy()
    sv.tl.normalized_expression(adata, key=key)
    assert_close(adata.layers[f"{key}_normalized"], stored)
    assert np.isnan(stored).any() == (not adata.var[f"{key}_modelled"].all())


@every_file
def test_functions_run(name, opened):
    adata, key = opened(name)
    genes = list(adata.var_names[adata.var[f"{key}_modelled"]][:3])
    sv.tl.rank_genes_groups(adata, "label", key=key, n_samples=50)
    assert sv.get.rank_genes_groups_df(adata, key=f"rank_genes_groups_{key}")["proba_de"].between(0, 1).all()
    assert np.isfinite(
        sv.tl.normalized_expression(adata, n_samples=2, library_size="latent", key=key, inplace=False)
    ).all(axis=None)
    assert sv.tl.sample(adata, 20, key=key).shape[0] == 20
    sv.tl.log_likelihood(adata, n_samples=5, key=key)
    assert (adata.obs[f"{key}_log_likelihood"] < 0).all()
    sv.tl.gene_correlation(adata, genes, n_samples=50, key=key)
    sv.tl.interpolate(adata, source="label_0", target="label_1", groupby="label", n_steps=3, key=key)
    sv.tl.differential_abundance(adata, "label", key=key)
    sv.tl.trust(adata, key=key)
    assert sv.get.convergence(adata, key)["message"]
    assert len(sv.get.history(adata, key)) == 3
