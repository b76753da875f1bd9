"""Models as torch modules: five parts (encoder, library, decoder, likelihood, prior) and the VAE that joins them."""

from .cells import Cells, Counts, Dimensions
from .spec import ModelSpec, Part
from .vae import VAE, Bound

__all__ = ["VAE", "Bound", "Cells", "Counts", "Dimensions", "ModelSpec", "Part"]
