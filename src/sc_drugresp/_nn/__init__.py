"""Torch blocks shared by the models: plain `nn.Linear` everywhere, so that adapters reach all of them."""

from __future__ import annotations

from .attention import SelfAttention
from .blocks import PostNormLayer, run_layers

__all__ = ["PostNormLayer", "SelfAttention", "run_layers"]
