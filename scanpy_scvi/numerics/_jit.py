"""How the kernels are compiled: on first use, cached on disk, without the interpreter's lock, on one thread.

What one kernel calls is copied into it. Left to themselves, kernels share what they call, and the copy that is found
first serves all: another one in the process that compiles than in those that read the disk, with sums in another order.
"""

from functools import partial

from numba import njit

_compiled = partial(njit, nogil=True, error_model="numpy", cache=True, forceinline=True)

# As written, IEEE to the letter.
exact = _compiled()

# Multiply-add may be fused, so that polynomials are fast; NaN and infinity keep their meaning.
fused = _compiled(fastmath={"contract"})

# Sums may change their order too, so that they vectorise.
reduction = _compiled(fastmath={"contract", "reassoc", "nsz"})
