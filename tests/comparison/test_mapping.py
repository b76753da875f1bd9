"""Labels and novelty of a new plate of real cells, beside neighbours on principal components."""

import numpy as np
import pytest
from mapping_data import BATCH, LABEL, Split
from mapping_systems import ours, ours_forward, pca_knn
from mapping_table import calibration_error, score

PLATE, WITHHELD = "celseq2_5cl_p3", "A549"


@pytest.fixture(scope="module")
def split(cell_lines):
    adata = cell_lines.copy()
    adata.obs[LABEL], adata.obs[BATCH] = adata.obs["cell_type"].astype(str), adata.obs["batch"].astype(str)
    is_query, is_new = (adata.obs[BATCH] == PLATE).to_numpy(), (adata.obs[LABEL] == WITHHELD).to_numpy()
    query = adata[is_query].copy()
    return Split(adata[~is_query & ~is_new].copy(), query, is_new[is_query], np.ones(query.n_obs, bool))


@pytest.mark.parametrize("system", [ours, ours_forward])
def test_no_worse_than_what_is_simple(split, system):
    of_seeds = [score(split, system(split, seed)) for seed in range(3)]
    mine = {
        name: np.mean([one[name] for one in of_seeds]) for name in ("accuracy", "auc distance", "ece", "false_unknown")
    }
    theirs = score(split, pca_knn(split, 0))
    assert mine["accuracy"] >= theirs["accuracy"] - 0.01
    assert mine["auc distance"] >= theirs["auc distance"] - 0.03
    assert mine["ece"] < 0.1
    assert mine["false_unknown"] < 0.3


def test_the_calibration_error_of_known_confidences():
    right = np.arange(1000) % 10 < 7
    assert calibration_error(np.full(1000, 0.7), right) < 0.01
    assert calibration_error(np.full(1000, 0.9), right) == pytest.approx(0.2, abs=0.01)
