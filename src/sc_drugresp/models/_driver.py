"""Steps that all encoders share: match genes, check tokens, embed a batch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._core.log import warn
from .._core.settings import settings
from .._data import CountSource
from .._data.counts import AlignedCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from torch import Tensor, nn

    from .._data import Tokens
    from .._data.vocab import GeneMode
    from ._encoder import CellEncoder
    from ._network import CellNetwork

CPU_BATCH_TOKENS = 2048
"""Tokens per thread in a batch on a CPU; smaller batches use the matrix units less, larger ones leave the caches."""


def aligned(
    encoder: CellEncoder, data: AnnData | CountSource | AlignedCounts, layer: str | None, genes: GeneMode
) -> AlignedCounts:
    """Match the genes of the data to the vocabulary of an encoder.

    Raises
    ------
    ValueError
        None of the genes is known to the encoder.
    """
    if isinstance(data, AlignedCounts):
        return data
    source = data if isinstance(data, CountSource) else encoder.read(data, layer)
    out = source.align(encoder.vocab, genes)
    if not out.alignment.matched.any():
        found = ", ".join(map(repr, source.names[:3]))
        msg = (
            f"None of the {source.n_vars} genes is known to {encoder.name or type(encoder).__name__}, which expects "
            f"{encoder.vocab.kind} names such as {encoder.vocab.names[0]!r}; found {found}. "
            "Run sc_drugresp.pp.harmonize_genes(adata) first."
        )
        raise ValueError(msg)
    return out


def check_tokens(encoder: CellNetwork, tokens: Tokens) -> None:
    """Refuse tokens that the network has no parameters for.

    Raises
    ------
    ValueError
        A value is missing, an id is out of range, or a sequence is too long.
    """
    if encoder.reads_values and tokens.values is None:
        msg = f"{type(encoder).__name__} needs a value for each token in `Tokens.values`; these tokens have none."
        raise ValueError(msg)
    if encoder.n_ids is not None and len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < encoder.n_ids:
        msg = (
            f"Token ids must lie between 0 and {encoder.n_ids - 1}, found {tokens.ids.min()} to {tokens.ids.max()}. "
            "Are these tokens of another model?"
        )
        raise ValueError(msg)
    if encoder.longest is not None and (most := tokens.lengths.max(initial=0)) > encoder.longest:
        msg = f"A sequence has {most} tokens; this checkpoint has {encoder.longest} positions."
        raise ValueError(msg)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode, and back afterwards if it was training."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def batch_budget(device: torch.device) -> int:
    """`settings.batch_tokens`, but on a CPU at most what keeps the activations in its caches (10-25 % faster)."""
    if device.type != "cpu":
        return settings.batch_tokens
    return min(settings.batch_tokens, CPU_BATCH_TOKENS * torch.get_num_threads())


def embed_batch(encoder: CellEncoder, tokens: Tokens, cells: np.ndarray) -> np.ndarray:
    """Embed `cells` in one batch; if the device runs out of memory, in two halves, one after the other."""
    try:
        with torch.inference_mode():
            batch = encoder.collate(tokens.take(cells))
            return encoder({name: x.to(encoder.device) for name, x in batch.items()}).float().cpu().numpy()
    except torch.OutOfMemoryError:
        if len(cells) == 1:
            raise
        torch.cuda.empty_cache()
        warn(f"The device ran out of memory with {len(cells)} cells in a batch; trying halves. Lower `batch_tokens`.")
        return np.concatenate([embed_batch(encoder, tokens, half) for half in np.array_split(cells, 2)])


def random_state(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random parameters: matrices from N(0, 0.02), norms and biases as at the start of training."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in module.state_dict().items():
        if like.is_floating_point() and like.ndim > 1:
            state[name] = torch.empty(like.shape, dtype=like.dtype).normal_(0.0, 0.02, generator=generator)
        else:
            fill = torch.ones if like.is_floating_point() and name.endswith("weight") else torch.zeros
            state[name] = fill(like.shape, dtype=like.dtype)
    return state
