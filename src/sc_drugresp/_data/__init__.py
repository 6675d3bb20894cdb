"""Matrices, genes and tokens as arrays; `modalities`, `matrices` and `counts` alone look into an AnnData."""

from __future__ import annotations

from .batches import token_batches
from .counts import CountBlock, CountSource, read_counts
from .kernels import cell_streams, entry_uniforms
from .tokens import Tokens
from .vocab import GeneAlignment, GeneVocab

__all__ = [
    "CountBlock",
    "CountSource",
    "GeneAlignment",
    "GeneVocab",
    "Tokens",
    "cell_streams",
    "entry_uniforms",
    "read_counts",
    "token_batches",
]
