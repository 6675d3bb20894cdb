"""How a batch is run: evaluation mode, size, and halves where memory runs out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._core.log import warn
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


def batch_budget(device: torch.device) -> int:
    """`settings.batch_tokens`, but on a CPU at most what keeps the activations in its caches (10-25 % faster)."""
    if device.type != "cpu":
        return settings.batch_tokens
    return min(settings.batch_tokens, CPU_BATCH_TOKENS * torch.get_num_threads())


def embed_batch(encoder: CellNetwork, tokens: Tokens, cells: np.ndarray) -> np.ndarray:
    """Embed `cells` in one batch; if the device runs out of memory, in two halves, one after the other."""
    try:
        with torch.inference_mode():
            batch = encoder.collate(tokens.take(cells))
            values = encoder.compute({name: x.to(encoder.device) for name, x in batch.items()}).float().cpu().numpy()
    except torch.OutOfMemoryError:
        if len(cells) == 1:
            raise
        torch.cuda.empty_cache()
        warn(f"The device ran out of memory with {len(cells)} cells in a batch; trying halves. Lower `batch_tokens`.")
        return np.concatenate([embed_batch(encoder, tokens, half) for half in np.array_split(cells, 2)])
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values).all(axis=1)).sum())
        msg = (
            f"{encoder.name or type(encoder).__name__} computed NaN or infinite numbers for {wrong} of {len(cells)} cells "
            "that express genes it knows; expected finite ones. Its weights or these counts are far out of range: load it "
            "again from the published files, and check the counts."
        )
        raise ValueError(msg)
    return values
