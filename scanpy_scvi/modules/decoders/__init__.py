"""Decoders: from z and covariates to expression."""

from .base import Decoder, DecoderOutput
from .linear import LinearDecoder
from .masked_linear import Links, MaskedLinearDecoder
from .mlp import MLPDecoder

DECODERS: dict[str, type[Decoder]] = {"linear": LinearDecoder, "masked_linear": MaskedLinearDecoder, "mlp": MLPDecoder}

__all__ = ["DECODERS", "Decoder", "DecoderOutput", "LinearDecoder", "Links", "MLPDecoder", "MaskedLinearDecoder"]
