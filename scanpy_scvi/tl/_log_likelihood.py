"""How probable a fitted model holds each cell to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _logging
from ..posterior import held_out_bound
from ..store.keys import check_name
from ..store.load import load
from ..store.write import actualise, check_writable
from ..training.device import resolve_device
from ..training.threads import limited_to_useful
from ._assemble import check_number

if TYPE_CHECKING:
    from anndata import AnnData

SUFFIX = "_log_likelihood"


def log_likelihood(
    adata: AnnData,
    *,
    n_samples: int = 100,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
    device: str = "auto",
) -> None:
    r"""Log-probability of each cell's counts under a fitted model, estimated by importance sampling.

    .. math::

        \log p(x_n) \approx \log \frac1K \sum_{k=1}^K
        \frac{p(x_n \mid z_k, \ell_k)\, p(z_k)\, p(\ell_k)}{q(z_k \mid x_n)\, q(\ell_k \mid x_n)},
        \qquad z_k, \ell_k \sim q

    The library's terms are there only where it is latent; otherwise the counts are taken given their total or size
    factor. Nats, summed over the modelled genes: a cell with more counts has a lower one, so compare cells of like
    depth, or models on the same cells. In expectation the estimate lies below the truth and rises with K; with K = 1 it
    is the evidence lower bound. Cells that the fit has not seen, with the same genes, may be asked about too.
    A fit without an encoder (:func:`dgd`) has no q; draws are then from the normal about :math:`z_n` with the curvature
    of :math:`\log p(x_n, z)` there, with covariances, so that its estimate can be compared with that of other models.
    An encoder that gives points (:func:`dca`, :func:`autoencoder`) has none either, and there the value is
    :math:`\log p(x_n \mid z_n)` at the cell's own point: no bound, larger than any of a model with a prior, and good
    for comparing cells within a fit. Where log-normalised counts are described rather than counts
    (`likelihood="gaussian"`, `"mse"`), it is a density of these, which may be positive.

    Parameters
    ----------
    adata
        Annotated counts with a fit under `uns[key]`.
    n_samples
        Draws from the posterior of each cell, K.
    key
        Name of the fit.
    key_added
        Column of `obs` to write; `f"{key}_log_likelihood"` by default.
    random_state
        Seed of the draws.
    device
        `"auto"` (CUDA where there is one, else the CPU), or any device of torch.

    Returns
    -------
    `None`. Written:

    `obs["scvi_log_likelihood"]`
        Estimate for each cell, float64.

    Raises
    ------
    KeyError
        Where there is no fit under `key`.
    ValueError
        Where an option cannot be used. `adata` stays as it was.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.log_likelihood(adata, n_samples=10)
    >>> bool((adata.obs["scvi_log_likelihood"] < 0).all())
    True
    """
    start = _logging.info("computing log-likelihoods")
    check_number(n_samples, 1, 10**6, "n_samples", whole=True)
    check_number(random_state, 0, 2**63 - 1, "random_state", whole=True)
    fitted = load(adata, key)
    column = f"{key}{SUFFIX}" if key_added is None else key_added
    check_name(column, "key_added")
    check_writable(adata)
    if column in fitted.columns.names():
        msg = f"`key_added` is {column!r}, which the fit reads from `adata.obs`. Pass another name."
        raise ValueError(msg)
    cells, torch_device = fitted.read(adata), resolve_device(device)
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        bound = held_out_bound(
            fitted.model, cells, n_samples=int(n_samples), random_state=int(random_state), device=torch_device
        )
    actualise(adata)
    adata.obs[column] = bound.log_likelihood
    _logging.closing_line("log-likelihoods", added=[f".obs[{column!r}]"], time=start)
