"""Arrays of draws, one row for each gene: moments of chosen columns, and factors drawn from mixtures."""

from __future__ import annotations

import numpy as np

from ._jit import exact, fused
from .special import exp32
from .team import share

_MOMENT_SECONDS = 1e-9
_FACTOR_SECONDS = 5e-9


def row_moments(x: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the chosen columns of each row, each (n_rows,), float64.

    Parameters
    ----------
    x
        (n_rows, n_columns), float32.
    columns
        Positions, int64.

    Examples
    --------
    >>> import numpy as np
    >>> row_moments(np.array([[1.0, 3.0, 9.0]], np.float32), np.array([0, 1]))
    (array([2.]), array([1.]))
    """
    mean, var = np.empty(len(x)), np.empty(len(x))

    def work(start: int, stop: int) -> None:
        _row_moments(x[start:stop], columns, mean[start:stop], var[start:stop])

    share(len(x), _MOMENT_SECONDS * len(x) * len(columns), work)
    return mean, var


def multiply_by_mixture(
    x: np.ndarray,
    rows: np.ndarray,
    mixture: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Multiply each entry of some rows by exp(b), b drawn from the row's mixture of normals; in place.

    The rows share one set of uniform and one of normal draws, each row beginning elsewhere in them: entries of a row
    are independent, and what rows have in common is in no order.

    Parameters
    ----------
    x
        (n_rows, n_columns), float32.
    rows
        Rows to multiply.
    mixture
        Weights, means and standard deviations of the components, each (n_rows, n_components).
    rng
        Source of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((2, 3), np.float32)
    >>> certain = np.array([[1.0], [1.0]]), np.array([[0.0], [2.0]]), np.array([[0.0], [0.0]])
    >>> multiply_by_mixture(x, np.array([1]), certain, np.random.default_rng(0))
    >>> np.log(x[:, 0]).round(3).tolist()
    [0.0, 2.0]
    """
    n = x.shape[1]
    uniform, normal = rng.random(n, np.float32), rng.standard_normal(n, np.float32)
    begins = rng.integers(0, max(n, 1), (len(rows), 2))
    weights, means, sds = mixture
    edges = np.cumsum(weights, axis=1)[rows]
    edges[:, -1] = np.inf
    parameters = edges.astype(np.float32), means[rows].astype(np.float32), sds[rows].astype(np.float32)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        some = (p[part] for p in parameters)
        _multiply(x, rows[part], begins[part], uniform, normal, *some)

    share(len(rows), _FACTOR_SECONDS * len(rows) * n, work)


@exact
def _row_moments(x, columns, mean, var):
    for row in range(x.shape[0]):
        total = 0.0
        for column in columns:
            total += x[row, column]
        mean[row] = total / columns.size
        squares = 0.0
        for column in columns:
            squares += (x[row, column] - mean[row]) ** 2
        var[row] = squares / columns.size


@fused
def _multiply(x, rows, begins, uniform, normal, edges, means, sds):
    n = x.shape[1]
    factors = np.empty(n, np.float32)
    for i in range(rows.size):
        u, z = begins[i, 0], begins[i, 1]
        for j in range(n):
            component = 0
            while uniform[u] >= edges[i, component]:
                component += 1
            factors[j] = means[i, component] + sds[i, component] * normal[z]
            u = u + 1 if u + 1 < n else 0
            z = z + 1 if z + 1 < n else 0
        row = x[rows[i]]
        for j in range(n):
            row[j] *= exp32(factors[j])
