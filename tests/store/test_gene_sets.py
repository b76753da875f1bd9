import numpy as np
import pandas as pd
import pytest

from scanpy_scvi.store.gene_sets import read_gene_sets, read_gmt, select_gene_sets

SETS = {"big": ["A", "B", "C", "D"], "small": ["D", "E"], "a/b c": ["X", "Y", "A"]}
GENES = ["E", "D", "C", "B", "A", "Z"]


def links(sets, genes):
    return {(sets.names[s], genes[g]) for s, g in zip(sets.set_code, sets.gene, strict=True)}


def test_file_dict_and_table_say_the_same(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("".join(f"{name}\thttp://x\t" + "\t".join(genes) + "\n" for name, genes in SETS.items()) + "\n")
    table = pd.DataFrame([(s, g) for s, genes in SETS.items() for g in genes], columns=["source", "target"])
    read = [read_gene_sets(given) for given in (path, str(path), SETS, table)]
    for other in read[1:]:
        pd.testing.assert_frame_equal(read[0], other)
    assert list(read[0].columns) == ["source", "target", "weight"]
    assert read_gmt(path) == SETS


def test_sets_with_enough_of_the_genes_are_kept_in_their_order():
    sets = select_gene_sets(read_gene_sets(SETS), GENES, min_genes=2)
    assert sets.names == ["big", "small"]
    assert links(sets, GENES) == {(s, g) for s in ("big", "small") for g in SETS[s]}
    assert (np.diff(sets.set_code) >= 0).all()
    assert select_gene_sets(read_gene_sets(SETS), GENES, min_genes=1).names == list(SETS)
    assert select_gene_sets(read_gene_sets(SETS), GENES, min_genes=3).names == ["big"]


def test_every_set_has_the_same_sum_of_squares_and_keeps_its_ratios_and_signs():
    table = pd.DataFrame(
        {
            "source": ["s", "s", "s", "t", "t"],
            "target": ["A", "B", "C", "A", "D"],
            "weight": [1.0, -2.0, 4.0, 50.0, 50.0],
        }
    )
    sets = select_gene_sets(read_gene_sets(table), GENES, min_genes=2)
    of = {(sets.names[s], GENES[g]): w for s, g, w in zip(sets.set_code, sets.gene, sets.scale, strict=True)}
    assert of["s", "B"] / of["s", "A"] == pytest.approx(-2)
    assert of["s", "C"] / of["s", "A"] == pytest.approx(4)
    squares = np.bincount(sets.set_code, sets.scale.astype(float) ** 2)
    np.testing.assert_allclose(squares, 2.5, rtol=1e-6)  # the median number of genes
    assert sets.scale.dtype == np.float32


def test_genes_named_twice_in_a_list_count_once():
    assert len(read_gene_sets({"s": ["A", "A", "B"]})) == 2


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("no_such.gmt", FileNotFoundError, "no such file"),
        (3, TypeError, "type int"),
        ({"s": "A"}, TypeError, r"gene_sets\['s'\]"),
        ({}, ValueError, "holds no gene"),
        ({"s": []}, ValueError, "holds no gene"),
        (pd.DataFrame({"source": ["s"]}), ValueError, "lacks 'target'"),
        (pd.DataFrame({"source": ["s", "s"], "target": ["A", "A"]}), ValueError, "twice"),
        (pd.DataFrame({"source": ["s"], "target": ["A"], "weight": [0.0]}), ValueError, "finite number"),
        (
            pd.DataFrame({"source": ["s"], "target": ["A"], "weight": [np.nan]}),
            ValueError,
            "finite number other than 0",
        ),
    ],
)
def test_what_is_no_gene_set_is_an_error(given, error, match):
    with pytest.raises(error, match=match):
        read_gene_sets(given)


@pytest.mark.parametrize(
    ("text", "match"),
    [("A,B,C\n", "Line 1"), ("s\tx\tA\n\tx\tA\n", "Line 2"), ("s\tx\tA\ns\tx\tB\n", "twice"), ("s\tx\n", "Line 1")],
)
def test_a_broken_file_is_an_error_with_its_line(text, match, tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_gmt(path)


def test_sets_of_other_names_are_an_error_that_shows_both():
    with pytest.raises(ValueError, match=r"largest 0.*'A', 'B'.*'ENSG1'"):
        select_gene_sets(read_gene_sets(SETS), ["ENSG1", "ENSG2"], min_genes=2)
