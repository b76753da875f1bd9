"""Expected roots of counts against sums over the probabilities of SciPy."""

import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.numerics.negative_binomial import root_mean


@pytest.mark.parametrize("theta", [0.02, 0.7, 3.3, 41.0, np.inf])
def test_is_the_sum_over_the_counts(theta):
    mu = np.array([1e-4, 0.013, 0.4, 1.7, 12.3, 250.0])
    k = np.arange(200_000)
    law = [stats.poisson(m) if np.isinf(theta) else stats.nbinom(theta, theta / (theta + m)) for m in mu]
    expected = [(np.sqrt(k) * x.pmf(k)).sum() for x in law]
    found = root_mean(np.log(mu)[None].astype(np.float32), np.full((1, 1), np.log(theta), np.float32))
    np.testing.assert_allclose(found[0], expected, rtol=5e-4)


def test_beyond_the_table_the_limits_hold():
    """Of tiny means all counts are one; of large ones the root of a Poisson count is that of its mean."""
    found = root_mean(np.float32([[-40.0, 18.0]]), np.float32([[0.0, np.inf]]))
    np.testing.assert_allclose(np.log(found), [[-40.0, 9.0]], atol=5e-3)
