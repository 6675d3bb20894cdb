"""scFoundation against recorded arrays of the original software, and against its own rules."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch
from helpers import RunsCode, close, resave, same_tokens
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab, Tokens
from sc_drugresp.models._weights import read_state
from sc_drugresp.models.scfoundation import ScFoundation, ScFoundationConfig, read_genes

MODEL = "scfoundation"
TINY = ScFoundationConfig(width=16, heads=2, layers=2, ffn_dim=24, bin_num=7, seq_len=42)


def load(folder: Path, **options) -> ScFoundation:
    return sdr.models.load("scfoundation", checkpoint=folder / "weights", **options)


def values_of(tokens: Tokens, cell: int) -> np.ndarray:
    return tokens.values[tokens.indptr[cell] : tokens.indptr[cell + 1]]


def recorded(golden) -> Tokens:
    return Tokens.from_padded(golden["token_ids"], golden["token_len"], golden["token_values"])


def list_counts(golden, folder) -> ad.AnnData:
    """Counts of the used cells in the gene list, in its order."""
    data = ad.AnnData(golden["selected_counts"].copy())
    data.var_names = read_genes(folder / "weights" / "OS_scRNA_gene_index.19264.tsv").names
    return data


def randomize(model: ScFoundation) -> ScFoundation:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def encoder() -> ScFoundation:
    """A tiny random network whose tokens are sensitive to all inputs."""
    return randomize(ScFoundation.random(TINY, seed=3))


def counts(n_cells: int = 6, n_genes: int = 40, seed: int = 0) -> ad.AnnData:
    x = np.random.default_rng(seed).poisson(0.8, (n_cells, n_genes)).astype(np.float32)
    data = ad.AnnData(csr_matrix(x))
    data.var_names = [f"GENE{i}" for i in range(n_genes)]
    return data


# Against the recorded arrays -----------------------------------------------------------------------------------------


def test_tokens(folder, golden, adata):
    encoder = load(folder)
    tokens = encoder.tokenize(adata, genes="exact")
    same_tokens(tokens.take(golden["cells"]), recorded(golden))
    np.testing.assert_array_equal(np.flatnonzero(tokens.lengths), golden["cells"])
    with_depths = golden["values_t4"]
    for cell in range(len(with_depths)):
        sequence = tokens.take(golden["cells"])
        np.testing.assert_array_equal(values_of(sequence, cell), with_depths[cell][sequence.sequence(cell)])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("emb_sc_F_t4_all_ce", {}),
        ("emb_sc_F_f1_all_ce", {"depth": "f1"}),
        ("emb_sc_F_a5_all_rde", {"depth": "a5", "key": "rde"}),
        ("emb_sc_F_f2.5_all_rde", {"depth": "f2.5", "key": "rde"}),
        ("emb_sc_F_t4_max_ce", {"pooling": "max"}),
    ],
)
@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_embeddings(folder, golden, adata, name, options, batch_tokens):
    encoder = load(folder, **options)
    embedding = encoder.embed(adata, genes="exact", batch_tokens=batch_tokens)
    assert embedding.dtype == np.float32
    assert embedding.shape == (adata.n_obs, encoder.dim)
    close(embedding[golden["cells"]], golden[name])
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(embedding).any(axis=1)), golden["cells"])


def test_the_registry_names_choose_the_network(folder, golden, adata):
    encoder = sdr.models.load("scfoundation.rde", checkpoint=folder / "weights", depth="a5")
    close(encoder.embed(adata[golden["cells"]], genes="exact"), golden["emb_sc_F_a5_all_rde"])


@pytest.mark.parametrize("batch_tokens", [1, 900, 100_000])
def test_recorded_tokens_near_double_precision(folder, golden, batch_tokens):
    close(load(folder).embed_tokens(recorded(golden), batch_tokens=batch_tokens), golden["emb_sc_F_t4_all_ce_f64"])


def log_normalized(golden, folder) -> ad.AnnData:
    data = list_counts(golden, folder)
    x = data.X.astype(np.float64)
    data.X = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    return data


def test_log_normalized_input(folder, golden):
    encoder = load(folder, values="log1p")
    data = log_normalized(golden, folder)
    close(encoder.embed(data, genes="exact"), golden["emb_sc_T_t4_all_ce"])
    data.layers["lognorm"], data.X = data.X, np.zeros_like(data.X)
    close(encoder.embed(data, genes="exact", layer="lognorm"), golden["emb_sc_T_t4_all_ce"])


def test_depths_given_by_hand(folder, golden):
    """Upstream's input mode "A": normalized values and, separately, the raw total."""
    encoder, values = load(folder), csr_matrix(log_normalized(golden, folder).X)
    source = np.log10(golden["selected_counts"].sum(axis=1, dtype=np.float64))
    tokens = encoder.assemble(values.indptr, values.indices, values.data, np.full(len(source), 4.0), source)
    close(encoder.embed_tokens(tokens), golden["emb_sc_A_t4_all_ce"])


def test_bulk_profiles(folder, golden):
    data = list_counts(golden, folder)
    sc.pp.normalize_total(data)
    sc.pp.log1p(data)
    values = csr_matrix(data.X)
    depth = np.log10(data.X.sum(axis=1))
    encoder = load(folder)
    tokens = encoder.assemble(values.indptr, values.indices, values.data, depth, depth)
    close(encoder.embed_tokens(tokens), golden["emb_bulk_F_f1_all_ce"])

    encoder, values = load(folder, pooling="max"), csr_matrix(log_normalized(golden, folder).X)
    depth = np.asarray(values.sum(axis=1)).ravel()
    tokens = encoder.assemble(values.indptr, values.indices, values.data, depth, depth)
    close(encoder.embed_tokens(tokens), golden["emb_bulk_T_f1_max_ce"])


def test_every_layer(folder, golden):
    encoder = load(folder)
    for row in (0, 6):
        batch = encoder.collate(recorded(golden).take([row]))
        x = encoder.inputs(batch)
        if row == 0:
            close(encoder.value.weights(batch["values"])[0], golden["bin_weight_row0"])
            close(encoder.value(batch["values"])[0], golden["token_emb_row0"])
            close(x[0], golden["input_row0"])
        for layer, expected in zip(encoder.layers, golden[f"layers_row{row}"], strict=True):
            x = layer(x)
            close(x[0], expected)
        close(encoder.hidden(batch)[0], golden[f"encoder_out_row{row}"])


def test_padded_batch(folder, golden):
    encoder = load(folder)
    batch = encoder.collate(recorded(golden).take(golden["padded_rows"]))
    keep = ~golden["padded_mask"]
    np.testing.assert_array_equal(batch["ids"], golden["padded_ids"])
    np.testing.assert_array_equal(batch["values"], golden["padded_values"])
    np.testing.assert_array_equal(batch["keep"], keep)
    close(encoder.hidden(batch).detach().numpy() * keep[..., None], golden["padded_encoder_out"])


# Files ---------------------------------------------------------------------------------------------------------------


def test_full_size_has_exactly_the_published_parameters(manifest):
    published = {name: torch.empty(shape, device="meta") for name, shape, _ in manifest["state_dict"]}
    config = ScFoundationConfig.from_published(manifest["config"])
    assert config == ScFoundationConfig()
    with torch.device("meta"):
        model = ScFoundation(config, ScFoundation.example_vocab(config))
    ours = ScFoundation.remap(dict(published))
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    sizes = manifest["parameters_by_module"]
    assert sum(tensor.numel() for tensor in ours.values()) == sizes["token_emb"] + sizes["pos_emb"] + sizes["encoder"]


def test_gene_list_of_the_published_size(tmp_path):
    names = ["A1BG", "MARCHF1", *(f"GENE{i}" for i in range(19_262))]
    lines = ["gene_name\tindex", *(f"{name}\t{i}" for i, name in enumerate(names))]
    (tmp_path / "genes.tsv").write_text("\n".join(lines) + "\n")
    vocab = read_genes(tmp_path / "genes.tsv")
    assert len(vocab) == ScFoundationConfig().seq_len - 2
    found = vocab.align(["A1BG", "MARCH1", "MARCHF1", "a1bg"], mode="exact").ids  # MARCH1 is the old name
    assert [i >= 0 for i in found] == [True, False, True, False]


def on_state(change):
    return lambda content: content | {"cell": content["cell"] | {"state_dict": change(content["cell"]["state_dict"])}}


def on_config(**changes):
    def change(content):
        config = content["cell"]["config"]["model_config"]["mae_autobin"]
        for name, value in changes.items():
            (config["encoder"] if name in {"depth", "module_type", "norm_first"} else config)[name] = value
        return content

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {"cell": content["cell"], "optimizer": {}, "epoch": 1},
        lambda content: content["cell"],
        on_state(lambda s: {"module." + name: x for name, x in s.items()}),
        on_state(lambda s: {name.removeprefix("model."): x for name, x in s.items()}),
        on_state(lambda s: {name: x.double() for name, x in s.items()}),
        on_state(lambda s: {name: x for name, x in s.items() if "decode" not in name and "to_final" not in name}),
    ],
    ids=["extra-keys", "one-network", "module", "no-prefix", "float64", "no-decoder"],
)
def test_variants_of_the_file_give_the_same_model(folder, copy, golden, change):
    resave(copy / "models.ckpt", change)
    tokens = recorded(golden).take(range(3))
    close(sdr.models.load("scfoundation", checkpoint=copy).embed_tokens(tokens), golden["emb_sc_F_t4_all_ce"][:3])


def test_safetensors_with_a_config(copy, golden):
    entry = read_state(copy / "models.ckpt")["cell"]
    (copy / "models.ckpt").unlink()
    save_file({name: x.contiguous() for name, x in entry["state_dict"].items()}, copy / "cell.safetensors")
    with pytest.raises(ValueError, match=r"config\.json"):
        sdr.models.load("scfoundation", checkpoint=copy / "cell.safetensors")
    (copy / "config.json").write_text(json.dumps(entry["config"]))
    encoder = sdr.models.load("scfoundation", checkpoint=copy / "cell.safetensors")
    close(encoder.embed_tokens(recorded(golden)), golden["emb_sc_F_t4_all_ce"])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 0.2)])
def test_half_precision_files_are_widened(copy, golden, dtype, tolerance):
    resave(copy / "models.ckpt", on_state(lambda s: {name: x.to(dtype) for name, x in s.items()}))
    encoder = sdr.models.load("scfoundation", checkpoint=copy)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    close(encoder.embed_tokens(recorded(golden)), golden["emb_sc_F_t4_all_ce"], tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (on_state(lambda s: {n: x for n, x in s.items() if "1.linear1" not in n}), r"2 tensors are missing: layers\.1"),
        (on_state(lambda s: s | {"model.encoder.transformer_encoder.7.norm1.bias": torch.zeros(2)}), "are unknown"),
        (on_state(lambda s: s | {"model.adapter.weight": torch.zeros(2)}), "tensors are unknown: adapter.weight"),
        (on_state(lambda s: s | {"model.pos_emb.weight": torch.zeros(4, 48)}), "1 shapes differ: gene.weight"),
        (on_config(depth=4), "tensors are missing: layers.3"),
        (on_config(seq_len=12), "gene list has 300 genes"),
        (on_config(module_type="performer"), "another encoder"),
        (on_config(norm_first=True), "another encoder"),
        (lambda content: {"gene": content["gene"]}, "no network 'cell'"),
        (lambda content: content | {"cell": {"state_dict": {}}}, "no network 'cell'"),
        (
            lambda content: content | {"cell": content["cell"] | {"config": {}}},
            "does not state depth, heads, hidden_dim",
        ),
        (lambda _: [1, 2], r"found the keys \[\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copy, change, message):
    resave(copy / "models.ckpt", change)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("scfoundation", checkpoint=copy)


def test_truncated_file_is_refused(copy):
    path = copy / "models.ckpt"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="truncated or not a weights file"):
        sdr.models.load("scfoundation", checkpoint=copy)


def test_code_in_the_file_is_not_executed(copy, tmp_path):
    resave(
        copy / "models.ckpt",
        lambda content: content | {"cell": content["cell"] | {"config": RunsCode(tmp_path / "executed")}},
    )
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("scfoundation", checkpoint=copy)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene_name\tindex\nA\t0\nB\t1\n", "gene list has 2 genes"),
        ("gene_name\tindex\nA\t0\nA\t1\n", "each gene once"),
        ("gene_name\tindex\nA\t1\nB\t0\n", "number them from 0"),
        ("symbol,position\nA,0\n", "columns gene_name and index"),
    ],
)
def test_other_gene_lists_are_refused(copy, text, message):
    (copy / "OS_scRNA_gene_index.19264.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("scfoundation", checkpoint=copy)


# Tokens --------------------------------------------------------------------------------------------------------------


def test_values_follow_the_formula(encoder):
    data = counts(5)
    data = ad.concat([data, data], axis="var")[:, :60].copy()  # 20 of the genes twice: their counts are added
    data.X[:, 40:] *= 3
    dense = np.zeros((5, 42))
    for column, name in enumerate(data.var_names):
        dense[:, int(name.removeprefix("GENE"))] += data.X[:, column].toarray().ravel()
    total = dense[:, :40].sum(axis=1)
    expected = np.log1p(dense / total[:, None] * 1e4)
    expected[:, 40], expected[:, 41] = 4.0, np.log10(total)
    tokens = encoder.tokenize(data, genes="exact")
    for cell in range(5):
        np.testing.assert_array_equal(tokens.sequence(cell), np.flatnonzero(expected[cell]))
        values = expected[cell][expected[cell] > 0].astype(np.float32)
        np.testing.assert_array_equal(values_of(tokens, cell), values)
    same_tokens(encoder.tokenize(data, genes="auto"), tokens)
    same_tokens(encoder.tokenize(data[:, np.random.default_rng(0).permutation(60)], genes="exact"), tokens)


def test_unknown_genes_are_not_part_of_the_depth(encoder):
    data = counts(3)
    data.var_names = [name if i < 30 else f"other{i}" for i, name in enumerate(data.var_names)]
    depth = np.asarray(data.X[:, :30].sum(axis=1)).ravel()
    tokens = encoder.tokenize(data)
    np.testing.assert_allclose(tokens.values[tokens.indptr[1:] - 1], np.log10(depth), rtol=1e-6)


def test_few_counts_and_low_depths_have_no_embedding(encoder):
    data = counts(4)
    data.X = csr_matrix(np.diag([0, 1, 2, 50]).astype(np.float32) @ np.eye(4, 40, dtype=np.float32))
    embedding = encoder.embed(data)
    assert list(np.isnan(embedding).all(axis=1)) == [True, True, False, False]
    shallow = ScFoundation.random(ScFoundationConfig(**{**vars(TINY), "depth": "a-1"}))
    assert list(np.isnan(shallow.embed(data)).all(axis=1)) == [True, True, True, False]


def test_tokens_without_depths_have_no_embedding(encoder):
    tokens = Tokens(np.array([0, 4, 7]), np.array([1, 2, 3, 4, 1, 40, 41]), np.ones(7, dtype=np.float32))
    assert list(encoder.embeddable(tokens)) == [False, True]


def test_only_the_most_expressed_genes_on_request():
    encoder = ScFoundation.random(ScFoundationConfig(**{**vars(TINY), "max_genes": 5}))
    full, short = ScFoundation.random(TINY).tokenize(counts()), encoder.tokenize(counts())
    assert list(short.lengths) == [7] * 6
    for cell in range(6):
        np.testing.assert_array_equal(short.sequence(cell)[-2:], [40, 41])
        lost = np.setdiff1d(full.sequence(cell), short.sequence(cell))
        highest_lost = values_of(full, cell)[np.isin(full.sequence(cell), lost)].max()
        assert highest_lost <= values_of(short, cell)[:-2].min()


@pytest.mark.parametrize(
    "options",
    [{"depth": "4"}, {"depth": "f0"}, {"depth": "t-1"}, {"key": "cells"}, {"pooling": "mean"}, {"max_genes": 0}],
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        ScFoundationConfig(**options)


# Network -------------------------------------------------------------------------------------------------------------


def test_mask_and_pad_values_have_their_own_vectors(encoder):
    encoder.value.mask.fill_(2.0)
    encoder.value.pad.fill_(3.0)
    out = encoder.value(torch.tensor([102.0, 103.0, 102.5]))
    assert (out[0] == 2).all()
    assert (out[1] == 3).all()
    assert not (out[2] == 2).any()


def test_neighbors_do_not_matter(encoder):
    data = counts(12)
    together = encoder.embed(data, batch_tokens=1000)
    np.testing.assert_array_equal(encoder.embed(data, batch_tokens=1000), together)
    close(encoder.embed(data, batch_tokens=1), together, 2e-6)
    close(encoder.embed(data[::-1])[::-1], together, 2e-6)


@pytest.mark.parametrize("pooling", ["all", "max"])
def test_padding_does_not_enter_the_pool(pooling):
    encoder = randomize(ScFoundation.random(ScFoundationConfig(**{**vars(TINY), "pooling": pooling})))
    tokens = encoder.tokenize(counts(5, seed=3))
    alone = np.concatenate([encoder(encoder.collate(tokens.take([i]))).detach().numpy() for i in range(5)])
    batch = encoder.collate(tokens)
    assert "keep" in batch
    close(encoder(batch), alone, 2e-6)


@pytest.mark.parametrize("training", [False, True])
def test_adapters_act_and_learn(encoder, training):
    batch = encoder.collate(encoder.tokenize(counts()))
    for layer in encoder.layers:  # dropout would hide what is compared here
        layer.attn.dropout = layer.drop.p = 0.0
    before = encoder(batch).detach()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=encoder.lora_targets, init_lora_weights=False), encoder)
    names = {name.split(".lora_A")[0] for name, _ in encoder.named_parameters() if ".lora_A" in name}
    wanted = {f"layers.{i}.{part}" for i in (0, 1) for part in ("attn.q", "attn.k", "attn.v", "attn.o", "up", "down")}
    assert names == wanted
    encoder.train(training)
    after = encoder(batch)
    assert (after - before).abs().max() > 1e-3
    after[:, ::3].sum().backward()
    trainable = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * len(wanted)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trainable.values())
    encoder.eval()
    unmerged = encoder(batch).detach().numpy()
    for module in encoder.modules():
        if hasattr(module, "merge"):
            module.merge()
    close(encoder(batch), unmerged)


def test_every_parameter_gets_gradient_and_checkpointing_changes_nothing(encoder):
    batch = encoder.collate(encoder.tokenize(counts()))
    encoder.requires_grad_(True)
    gradients = []
    for checkpointing in (False, True):
        encoder.zero_grad()
        encoder.gradient_checkpointing = checkpointing
        encoder(batch)[:, ::3].sum().backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters()})
    # Softmax does not see a shift of all keys, so their bias has no gradient but rounding.
    dead = {name for name, grad in gradients[0].items() if grad.abs().max() < 1e-6}
    assert dead <= {f"layers.{i}.attn.k.bias" for i in (0, 1)}
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_global_random_states_are_untouched(encoder):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    encoder.embed(counts())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_gene_list_must_fit_the_network():
    with pytest.raises(ValueError, match="was made for 40"):
        ScFoundation(TINY, GeneVocab(["A"]))
