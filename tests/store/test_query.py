"""What a query shares with a model: genes, columns, categories."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scanpy_scvi.store.covariates import Categories, ColumnKeys
from scanpy_scvi.store.query import grown_categories, match_genes
from scanpy_scvi.store.read import read_counts

MODEL = tuple(f"G{i}" for i in range(10))


def query(names, **var) -> ad.AnnData:
    return ad.AnnData(np.ones((2, len(names)), np.float32), var=pd.DataFrame(var, index=list(names)))


def test_genes_in_any_order_with_gaps_and_strangers():
    found = match_genes(query(["other", "G3", "G0", "G9"]), MODEL, None)
    assert found.positions.tolist() == [2, -1, -1, 1, -1, -1, -1, -1, -1, 3]
    assert found.var_names == MODEL
    assert found.absent == ("G1", "G2", "G4", "G5", "G6", "G7", "G8")
    assert found.n_matched == 3


def test_a_column_in_place_of_the_names():
    """Matched genes get the query's names; of two equal symbols the first counts, and a missing one none."""
    symbols = ["G1", "G2", "G1", None, "G7"]
    found = match_genes(query(["E1", "E2", "E3", "E4", "E5"], symbol=symbols), MODEL, "symbol")
    assert [found.positions[i] for i in (1, 2, 7)] == [0, 1, 4]
    assert [found.var_names[i] for i in (1, 2, 7, 3)] == ["E1", "E2", "E5", "G3"]


def test_a_name_with_two_meanings_is_refused():
    both = query(["E1", "E2", "G3"], symbol=["G1", "G2", "G4"])
    with pytest.raises(ValueError, match=r"'G3' of the model are in `query.var_names`, but not in `query.var\['symbol"):
        match_genes(both, MODEL, "symbol")


@pytest.mark.parametrize(
    ("names", "var", "words"),
    [
        (["A", "B"], {}, r"0 of the model's 10 genes .* Name the genes as the reference does"),
        (["A", "B"], {"id": ["G1", "G2"], "n": [1, 2]}, r"Pass `gene_symbols='id'`, where 2 are"),
        ([name.lower() for name in MODEL], {}, r"differ in upper and lower case"),
    ],
)
def test_too_few_genes_come_with_advice(names, var, words):
    with pytest.raises(ValueError, match=words):
        match_genes(query(names, **var), MODEL, None)


def test_no_such_column():
    with pytest.raises(KeyError, match="Did you mean 'symbol'"):
        match_genes(query(MODEL, symbol=list(MODEL)), MODEL, "symbols")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_names_are_refused():
    with pytest.raises(ValueError, match="duplicates"):
        match_genes(query(["G1", "G1"]), MODEL, None)


def test_absent_genes_have_no_counts():
    x = np.array([[1, 2, 3], [0, 5, 0]], np.float32)
    adata = ad.AnnData(x)
    rows = read_counts(adata, adata.X, None, np.array([-1, 2, -1, 0]))
    dense = np.zeros((2, 4))
    for i in range(2):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        dense[i, rows.indices[part]] = rows.data[part]
    assert dense.tolist() == [[0, 3, 0, 1], [0, 0, 0, 0]]


def test_new_categories_follow_the_known_ones():
    adata = ad.AnnData(
        np.ones((3, 1)), obs=pd.DataFrame({"b": ["new", "y", "x"], "d": ["q", "q", "p"]}, index=list("abc"))
    )
    known = Categories(batch=("y", "z"), labels=("l", "m"), categorical=(("p", "o"),), batch_weights=(0.25, 0.75))
    found = grown_categories(adata, ColumnKeys("b", None, ("d",)), known)
    assert found.batch == ("y", "z", "new", "x")
    assert found.batch_weights == (0.25, 0.75, 0.0, 0.0)
    assert found.categorical == (("p", "o", "q"),)
    assert found.labels == ("",)  # no use is made of them


def test_a_reference_without_batches_is_one():
    adata = ad.AnnData(np.ones((2, 1)), obs=pd.DataFrame({"b": ["new", "reference"]}, index=list("ab")))
    found = grown_categories(adata, ColumnKeys("b"), Categories())
    assert found.batch == ("reference", "new")
    assert found.batch_weights == (1.0, 0.0)
