import anndata as ad
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import scanpy_scvi as sv

KEY = "scvi_interpolation"


@pytest.fixture(scope="module")
def with_covariates(simulated, quick_fit):
    """A fit whose cells differ in batch, a category and a number."""
    adata = simulated.copy()
    adata.obs["age"] = [20.0 + (7 * i) % 41 for i in range(adata.n_obs)]
    adata.obs["donor"] = [f"donor_{i % 3}" for i in range(adata.n_obs)]
    quick_fit(adata, continuous_covariate_keys=["age"], categorical_covariate_keys=["donor"])
    return adata


@pytest.mark.parametrize("path", ["straight", "data"])
@pytest.mark.parametrize("batch", [None, "batch_1", "observed"])
def test_the_ends_are_the_normalized_expression_of_the_two_cells(with_covariates, path, batch):
    adata = with_covariates.copy()
    a, b = adata.obs_names[[3, 70]]
    sv.tl.interpolate(adata, source=a, target=b, path=path, n_steps=7, transform_batch=batch, library_size=500)
    found = adata.uns[KEY]
    expected = sv.tl.normalized_expression(adata, transform_batch=batch, library_size=500, inplace=False)
    np.testing.assert_allclose(found["expression"][[0, -1]], expected.loc[[a, b]], rtol=1e-5)
    np.testing.assert_array_equal(found["latent"][[0, -1]], adata.obsm["X_scvi"][[3, 70]])
    np.testing.assert_allclose(found["expression"].sum(1), 500, rtol=1e-5)
    assert found["position"].tolist() == np.linspace(0, 1, 7).tolist()
    assert list(found["genes"]) == list(expected.columns)


def test_groups_begin_and_end_at_their_means(fitted):
    adata = fitted.copy()
    sv.tl.interpolate(adata, source="label_0", target="label_2", groupby="label", n_steps=5, genes=["gene_3", "gene_1"])
    found, z = adata.uns[KEY], adata.obsm["X_scvi"]
    for end, label in ((0, "label_0"), (-1, "label_2")):
        np.testing.assert_allclose(found["latent"][end], z[adata.obs["label"] == label].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["latent"][2], found["latent"][[0, -1]].mean(0), rtol=1e-4, atol=1e-6)
    assert found["expression"].shape == (5, 2)
    assert list(found["genes"]) == ["gene_3", "gene_1"]


def test_a_cell_in_between_is_decoded_as_itself(fitted):
    """Where a path passes exactly through the state of a cell, it decodes to that cell's expression."""
    adata = fitted.copy()
    sv.tl.interpolate(adata, source=adata.obs_names[0], target=adata.obs_names[9], path="data", n_steps=2001)
    found = adata.uns[KEY]
    expected = sv.tl.normalized_expression(adata, inplace=False)
    for name in found["through"]:
        cell = adata.obs_names.get_loc(name)
        step = np.linalg.norm(found["latent"] - adata.obsm["X_scvi"][cell], axis=1).argmin()
        np.testing.assert_allclose(found["expression"][step], expected.iloc[cell], rtol=0.01)


def test_density_is_that_of_all_other_cells(fitted):
    """SciPy's normal densities, the two end cells left out."""
    adata = fitted.copy()
    a, b = adata.obs_names[[3, 70]]
    sv.tl.interpolate(adata, source=a, target=b, n_steps=4)
    found = adata.uns[KEY]
    keep = ~adata.obs_names.isin([a, b])
    mean, sd = adata.obsm["X_scvi"][keep], np.sqrt(adata.obsm["scvi_latent_var"][keep])
    expected = logsumexp(norm.logpdf(found["latent"][:, None], mean, sd).sum(2), axis=1) - np.log(keep.sum())
    np.testing.assert_allclose(found["log_density"], expected, rtol=1e-4)
    low, middle, high = found["usual_log_density"]
    assert low < middle < high


def test_empty_space_is_seen(cell_lines):
    """Between two cell lines there is nothing, and the density says so."""
    adata = cell_lines.copy()
    sv.tl.scvi(adata, "batch", max_epochs=15, normalized=False, progress=False)
    sv.tl.interpolate(adata, source="A549", target="H1975", groupby="cell_type")
    found = adata.uns[KEY]
    assert found["log_density"][[0, -1]].min() > found["usual_log_density"][0]
    assert found["log_density"].min() < found["log_density"][[0, -1]].min() - 3


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_is_the_same_on_it(fitted, tmp_path, suffix):
    adata = fitted.copy()
    options = {"source": "label_0", "target": "label_1", "groupby": "label", "path": "data", "n_steps": 9}
    sv.tl.interpolate(adata, **options)
    path = tmp_path / f"a.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    for _ in range(2):
        for name in ("position", "latent", "log_density", "expression", "usual_log_density", "genes", "through"):
            np.testing.assert_array_equal(again.uns[KEY][name], adata.uns[KEY][name])
        sv.tl.interpolate(again, **options)
    assert again.uns[KEY]["params"]["source"] == "label_0"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"source": "nobody"}, KeyError, "no cell of that name"),
        ({"groupby": "label"}, KeyError, "has the groups 'label_0'"),
        ({"groupby": "lable"}, KeyError, "Did you mean 'label'"),
        ({"n_steps": 1}, ValueError, "`n_steps` is 1"),
        ({"path": "curved"}, ValueError, "'straight', 'data'"),
        ({"genes": ["nothing"]}, KeyError, "not modelled"),
        ({"transform_batch": "nowhere"}, ValueError, "'nowhere'"),
        ({"key_added": "scvi"}, ValueError, "holds no interpolation"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    before = set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.interpolate(adata, **({"source": adata.obs_names[0], "target": adata.obs_names[1]} | options))
    assert set(adata.uns) == before
