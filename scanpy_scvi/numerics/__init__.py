"""Count likelihoods on arrays, with NumPy and Numba alone: no torch, no AnnData.

`poisson`, `negative_binomial` and `zero_inflated` each hold one family; `sparse` gathers rows of a CSR matrix into a
minibatch; `special` has the scalar functions that they are made of; `softmax` what their fused heads share.
"""

from . import negative_binomial, poisson, softmax, sparse, special, zero_inflated

__all__ = ["negative_binomial", "poisson", "softmax", "sparse", "special", "zero_inflated"]
