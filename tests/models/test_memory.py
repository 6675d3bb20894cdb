"""Memory that runs out: half as much at once from then on, the same result, one warning; and an end where nothing is left to halve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sc_drugresp as sdr
from sc_drugresp.models._memory import ran_out
from sc_drugresp.models.cellplm import CellPLM, CellPLMConfig
from sc_drugresp.models.geneformer import Geneformer, GeneformerConfig
from sc_drugresp.models.uce import UCE, UCEConfig

ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "old cuda": RuntimeError("CUDA error: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "80000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cpu, windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
    ),
    "python": MemoryError(),
}


class Allocator(TorchDispatchMode):
    """An allocator that has room for tensors of so many numbers, and fails as the given error for larger ones.

    Views and what is made by `torch.empty`, such as the states of all cells on the CPU, are not refused.
    """

    def __init__(self, room: int, error: BaseException) -> None:
        super().__init__()
        self.room, self.error, self.failed = room, error, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        known = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        fresh = [
            x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known
        ]
        if func is not torch.ops.aten.empty.memory_format and any(x.numel() > self.room for x in fresh):
            self.failed += 1
            raise self.error
        return out


def narrow(cls: Any, config: Any, **options: Any) -> Any:
    return cls.random(config(layers=2, **options))


@pytest.fixture(scope="module")
def geneformer() -> Any:
    return narrow(Geneformer, GeneformerConfig, dim=16, heads=2, ffn_dim=32, vocab_size=300, positions=128)


def tokens_of(encoder: Any, n: int = 40, most: int = 60) -> Any:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, most, n)
    ids = rng.integers(10, 250, lengths.sum()).astype(np.int32)
    values = rng.integers(1, 9, len(ids)).astype(np.float32) if encoder.reads_values else None
    return sdr.models.Tokens(np.concatenate([[0], np.cumsum(lengths)]), ids, values)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_kind_is_recovered_from(geneformer, kind):
    tokens = tokens_of(geneformer)
    undisturbed = geneformer.embed_tokens(tokens, batch_tokens=2_000)
    with Allocator(3_000, ERRORS[kind]) as allocator, pytest.warns(UserWarning, match="Memory ran out") as told:
        found = geneformer.embed_tokens(tokens, batch_tokens=2_000)
    assert allocator.failed
    assert len(told) == 1
    np.testing.assert_allclose(found, undisturbed, rtol=0, atol=2e-6)


def test_later_batches_stay_small(geneformer):
    """The smaller budget is kept: as many failures for four blocks as for one."""
    tokens = tokens_of(geneformer)
    failures = []
    for blocks in (1, 4):
        with Allocator(3_000, ERRORS["cuda"]) as allocator, pytest.warns(UserWarning, match="Memory ran out"):
            geneformer.embed_blocks(
                ((i * len(tokens), tokens) for i in range(blocks)), blocks * len(tokens), None, 2_000, lambda _: None
            )
        failures.append(allocator.failed)
    assert failures[0] == failures[1] > 0


def test_a_single_cell_ends_it(geneformer):
    with (
        Allocator(64, ERRORS["cpu"]),
        pytest.warns(UserWarning, match="Memory ran out"),
        pytest.raises(MemoryError, match=r"a single cell of \d+ tokens in a batch, which cannot be made smaller"),
    ):
        geneformer.embed_tokens(tokens_of(geneformer), batch_tokens=2_000)


def test_other_errors_stay_what_they_are(geneformer):
    with (
        Allocator(64, RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        pytest.raises(RuntimeError, match="mat1"),
    ):
        geneformer.embed_tokens(tokens_of(geneformer))
    assert not ran_out(ValueError("out of memory"))


def test_embedding_an_object(geneformer):
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=20, n_genes=200)
    adata.var_names = geneformer.vocab.names[: adata.n_vars]
    undisturbed = geneformer.embed(adata, genes="exact")
    with Allocator(16 * 128 * 8, ERRORS["mps"]), pytest.warns(UserWarning, match="Memory ran out"):
        found = geneformer.embed(adata, genes="exact", batch_tokens="auto")
    np.testing.assert_allclose(found, undisturbed, rtol=0, atol=2e-6)


@pytest.mark.parametrize("room", [1_000, 400, 160])
@pytest.mark.parametrize("groups", [np.zeros(40, int), np.repeat([0, 1, 2], [30, 4, 6])], ids=["one set", "three sets"])
def test_sets(groups, room):
    """A set that no longer fits is streamed, also if memory runs out in the middle of a layer."""
    encoder = narrow(CellPLM, CellPLMConfig, width=16, heads=2, ffn_dim=32, latent_dim=8, norm_groups=2)
    tokens = tokens_of(encoder)
    undisturbed = encoder.embed_tokens(tokens, groups=groups)
    with Allocator(room, ERRORS["cuda"]) as allocator, pytest.warns(UserWarning, match="Memory ran out") as told:
        found = encoder.embed_tokens(tokens, groups=groups)
    assert allocator.failed
    assert len(told) == 1
    np.testing.assert_allclose(found, undisturbed, rtol=0, atol=2e-6)


def test_a_set_in_which_memory_runs_out_while_its_states_are_written():
    """The last pass of a layer writes; pieces that are done must not be computed twice."""
    encoder = narrow(CellPLM, CellPLMConfig, width=16, heads=2, ffn_dim=32, latent_dim=8, norm_groups=2)
    tokens = tokens_of(encoder)
    undisturbed = encoder.embed_tokens(tokens, batch_tokens=10)
    feed, calls = encoder.layers[0].feed, []

    def fails_once(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise ERRORS["cuda"]
        return feed(x)

    encoder.layers[0].feed = fails_once
    with pytest.warns(UserWarning, match="Memory ran out"):
        found = encoder.embed_tokens(tokens, batch_tokens=10)
    assert calls == [10, 10, 10, 5, 5, 5, 5]
    np.testing.assert_allclose(found, undisturbed, rtol=0, atol=2e-6)


def uce(**options: Any) -> Any:
    sizes = {"width": 16, "heads": 2, "ffn_dim": 32, "token_dim": 24, "decoder_dim": 16, "dim": 16}
    return narrow(UCE, UCEConfig, **sizes, positions=128, sample_size=30, **options)


def sentences(encoder: Any) -> Any:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=20, n_genes=200)
    adata.var_names = encoder.vocab.names[: adata.n_vars]
    return encoder.tokenize(adata, genes="exact")


def test_tokens_that_all_cells_share():
    encoder = uce()
    tokens = sentences(encoder)
    undisturbed = encoder.embed_tokens(tokens)
    encode, sizes = encoder.encode, []

    def little(features: torch.Tensor) -> torch.Tensor:
        sizes.append(len(features))
        if len(features) > 60:
            raise ERRORS["cpu"]
        return encode(features)

    encoder.encode = little
    with pytest.warns(UserWarning, match="Memory ran out"):
        found = encoder.embed_tokens(tokens)
    assert min(sizes) <= 60
    np.testing.assert_allclose(found, undisturbed, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("error")
def test_batches_that_belong_to_the_result_are_not_made_smaller():
    encoder = uce(padding="upstream", batch_size=8)
    tokens = sentences(encoder)
    forward = encoder.forward

    def little(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(batch["ids"]) > 4:
            raise ERRORS["cuda"]
        return forward(batch)

    encoder.forward = little
    with pytest.raises(MemoryError, match="8 cells in a batch, which cannot be made smaller"):
        encoder.embed_tokens(tokens)
