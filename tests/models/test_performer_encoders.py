"""What holds for scBERT and CellLM alike: files, awkward cells, independence of cells, training."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import Golden, RunsCode, golden, load, relative
from safetensors.torch import save_file
from scipy.sparse import csr_matrix
from torch import nn

import sc_drugresp as sdr
from sc_drugresp.models._weights import read_state
from sc_drugresp.models.celllm import CellLM
from sc_drugresp.models.scbert import ScBERT

WEIGHTS = {"scbert": "panglao_pretrain.pth", "celllm": "checkpoint4_fixed.pth"}
LISTS = {"scbert": "gene_order.txt", "celllm": "gene_list.txt"}
CLASSES = {"scbert": ScBERT, "celllm": CellLM}
TARGET = {"scbert": "emb_mean_genes", "celllm": "emb_cls"}


@pytest.fixture(params=sorted(WEIGHTS))
def name(request) -> str:
    return request.param


@pytest.fixture
def record(name) -> Golden:
    return golden(name)


@pytest.fixture
def encoder(name):
    return load(name)


@pytest.fixture
def wanted(record, name):
    return record.expected[TARGET[name]]


@pytest.fixture
def folder(copy) -> Path:
    """A copy of the published files that a test may spoil."""
    return copy


@pytest.fixture
def state(record, name) -> dict:
    return dict(read_state(record.weights / WEIGHTS[name])["model_state_dict"])


def depth(state: dict) -> int:
    """Layers; files without a configuration and the state of an optimizer do not say how many there should be."""
    return sum(key.endswith("fn.to_q.weight") for key in state)


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["bare", "module", "wrapped", "single", "more keys"])
def test_layouts_of_the_file_give_the_same_numbers(name, folder, state, adata, wanted, variant):
    if variant in ("module", "wrapped"):
        prefix = {"module": "module.", "wrapped": "module.encoder."}[variant]
        state = {prefix + key: tensor for key, tensor in state.items()}
    if variant == "single":  # a re-packed file with the gene table in single precision
        state["pos_emb.emb.weight"] = state["pos_emb.emb.weight"].float()
    content = {"state_dict": state, "epoch": 3, "args": {"lr": 0.1}} if variant == "more keys" else state
    torch.save(content, folder / WEIGHTS[name])
    encoder = sdr.models.load(name, checkpoint=folder, layers=depth(state))
    assert relative(encoder.embed(adata, genes="exact"), wanted) < 1e-5


def test_safetensors_under_another_name(name, folder, state, adata, wanted):
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "other.safetensors")
    encoder = sdr.models.load(name, checkpoint=folder / "other.safetensors", layers=depth(state))
    assert relative(encoder.embed(adata, genes="exact"), wanted) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_weights_are_widened(name, folder, state, adata, wanted, dtype, tolerance):
    halves = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    torch.save({"model_state_dict": halves}, folder / WEIGHTS[name])
    encoder = sdr.models.load(name, checkpoint=folder, layers=depth(state))
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    assert 0 < relative(encoder.embed(adata, genes="exact"), wanted) < tolerance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("performer.net.layers.1.0.fn.to_k.weight"), "missing: layers.1.attn.k.weight"),
        (lambda s: s.pop("pos_emb.emb.weight"), "gene.table are missing"),
        (lambda s: s.update({"performer.net.layers.0.0.fn.extra": torch.zeros(3)}), "unknown: layers.0.0.fn.extra"),
        (lambda s: s.update({"norm.weight": torch.ones(7)}), r"norm.weight is \(7,\), expected \(40,\)"),
        (lambda s: s.clear(), "no named tensors"),
        (lambda s: (s.clear(), s.update({"bert.embeddings.weight": torch.ones(3, 3)})), "found bert.embeddings.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name, folder, state, change, message):
    change(state)
    torch.save({"model_state_dict": state}, folder / WEIGHTS[name])
    with pytest.raises(ValueError, match=message):
        sdr.models.load(name, checkpoint=folder)


def test_a_truncated_file_is_refused(name, folder):
    path = folder / WEIGHTS[name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="truncated or not a weights file"):
        sdr.models.load(name, checkpoint=folder)


def test_code_in_a_file_does_not_run(name, folder, state, tmp_path):
    torch.save({"model_state_dict": state, "extra": RunsCode(tmp_path / "executed")}, folder / WEIGHTS[name])
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load(name, checkpoint=folder)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_alone_is_no_checkpoint(name, folder):
    torch.save(torch.zeros(3), folder / WEIGHTS[name])
    with pytest.raises(ValueError, match="no named tensors, found Tensor"):
        sdr.models.load(name, checkpoint=folder)


def test_gene_lists_are_demanded_and_checked(name, folder):
    path = folder / LISTS[name]
    names = path.read_text().split()
    path.write_text("\n".join(names[:-1]))
    with pytest.raises(ValueError, match=r"319 names, but the gene table .* has rows for 320 genes"):
        sdr.models.load(name, checkpoint=folder)
    path.write_text("\n".join([*names[:-1], names[0]]))
    with pytest.raises(ValueError, match=f"holds '{names[0]}' more than once"):
        sdr.models.load(name, checkpoint=folder)
    for file in (path, *folder.glob("*.h5ad")):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="order cannot be guessed"):
        sdr.models.load(name, checkpoint=folder)


def test_the_other_models_checkpoint_is_refused(name, folder):
    other = {"scbert": "celllm", "celllm": "scbert"}[name]
    shutil.copyfile(golden(other).weights / WEIGHTS[other], folder / WEIGHTS[name])
    with pytest.raises(ValueError, match=r"320 names, but the gene table|num_tokens is 8, the tensors say 7"):
        sdr.models.load(name, checkpoint=folder)


# Cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_depends_on_itself_alone(encoder, adata):
    tokens = encoder.tokenize(adata, genes="exact")
    whole = encoder.embed_tokens(tokens)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    assert np.array_equal(encoder.embed_tokens(tokens.take(order)), whole[order])
    assert np.array_equal(encoder.embed_tokens(tokens, batch_tokens=1), whole)
    with sdr.settings.override(block_cells=5):
        assert np.array_equal(encoder.embed(adata, genes="exact"), whole)
    columns = np.random.default_rng(1).permutation(adata.n_vars - 2)  # the second copies of two genes stay last
    shuffled = adata[order, np.r_[columns, adata.n_vars - 2, adata.n_vars - 1]]
    assert np.array_equal(encoder.embed(shuffled, genes="exact"), whole[order])


def test_nothing_is_random_and_no_global_state_is_touched(encoder, adata):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = encoder.embed(adata, rng=0), encoder.embed(adata, rng=1)
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert not encoder.training


def test_awkward_cells_have_an_embedding(encoder):
    genes = list(encoder.vocab.names[:4])
    counts = np.array([[0, 0, 0, 0, 0], [0, 7, 0, 0, 0], [0, 0, 0, 0, 9], [1e6, 1, 0, 1, 0]], dtype=np.float32)
    adata = ad.AnnData(csr_matrix(counts))
    adata.var_names = [*genes, "NOT-A-GENE"]
    found = encoder.embed(adata, genes="exact")
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], found[2])  # nothing known in either
    assert not np.allclose(found[0], found[1])


def test_unknown_genes_are_anrelative(encoder):
    adata = ad.AnnData(csr_matrix(np.ones((2, 2), dtype=np.float32)))
    adata.var_names = ["x1", "x2"]
    with pytest.raises(ValueError, match="None of the 2 genes is known"):
        encoder.embed(adata, genes="exact")


# Training ---------------------------------------------------------------------------------------------------------


def test_fast_path_is_pool_of_hidden(name, encoder, adata):
    tokens = encoder.tokenize(adata[:6], genes="exact")
    choices = ["mean_genes", "mean_all", "last"] if name == "scbert" else ["cls", "mean_tokens"]
    for pooling in choices:
        encoder = load(name, pooling=pooling)
        batch = encoder.collate(tokens)
        plain = encoder.requires_grad_(True).pool(encoder.hidden(batch), batch).detach()
        short = encoder(batch).detach()
        with torch.inference_mode():
            fast = encoder(batch)
        for other in (short, fast):
            assert (plain - other).abs().max() / plain.abs().max() < 2e-6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_gets_gradient(encoder, adata, checkpointing):
    encoder.requires_grad_(True).gradient_checkpointing = checkpointing
    batch = encoder.collate(encoder.tokenize(adata[:2], genes="exact"))
    encoder(batch).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert "gene.table" in dict(encoder.named_buffers())  # gene2vec is fixed, as published


def test_gradient_checkpointing_changes_no_gradient(encoder, adata):
    encoder.requires_grad_(True)
    batch = encoder.collate(encoder.tokenize(adata[:2], genes="exact"))
    gradients = []
    for encoder.gradient_checkpointing in (False, True):
        encoder.zero_grad()
        encoder(batch).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("training", [False, True])
def test_adapters_change_the_output_and_learn(encoder, adata, training):
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    batch = encoder.collate(encoder.tokenize(adata[:2], genes="exact"))
    with torch.inference_mode():
        before = encoder(batch)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=encoder.lora_targets)
    inject_adapter_in_model(config, encoder)
    generator = torch.Generator().manual_seed(0)
    adapters = {n: p for n, p in encoder.named_parameters() if "lora_" in n}
    assert len(adapters) == 2 * 6 * encoder.config.layers
    assert {n for n, p in encoder.named_parameters() if p.requires_grad} == adapters.keys()
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.normal_(0, 0.2, generator=generator)
    encoder.train(training)
    output = encoder(batch)
    output.square().sum().backward()
    assert [n for n, p in adapters.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    with torch.inference_mode():
        fast = encoder(batch)
        for module in encoder.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
        merged = encoder(batch)
    size = output.detach().abs().max()
    assert (fast - before).abs().max() / size > 0.01
    assert (fast - output.detach()).abs().max() / size < 5e-6
    assert (merged - fast).abs().max() / size < 5e-6


@pytest.mark.parametrize(
    ("name", "attention", "everything"), [("scbert", 120_960, 257_280), ("celllm", 368_640, 901_120)]
)
def test_adapters_of_the_full_model_have_the_known_size(name, attention, everything):
    cls = CLASSES[name]
    with torch.device("meta"):
        model = cls(cls.Config(), cls.example_vocab(cls.Config()))
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    rank = {n: 8 * (m.in_features + m.out_features) for n, m in linear.items() if re.fullmatch(cls.lora_targets, n)}
    assert rank.keys() == linear.keys()
    assert sum(rank.values()) == everything
    assert sum(size for n, size in rank.items() if n[-1] in "qkv") == attention
