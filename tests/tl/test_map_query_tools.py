"""Every function that asks a fit, asked about mapped cells that lack genes, and about reference and query together."""

import anndata as ad
import numpy as np
import pytest

import scanpy_scvi as sv

FEW = {"max_epochs": 2, "n_hidden": 16, "n_latent": 3, "progress": False}


@pytest.fixture(scope="module", params=[{"batch_key": "batch"}, {}], ids=["batches", "no batches"])
def pair(request):
    """Reference, and a mapped query of a new batch without a quarter of the genes; do not change them."""
    adata = sv.datasets.simulate(n_cells=300, n_genes=60, n_batches=3, density=0.5)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs["donor"] = [f"d{i % 4}" for i in range(adata.n_obs)]
    adata.obs["treated"] = ["no" if i % 4 < 2 else "yes" for i in range(adata.n_obs)]
    is_new = (adata.obs["batch"] == "batch_2").to_numpy()
    reference, query = adata[~is_new].copy(), adata[is_new, 15:].copy()
    sv.tl.scvi(reference, **request.param, **FEW)
    sv.tl.map_query(query, reference, batch_key="batch", normalized=True, max_epochs=2, progress=False)
    if not request.param:
        reference.obs["batch"] = "reference"
    return reference, query


@pytest.fixture
def both(pair):
    """Both in one object, as the documentation says."""
    reference, query = pair
    both = ad.concat([reference, query], join="outer", fill_value=0)
    both.uns["scvi"] = query.uns["scvi"]
    return both


@pytest.fixture(params=["query", "both"])
def cells(request, pair, both):
    return both if request.param == "both" else pair[1].copy()


def test_both_halves_keep_their_bits(pair, both):
    reference, query = pair
    n = reference.n_obs
    assert both.n_vars == 60
    assert np.array_equal(both.obsm["X_scvi"], np.concatenate([reference.obsm["X_scvi"], query.obsm["X_scvi"]]))
    sv.tl.normalized_expression(both)
    layer = both[:, reference.var_names].layers["scvi_normalized"]
    assert np.array_equal(layer[:n], reference.layers["scvi_normalized"])
    assert np.array_equal(both[:, query.var_names].layers["scvi_normalized"][n:], query.layers["scvi_normalized"])


def test_normalized_expression(cells):
    table = sv.tl.normalized_expression(cells, inplace=False)
    assert sorted(table.columns) == sorted(cells.var_names)
    total = table.sum(1)
    assert (total < 1e4 * 1.001).all()
    assert (total > 9e3).all() == (cells.n_vars == 60)  # the rest belongs to genes that are not there
    if cells.n_vars < 60:
        with pytest.raises(KeyError, match="'gene_3' are modelled, but these cells lack them"):
            sv.tl.normalized_expression(cells, genes=["gene_3"], inplace=False)


def test_rankings_have_the_genes_that_are_there(cells):
    sv.tl.rank_genes_groups(cells, "label", n_samples=60)
    sv.tl.condition_test(cells, "treated", donor_key="donor", reference="no", n_samples=20, batch_correction=False)
    for table in (sv.get.rank_genes_groups_df(cells, "label_0"), sv.get.condition_test_df(cells)):
        assert sorted(table["names"]) == sorted(cells.var_names)


def test_counts_of_genes_that_are_there(cells):
    for drawn in (sv.tl.sample(cells), sv.tl.sample(cells, 30, groupby="label")):
        assert sorted(drawn.var_names) == sorted(cells.var_names)
        assert drawn.X.sum() > 0
    means = (
        np.asarray(sv.tl.sample(cells).X.mean(0)).ravel(),
        np.asarray(cells[:, sv.tl.sample(cells).var_names].X.mean(0)),
    )
    assert np.corrcoef(means[0], means[1].ravel())[0, 1] > 0.8


def test_predictive_check(cells):
    sv.tl.posterior_predictive_check(cells, n_samples=10)
    genes = cells.uns["scvi_ppc"]["genes"]
    assert sorted(genes.index) == sorted(cells.var_names)
    observed = np.asarray(cells[:, genes.index].X.mean(0)).ravel()
    np.testing.assert_allclose(genes["mean"], observed, rtol=1e-5)
    of_cells = cells.uns["scvi_ppc"]["cells"]
    np.testing.assert_allclose(of_cells["mean"], cells.X.toarray().mean(1), rtol=1e-5)


def test_the_others(cells):
    sv.tl.gene_correlation(cells, list(cells.var_names[:3]), n_samples=30, n_null=2)
    sv.tl.log_likelihood(cells, n_samples=2)
    sv.tl.trust(cells, n_samples=2)
    sv.tl.interpolate(cells, source="label_0", target="label_1", groupby="label", n_steps=4)
    sv.tl.differential_abundance(cells, "donor")
    sv.tl.integration_scores(cells, "donor", label_key="label")
    assert sorted(cells.uns["scvi_interpolation"]["genes"]) == sorted(cells.var_names)
    for column in ("scvi_log_likelihood", "scvi_trust"):
        assert np.isfinite(cells.obs[column]).all()


def test_trust_beside_the_reference(pair):
    """The query brings its own model, with its batch and its genes; the reference need not know them."""
    reference, query = pair[0].copy(), pair[1].copy()
    if "batch_key" not in reference.uns["scvi"]["params"]:
        del reference.obs["batch"]
    sv.tl.trust(query, reference=reference, n_samples=2)
    assert query.obs["scvi_trust"].between(0, 1).all()
    assert query.uns["scvi_trust"]["n_reference"] == reference.n_obs
