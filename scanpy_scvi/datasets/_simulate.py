"""Counts drawn from scVI's own generative process, with the truth beside them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import brentq
from scipy.special import expit, softmax

Likelihood = Literal["nb", "zinb", "poisson"]
N_HIDDEN = 32
WITHIN_LABEL = 0.1  # share of the variance of z that lies within a label


class _Truth(NamedTuple):
    """What the counts are drawn from; arrays are cells x genes unless said otherwise."""

    z: np.ndarray  # cells x latent
    rate: np.ndarray
    theta: np.ndarray | None  # genes
    zero_logits: np.ndarray | None
    library: np.ndarray  # cells


def simulate(
    *,
    n_cells: int = 500,
    n_genes: int = 200,
    n_batches: int = 2,
    n_labels: int = 3,
    n_latent: int = 5,
    likelihood: Likelihood = "nb",
    density: float = 0.1,
    batch_effect: float = 0.3,
    random_state: int | np.random.Generator = 0,
) -> ad.AnnData:
    r"""Draw counts from scVI's generative process and keep the true parameters.

    For cell n of label k in batch s (labels and batches are equally frequent and independent of each other):

    .. math::
        c_k &\sim N(0, I), \quad z_n = \sqrt{0.9}\, c_k + \sqrt{0.1}\, \epsilon_n, \quad \epsilon_n \sim N(0, I) \\
        \log \ell_n &\sim N(m + d_s, 0.3^2), \quad d_s \sim N(0, 0.2^2) \\
        \rho_n &= \mathrm{softmax}\big(b + \tanh(z_n W)\, U + a_s\big), \quad
            a_{sg} \sim N(0, \mathrm{batch\_effect}^2) \\
        w_{ng} &\sim \mathrm{Gamma}(\theta_g, \theta_g / \mu_{ng}), \quad \mu_{ng} = \ell_n \rho_{ng} \\
        x_{ng} &\sim \mathrm{Poisson}(w_{ng}), \text{ and } x_{ng} = 0
            \text{ with probability } \pi_{ng} = \mathrm{sigmoid}(h_{ng})

    so that z is N(0, I) over labels. W and U are random weights of a network with 32 hidden units and b random gene
    abundances; the last line's second half is for ``"zinb"`` only, and ``"poisson"`` has :math:`w = \mu`. The scale m
    is chosen such that the expected share of non-zero entries is `density`. A cell that comes out empty is drawn again.

    Parameters
    ----------
    n_cells, n_genes
        Size of the data.
    n_batches, n_labels
        Number of batches and of labels (cell types).
    n_latent
        Dimensions of z.
    likelihood
        Distribution of the counts.
    density
        Expected share of non-zero entries; real single-cell counts have about a tenth.
    batch_effect
        Standard deviation, in natural-log units, of a gene's shift in a batch.
    random_state
        Seed, or a generator.

    Returns
    -------
    AnnData with

    - ``.X``: counts, CSR, float32
    - ``.obs["batch"]``, ``.obs["label"]``: categories ``batch_0`` …, ``label_0`` …
    - ``.obs["true_library"]``: :math:`\ell`, expected total before zero inflation
    - ``.obsm["true_z"]``: z
    - ``.layers["true_rate"]``: :math:`\mu`
    - ``.var["true_dispersion"]``: the inverse dispersion :math:`\theta` (not for ``"poisson"``)
    - ``.layers["true_zero_logits"]``: h (``"zinb"`` only)

    Raises
    ------
    ValueError
        If a number is out of range, the likelihood is unknown, or the density cannot be reached.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=100, n_genes=50, n_batches=2)
    >>> adata.shape, adata.obs["batch"].value_counts().tolist()
    ((100, 50), [50, 50])

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, Nature Methods 15:1053-1058,
    https://doi.org/10.1038/s41592-018-0229-2.
    """
    _check_sizes(n_cells=n_cells, n_genes=n_genes, n_batches=n_batches, n_labels=n_labels, n_latent=n_latent)
    if likelihood not in get_args(Likelihood):
        msg = f"likelihood={likelihood!r} is unknown. Choose one of {', '.join(map(repr, get_args(Likelihood)))}."
        raise ValueError(msg)
    rng = np.random.default_rng(random_state)
    batch = rng.permutation(np.arange(n_cells) % n_batches)
    label = rng.permutation(np.arange(n_cells) % n_labels)
    truth = _draw_truth(rng, batch, label, (n_genes, n_latent), likelihood, density, batch_effect)
    return _to_anndata(_draw_counts(rng, truth), truth, batch, label)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            msg = f"{name}={size} was found, at least 1 is needed."
            raise ValueError(msg)


def _draw_truth(
    rng: np.random.Generator,
    batch: np.ndarray,
    label: np.ndarray,
    shape: tuple[int, int],
    likelihood: Likelihood,
    density: float,
    batch_effect: float,
) -> _Truth:
    n_genes, n_latent = shape
    centres = rng.normal(size=(label.max() + 1, n_latent))
    noise = rng.normal(size=(len(label), n_latent))
    z = np.sqrt(1 - WITHIN_LABEL) * centres[label] + np.sqrt(WITHIN_LABEL) * noise
    hidden = np.tanh(z @ rng.normal(size=(n_latent, N_HIDDEN)))
    U = rng.normal(size=(N_HIDDEN, n_genes)) / np.sqrt(N_HIDDEN)
    b = rng.normal(size=n_genes)
    a = rng.normal(scale=batch_effect, size=(batch.max() + 1, n_genes))
    rho = softmax(b + 1.5 * hidden @ U + a[batch], axis=1)
    log_library = rng.normal(scale=0.2, size=batch.max() + 1)[batch] + rng.normal(scale=0.3, size=len(batch))
    theta = None if likelihood == "poisson" else np.exp(rng.normal(np.log(2), 0.5, size=n_genes))
    zero_logits = None
    if likelihood == "zinb":
        zero_logits = rng.normal(-1.5, 0.5, size=n_genes) + hidden @ rng.normal(size=U.shape) / np.sqrt(N_HIDDEN)
    unscaled = np.exp(log_library)[:, None] * rho
    scale = np.exp(_log_scale(unscaled, theta, zero_logits, density))
    return _Truth(z, scale * unscaled, theta, zero_logits, scale * np.exp(log_library))


def _log_scale(unscaled: np.ndarray, theta: np.ndarray | None, zero_logits: np.ndarray | None, density: float) -> float:
    """Find m such that the expected share of non-zero entries is `density` (in at most 500 of the cells)."""
    keep = 1.0 if zero_logits is None else expit(-zero_logits[:500])

    def excess(m: float) -> float:
        mu = np.exp(m) * unscaled[:500]
        log_zero = -mu if theta is None else -theta * np.log1p(mu / theta)
        return float(np.mean(keep * -np.expm1(log_zero)) - density)

    low, high = -20.0, 30.0
    if not excess(low) < 0 < excess(high):
        reached = excess(high) + density
        msg = f"density={density} was found, more than 0 and less than {reached:.2f} is possible here."
        raise ValueError(msg)
    return float(brentq(excess, low, high))


def _draw_counts(rng: np.random.Generator, truth: _Truth) -> np.ndarray:
    counts = np.zeros(truth.rate.shape)
    empty = np.arange(len(counts))
    while len(empty):
        rate = truth.rate[empty]
        if truth.theta is not None:
            rate = rng.gamma(truth.theta, rate / truth.theta)
        counts[empty] = rng.poisson(rate)
        if truth.zero_logits is not None:
            counts[empty] *= rng.random(rate.shape) >= expit(truth.zero_logits[empty])
        empty = np.flatnonzero(counts.sum(1) == 0)
    return counts


def _to_anndata(counts: np.ndarray, truth: _Truth, batch: np.ndarray, label: np.ndarray) -> ad.AnnData:
    adata = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))
    adata.obs_names = [f"cell_{n}" for n in range(adata.n_obs)]
    adata.var_names = [f"gene_{g}" for g in range(adata.n_vars)]
    for name, codes in (("batch", batch), ("label", label)):
        categories = [f"{name}_{i}" for i in range(codes.max() + 1)]
        adata.obs[name] = pd.Categorical.from_codes(codes, categories)
    adata.obs["true_library"] = truth.library
    adata.obsm["true_z"] = truth.z
    adata.layers["true_rate"] = truth.rate
    if truth.theta is not None:
        adata.var["true_dispersion"] = truth.theta
    if truth.zero_logits is not None:
        adata.layers["true_zero_logits"] = truth.zero_logits
    return adata
