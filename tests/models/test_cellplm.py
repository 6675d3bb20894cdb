"""CellPLM against upstream's recorded arrays, and what the interface promises for sets of cells."""

from __future__ import annotations

import dataclasses
import json

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import RunsCode, relative, resave
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp._data.product_kernels import weighted_rows
from sc_drugresp._nn import SetLayout, flow
from sc_drugresp.models import _sets
from sc_drugresp.models.cellplm import CellPLM, CellPLMConfig

ONE_SET = np.zeros(24, dtype=int)
MODEL = "cellplm"
NAMES = {"vae": "cellplm.20231027", "gmvae": "cellplm.20230926"}


@pytest.fixture
def cells(adata):
    return adata


@pytest.fixture
def load(folder):
    return lambda latent="vae", **options: sdr.models.load(NAMES[latent], checkpoint=folder / "weights", **options)


def traced(encoder, batch):
    """Everything that upstream recorded, by its name."""
    out = {"after_attn": [], "after_layer": []}
    handles = []
    for layer in encoder.layers:
        handles += [
            layer.attn.register_forward_hook(lambda _m, _i, y: out.setdefault("attn", []).append(y)),
            layer.ffn_norm.register_forward_hook(lambda _m, i, _y: out["after_attn"].append(i[0])),
            layer.register_forward_hook(lambda _m, _i, y: out["after_layer"].append(y)),
        ]
    with torch.inference_mode():
        out["gene_sum"], out["embedding"] = encoder.gene_sums(batch), encoder.inputs(batch)
        hidden = encoder.hidden(batch)
        out["pre_latent"] = hidden
    for handle in handles:
        handle.remove()
    out["layer0_attn"] = out["attn"][0]
    return {name: np.stack(value) if isinstance(value, list) else value.numpy() for name, value in out.items()}


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
def test_sizes_and_genes_come_from_the_files(load, golden, cells, latent):
    encoder, expected = load(latent), golden
    sizes = {"vae": (32, 3, 16, 64), "gmvae": (16, 2, 8, 32)}[latent]
    config = encoder.config
    assert (config.width, config.layers, config.latent_dim, config.ffn_dim) == sizes
    assert (config.latent, config.heads, encoder.dim, encoder.set_based) == (latent, 8, sizes[2], True)
    alignment = encoder.vocab.align(cells.var_names, cells.var["ensembl_id"], mode="exact")
    used = alignment.ids[alignment.columns == np.arange(cells.n_vars)]
    assert np.array_equal(used, expected["vae_gene_index"])
    assert np.array_equal(np.array(encoder.vocab.names)[used], expected["vae_genes_used"])


def test_tokens_are_the_counts(load, golden, cells):
    encoder, expected = load(), golden
    tokens = encoder.tokenize(cells, genes="exact")
    assert len(tokens) == cells.n_obs
    rows = np.zeros((cells.n_obs, len(encoder.vocab)))
    cell = np.repeat(np.arange(cells.n_obs), tokens.lengths)
    np.add.at(rows, (cell, tokens.ids), tokens.values)
    alignment = encoder.vocab.align(cells.var_names, cells.var["ensembl_id"], mode="exact")
    first = alignment.columns == np.arange(cells.n_vars)
    assert np.array_equal(rows[:, expected["vae_gene_index"]], cells.X.toarray()[:, first])


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
def test_every_stage_equals_upstream(load, golden, cells, latent):
    encoder, expected = load(latent), golden
    found = traced(encoder, encoder.collate(encoder.tokenize(cells, genes="exact")))
    compared = 0
    for name, value in found.items():
        if f"{latent}_{name}" in expected:
            assert relative(value, expected[f"{latent}_{name}"]) < 1e-5, name
            compared += 1
    assert compared == {"vae": 6, "gmvae": 4}[latent]


GROUPINGS = {
    "one_batch": lambda cells: np.zeros(cells.n_obs, dtype=int),
    "by_sample": lambda cells: cells.obs["sample"].to_numpy().astype(str),
    "chunks_of_8": lambda cells: np.arange(cells.n_obs) // 8,
    "single_cells": lambda cells: np.arange(cells.n_obs),
}


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("batch_tokens", [1, 5, 1000])
def test_sets_in_one_piece_or_streamed(load, golden, cells, grouping, batch_tokens):
    groups, expected = GROUPINGS[grouping](cells), golden[f"vae_emb_{grouping}"]
    encoder = load()
    with sdr.settings.override(block_cells=7):
        found = encoder.embed(cells, genes="exact", groups=groups, batch_tokens=batch_tokens)
    assert relative(found, expected) < 1e-5
    tokens = encoder.tokenize(cells, genes="exact")
    assert relative(encoder.embed_tokens(tokens, groups=groups, batch_tokens=batch_tokens), expected) < 1e-5


def test_streaming_recomputes_what_does_not_fit(load, golden, cells, monkeypatch):
    monkeypatch.setattr(flow, "REMEMBER_BYTES", 0)
    monkeypatch.setattr(_sets, "_IN_MEMORY", 0)  # hidden states in a temporary file
    found = load().embed(cells, genes="exact", groups=ONE_SET, batch_tokens=5)
    assert relative(found, golden["vae_emb_one_batch"]) < 1e-5


def test_without_groups_all_cells_are_one_set(load, golden, cells):
    with pytest.warns(UserWarning, match="all 24 cells form one set"):
        found = load().embed(cells, genes="exact")
    assert relative(found, golden["vae_emb_one_batch"]) < 1e-5


def test_the_door_for_annotated_data(folder, golden, cells):
    data = cells.copy()
    sdr.tl.embed(data, "cellplm", checkpoint=folder / "weights", genes="exact", group_key="sample")
    assert relative(data.obsm["X_cellplm"], golden["vae_emb_by_sample"]) < 1e-5


def test_the_likeliest_cluster_is_the_default(load, golden, cells):
    encoder, expected = load("gmvae"), golden
    batch = encoder.collate(encoder.tokenize(cells, genes="exact"))
    with torch.inference_mode():
        logits = encoder.latent.logits(encoder.hidden(batch))
    assert relative(logits, expected["gmvae_logits"]) < 1e-5
    assert np.array_equal(np.eye(logits.shape[1])[logits.argmax(1)], expected["gmvae_argmax_y"])
    assert relative(encoder.embed(cells, genes="exact", groups=ONE_SET), expected["gmvae_argmax_emb"]) < 1e-5


@pytest.mark.parametrize("batch_tokens", [5, 1000])
def test_recorded_uniforms_give_upstreams_sample(load, golden, cells, batch_tokens):
    encoder, expected = load("gmvae", assignment="sample"), golden
    tokens = encoder.tokenize(cells, genes="exact")
    tokens = dataclasses.replace(tokens, cells={"uniforms": expected["gmvae_seed42_uniform"]})
    found = encoder.embed_tokens(tokens, batch_tokens=batch_tokens)
    assert relative(found, expected["gmvae_seed42_emb"]) < 1e-5
    assert relative(found, expected["gmvae_argmax_emb"]) > 0.01
    with pytest.raises(ValueError, match=r"Tokens\.cells"):
        encoder.embed_tokens(dataclasses.replace(tokens, cells={}))


def test_samples_are_the_cells_own(load, cells):
    encoder = load("gmvae", assignment="sample")
    singles = np.arange(24)
    first = encoder.embed(cells, genes="exact", groups=singles)
    order = np.random.default_rng(0).permutation(24)
    assert np.abs(encoder.embed(cells[order], genes="exact", groups=singles) - first[order]).max() < 1e-6
    assert np.abs(encoder.embed(cells, genes="exact", groups=singles, rng=1) - first).max() > 1e-3
    uniforms = encoder.tokenize(cells, genes="exact").cells["uniforms"]
    assert uniforms.shape == (24, 16)
    assert 0 <= uniforms.min() < 0.05 < 0.95 < uniforms.max() <= 1
    assert abs(uniforms.mean() - 0.5) < 0.05


def test_wider_output(load, golden, cells):
    encoder = load(output="pre_latent")
    found = encoder.embed(cells, genes="exact", groups=ONE_SET)
    assert relative(found, golden["vae_pre_latent"]) < 1e-5
    assert encoder.dim == found.shape[1] == 32


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
def test_published_parameters(folder, latent):
    name = f"{NAMES[latent].split('.')[1]}_85M.best.ckpt"
    manifest = json.loads((folder / "manifest_full.json").read_text())[name]
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in manifest["state_dict"]}
    config = CellPLMConfig(latent=latent)
    with torch.device("meta"):
        model = CellPLM(config, CellPLM.example_vocab(config))
    mapped = {key: tuple(tensor.shape) for key, tensor in CellPLM.remap(state).items()}
    assert mapped == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    dropped = ("decoder.", "embedder.norm0.", "embedder.pe_enc.")
    dropped += ("latent.layers.1.hid_2sigma.", "latent.layers.1.inference.y_")
    dropped += ("latent.layers.1.inference.inference_qzyx.2.var.",)
    left = [key for key in state if not key.startswith(dropped)]
    assert len(left) == len(mapped)
    assert sum(state[key].numel() for key in left) == sum(t.numel() for t in model.state_dict().values())


# Sets and cells -------------------------------------------------------------------------------------------------------


def test_other_sets_order_and_batches_do_not_matter(load, cells):
    encoder, rng = load(), np.random.default_rng(0)
    groups = cells.obs["sample"].to_numpy().astype(str)
    before = (np.random.get_state()[1].copy(), torch.get_rng_state())
    whole = encoder.embed(cells, genes="exact", groups=groups)
    assert np.array_equal(whole, encoder.embed(cells, genes="exact", groups=groups))
    for name in np.unique(groups):
        alone = encoder.embed(cells[groups == name], genes="exact", groups=groups[groups == name])
        assert np.abs(alone - whole[groups == name]).max() < 5e-6
    rows, columns = rng.permutation(24), rng.permutation(cells.n_vars)
    with sdr.settings.override(block_cells=5):
        moved = encoder.embed(cells[rows][:, columns], groups=groups[rows], batch_tokens=3)
    assert np.abs(moved - encoder.embed(cells, groups=groups)[rows]).max() < 5e-6
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


def test_cells_without_counts_are_embedded(load, cells):
    data = cells.copy()
    data.X = sparse.diags_array(np.arange(24) != 3, dtype=np.float32).tocsr() @ data.X
    encoder = load()
    found = encoder.embed(data, genes="exact", groups=np.arange(24))
    assert np.isfinite(found).all()
    with torch.inference_mode():
        batch = encoder.collate(encoder.tokenize(data, genes="exact").take([3]))
        assert encoder.gene_sums(batch).abs().max() == 0


def test_groups_are_checked(load, cells):
    encoder = load()
    with pytest.raises(ValueError, match="one entry for each of 24 cells"):
        encoder.embed(cells, genes="exact", groups=np.zeros(3))
    with pytest.raises(ValueError, match="missing values"):
        encoder.embed(cells, genes="exact", groups=np.full(24, np.nan))
    with pytest.raises(ValueError, match="Token ids must lie between"):
        encoder.embed_tokens(Tokens(np.array([0, 1]), np.array([320]), np.ones(1)))
    with pytest.raises(ValueError, match="needs a value"):
        encoder.embed_tokens(Tokens(np.array([0, 1]), np.array([3])))


def naive_flow(q, k, v):
    """The formulas for one set and one head, cell by cell, in double precision."""
    n, e = len(q), 1e-6
    out_n = [1 / ((k[i] + e) @ (q.sum(0) + e)) for i in range(n)]
    in_n = [1 / ((q[i] + e) @ (k.sum(0) + e)) for i in range(n)]
    kout = sum(k[j] * out_n[j] for j in range(n))
    qin = sum(q[j] * in_n[j] for j in range(n))
    source = np.clip([(k[i] + e) @ (qin + e) for i in range(n)], -1, 1)
    weight = n * np.exp(source) / np.exp(source).sum()
    mixed = sum(np.outer(k[j], weight[j] * v[j]) for j in range(n))
    sink = [(q[i] + e) @ (kout + e) for i in range(n)]
    return np.array([(q[i] * in_n[i]) @ mixed / (1 + np.exp(-sink[i])) for i in range(n)])


@pytest.mark.parametrize("channels", [2, 16])
def test_flow_attention_against_its_formulas(channels):
    rng = np.random.default_rng(2)
    sets = np.array([4, 4, 0, 4, 7, 0, 4, 4, 0])
    q, k = (1 / (1 + np.exp(-rng.normal(0, 2, (9, 3, channels)))) for _ in range(2))
    v = rng.normal(0, 1, (9, 3, channels))
    layout = SetLayout.of(torch.from_numpy(sets))
    padded = (layout.pad(torch.from_numpy(x)) for x in (q, k, v))
    keep = layout.keep
    assert keep is not None
    found = layout.unpad(flow.flow_attention(*padded, layout.sizes, keep.double())).numpy()
    for code in np.unique(sets):
        for head in range(3):
            expected = naive_flow(*(x[sets == code, head] for x in (q, k, v)))
            assert np.allclose(found[sets == code, head], expected, atol=1e-10)


@pytest.mark.parametrize("threads", [1, 3])
def test_sparse_product(threads, monkeypatch):
    from sc_drugresp._data import product_kernels

    monkeypatch.setattr(product_kernels, "_ROWS_PER_TASK", 4)
    rng = np.random.default_rng(0)
    rows = sparse.random(11, 500, 0.2, "csr", dtype=np.float32, random_state=0)
    table = rng.normal(size=(500, 24)).astype(np.float32)
    found = weighted_rows(rows.indptr, rows.indices, rows.data, table, threads=threads)
    assert np.allclose(found, rows.toarray().astype(np.float64) @ table, atol=1e-5)


# Files ----------------------------------------------------------------------------------------------------------------

CKPT, CONFIG = "20231027_85M.best.ckpt", "20231027_85M.config.json"


def rewrite(folder, change):
    resave(folder / CKPT, lambda nested: change(nested["model_state_dict"]))


def without(state, name):
    return {"model_state_dict": {key: tensor for key, tensor in state.items() if key != name}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "latent.layers.1.hid_2mu.bias"), r"missing: latent\.bias"),
        (lambda s: without(s, "encoder.layers.0._ff_block.0.weight"), r"missing: layers\.0\.up"),
        (lambda s: {"model_state_dict": {**s, "other": torch.zeros(1)}}, "unknown: other"),
        (lambda s: {"model_state_dict": {**s, "embedder.feat_enc.emb": torch.zeros(9, 32)}}, "shapes differ"),
        (lambda s: {"epoch": 1}, "no named tensors"),
    ],
)
def test_damaged_weights_are_refused(copy, change, message):
    rewrite(copy, change)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("cellplm", checkpoint=copy)


@pytest.mark.parametrize("where", ["decoder.", "embedder.pe_enc.", "embedder.norm0.", "latent.layers.1.hid_2sigma."])
def test_parts_that_embedding_needs_not_may_be_absent(copy, golden, cells, where):
    rewrite(copy, lambda s: {"model_state_dict": {k: v for k, v in s.items() if not k.startswith(where)}})
    found = sdr.models.load("cellplm", checkpoint=copy).embed(cells, genes="exact", groups=ONE_SET)
    assert relative(found, golden["vae_emb_one_batch"]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_further_keys(copy, golden, cells, dtype):
    rewrite(
        copy,
        lambda s: {
            "epoch": 7,
            "optimizer": {"state": {}},
            "model_state_dict": {f"module.{name}": tensor.to(dtype) for name, tensor in s.items()},
        },
    )
    encoder = sdr.models.load("cellplm", checkpoint=copy)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    found = encoder.embed(cells, genes="exact", groups=ONE_SET)
    assert relative(found, golden["vae_emb_one_batch"]) < (1e-5 if dtype is torch.float64 else 0.1)


def test_truncated_and_executable_files_are_refused(copy, tmp_path):
    path = copy / CKPT
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"truncated|not loaded"):
        sdr.models.load("cellplm", checkpoint=copy)

    torch.save({"model_state_dict": RunsCode(tmp_path / "executed")}, path)
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("cellplm", checkpoint=copy)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_mod": "gmvae"}, "tensors are those of 'vae'"),
        ({"norm": "batchnorm"}, "groupnorm"),
        ({"enc_layers": 4}, r"missing: layers\.3"),
        ({"enc_layers": 2}, r"unknown: layers\.2"),
        ({"enc_hid": 64}, "shapes differ"),
        ({"gene_list": ["ENSG00000007312", "ENSG00000010219"]}, "genes is"),
        ({"gene_list": []}, "not one of CellPLM"),
    ],
)
def test_a_configuration_of_another_model_is_refused(copy, changes, message):
    path = copy / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        sdr.models.load("cellplm", checkpoint=copy)


def test_a_file_brings_its_own_configuration(folder):
    path = folder / "weights" / "20230926_85M.best.ckpt"
    assert sdr.models.load("cellplm", checkpoint=path).config.latent == "gmvae"


def test_options_are_checked(load):
    with pytest.raises(ValueError, match="`assignment` must be one of"):
        load(assignment="maybe")
    with pytest.raises(ValueError, match="not a multiple of `heads`"):
        load(heads=5)
    with pytest.raises(TypeError, match="Unknown option 'depth'"):
        load(depth=3)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
def test_adapters_reach_the_output_in_training_and_evaluation(load, cells, latent):
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    encoder = load(latent)
    groups = np.arange(24) % 3
    tokens = dataclasses.replace(encoder.tokenize(cells, genes="exact"), cells={"sets": groups})
    batch = encoder.collate(tokens)
    plain = encoder.embed_tokens(tokens)
    config = LoraConfig(r=2, target_modules=encoder.lora_targets, lora_dropout=0.0)
    inject_adapter_in_model(config, encoder)
    layers = [module for module in encoder.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == encoder.config.layers * 6
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        weight = layer.lora_B["default"].weight
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    adapted = encoder.embed_tokens(tokens)
    streamed = encoder.embed_tokens(tokens, batch_tokens=2)
    assert np.abs(adapted - plain).max() > 1e-3
    assert relative(streamed, adapted) < 1e-5
    for training in (True, False):
        encoder.train(training)
        encoder.zero_grad()
        for checkpointing in (False, True):
            encoder.gradient_checkpointing = checkpointing
            encoder(batch).square().sum().backward()
        grads = [layer.lora_B["default"].weight.grad for layer in layers]
        assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
    with torch.inference_mode():
        assert relative(encoder.pool(encoder.hidden(batch), batch), adapted) < 1e-5
    for layer in layers:
        layer.merge()
    assert relative(encoder.embed_tokens(tokens), adapted) < 1e-5


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
def test_every_parameter_learns(load, cells, latent):
    encoder = load(latent).train().requires_grad_(requires_grad=True)
    batch = encoder.collate(encoder.tokenize(cells, genes="exact"))
    encoder(batch).square().sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []


def test_training_and_evaluation_read_genes_alike(load, cells):
    encoder = load()
    batch = encoder.collate(encoder.tokenize(cells, genes="exact"))
    fast = encoder.gene_sums(batch)
    encoder.genes.requires_grad_(requires_grad=True)
    slow = encoder.gene_sums(batch)
    assert slow.requires_grad
    assert relative(fast, slow.detach().numpy()) < 1e-6


def test_random_builds_embed():
    encoder = CellPLM.random(CellPLMConfig(width=16, layers=2, heads=2, ffn_dim=8, latent_dim=4))
    data = ad.AnnData(np.random.default_rng(0).poisson(1.0, (5, 30)).astype(np.float32))
    data.var_names = encoder.vocab.names[:30]
    found = encoder.embed(data, genes="exact", groups=np.zeros(5))
    assert found.shape == (5, 4)
    assert np.isfinite(found).all()
