"""Bayesian comparison of two groups of cells from draws of their proportions.

With draws a and b of the two groups' proportions of a gene, paired one to one, and a pseudocount c,

    lfc = log2(a + c) - log2(b + c)
    p_up = P(lfc >= delta),   p_down = P(lfc < -delta)

`mode="change"`: the probability that the gene differs is max(p_up, p_down) (three ways: up, down, neither) or
p_up + p_down (two ways). `mode="vanilla"`: the probability that a > b.

Lopez et al. 2018, Nat Methods 15:1053 (vanilla); Boyeau et al. 2023, PNAS 120:e2209124120 (change).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ..numerics.fold_changes import fold_changes

Mode = Literal["change", "vanilla"]
Ways = Literal["three", "two"]

REPLICATES = 10
"""Parts of the draws that stand for repeated runs."""
LEAST_PSEUDOCOUNT = 1e-10
GENES = 256
"""Genes whose draws are copied at a time."""
LEAST_GENES = 10
"""Genes of which a mixture can be fitted."""
UNEXPRESSED = 0.01
"""Mean raw count below which a gene counts as not expressed in a group."""


class Effects(NamedTuple):
    """What draws say of each gene; all (n_genes,) but the last two."""

    p_up: np.ndarray
    """P(lfc >= delta); P(a > b) in vanilla mode."""
    p_down: np.ndarray
    """P(lfc < -delta); P(a <= b) in vanilla mode."""
    mean: np.ndarray
    """Mean of the log2 fold change over the draws."""
    median: np.ndarray
    std: np.ndarray
    low: np.ndarray
    """Lower end of the central credible interval."""
    high: np.ndarray
    scale1: np.ndarray
    """Mean proportion in the first group."""
    scale2: np.ndarray
    """Mean proportion in the second group."""
    up_in_parts: np.ndarray
    """p_up in parts of the draws, (REPLICATES, n_genes)."""
    down_in_parts: np.ndarray
    """p_down in parts of the draws, (REPLICATES, n_genes)."""

    def differs(self, mode: Mode, ways: Ways) -> np.ndarray:
        """Probability that the gene differs."""
        return _differs(self.p_up, self.p_down, mode, ways)

    def differs_in_parts(self, mode: Mode, ways: Ways) -> np.ndarray:
        """The same in parts of the draws, (REPLICATES, n_genes)."""
        return _differs(self.up_in_parts, self.down_in_parts, mode, ways)


def _differs(up: np.ndarray, down: np.ndarray, mode: Mode, ways: Ways) -> np.ndarray:
    if mode == "vanilla":
        return up
    return np.maximum(up, down) if ways == "three" else up + down


class PairedDraws(NamedTuple):
    """Draws of the proportions of two groups, and who is compared with whom."""

    first: np.ndarray
    """(n_genes, n_draws), float32."""
    second: np.ndarray
    """(n_genes, n_others), float32."""
    partner: np.ndarray
    """Column of `second` for each column of `first`."""

    @classmethod
    def one_to_one(cls, first: np.ndarray, second: np.ndarray) -> PairedDraws:
        """Pair the draws in their order."""
        return cls(first, second, np.arange(first.shape[1]))


def pseudocount(draws: PairedDraws, means1: np.ndarray, means2: np.ndarray) -> float:
    """Pseudocount below which proportions of genes that are not expressed lie: what the decoder gives to noise.

    The larger, over the two groups, of the 90 % quantile over the genes with a mean raw count below 0.01 of their
    largest draw, divided by the number of genes; at least 1e-10. This is scvi-tools' rule.

    Parameters
    ----------
    draws
        Draws of the proportions of the two groups.
    means1, means2
        Mean raw counts of the groups, (n_genes,).
    """
    largest = []
    for scales, columns, means in ((draws.first, slice(None), means1), (draws.second, draws.partner, means2)):
        genes = np.flatnonzero(means < UNEXPRESSED)
        parts = np.array_split(genes, -(-len(genes) // GENES)) if len(genes) else []
        tops = [scales[part][:, columns].max(1) for part in parts]
        largest.append(float(np.quantile(np.concatenate(tops), 0.9)) if tops else 0.0)
    return max(LEAST_PSEUDOCOUNT, max(largest) / len(draws.first))


def delta_by_mixture(mean_changes: np.ndarray) -> float:
    """Smallest change that counts, from a mixture of three normals over all genes' mean changes.

    0.6 times the mean size of the outer two components' means, at least 0.1: scvi-tools' rule, with a fixed seed and
    components ordered by their means.
    """
    from sklearn.mixture import GaussianMixture

    if len(mean_changes) < LEAST_GENES:
        msg = f"`delta=None` looks at the changes of all genes, but there are {len(mean_changes)}. Pass a number."
        raise ValueError(msg)
    fitted = GaussianMixture(n_components=3, random_state=0).fit(mean_changes.astype(np.float64).reshape(-1, 1))
    outer = np.sort(fitted.means_.ravel())[[0, -1]]
    return max(0.1, 0.6 * float(np.abs(outer).mean()))


def summarise(
    draws: PairedDraws,
    *,
    mode: Mode,
    delta: float,
    pseudocount: float,
    reported: float | None = None,
    interval: float = 0.95,
) -> Effects:
    """Compare paired draws gene by gene.

    Parameters
    ----------
    draws
        Draws of the proportions.
    mode
        Whether a gene is called for a change of at least `delta`, or for being larger at all.
    delta
        Smallest log2 fold change that counts.
    pseudocount
        Added to the proportions.
    reported
        Added in place of it for the fold changes that are reported; those that are tested have `pseudocount`.
    interval
        Mass of the central credible interval.
    """
    n = draws.first.shape[1]
    starts = np.unique(np.arange(REPLICATES) * n // REPLICATES)
    found = fold_changes(
        *draws,
        pseudocount=pseudocount,
        reported=pseudocount if reported is None else reported,
        delta=delta,
        larger=mode == "vanilla",
        starts=starts,
        quantiles=((1 - interval) / 2, 0.5, (1 + interval) / 2),
    )
    sizes = np.diff(starts, append=n)[:, None]
    low, median, high = found.quantiles
    return Effects(
        p_up=found.up.sum(0) / n,
        p_down=found.down.sum(0) / n,
        mean=found.mean,
        median=median,
        std=found.std,
        low=low,
        high=high,
        scale1=found.mean_a,
        scale2=found.mean_b,
        up_in_parts=found.up / sizes,
        down_in_parts=found.down / sizes,
    )


def expected_fdr(proba: np.ndarray) -> np.ndarray:
    """Expected share of false discoveries if a gene and all that are likelier than it are called, (n_genes,).

    The mean of 1 - proba over those genes; ties are called in the order of the genes. Newton et al. 2004,
    Biostatistics 5:155.

    Parameters
    ----------
    proba
        Probability that each gene differs.
    """
    order = np.argsort(-proba, kind="stable")
    out = np.empty(len(proba))
    out[order] = np.cumsum(1 - proba[order]) / np.arange(1, len(proba) + 1)
    return out


def log_odds(proba: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), kept finite by 1e-8: scvi-tools' Bayes factor."""
    proba = np.asarray(proba, np.float64)
    return np.log(proba + 1e-8) - np.log(1 - proba + 1e-8)
