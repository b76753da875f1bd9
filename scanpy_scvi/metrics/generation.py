"""Whether generated cells can be told from real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from .cell_sets import LEAST_CELLS, check_together, draw, profile, read_cells
from .neighbours import nearest
from .two_samples import WIDTHS, forest_auc, lisi, mmd, usual_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cell_sets import Profile

N_COMPONENTS = 50
N_CORRELATED = 100
"""Most variable genes whose correlations are compared."""
N_MARKERS = 20
"""Genes of each label whose fold changes are compared."""
VOTERS = 15
LEAST_OF_LABEL = 5
"""Cells of a label that each of two sets needs for fold changes."""


class GenerationScores(NamedTuple):
    """How a set of cells compares with a real one; see :func:`generation`."""

    forest_log: float
    """Area under the ROC curve of a random forest on log-normalised counts; 0.5 is ideal, 1 the worst."""
    forest_raw: float
    """The same on normalised counts."""
    mmd: float
    """Squared maximum mean discrepancy; 0 is ideal."""
    lisi: float
    """Mean local inverse Simpson index; 2 is ideal, 1 the worst."""
    correlation: float
    """Correlation of the two gene-gene correlation matrices; 1 is ideal."""
    zeros: float
    """Share of zeros; that of the real cells is ideal."""
    marker_slope: float
    """Log fold changes of marker genes, in units of the real ones; NaN without labels."""
    label_kept: float
    """Share of cells whose real neighbours have their label; NaN without labels."""


class Generation(NamedTuple):
    """What :func:`generation` found."""

    generated: GenerationScores
    """Generated against real cells."""
    control: GenerationScores
    """Other real cells against the same real cells: what can be reached."""
    real_zeros: float
    """Share of zeros of the real cells."""
    n_cells: int
    """Cells of each set that were compared."""


def generation(
    real: Any,
    generated: Any,
    *,
    control: Any = None,
    real_labels: Sequence[str] | np.ndarray | None = None,
    generated_labels: Sequence[str] | np.ndarray | None = None,
    control_labels: Sequence[str] | np.ndarray | None = None,
    target_sum: float = 20_000,
    n_cells: int = 1000,
    n_trees: int = 300,
    random_state: int = 0,
) -> Generation:
    r"""Compare generated cells with real ones, and real ones with real ones by the same measures.

    No measure means much by itself, as each depends on the number of cells and genes. So all are taken twice: of the
    generated cells, and of a control of real cells, against the same real cells. Pass real cells of which the
    generator knows as much or as little as of `real`, ideally nothing of either; without a `control`, `real` is split
    at random and its halves take the two parts. All three sets have equally many cells, as many as the smallest has
    (at most `n_cells`), drawn at random.

    Counts are scaled to `target_sum` a cell, `raw`, and `log` is log(1 + raw). On the 50 principal components of the
    two sets together:

    - *forest_raw*, *forest_log*: a random forest learns from 70 % of the cells to tell the sets apart; the area under
      its ROC curve for the others (the protocol of Zinati et al. 2024, who use 1,000 trees).
    - *mmd*: of log, the unbiased estimate of the squared maximum mean discrepancy,

      .. math::

          \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{n(n-1)}
          - \frac{2 \sum_{i,j} k(x_i, y_j)}{n^2}

      (Gretton et al. 2012), k being the mean of three Gaussian kernels whose widths are a half of, once and twice the
      usual distance of a real cell to its 24 nearest others.
    - *lisi*: of log, the mean over cells of :math:`1 / (p_x^2 + p_y^2)`, with p the shares of the sets among a cell's
      neighbours, in a neighbourhood of perplexity 30 (Korsunsky et al. 2019).

    On the genes, *correlation* compares the correlations of log between the 100 genes that vary most in `real` (those
    with a gene that is constant count as 0). *zeros* is the share of zeros. With labels, *marker_slope* is

    .. math:: \sum_{cg} a_{cg} b_{cg} / \sum_{cg} a_{cg}^2

    for differences a (real) and b of mean log between label c and all others, over the 20 genes g of each label that
    rise most in `real`. As they were picked there, the control falls short of 1 too. *label_kept* is the share of cells
    that have the label of most of their 15 nearest cells of `real`.

    Parameters
    ----------
    real
        Counts of real cells, cells x genes, dense or scipy.sparse; every cell has some.
    generated
        Counts of generated cells, over the same genes.
    control
        Counts of other real cells.
    real_labels, generated_labels, control_labels
        One label per cell, for the last two measures; of all sets or of none.
    target_sum
        Total that counts are scaled to.
    n_cells
        Most cells of a set.
    n_trees
        Trees of a forest.
    random_state
        Seed of all that is random.

    Returns
    -------
    Scores of the generated cells and of the control.

    Raises
    ------
    ValueError
        Where an array is no matrix of counts, or does not go with the others.

    References
    ----------
    Zinati et al. 2024, Nature Communications 15:4055. Gretton et al. 2012, Journal of Machine Learning Research 13:723.
    Korsunsky et al. 2019, Nature Methods 16:1289.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, other = rng.poisson(rng.gamma(2, 1, (2, 300, 1)) * np.linspace(1, 5, 40))
    >>> shuffled = rng.permuted(real, axis=0)  # each gene as it was, but cells of all sizes mixed up
    >>> found = generation(real, shuffled, control=other, n_trees=50)
    >>> found.generated.zeros == found.real_zeros, found.generated.forest_raw > 0.8 > found.control.forest_raw
    (True, True)
    """
    _check_number(target_sum, "target_sum", least=0.0)
    _check_number(n_cells, "n_cells", least=LEAST_CELLS)
    _check_number(n_trees, "n_trees", least=1)
    sets = [read_cells(real, real_labels, "real"), read_cells(generated, generated_labels, "generated")]
    if control is not None:
        sets.append(read_cells(control, control_labels, "control"))
    elif control_labels is not None:
        msg = "`control_labels` was given without `control`; pass both, or neither."
        raise ValueError(msg)
    check_together(sets)
    rng = np.random.default_rng(random_state)
    chosen = draw(sets, int(n_cells), rng)
    reference, made, other = (profile(cells, float(target_sum)) for cells in chosen)
    seed = int(rng.integers(2**31))
    options = {"n_trees": int(n_trees), "random_state": seed}
    return Generation(
        generated=_compare(reference, made, **options),
        control=_compare(reference, other, **options),
        real_zeros=reference.zeros,
        n_cells=len(reference.raw),
    )


def _compare(reference: Profile, other: Profile, *, n_trees: int, random_state: int) -> GenerationScores:
    raw, log = (_principal(a, b, random_state) for a, b in ((reference.raw, other.raw), (reference.log, other.log)))
    codes = np.repeat([0, 1], [len(log[0]), len(log[1])])
    slope, kept = np.nan, np.nan
    if reference.labels is not None and other.labels is not None:
        slope = _marker_slope(reference, other, np.unique(reference.labels))
        kept = float((_voted(log[0], reference.labels, log[1]) == other.labels).mean())
    return GenerationScores(
        forest_log=forest_auc(*log, n_trees=n_trees, random_state=random_state),
        forest_raw=forest_auc(*raw, n_trees=n_trees, random_state=random_state),
        mmd=mmd(*log, [factor * usual_width(log[0]) for factor in WIDTHS]),
        lisi=float(lisi(np.concatenate(log), codes).mean()),
        correlation=_correlation(reference.log, other.log),
        zeros=other.zeros,
        marker_slope=slope,
        label_kept=kept,
    )


def _principal(first: np.ndarray, second: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of two sets together."""
    x = np.concatenate([first, second])
    scores = PCA(min(N_COMPONENTS, *x.shape), random_state=seed).fit_transform(x)
    return scores[: len(first)], scores[len(first) :]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation between the pairwise correlations of the genes most variable in the first set."""
    genes = np.argsort(-first.var(0, dtype=np.float64), kind="stable")[:N_CORRELATED]
    above = np.triu_indices(len(genes), 1)
    return float(_corr([_corr(x[:, genes].T)[above] for x in (first, second)])[0, 1])


def _corr(rows: Any) -> np.ndarray:
    """Correlations between rows; 0 with one that is constant."""
    x = np.asarray(rows, np.float64)
    x = x - x.mean(1, keepdims=True)
    norm = np.sqrt((x**2).sum(1, keepdims=True))
    x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 1e-9 * np.sqrt(x.shape[1]))
    return x @ x.T


def _marker_slope(reference: Profile, other: Profile, labels: np.ndarray) -> float:
    """Slope through the origin of the other's log fold changes on the reference's."""
    products, squares = 0.0, 0.0
    for label in labels:
        inside = [cells.labels == label for cells in (reference, other)]
        if any(min(mine.sum(), (~mine).sum()) < LEAST_OF_LABEL for mine in inside):
            continue
        a, b = (
            cells.log[mine].mean(0, dtype=np.float64) - cells.log[~mine].mean(0, dtype=np.float64)
            for cells, mine in zip((reference, other), inside, strict=True)
        )
        genes = np.argsort(-a, kind="stable")[:N_MARKERS]
        products, squares = products + a[genes] @ b[genes], squares + a[genes] @ a[genes]
    return float(products / squares) if squares else np.nan


def _voted(points: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Label of most of the points next to each query."""
    names, codes = np.unique(labels, return_inverse=True)
    votes = codes[nearest(points, query, n_neighbors=VOTERS).indices]
    return names[np.stack([(votes == c).sum(1) for c in range(len(names))], axis=1).argmax(1)]


def _check_number(value: float, name: str, *, least: float) -> None:
    if not np.isfinite(value) or value < least or value <= 0:
        msg = f"`{name}` is {value!r}, but a number of at least {least:g} was expected."
        raise ValueError(msg)
