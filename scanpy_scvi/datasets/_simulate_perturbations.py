"""A screen of perturbations whose sparse targets are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from ._perturbation_protocols import Protocol, SoftmaxOver, check_choice, check_number, read_options
from ._perturbed_cells import draw_cells, draw_pairs, draw_perturbations
from ._perturbed_counts import draw_counts, draw_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._perturbed_cells import Cells, Perturbations
    from ._perturbed_counts import Drawn

CONTROL = "control"


def simulate_perturbations(
    *,
    protocol: Protocol = "corrected",
    n_perturbations: int = 100,
    n_combinations: int = 0,
    n_latent: int = 15,
    n_genes: int = 100,
    cells_per_perturbation: int | Sequence[int] = 250,
    shift: float = 5.0,
    softmax_over: SoftmaxOver | None = None,
    replace_targets: bool | None = None,
    theta: float | tuple[float, float] | None = None,
    depth: float | None = None,
    depth_sd: float | None = None,
    control_fraction: float | None = None,
    escaping_fraction: float | None = None,
    n_batches: int | None = None,
    batch_effect: float | None = None,
    confounded_fraction: float | None = None,
    latent_correlation: float | None = None,
    unequal_cells: float | None = None,
    keep_rate: bool = False,
    random_state: int | np.random.Generator = 0,
) -> ad.AnnData:
    r"""Draw counts of a perturbation screen in which each perturbation shifts a few latent dimensions.

    Perturbation k has one, two or three targets among the latents, each number equally likely. For cell n of
    perturbation k in batch s,

    .. math::
        \mu_{kj} &= \pm\, t_{kj}\, N(\mathrm{shift}, (\mathrm{shift} / 10)^2), \quad t_{kj} = 1 \text{ for its targets,
            otherwise } 0 \\
        z_n &\sim N(\mu_k, R), \text{ or } N(0, R) \text{ for a control cell and one that escapes} \\
        f_n &= W_4\, a(W_3\, a(W_2\, a(W_1 z_n))) / \sigma, \quad a \text{ a leaky ReLU of slope } 0.2 \\
        w_{ng} &= \exp(f_{ng} + b_{sg}), \quad b_{sg} \sim N(0, \mathrm{batch\_effect}^2), \quad
            \log \ell_n \sim N(-v/2, v) \\
        x_{ng} &\sim \mathrm{NB}(\text{mean } \lambda_{ng}, \text{inverse dispersion } \theta_g)

    with random orthonormal maps to 40, 40, 40 and `n_genes` dimensions, :math:`\sigma` the standard deviation of all
    logits, R a matrix of ones on and `latent_correlation` off the diagonal, v = `depth_sd`\ ². The mean is

    .. math::
        \lambda_{ng} = \mathrm{depth}\; \ell_n\, \frac{w_{ng}}{\sum_h w_{nh}} \text{ (softmax over genes)}
        \quad\text{or}\quad
        \lambda_{ng} = 10^6\, \frac{\ell_n w_{ng}}{\sum_m \ell_m w_{mg}} \text{ (over cells)}.

    ``protocol="reference"`` is the simulation that comes with the code of the sVAE+ paper: Poisson counts of perturbed
    cells in one batch, targets drawn with replacement (so that some perturbations have fewer), and a softmax over
    cells, so that every gene has the same total of a million, 40 a cell in 25,000 cells, and the depth of a cell tells
    about its state. ``protocol="corrected"`` has what that lacks: a softmax over genes, negative binomial noise, depths
    of their own, a control, escaping cells, batches that are partly confounded with perturbations, correlated states
    and unequal numbers of cells. Every option can be set by itself: ``protocol="reference", softmax_over="genes"`` is
    the reference with total counts of Poisson(4000). A cell that comes out empty is drawn again. Cells of a
    combination, ``"perturbation_0+perturbation_1"``, are shifted by the sum of two shifts; pairs are random.

    Parameters
    ----------
    protocol
        Where the options below that are None take their values from; theirs are given as *reference / corrected*.
    n_perturbations
        Number of perturbations, neither the control nor combinations counted.
    n_combinations
        Number of pairs of perturbations that cells have together, all different.
    n_latent
        Dimensions of z.
    n_genes
        Number of genes.
    cells_per_perturbation
        Cells of a perturbation or a combination (before `unequal_cells`), or the number of each, combinations last.
    shift
        Mean size of a shift, in standard deviations of z.
    softmax_over
        What shares sum to one over: ``"cells"`` / ``"genes"``.
    replace_targets
        Whether targets are drawn with replacement: True / False.
    theta
        Inverse dispersion of the counts; of two numbers, each gene's is uniform between them; ``np.inf`` is Poisson:
        ``np.inf`` / (2, 10).
    depth
        Mean total of a cell; with a softmax over cells, None gives each gene a total of a million: None (4000 with a
        softmax over genes) / 4000.
    depth_sd
        Standard deviation of the logarithm of :math:`\ell`: 0 / 0.4.
    control_fraction
        Share of control cells among all: 0 / 0.2.
    escaping_fraction
        Probability of a perturbed cell to have the state of a control: 0 / 0.1.
    n_batches
        Number of batches: 1 / 2. Batches are equally likely.
    batch_effect
        Standard deviation, in natural-log units, of a gene's shift in a batch: 0 / 0.3.
    confounded_fraction
        Share of perturbations whose cells are all in one batch (of several): 0 / 0.2.
    latent_correlation
        Correlation of any two latents among control cells: 0 / 0.3.
    unequal_cells
        Standard deviation of the logarithm of the number of cells of a perturbation: 0 / 0.5.
    keep_rate
        Whether to keep the expected counts, a dense layer.
    random_state
        Seed, or a generator.

    Returns
    -------
    AnnData of cells in random order, with

    - ``.X``: counts, CSR, float32
    - ``.obs["perturbation"]``: ``perturbation_0`` …, combinations, and ``control`` where there is one
    - ``.obs["batch"]``: ``batch_0`` …
    - ``.obs["escaped"]``: whether the cell is perturbed by name only
    - ``.obs["true_library"]``: expected total
    - ``.obsm["z"]``: z
    - ``.var["true_dispersion"]``: :math:`\theta` (not for Poisson counts)
    - ``.layers["true_rate"]``: :math:`\lambda` (with `keep_rate`)
    - ``.uns["simulation"]``: ``"perturbations"``, their names; ``"targets"`` and ``"shifts"``, perturbations x latents;
      ``"confounded"``, whether a perturbation (or a combination, last) is in a single batch; ``"protocol"``

    Raises
    ------
    ValueError
        If an option is unknown or a number out of range.

    References
    ----------
    Lopez et al. (2023), Learning causal representations of single cells via sparse mechanism shift modeling, CLeaR;
    its code, https://github.com/Genentech/sVAE.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=10, n_latent=5, cells_per_perturbation=40)
    >>> adata.uns["simulation"]["targets"].shape, adata.obsm["z"].shape[1], adata.obs["batch"].nunique()
    ((10, 5), 5, 2)
    >>> reference = sv.datasets.simulate_perturbations(protocol="reference", n_perturbations=10)
    >>> reference.shape, "control" in reference.obs["perturbation"].cat.categories
    ((2500, 100), False)
    """
    options = read_options(
        protocol,
        softmax_over=softmax_over,
        replace_targets=replace_targets,
        theta=theta,
        depth=depth,
        depth_sd=depth_sd,
        control_fraction=control_fraction,
        escaping_fraction=escaping_fraction,
        n_batches=n_batches,
        batch_effect=batch_effect,
        confounded_fraction=confounded_fraction,
        latent_correlation=latent_correlation,
        unequal_cells=unequal_cells,
    )
    for name, value in (("n_perturbations", n_perturbations), ("n_latent", n_latent), ("n_genes", n_genes)):
        check_number(value, 1, np.inf, name, whole=True)
    most = n_perturbations * (n_perturbations - 1) // 2
    check_number(n_combinations, 0, most, "n_combinations", whole=True)
    check_number(shift, 0, 1e3, "shift")
    check_choice(keep_rate, (True, False), "keep_rate")
    _check_cells(cells_per_perturbation, n_perturbations + n_combinations, unequal_cells)
    for_design, for_cells, for_genes, for_counts, for_pairs = np.random.default_rng(random_state).spawn(5)
    perturbations = draw_perturbations(for_design, n_perturbations, n_latent, shift, options)
    pairs = draw_pairs(for_pairs, n_perturbations, n_combinations)
    shifts = np.concatenate([perturbations.shifts, perturbations.shifts[pairs].sum(1)])
    cells = draw_cells(for_cells, shifts, cells_per_perturbation, options)
    expression = draw_expression(for_genes, cells, n_genes, options)
    counts = draw_counts(for_counts, expression, cells, options, keep_rate=keep_rate)
    return _to_anndata(counts, perturbations, pairs, cells, expression.theta, protocol)


def _check_cells(cells: int | Sequence[int], n_perturbations: int, unequal_cells: float | None) -> None:
    if not np.ndim(cells):
        check_number(cells, 1, np.inf, "cells_per_perturbation", whole=True)
        return
    if np.shape(cells) != (n_perturbations,) or np.asarray(cells).dtype.kind not in "iu" or np.min(cells) < 1:
        msg = f"`cells_per_perturbation` must be a whole number of at least 1, or {n_perturbations} of them."
        raise ValueError(msg)
    if unequal_cells:
        msg = "`cells_per_perturbation` gives the number of each perturbation; leave `unequal_cells` out."
        raise ValueError(msg)


def _to_anndata(
    drawn: Drawn, perturbations: Perturbations, pairs: np.ndarray, cells: Cells, theta: np.ndarray, protocol: Protocol
) -> ad.AnnData:
    adata = ad.AnnData(drawn.counts)
    adata.obs_names = [f"cell_{n}" for n in range(adata.n_obs)]
    adata.var_names = [f"gene_{g}" for g in range(adata.n_vars)]
    names = np.array([f"perturbation_{k}" for k in range(len(perturbations.targets))], dtype=object)
    labels = [*names, *("+".join(pair) for pair in names[pairs])]
    categories = [*labels, CONTROL] if (cells.perturbation < 0).any() else labels
    of_cell = np.where(cells.perturbation < 0, len(labels), cells.perturbation)
    adata.obs["perturbation"] = pd.Categorical.from_codes(of_cell, categories)
    batches = [f"batch_{s}" for s in range(cells.batch.max() + 1)]
    adata.obs["batch"] = pd.Categorical.from_codes(cells.batch, batches)
    adata.obs["escaped"] = cells.escaped
    adata.obs["true_library"] = drawn.library
    adata.obsm["z"] = cells.z
    if np.isfinite(theta).all():
        adata.var["true_dispersion"] = theta
    if drawn.rate is not None:
        adata.layers["true_rate"] = drawn.rate
    adata.uns["simulation"] = {
        "perturbations": names,
        "targets": perturbations.targets,
        "shifts": perturbations.shifts,
        "confounded": cells.confounded,
        "protocol": protocol,
    }
    return adata
