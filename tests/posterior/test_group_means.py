import numpy as np
import reference
from modules.small_models import DIMS, table

from scanpy_scvi.posterior.group_means import GroupSums


def test_means_of_groups_and_of_groups_together():
    data = table(40)
    x = reference.dense(data.counts, DIMS.n_genes)
    codes = np.arange(40) % 4 - 1  # -1: in no group
    sums = GroupSums(data, codes, 3)
    for groups in ([0], [2, 1]):
        inside = np.isin(codes, groups)
        found = sums.of(groups)
        assert found.n_cells == inside.sum()
        np.testing.assert_array_equal(found.total, x[inside].sum(0))
        np.testing.assert_allclose(found.raw, x[inside].mean(0))
        np.testing.assert_allclose(found.nonzero, (x[inside] > 0).mean(0))
        np.testing.assert_allclose(found.normalized, (1e4 * x / x.sum(1, keepdims=True))[inside].mean(0), rtol=1e-5)
