"""scBERT against recorded outputs of the original implementation, through the published file format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import relative
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import Tokens, read_counts
from sc_drugresp._data.logbins import log2_cp10k
from sc_drugresp.models.scbert import ScBERT, ScBERTConfig

MODEL = "scbert"
TOLERANCE = 1e-5


@pytest.fixture
def encoder(folder):
    return sdr.models.load("scbert", checkpoint=folder / "weights")


def _class_tokens(golden, cells=slice(None)) -> Tokens:
    rows = csr_matrix(golden["tokens"][cells])
    return Tokens(rows.indptr, rows.indices, rows.data)


def test_tokens_are_those_of_the_original(encoder, adata, golden):
    tokens = encoder.tokenize(adata, genes="exact")
    assert np.array_equal(encoder.dense(tokens), golden["tokens"])
    assert (tokens.values > 0).all()  # zeros are not stored
    assert np.array_equal(encoder.collate(tokens)["values"].numpy(), golden["tokens"])


def test_normalization_is_that_of_scanpy_to_the_last_bit(encoder, adata, golden):
    (block,) = read_counts(adata).align(encoder.vocab, "exact").blocks()
    found = np.zeros_like(golden["log2_norm"])
    found[np.repeat(np.arange(len(block)), np.diff(block.indptr)), block.gene_ids] = log2_cp10k(block)
    assert np.array_equal(found, golden["log2_norm"])


@pytest.mark.parametrize("pooling", ["mean_genes", "mean_all", "last"])
def test_embedding_is_that_of_the_original(folder, adata, golden, pooling):
    encoder = sdr.models.load("scbert", checkpoint=folder / "weights", pooling=pooling)
    wanted = golden[f"emb_{pooling}"]
    assert relative(encoder.embed(adata, genes="exact"), wanted) < TOLERANCE
    assert relative(encoder.embed_tokens(_class_tokens(golden)), wanted) < TOLERANCE
    every = np.broadcast_to(np.arange(golden["tokens"].shape[1]), golden["tokens"].shape)
    with_zeros = Tokens.from_padded(every, np.full(len(every), every.shape[1]), golden["tokens"])
    assert relative(encoder.embed_tokens(with_zeros, batch_tokens=1), wanted) < TOLERANCE


@pytest.mark.parametrize("cell", [0, 6])
@pytest.mark.parametrize("grad", [False, True])
def test_every_layer_is_that_of_the_original(encoder, golden, cell, grad):
    encoder.requires_grad_(grad)
    batch = encoder.collate(_class_tokens(golden, slice(cell, cell + 1)))
    attended, outputs, heads = [], [], []
    encoder.layers[0].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output))
        layer.ffn_norm.register_forward_pre_hook(lambda _, inputs: attended.append(inputs[0]))
        layer.attn.o.register_forward_pre_hook(lambda _, inputs: heads.append(inputs[0]))
    hidden = encoder.hidden(batch)
    embedding, *after_layer = [output[0].detach() for output in outputs]
    after_attn = [x.detach().view(embedding.shape) for x in attended]
    assert relative(embedding, golden[f"cell{cell}_embedding"]) < 1e-7
    assert relative(torch.stack(after_attn), golden[f"cell{cell}_after_attn"]) < TOLERANCE
    assert relative(torch.stack(after_layer), golden[f"cell{cell}_after_layer"]) < TOLERANCE
    assert relative(hidden[0].detach(), golden[f"cell{cell}_encoding"]) < TOLERANCE
    if cell == 0:
        first = heads[0].detach().view(len(embedding), encoder.config.heads, -1)[:8].transpose(0, 1)
        assert relative(first, golden["cell0_layer0_attn_heads_first8"]) < TOLERANCE


def test_batch_effect_of_the_original_is_not_reproduced(encoder, golden):
    found = encoder.embed_tokens(_class_tokens(golden), batch_tokens=10**6)
    assert relative(found, golden["emb_mean_genes"]) < TOLERANCE
    assert relative(found, golden["batch24_emb_mean_genes"]) > TOLERANCE


def test_full_size_is_the_published_one(manifest):
    manifest = manifest["panglao_pretrain.pth"]
    state = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, shape, dtype in manifest["state_dict"]
    }
    mapped = ScBERT.remap(state)
    dropped = {"to_out.weight", "to_out.bias", "performer.calls_since_last_redraw"}
    assert len(mapped) == len(state) - len(dropped)
    assert mapped.keys() == ScBERT.remap({name: t for name, t in state.items() if name not in dropped}).keys()
    config = ScBERTConfig.from_state(mapped, specials=1, source="manifest")
    assert config == ScBERTConfig()
    with torch.device("meta"):
        model = ScBERT(config, ScBERT.example_vocab(config))
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    assert {name: (tuple(t.shape), t.dtype) for name, t in mapped.items()} == wanted
    total = sum(t.numel() for t in [*model.parameters(), model.gene.table])
    assert total + state["to_out.weight"].numel() + state["to_out.bias"].numel() == manifest["n_parameters_total"]


def test_published_gene_order_has_the_size_of_the_model(shared):
    names = (shared / "vocab" / "scbert" / "gene_order.txt").read_text().split()
    assert len(names) == ScBERTConfig().genes


def test_gene_names_may_come_from_the_h5ad(folder, golden, tmp_path):
    for name in ("panglao_pretrain.pth", "panglao_10000.h5ad"):
        (tmp_path / name).symlink_to(folder / "weights" / name)
    encoder = sdr.models.load("scbert", checkpoint=tmp_path)
    assert list(encoder.vocab.names) == golden["genes"].tolist()


def test_tokens_of_another_model_are_refused(encoder):
    with pytest.raises(ValueError, match="needs a value"):
        encoder.embed_tokens(Tokens(np.array([0, 3]), np.array([5, 2, 1])))
    with pytest.raises(ValueError, match=r"expression class must lie in 0 \.\.\. 6"):
        encoder.embed_tokens(Tokens(np.array([0, 2]), np.array([5, 2]), np.array([3, 51])))
    with pytest.raises(ValueError, match="Token ids must lie"):
        encoder.embed_tokens(Tokens(np.array([0, 1]), np.array([60_000]), np.array([3])))


def test_unknown_pooling_is_refused(folder):
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        sdr.models.load("scbert", checkpoint=folder / "weights", pooling="cls")
