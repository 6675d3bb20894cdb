"""How batches are run: evaluation mode, size, and less at once where memory runs out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from .._core.settings import settings
from .._nn.products import fast_products

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from .._data import Tokens
    from ._network import CellNetwork

CPU_BATCH_TOKENS = 2048
"""Tokens per thread in a batch on a CPU; smaller batches use the matrix units less, larger ones leave the caches."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode with fast products, and back afterwards if it was training."""
    was_training = module.training
    module.eval()
    try:
        with fast_products():
            yield
    finally:
        module.train(was_training)


def batch_budget(device: torch.device, batch_tokens: int | Literal["auto"]) -> int:
    """Padded tokens to start with: `settings.batch_tokens`, on a CPU at most what its caches hold (10-25 % faster)."""
    if batch_tokens != "auto":
        return batch_tokens
    if device.type != "cpu":
        return settings.batch_tokens
    return min(settings.batch_tokens, CPU_BATCH_TOKENS * torch.get_num_threads())


def embed_batch(encoder: CellNetwork, tokens: Tokens, cells: np.ndarray) -> np.ndarray:
    """Embed `cells` in one batch.

    Raises
    ------
    ValueError
        The network computed something that is no number.
    """
    with torch.inference_mode():
        batch = encoder.collate(tokens.take(cells))
        values = encoder.compute({name: x.to(encoder.device) for name, x in batch.items()}).float().cpu().numpy()
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values).all(axis=1)).sum())
        msg = (
            f"{encoder.name or type(encoder).__name__} computed NaN or infinite numbers for {wrong} of {len(cells)} cells "
            "that express genes it knows; expected finite ones. Its weights or these counts are far out of range: load it "
            "again from the published files, and check the counts."
        )
        raise ValueError(msg)
    return values
