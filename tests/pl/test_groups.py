import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scanpy_scvi.pl._groups import COLORS, read_groups


def of(column, **uns):
    adata = ad.AnnData(np.ones((len(column), 1), np.float32), uns=uns)
    adata.obs["g"] = pd.Series(column, index=adata.obs_names)
    return read_groups(adata, "g")


def test_colours_stay_with_their_categories_when_some_have_no_cells():
    column = pd.Categorical(["c", "a", None, "c"], categories=["a", "b", "c"])
    groups = of(column, g_colors=["#00000a", "#00000b", "#00000c"])
    assert groups.names == ["a", "c"]
    assert groups.colors == ["#00000a", "#00000c"]
    assert groups.codes.tolist() == [1, 0, -1, 1]
    assert not groups.ordered
    assert of(column).colors == [COLORS[0], COLORS[2]]
    assert of(column, g_colors=["#00000a"]).colors == [COLORS[0], COLORS[2]]  # too few are none


@pytest.mark.parametrize("column", [["b", "a", "b"], [True, False, True], [7, 3, 7]])
def test_columns_need_not_be_categorical(column):
    groups = of(column)
    assert groups.names == sorted({str(value) for value in column})
    assert [groups.names[code] for code in groups.codes] == [str(value) for value in column]


@pytest.mark.parametrize("n", [3, 8, 12, 27, 40, 150])
def test_there_are_enough_colours(n):
    groups = of([f"g{i:03}" for i in range(n)])
    assert len(groups.colors) == n
    assert len(set(groups.colors)) == min(n, 102)
