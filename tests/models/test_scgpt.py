"""scGPT against recorded arrays of the original software, and against its own rules."""

from __future__ import annotations

import json
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import RunsCode, close, resave, same_tokens
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab, Tokens, read_counts
from sc_drugresp._data.bin_kernels import keep_smallest, quantile_bins
from sc_drugresp.models import scgpt
from sc_drugresp.models._weights import read_state
from sc_drugresp.models.scgpt import ScGPT, ScGPTConfig, make_vocab, read_vocab

MODEL = "scgpt"
TINY = ScGPTConfig(dim=16, heads=2, layers=2, ffn_dim=24, max_length=9)


def load(folder: Path, **options) -> ScGPT:
    return sdr.models.load("scgpt", checkpoint=folder / "weights", **options)


@pytest.fixture
def encoder() -> ScGPT:
    """A tiny random network whose tokens are sensitive to all inputs."""
    vocab = make_vocab({f"G{i}": i for i in range(40)})
    model = ScGPT.random(TINY, vocab, seed=3)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def counts(n_cells: int = 6, n_genes: int = 40, seed: int = 0) -> ad.AnnData:
    x = np.random.default_rng(seed).poisson(0.8, (n_cells, n_genes)).astype(np.float32)
    data = ad.AnnData(csr_matrix(x))
    data.var_names = [f"G{i}" for i in range(n_genes)]
    return data


# Against the recorded arrays -----------------------------------------------------------------------------------------


def test_deterministic_tokens(folder, golden, adata):
    encoder = load(folder, max_length=golden["det_token_ids"].shape[1], ties="upper", overflow="first")
    tokens = encoder.tokenize(adata[golden["cells"]], genes="exact")
    same_tokens(tokens, Tokens.from_padded(golden["det_token_ids"], golden["det_length"], golden["det_values"]))


def test_tokens_from_recorded_draws(folder, golden, adata, monkeypatch):
    """The tokenizer, with upstream's random numbers in the place of the cells' own streams."""
    encoder, cells = load(folder, max_length=golden["det_token_ids"].shape[1]), adata[golden["cells"]]
    (block,) = read_counts(cells).align(encoder.vocab, "exact").blocks()
    keys = np.zeros(len(block.gene_ids))
    for start, stop, kept in zip(block.indptr[:-1], block.indptr[1:], golden["stoch_sampled_index"], strict=True):
        if kept[0] >= 0:
            keys[start:stop] = 1
            keys[start + kept] = 0
    draws = {scgpt._BINS: golden["full_rand"], scgpt._SAMPLE: keys}
    monkeypatch.setattr(scgpt, "entry_uniforms", lambda *given: draws[given[-1]])
    expected = Tokens.from_padded(golden["stoch_token_ids"], golden["stoch_length"], golden["stoch_values"])
    same_tokens(by_gene(encoder.tokenize(cells, genes="exact")), by_gene(expected))


def by_gene(tokens: Tokens) -> Tokens:
    """Sorted within each cell: upstream writes the genes of a long cell in the order in which it drew them."""
    cell = np.repeat(np.arange(len(tokens)), tokens.lengths)
    order = np.lexsort((tokens.values, tokens.ids, cell))
    return Tokens(tokens.indptr, tokens.ids[order], tokens.values[order])


@pytest.mark.parametrize("run", ["det", "stoch"])
@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_embeddings_of_recorded_tokens(folder, golden, run, batch_tokens):
    tokens = Tokens.from_padded(golden[f"{run}_token_ids"], golden[f"{run}_length"], golden[f"{run}_values"])
    close(load(folder).embed_tokens(tokens, batch_tokens=batch_tokens), golden[f"{run}_cell_emb"])
    raw = load(folder, normalize=False).embed_tokens(tokens, batch_tokens=batch_tokens)
    close(raw, golden[f"{run}_cell_emb_raw"])


def test_whole_path_at_the_published_length(folder, golden, adata):
    encoder = load(folder, ties="upper", overflow="first")
    embedding = encoder.embed(adata, genes="exact")
    assert embedding.dtype == np.float32
    close(embedding[golden["cells"]], golden["det1200_cell_emb"])
    raw = load(folder, ties="upper", normalize=False).embed(adata, genes="exact")
    close(raw[golden["cells"]], golden["det1200_cell_emb_raw"])
    for empty in set(range(adata.n_obs)) - set(
        golden["cells"]
    ):  # no counts; counts in unknown genes only: `<cls>` alone
        close(raw[empty], golden["cls_only_emb_raw"])


def test_every_layer(folder, golden):
    encoder = load(folder)
    tokens = Tokens.from_padded(golden["det_token_ids"], golden["det_length"], golden["det_values"])
    for cell, name in ((0, "cell0_layers"), (len(tokens) - 1, "cellN_layers")):
        batch = encoder.collate(tokens.take([cell]))
        x = encoder.inputs(batch)
        if cell == 0:
            close(encoder.gene_norm(encoder.gene(batch["ids"]))[0], golden["cell0_gene_emb"])
            close(encoder.value(batch["values"])[0], golden["cell0_value_emb"])
            close(x[0], golden["cell0_input_emb"])
        for layer, expected in zip(encoder.layers, golden[name], strict=True):
            x = layer(x)
            close(x[0], expected)
        close(encoder.hidden(batch)[0], golden[name][-1])


# Files ---------------------------------------------------------------------------------------------------------------


def test_full_size_has_exactly_the_published_parameters(manifest):
    row = next(iter(manifest["checkpoints"].values()))
    published = {name: torch.empty(shape, device="meta") for name, shape, _ in row["state_dict"]}
    genes = {f"GENE{i}": i for i in range(row["vocab_size"] - 3)}
    with torch.device("meta"):
        model = ScGPT(ScGPTConfig.from_json(row["config"]), make_vocab({**genes, **row["special_tokens"]}))
    ours = ScGPT.remap(dict(published))
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert sum(tensor.numel() for tensor in ours.values()) == row["n_parameters_needed_for_cell_embedding"]
    dropped = {name.split(".")[0] for name in published if not name.startswith(("encoder", "value_enc", "transformer"))}
    assert dropped == {"flag_encoder", "decoder", "mvc_decoder"}
    assert ScGPTConfig.from_json(row["config"]) == ScGPTConfig()


def test_vocabulary_of_the_published_size_is_read_whole(tmp_path):
    """The published file ends before the special tokens, mixes cases and is not sorted by id."""
    names = ["C1orf112", *(f"GENE{i}" for i in range(60_693))]
    (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in reversed(list(enumerate(names)))}))
    vocab = read_vocab(tmp_path / "vocab.json")
    assert len(vocab) == 60_694
    assert [vocab[token] for token in ("<pad>", "<cls>", "<eoc>")] == [60_694, 60_695, 60_696]  # appended in this order
    assert vocab.align(["C1orf112", "c1orf112", "C1ORF112"], mode="exact").ids[1] == -1


def attention(kind: str):
    new = {
        "impl": ("self_attn._impl.Wqkv.", "self_attn._impl.out_proj."),
        "plain": ("self_attn.in_proj_", "self_attn.out_proj."),
    }[kind]
    return lambda state: {
        name.replace("self_attn.Wqkv.", new[0]).replace("self_attn.out_proj.", new[1]): x for name, x in state.items()
    }


def separate(state):
    """Query, key and value on their own, under an extra prefix, beside tensors nobody needs."""
    out = {"optimizer_step": torch.zeros(1), "cls_decoder.out.weight": torch.zeros(2, 2)}
    for name, x in state.items():
        if ".Wqkv." in name:
            out |= {"module." + name.replace("Wqkv", f"{p}_proj"): part for p, part in zip("qkv", x.chunk(3))}
        else:
            out["module." + name] = x
    return out


@pytest.mark.parametrize(
    "change",
    [
        attention("impl"),
        attention("plain"),
        separate,
        lambda state: {f"module.{name}": x for name, x in state.items()},
        lambda state: {"model_state_dict": dict(state), "epoch": 3},
        lambda state: {name: x for name, x in state.items() if name.startswith(("enc", "value_enc", "trans"))},
        lambda state: {name: x.double() for name, x in state.items()},
    ],
    ids=["impl", "without-flash", "separate", "module", "nested", "encoder-only", "float64"],
)
def test_variants_of_the_file_give_the_same_model(folder, copy, golden, change):
    resave(copy / "best_model.pt", change)
    tokens = Tokens.from_padded(golden["det_token_ids"], golden["det_length"], golden["det_values"]).take(range(4))
    same_model = sdr.models.load("scgpt", checkpoint=copy)
    close(same_model.embed_tokens(tokens), load(folder).embed_tokens(tokens), 1e-6)


def test_safetensors_and_a_path_to_the_file(folder, copy, golden):
    state = read_state(copy / "best_model.pt")
    save_file({name: x.contiguous() for name, x in state.items()}, copy / "renamed.safetensors")
    tokens = Tokens.from_padded(golden["det_token_ids"], golden["det_length"], golden["det_values"]).take(range(4))
    same_model = sdr.models.load("scgpt", checkpoint=copy / "renamed.safetensors")
    close(same_model.embed_tokens(tokens), load(folder).embed_tokens(tokens), 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 0.2)])
def test_half_precision_files_are_widened(copy, golden, dtype, tolerance):
    resave(copy / "best_model.pt", lambda state: {name: x.to(dtype) for name, x in state.items()})
    encoder = sdr.models.load("scgpt", checkpoint=copy)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    tokens = Tokens.from_padded(golden["det_token_ids"], golden["det_length"], golden["det_values"])
    close(encoder.embed_tokens(tokens), golden["det_cell_emb"], tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: x for n, x in s.items() if "layers.1.linear1" not in n},
            r"2 tensors are missing: layers\.1\.up",
        ),
        (lambda s: s | {"transformer_encoder.layers.9.linear1.bias": torch.zeros(2)}, "1 tensors are unknown"),
        (lambda s: s | {"bn.weight": torch.ones(64)}, "1 tensors are unknown: bn.weight"),
        (lambda s: s | {"encoder.embedding.weight": torch.zeros(5, 64)}, "1 shapes differ: gene.weight"),
        (lambda _: {"a": torch.zeros(2)}, "tensors are missing"),
        (lambda _: [1, 2], "holds no named tensors"),
    ],
    ids=["missing", "extra-layer", "batch-norm", "shape", "another-model", "no-tensors"],
)
def test_weights_that_do_not_fit_are_refused(copy, change, message):
    resave(copy / "best_model.pt", change)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("scgpt", checkpoint=copy)


def test_truncated_file_is_refused(copy):
    path = copy / "best_model.pt"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="truncated or not a weights file"):
        sdr.models.load("scgpt", checkpoint=copy)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_the_file_is_not_executed(copy, tmp_path, zipped):
    witness = tmp_path / "executed"
    payload = {"encoder.embedding.weight": RunsCode(witness)}
    if zipped:
        torch.save(payload, copy / "best_model.pt")
    else:
        (copy / "best_model.pt").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("scgpt", checkpoint=copy)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("vocab.json", '{"A": 0, "B": 1}', "shapes differ: gene.weight"),
        ("vocab.json", '{"A": 0, "B": 0}', "distinct ids"),
        ("vocab.json", "{", "not valid JSON"),
        ("args.json", '{"embsize": 64, "nheads": 4}', "does not state d_hid, nlayers"),
        ("args.json", '{"embsize":64,"nheads":4,"d_hid":96,"nlayers":4}', "tensors are missing: layers.3"),
        ("args.json", '{"embsize":64,"nheads":4,"d_hid":96,"nlayers":3,"input_emb_style":"scaling"}', "'scaling'"),
    ],
)
def test_other_vocabulary_or_config_is_refused(copy, file, text, message):
    (copy / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("scgpt", checkpoint=copy)


def test_missing_file_is_named(copy):
    (copy / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        sdr.models.load("scgpt", checkpoint=copy)


def test_loading_leaves_the_folder_alone(folder, tmp_path):
    copy = shutil.copytree(folder / "weights", tmp_path / "again")
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    sdr.models.load("scgpt", checkpoint=copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


# Tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.37], ids=["integers", "fractions"])
def test_bins_equal_numpy_quantiles(scale):
    rng = np.random.default_rng(4)
    rows = [rng.negative_binomial(1, 0.2, n).astype(np.float32) + 1 for n in (1, 2, 3, 57, 400)]
    rows += [np.full(9, 5.0, dtype=np.float32), np.array([1, 6000, 2], dtype=np.float32)]
    x = (np.concatenate(rows) * scale).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    for uniforms in (np.zeros(len(x)), rng.random(len(x))):
        bins = quantile_bins(indptr, x, uniforms, 51)
        for start, stop in pairwise(indptr):
            edges = np.quantile(x[start:stop], np.linspace(0, 1, 50))
            most, fewest = np.digitize(x[start:stop], edges), np.digitize(x[start:stop], edges, right=True)
            expected = np.ceil(uniforms[start:stop] * (fewest - most) + most)
            np.testing.assert_array_equal(bins[start:stop], expected)


def test_smallest_keys_are_kept_and_ties_resolved_in_order():
    indptr, keys = np.array([0, 4, 4, 6]), np.array([3.0, 1.0, 1.0, 1.0, 9.0, 8.0])
    np.testing.assert_array_equal(keep_smallest(indptr, keys, 2), [False, True, True, False, True, True])
    assert not keep_smallest(indptr, keys, 0).any()


def test_sampling_depends_on_the_cell_and_the_seed_alone(encoder):
    data = counts()
    tokens = encoder.tokenize(data, rng=7)
    assert tokens.lengths.max() == TINY.max_length
    assert len(np.unique(tokens.ids)) > TINY.max_length
    same_tokens(encoder.tokenize(data, rng=7), tokens)
    assert not np.array_equal(encoder.tokenize(data, rng=8).ids, tokens.ids)
    with sdr.settings.override(block_cells=2):
        same_tokens(encoder.tokenize(data, rng=7), tokens)
    same_tokens(encoder.tokenize(data[[4, 1]], rng=7), tokens.take([4, 1]))
    same_tokens(encoder.tokenize(data[:, np.random.default_rng(1).permutation(40)], rng=7), tokens)


def test_sampled_genes_and_random_bins_are_uniform(encoder):
    """Every gene of a long cell is kept equally often, and a tie is spread over all bins it covers."""
    n_seeds, data = 400, counts(1, seed=2)
    n_genes = int((data.X.toarray() > 0).sum())
    kept = np.zeros(40)
    for seed in range(n_seeds):
        kept[encoder.tokenize(data, rng=seed).ids[1:]] += 1
    expected = n_seeds * (TINY.max_length - 1) / n_genes
    assert (kept > 0).sum() == n_genes
    assert np.abs(kept[kept > 0] - expected).max() < 5 * np.sqrt(expected)
    single = ad.AnnData(csr_matrix([[3.0]]), var={"name": ["x"]})
    single.var_names = ["G5"]
    bins = [encoder.tokenize(single, rng=seed).values[1] for seed in range(n_seeds)]
    assert set(bins) <= set(range(1, 51))
    assert len(set(bins)) > 45


def test_duplicated_symbols_are_two_tokens_upstream_and_one_sum_by_default(encoder):
    data = counts(2)
    data.var_names = ["G1" if name == "G2" else name for name in data.var_names]
    data.X = csr_matrix(np.ones(data.shape, dtype=np.float32))
    wide = ScGPT.random(ScGPTConfig(dim=16, heads=2, layers=1, ffn_dim=8), encoder.vocab)
    assert (wide.tokenize(data, genes="exact").sequence(0) == 1).sum() == 2
    assert (wide.tokenize(data, genes="auto").sequence(0) == 1).sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties": "lower"}, "`ties` must be one of"),
        ({"overflow": "last"}, "`overflow`"),
        ({"max_length": 1}, "max_length"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ScGPTConfig(**options)


def test_tokens_without_values_are_refused(encoder):
    with pytest.raises(ValueError, match="needs a value"):
        encoder.embed_tokens(Tokens(np.array([0, 2]), np.array([1, 2])))


# Network -------------------------------------------------------------------------------------------------------------


def test_neighbors_do_not_matter(encoder):
    data = counts(12)
    together = encoder.embed(data, batch_tokens=1000)
    np.testing.assert_array_equal(encoder.embed(data, batch_tokens=1000), together)
    close(encoder.embed(data, batch_tokens=1), together, 2e-6)
    close(encoder.embed(data[::-1])[::-1], together, 2e-6)


def test_shortcut_of_the_last_layer_is_exact(encoder):
    batch = encoder.collate(encoder.tokenize(counts(5, seed=3)))
    close(encoder(batch), encoder.pool(encoder.hidden(batch), batch).detach().numpy(), 2e-6)


def test_global_random_states_are_untouched(encoder):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    encoder.embed(counts())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("training", [False, True])
def test_adapters_act_and_learn(encoder, training):
    batch = encoder.collate(encoder.tokenize(counts()))
    for layer in encoder.layers:  # dropout would hide what is compared here
        layer.attn.dropout = layer.drop.p = 0.0
    encoder.value.drop.p = 0.0
    before = encoder(batch).detach()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=encoder.lora_targets, init_lora_weights=False), encoder)
    names = {name.split(".lora_A")[0] for name, _ in encoder.named_parameters() if ".lora_A" in name}
    wanted = {f"layers.{i}.{part}" for i in (0, 1) for part in ("attn.q", "attn.k", "attn.v", "attn.o", "up", "down")}
    assert names == wanted
    encoder.train(training)
    after = encoder(batch)
    assert (after - before).abs().max() > 1e-3
    after[:, :3].sum().backward()
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
        encoder(batch)[:, :5].sum().backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters()})
    # Softmax does not see a shift of all keys, so their bias has no gradient but rounding.
    dead = {name for name, grad in gradients[0].items() if grad.abs().max() < 1e-7}
    assert dead <= {f"layers.{i}.attn.k.bias" for i in (0, 1)}
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad)


def test_dropout_acts_in_training_only(encoder):
    batch = encoder.collate(encoder.tokenize(counts()))
    assert torch.equal(encoder(batch), encoder(batch))
    encoder.train()
    with torch.random.fork_rng():
        assert not torch.equal(encoder(batch), encoder(batch))


def test_random_network_is_reproducible():
    vocab = GeneVocab(["A"], special={"<pad>": 1, "<cls>": 2, "<eoc>": 3})
    a, b, c = (ScGPT.random(TINY, vocab, seed=seed).gene.weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
