"""How the kernels are compiled: on first use, cached on disk, without the interpreter's lock, on one thread."""

from numba import njit

# As written, IEEE to the letter.
exact = njit(nogil=True, error_model="numpy", cache=True)

# Multiply-add may be fused, so that polynomials are fast; NaN and infinity keep their meaning.
fused = njit(nogil=True, error_model="numpy", cache=True, fastmath={"contract"})

# Sums may change their order too, so that they vectorise.
reduction = njit(nogil=True, error_model="numpy", cache=True, fastmath={"contract", "reassoc", "nsz"})

# Always copied into the caller: a call that stays in a loop keeps it from becoming vectors.
inlined = njit(nogil=True, error_model="numpy", cache=True, fastmath={"contract"}, forceinline=True)
