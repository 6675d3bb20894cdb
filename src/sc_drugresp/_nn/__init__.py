"""Torch blocks shared by the models: plain `nn.Linear` everywhere, so that adapters reach all of them."""

from __future__ import annotations

from .attention import SelfAttention
from .blocks import PostNormLayer, run_layers
from .flow import FlowAttention, FlowLayer, SetLayout
from .performer import FavorAttention, PerformerLayer

__all__ = [
    "FavorAttention",
    "FlowAttention",
    "FlowLayer",
    "PerformerLayer",
    "PostNormLayer",
    "SelfAttention",
    "SetLayout",
    "run_layers",
]
