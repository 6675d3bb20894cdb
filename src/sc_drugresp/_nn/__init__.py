"""Torch blocks shared by the models: plain `nn.Linear` everywhere, so that adapters reach all of them."""

from __future__ import annotations

from .attention import SelfAttention
from .blocks import PostNormLayer, mean_between, run_layers
from .flow import FlowAttention, FlowLayer, SetLayout
from .performer import FavorAttention, PerformerLayer
from .projected import ProjectedTokens

__all__ = [
    "FavorAttention",
    "FlowAttention",
    "FlowLayer",
    "PerformerLayer",
    "PostNormLayer",
    "ProjectedTokens",
    "SelfAttention",
    "SetLayout",
    "mean_between",
    "run_layers",
]
