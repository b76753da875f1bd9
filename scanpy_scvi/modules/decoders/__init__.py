"""Decoders: from z and covariates to expression."""

from .base import Decoder, DecoderOutput
from .mlp import MLPDecoder

DECODERS: dict[str, type[Decoder]] = {"mlp": MLPDecoder}

__all__ = ["DECODERS", "Decoder", "DecoderOutput", "MLPDecoder"]
