"""Count likelihoods on arrays, with NumPy, SciPy and Numba alone: no torch, no AnnData.

A family per folder, each with the same face:

- :mod:`~scanpy_scvi.numerics.poisson`, mean μ;
- :mod:`~scanpy_scvi.numerics.negative_binomial`, mean μ and inverse dispersion θ, variance μ + μ² / θ;
- :mod:`~scanpy_scvi.numerics.zero_inflated`, the negative binomial with a share σ(zero_logits) of additional zeros.

`logpmf` and `gradient` take dense or sparse counts and parameters that broadcast; `fit` gives the maximum-likelihood
parameters of every gene; `softmax_head` is what training uses: the negative log-likelihood of a minibatch whose means
are exp(log library) softmax(logits), and its gradients, in one pass.

Beside them, :mod:`~scanpy_scvi.numerics.sparse` gathers rows of a CSR matrix into a minibatch,
:mod:`~scanpy_scvi.numerics.special` has the scalar functions that the kernels are made of, and
:mod:`~scanpy_scvi.numerics.softmax` what the fused heads share. The kernels are compiled on first use (seconds) and
cached on disk; they run on the caller's thread and release the interpreter's lock, so that a caller may share cells out
over threads. The other modules here are what training and tools are made of, and may change.

Examples
--------
>>> import numpy as np
>>> from scipy.sparse import csr_array
>>> from scanpy_scvi.numerics import negative_binomial
>>> counts = csr_array(np.random.default_rng(0).negative_binomial(2, 0.5, (500, 3)))
>>> fitted = negative_binomial.fit(counts)
>>> per_cell = negative_binomial.logpmf(counts, fitted.mean, fitted.theta, axis=1)
>>> per_cell.shape, bool(np.isclose(per_cell.sum(), fitted.log_likelihood.sum()))
((500,), True)
"""

from . import negative_binomial, poisson, softmax, sparse, special, zero_inflated

__all__ = ["negative_binomial", "poisson", "softmax", "sparse", "special", "zero_inflated"]
