import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scanpy_scvi as sv

KEY = "scvi_gene_correlation"
GENES = [f"gene_{i}" for i in range(4)]


@pytest.fixture(scope="module")
def correlated(fitted):
    adata = fitted.copy()
    sv.tl.gene_correlation(adata, GENES, n_samples=300, n_null=5)
    return adata


def with_unrelated_genes(n_cells=700, n_related=150, n_unrelated=30):
    """Counts of genes that depend on z, and of such that depend on the cell's total alone."""
    adata = sv.datasets.simulate(n_cells=n_cells, n_genes=n_related, density=0.25, n_labels=5, random_state=1)
    rng = np.random.default_rng(0)
    total = np.asarray(adata.X.sum(1)).ravel()
    mean, theta = np.exp(rng.uniform(np.log(0.1), np.log(5), n_unrelated)), np.exp(rng.normal(1, 0.7, n_unrelated))
    x = rng.poisson(rng.gamma(theta, (total / total.mean())[:, None] * mean / theta)).astype(np.float32)
    both = ad.AnnData(sparse.hstack([adata.X, sparse.csr_matrix(x)]).tocsr(), obs=adata.obs)
    both.var_names = [*adata.var_names, *(f"unrelated_{i}" for i in range(n_unrelated))]
    return both


def test_null_holds_pairs_without_relation_and_lets_others_through():
    adata = with_unrelated_genes()
    sv.tl.scvi(adata, batch_key="batch", normalized=False, progress=False)
    unrelated = [g for g in adata.var_names if g.startswith("unrelated")]
    related = list(adata.var_names[np.argsort(-np.asarray(adata.X[:, :150].mean(0)).ravel())[:10]])
    sv.tl.gene_correlation(adata, [*unrelated, *related], n_samples=2000)
    table = sv.get.gene_correlation_df(adata)
    n_unrelated = table["gene1"].isin(unrelated).astype(int) + table["gene2"].isin(unrelated)
    without, relation = table[n_unrelated == 2], table[n_unrelated == 0]
    assert without["denoised"].std() > 4 * without["observed"].std()  # what the null is for
    assert without["beyond_null"].mean() < 0.12
    assert table[n_unrelated == 1]["beyond_null"].mean() < 0.15
    assert (without["null_tail"] > 0.5).mean() > 0.3
    assert relation["beyond_null"].mean() > 3 * without["beyond_null"].mean()
    agree = np.sign(relation["denoised"]) == np.sign(relation["observed"])
    assert agree[relation["beyond_null"]].mean() > 0.9


def test_what_is_written(correlated):
    found = correlated.uns[KEY]
    assert found["genes"].tolist() == GENES
    for name in ("denoised", "observed", "null_high", "null_tail"):
        assert found[name].shape == (4, 4)
        np.testing.assert_allclose(found[name], found[name].T, atol=1e-12)
    np.testing.assert_allclose(np.diag(found["denoised"]), 1)
    x = correlated[:, GENES].X.toarray()
    log = np.log1p(1e4 * x / np.asarray(correlated.X.sum(1)))
    np.testing.assert_allclose(found["observed"], np.corrcoef(log.T), atol=1e-5)
    table = sv.get.gene_correlation_df(correlated)
    assert len(table) == 6
    row = table.query("gene1 == 'gene_1' and gene2 == 'gene_3'").iloc[0]
    assert row["denoised"] == found["denoised"][1, 3]
    assert row["null_low"] == -row["null_high"] == -found["null_high"][1, 3]
    assert row["beyond_null"] == (abs(row["denoised"]) > row["null_high"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_it(correlated, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    getattr(correlated, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    table = sv.get.gene_correlation_df(correlated)
    pd.testing.assert_frame_equal(sv.get.gene_correlation_df(again), table, check_exact=True)
    del again.uns[KEY]
    new = sv.tl.gene_correlation(again, GENES, n_samples=300, n_null=5, inplace=False)
    assert KEY not in again.uns
    pd.testing.assert_frame_equal(new, table, check_exact=True)


def test_options(fitted):
    adata = fitted.copy()
    adata.obs["half"] = adata.obs["label"].astype(object).where(adata.obs["label"] != "label_0")
    tables = {
        name: sv.tl.gene_correlation(adata, GENES, n_samples=300, n_null=0, inplace=False, **options)
        for name, options in {
            "plain": {},
            "within": {"within": "half"},
            "spearman": {"method": "spearman"},
            "batch": {"transform_batch": ["batch_1"]},
            "observed batch": {"transform_batch": "observed"},
            "seed": {"random_state": 1},
        }.items()
    }
    for name in set(tables) - {"plain"}:
        assert (tables[name]["denoised"] != tables["plain"]["denoised"]).any(), name
    assert tables["plain"][["null_high", "null_tail"]].isna().all(axis=None)
    log = adata[adata.obs["half"].notna()].copy()
    x = np.log1p(1e4 * log[:, GENES].X.toarray() / np.asarray(log.X.sum(1)))
    for label in ("label_1", "label_2"):
        mine = (log.obs["half"] == label).to_numpy()
        x[mine] -= x[mine].mean(0)
    wanted = np.corrcoef(x.T)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(tables["within"]["observed"], wanted, atol=1e-5)
    sv.tl.gene_correlation(adata, GENES[:2], n_samples=50, n_null=0, transform_batch=["batch_1"], key_added="mine")
    assert adata.uns["mine"]["params"]["transform_batch"].tolist() == ["batch_1"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"genes": ["gene_0", "nothing"]}, KeyError, "'nothing' are not modelled"),
        ({"genes": ["gene_0"]}, ValueError, "2 to 500"),
        ({"method": "kendall"}, ValueError, "'pearson', 'spearman'"),
        ({"n_samples": 3}, ValueError, "`n_samples` is 3"),
        ({"interval": 1}, ValueError, "`interval` is 1"),
        ({"within": "nowhere"}, KeyError, "`within`"),
        ({"transform_batch": "other"}, ValueError, "knows the batches"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"key_added": "scvi"}, ValueError, "holds no such result"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    before = set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.gene_correlation(adata, **({"genes": GENES, "n_null": 0} | options))
    assert set(adata.uns) == before


def test_reading_what_is_not_there(correlated, fitted):
    with pytest.raises(KeyError, match=f"Pass key={KEY!r}"):
        sv.get.gene_correlation_df(correlated, key="none")
    with pytest.raises(KeyError, match=r"Run sv\.tl\.gene_correlation"):
        sv.get.gene_correlation_df(fitted)
