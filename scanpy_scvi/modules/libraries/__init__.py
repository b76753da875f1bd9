"""Library sizes: observed, given as size factors, or latent."""

from .base import Library, LibraryOutput
from .lognormal import LogNormalLibrary
from .observed import ObservedLibrary, SizeFactorLibrary

LIBRARIES: dict[str, type[Library]] = {
    "observed": ObservedLibrary,
    "size_factor": SizeFactorLibrary,
    "latent": LogNormalLibrary,
}

__all__ = ["LIBRARIES", "Library", "LibraryOutput", "LogNormalLibrary", "ObservedLibrary", "SizeFactorLibrary"]
