"""CellLM against recorded outputs of the original implementation, through the published file format."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import relative

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp.models.celllm import CellLM, CellLMConfig

MODEL = "celllm"
TOLERANCE = 1e-5


@pytest.fixture
def encoder(folder):
    return sdr.models.load("celllm", checkpoint=folder / "weights")


def _recorded(golden, prefix="") -> Tokens:
    return Tokens.from_padded(golden[f"{prefix}gene_pos"], golden["n_tokens"], golden[f"{prefix}tokens"])


@pytest.mark.parametrize(("normalize", "prefix"), [(True, ""), (False, "counts_")])
def test_tokens_are_those_of_the_original(folder, adata, golden, normalize, prefix):
    encoder = sdr.models.load("celllm", checkpoint=folder / "weights", normalize=normalize)
    tokens, wanted = encoder.tokenize(adata, genes="exact"), _recorded(golden, prefix)
    assert np.array_equal(tokens.indptr, wanted.indptr)
    assert np.array_equal(tokens.ids, wanted.ids)
    assert np.array_equal(tokens.values, wanted.values)


@pytest.mark.parametrize("pooling", ["cls", "mean_tokens", "mean_genes", "mean_positions"])
def test_embedding_is_that_of_the_original(folder, adata, golden, pooling):
    encoder = sdr.models.load("celllm", checkpoint=folder / "weights", pooling=pooling)
    wanted = golden[f"emb_{pooling}"]
    assert relative(encoder.embed(adata, genes="exact"), wanted) < TOLERANCE
    assert relative(encoder.embed_tokens(_recorded(golden)), wanted) < TOLERANCE
    assert relative(encoder.embed_tokens(_recorded(golden), batch_tokens=1), wanted) < TOLERANCE


@pytest.mark.parametrize("cell", [0, 6])
@pytest.mark.parametrize("grad", [False, True])
def test_every_layer_is_that_of_the_original(encoder, golden, cell, grad):
    encoder.requires_grad_(grad)
    batch = encoder.collate(_recorded(golden).take([cell]))
    attended, outputs = [], []
    encoder.layers[0].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output))
        layer.ffn_norm.register_forward_pre_hook(lambda _, inputs: attended.append(inputs[0]))
    hidden = encoder.hidden(batch)[0].detach()
    n = int(golden["n_tokens"][cell])
    rows = n + (n < encoder.config.max_length)  # tokens, and the one row that stands for all padding
    embedding, *after_layer = [output[0].detach()[:rows] for output in outputs]
    after_attn = [x.detach().view(-1, encoder.dim)[:rows] for x in attended]
    assert relative(embedding, golden[f"cell{cell}_embedding"][:rows]) < 1e-7
    assert relative(torch.stack(after_attn), golden[f"cell{cell}_after_attn"][:, :rows]) < TOLERANCE
    assert relative(torch.stack(after_layer), golden[f"cell{cell}_after_layer"][:, :rows]) < TOLERANCE
    assert relative(hidden, golden[f"cell{cell}_encoding"][:n]) < TOLERANCE


def test_hidden_is_zero_at_padding(encoder, golden):
    batch = encoder.collate(_recorded(golden))
    hidden = encoder.hidden(batch).numpy()
    keep = batch["keep"][:, :-1].numpy()
    assert not keep.all()
    assert (hidden[~keep] == 0).all()
    assert (np.abs(hidden[keep]).sum(1) > 0).all()


def test_length_limit_is_part_of_the_model(folder, golden):
    longer = sdr.models.load("celllm", checkpoint=folder / "weights", max_length=320)
    difference = np.abs(longer.embed_tokens(_recorded(golden)) - golden["emb_cls"]).max()
    assert 0.05 < difference < 0.5  # the original's change from 256 to 320 positions is 0.18


def test_without_the_size_file_the_published_length_holds(folder, tmp_path):
    for name in ("checkpoint4_fixed.pth", "gene_list.txt"):
        shutil.copy(folder / "weights" / name, tmp_path / name)
    assert sdr.models.load("celllm", checkpoint=tmp_path).config.max_length == 6000


def test_a_size_file_of_another_checkpoint_is_refused(folder, tmp_path):
    shutil.copytree(folder / "weights", tmp_path / "weights", copy_function=shutil.copyfile)
    path = tmp_path / "weights" / "cellLM.json"
    sizes = json.loads(path.read_text())
    sizes["network"]["structure"]["depth"] = 10
    (tmp_path / "weights").chmod(0o755)
    path.write_text(json.dumps(sizes))
    with pytest.raises(ValueError, match="depth is 10, the tensors say 3"):
        sdr.models.load("celllm", checkpoint=tmp_path / "weights")


def test_full_size_is_the_published_one(manifest):
    manifest = manifest["checkpoint4_fixed.pth"]
    state = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, shape, dtype in manifest["state_dict"]
    }
    mapped = CellLM.remap(state)
    dropped = {"to_out.weight", "to_out.bias", "performer.calls_since_last_redraw"}
    assert len(mapped) == len(state) - len(dropped)
    assert mapped.keys() == CellLM.remap({name: t for name, t in state.items() if name not in dropped}).keys()
    config = CellLMConfig.from_state(mapped, specials=2, source="manifest")
    assert config == CellLMConfig()
    with torch.device("meta"):
        model = CellLM(config, CellLM.example_vocab(config))
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    assert {name: (tuple(t.shape), t.dtype) for name, t in mapped.items()} == wanted
    total = sum(t.numel() for t in [*model.parameters(), model.gene.table])
    assert total + state["to_out.weight"].numel() + state["to_out.bias"].numel() == manifest["n_parameters_total"]


def test_tokens_of_another_model_are_refused(encoder):
    indptr = np.array([0, 2])
    with pytest.raises(ValueError, match="needs a value"):
        encoder.embed_tokens(Tokens(indptr, np.array([320, 4])))
    with pytest.raises(ValueError, match="first token of each cell must be CLS with gene index 320"):
        encoder.embed_tokens(Tokens(indptr, np.array([3, 4]), np.array([6, 1])))
    with pytest.raises(ValueError, match="Token ids must lie"):
        encoder.embed_tokens(Tokens(indptr, np.array([320, 400]), np.array([6, 1])))
    with pytest.raises(ValueError, match="has 257 tokens; this checkpoint has 256 positions"):
        encoder.embed_tokens(Tokens(np.array([0, 257]), np.r_[320, np.arange(256)], np.r_[6, np.zeros(256, int)]))


def test_options_are_checked(folder):
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        sdr.models.load("celllm", checkpoint=folder / "weights", pooling="last")
    with pytest.raises(ValueError, match="`max_length` must be at least 2"):
        sdr.models.load("celllm", checkpoint=folder / "weights", max_length=1)
