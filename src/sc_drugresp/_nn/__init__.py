"""Torch blocks shared by the models: plain `nn.Linear` everywhere, so that adapters reach all of them."""

from __future__ import annotations

from .attention import SelfAttention
from .blocks import PostNormLayer, mean_between, run_layers
from .flow import FlowLayer, SetLayout
from .performer import PerformerLayer
from .projected import ProjectedTokens

__all__ = [
    "FlowLayer",
    "PerformerLayer",
    "PostNormLayer",
    "ProjectedTokens",
    "SelfAttention",
    "SetLayout",
    "mean_between",
    "run_layers",
]
