"""tGPT against recorded arrays of the published procedure, and against its own rules."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RunsCode, close
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import Tokens
from sc_drugresp.models._symbols import NOT_RANKED
from sc_drugresp.models._weights import read_state
from sc_drugresp.models.tgpt import TGPT, TGPTConfig

MODEL = "tgpt"
FOLDER = "transcriptome-gpt-1024-8-16-64"
TINY = TGPTConfig(dim=16, heads=2, layers=2, ffn_dim=24, positions=32, vocab_size=40, max_length=12)


@pytest.fixture
def manifest(record) -> dict:
    return record.manifest["checkpoints"][FOLDER]


@pytest.fixture
def tokens(golden) -> Tokens:
    return Tokens.from_padded(golden["token_ids"], golden["length"])


@pytest.fixture
def copy(record, tmp_path) -> Path:
    """A writable copy of the published folder."""
    return record.copy(tmp_path) / FOLDER


def save(state: dict, path: Path) -> None:
    """Write a new file: the old one may be mapped into memory."""
    path.unlink()
    torch.save(state, path)


def load(folder: Path, **options) -> TGPT:
    return sdr.models.load("tgpt", checkpoint=folder / "weights", **options)


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_tokens_equal_the_recorded_ones(folder, adata, tokens):
    actual = load(folder).tokenize(adata, genes="exact")
    np.testing.assert_array_equal(actual.indptr, tokens.indptr)
    np.testing.assert_array_equal(actual.ids, tokens.ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HLA-A", ["HLA_A"]),
        ("HLA.A", ["HLA_A"]),
        ("hla-a", ["<unk>"]),
        ("MT-CO1", ["<unk>"]),
        ("HLA-DRB1*15:01", ["HLA_DRB1", "<unk>", "<unk>", ":", "<unk>"]),
        ("ACTB TP53", ["ACTB", "TP53"]),
        ("", []),
    ],
)
def test_names_are_cut_as_the_published_tokenizer_does(folder, name, expected):
    vocab = load(folder).vocab
    x = csr_matrix(np.array([[2, 1]], dtype=np.float32))
    adata = ad.AnnData(x, var=pd.DataFrame(index=[name, "GAPDH"]))
    sequence = load(folder).tokenize(adata, genes="exact").sequence(0).tolist()
    assert sequence == [1, *(vocab[piece] for piece in expected), vocab["GAPDH"], 2]


def test_ensembl_ids_with_symbols_beside_them_are_read_by_symbol(folder, adata):
    model = load(folder)
    turned = ad.AnnData(
        adata.X,
        var=pd.DataFrame({"symbol": adata.var_names.to_numpy()}, index=[f"ENSG{i}" for i in range(adata.n_vars)]),
    )
    np.testing.assert_array_equal(model.tokenize(turned, genes="exact").ids, model.tokenize(adata, genes="exact").ids)


def test_names_that_are_all_unknown_are_refused(folder):
    adata = ad.AnnData(csr_matrix(np.ones((2, 2), dtype=np.float32)), var=pd.DataFrame(index=["ENSG1", "ENSG2"]))
    with pytest.raises(ValueError, match="None of the 2 genes is known to tgpt"):
        load(folder).tokenize(adata, genes="exact")


@pytest.mark.parametrize(
    ("name", "out"),
    [("MT-CO1", True), ("RPL4", True), ("RPS27A", True), ("RPLP0", True), ("RPSA", True), ("MALAT1", True)]
    + [("RPS6KA1", True), ("RPSAP9", False), ("MTOR", False), ("RPIA", False), ("NEAT1", True), ("XIST", True)],
)
def test_which_genes_are_not_ranked(name, out):
    assert bool(NOT_RANKED.match(name)) is out


def test_auto_ranks_known_genes_only_and_leaves_out_what_the_authors_left_out(folder, adata):
    model = load(folder)
    name_of = {token: name for name, token in model.vocab._lookup.items()}
    tokens = model.tokenize(adata)
    seen = {name_of[token] for token in tokens.ids.tolist() if token not in (1, 2)}  # unknown ids would be a KeyError
    assert len(seen) > 100
    assert not any(NOT_RANKED.match(name) for name in seen)
    unfiltered = {name_of.get(token, "") for token in load(folder, gene_filter=False).tokenize(adata).ids.tolist()}
    assert any(NOT_RANKED.match(name) for name in unfiltered)
    filtered = load(folder, gene_filter=True).tokenize(adata, genes="exact")
    assert not {model.vocab["RPL4"]} & set(filtered.ids.tolist())


def test_coverage_counts_unknown_genes_as_lost_and_left_out_ones_as_known(folder, adata):
    model = load(folder)
    exact = model.vocab.align(adata.var_names, mode="exact")
    unknown = [name for name in adata.var_names if model.vocab._fold(name) not in model.vocab._lookup]
    whole = [name for name in unknown if name not in ("HLA-DRB1*15:01", "GENE/ALIAS", "SEPT7 copy")]
    assert exact.summary()["n_matched"] == adata.n_vars - len(whole)
    auto = model.vocab.align(adata.var_names, mode="auto")
    assert auto.matched[list(adata.var_names).index("MT-CO1")]


def test_the_longer_checkpoint_takes_126_genes(copy, adata):
    config = json.loads((copy / "config.json").read_text())
    state = read_state(copy / "pytorch_model.bin")
    extra = torch.zeros(128 - config["n_positions"], config["n_embd"])
    state["transformer.wpe.weight"] = torch.cat([state["transformer.wpe.weight"], extra])
    save(state, copy / "pytorch_model.bin")
    (copy / "config.json").write_text(json.dumps({**config, "n_positions": 128}))
    copy = copy.rename(copy.with_name("transcriptome-gpt-1024-8-16-128"))
    model = sdr.models.load("tgpt.126", checkpoint=copy)
    assert model.tokenize(adata, genes="exact").lengths.max() == 128
    assert np.isfinite(model.embed(adata, genes="exact")[0]).all()


# Network --------------------------------------------------------------------------------------------------------------


def test_embeddings_equal_the_recorded_ones(folder, golden, adata, tokens):
    model = load(folder)
    close(model.embed(adata, genes="exact"), golden["cell_emb"])
    close(model.embed_tokens(tokens, batch_tokens=200), golden["cell_emb"])
    close(model.embed_tokens(tokens, batch_tokens=1), golden["cell_emb"])


def test_without_token_types(folder, golden, tokens):
    close(load(folder, token_type=False).embed_tokens(tokens), golden["cell_emb_no_token_type"])


def test_mean_over_all_positions(folder, golden, tokens):
    model = load(folder, token_type=False, pooling="all")
    close(model.embed_tokens(tokens.take(golden["scdrugmap_cells"])), golden["scdrugmap_emb"])


@pytest.mark.parametrize(("array", "row"), [("cell0", 0), ("cellN", -1)])
def test_every_layer_equals_the_recorded_one(folder, golden, tokens, array, row):
    model, expected = load(folder), golden[f"{array}_hidden"]
    batch = model.collate(tokens.take([row % len(tokens)]))
    x = model.inputs(batch)
    close(x[0], expected[0])
    for layer, known in zip(model.layers, expected[1:-1]):
        x = layer(x)
        close(x[0], known)
    close(model.hidden(batch)[0], expected[-1])


# Published size -------------------------------------------------------------------------------------------------------


def test_published_tensors_and_ours_are_the_same(manifest):
    config = TGPTConfig()
    names = {name for name, _, _ in manifest["state_dict"]}
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape, _ in manifest["state_dict"]}
        # The list was written without names that end in `attn.bias`; the files have these biases, as every GPT-2.
        fused = [name.replace("weight", "bias") for name in names if name.endswith("attn.c_attn.weight")]
        added = {name: torch.empty(3 * config.dim) for name in fused if name not in names}
        ours = TGPT(config, TGPT.example_vocab(config)).state_dict()
    mapped = TGPT.remap({**state, **added})
    assert {name: tuple(value.shape) for name, value in mapped.items()} == {k: tuple(v.shape) for k, v in ours.items()}
    dropped = {
        name.rsplit(".", 2)[-1] if "attn" in name else name for name in state if not TGPT.remap({name: state[name]})
    }
    assert dropped <= {"lm_head.weight", "bias", "masked_bias"}
    assert not any("c_attn" in name for name in state if not TGPT.remap({name: state[name]}))
    count = sum(value.numel() for value in ours.values())
    assert count == manifest["n_parameters"] + sum(value.numel() for value in added.values())
    row = sdr.models._registry.registry()["tgpt"].checkpoints["62"]
    assert row.parameters == count


def test_default_config_is_the_published_one(manifest):
    published, ours = manifest["config"], TGPTConfig()
    assert (ours.dim, ours.layers, ours.heads) == (published["n_embd"], published["n_layer"], published["n_head"])
    assert (ours.vocab_size, ours.positions) == (published["vocab_size"], published["n_positions"])
    assert ours.ffn_dim == 4 * published["n_embd"]
    assert ours.dropout == ours.attn_dropout == ours.embd_dropout == published["resid_pdrop"]


def test_loading_makes_views_of_the_file(folder):
    model = load(folder)
    q, k = model.layers[0].attn.q.weight, model.layers[0].attn.k.weight
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()


# Files as they come ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["module", "nested", "bare", "safetensors", "with_masks"])
def test_wrapped_weights_load_alike(copy, golden, tokens, wrap):
    path = copy / "pytorch_model.bin"
    state = dict(read_state(path))
    buffers = (".attn.bias", ".attn.masked_bias")
    if wrap == "module":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrap == "nested":
        state = {"model": state, "epoch": 3}
    elif wrap == "bare":
        state = {name.removeprefix("transformer."): tensor for name, tensor in state.items() if "lm_head" not in name}
    elif wrap == "with_masks":
        for i in range(3):
            state[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 96, 96, dtype=torch.uint8)
            state[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    if wrap == "safetensors":
        plain = {n: t.clone().contiguous() for n, t in state.items() if not n.endswith(buffers) and "lm_head" not in n}
        path.unlink()
        save_file(plain, copy / "model.safetensors")
    else:
        save(state, path)
    close(sdr.models.load("tgpt", checkpoint=copy).embed_tokens(tokens), golden["cell_emb"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_used_as_float32(copy, golden, tokens, dtype):
    path = copy / "pytorch_model.bin"
    save({name: t.to(dtype) if t.is_floating_point() else t for name, t in read_state(path).items()}, path)
    model = sdr.models.load("tgpt", checkpoint=copy)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float64: 1e-5}[dtype]
    close(model.embed_tokens(tokens), golden["cell_emb"], tolerance)


BROKEN = {
    "missing": (lambda s: s.pop("transformer.h.1.mlp.c_fc.weight"), "tensors are missing"),
    "extra": (lambda s: s.update({"transformer.h.3.ln_1.weight": torch.zeros(64)}), "tensors are unknown"),
    "shape": (lambda s: s.update({"transformer.wpe.weight": torch.zeros(7, 64)}), "shapes differ"),
    "empty": (lambda s: s.clear(), "no named tensors"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_are_refused(copy, case):
    change, message = BROKEN[case]
    state = dict(read_state(copy / "pytorch_model.bin"))
    change(state)
    save(state, copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        sdr.models.load("tgpt", checkpoint=copy)


def test_truncated_weights_are_refused(copy):
    path = copy / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="truncated"):
        sdr.models.load("tgpt", checkpoint=copy)


def test_weights_that_would_run_code_are_refused(copy, tmp_path):
    torch.save({"transformer.wte.weight": RunsCode(tmp_path / "trace")}, copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could run code"):
        sdr.models.load("tgpt", checkpoint=copy)
    assert not (tmp_path / "trace").exists()


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda c: c.update(model_type="bert"), "another network than tGPT's GPT-2"),
        ("config.json", lambda c: c.update(activation_function="relu"), "another network than tGPT's GPT-2"),
        ("config.json", lambda c: c.update(scale_attn_by_inverse_layer_idx=True), "another network"),
        ("config.json", lambda c: c.pop("n_layer"), "does not state n_layer"),
        ("config.json", lambda c: c.update(vocab_size=330), "has 331 tokens, but the network"),
        ("config.json", lambda c: c.update(n_inner=100), "shapes differ"),
        ("tokenizer.json", lambda t: t["model"]["vocab"].popitem(), "has 330 tokens, but the network"),
        ("tokenizer.json", lambda t: t["model"].update(type="BPE"), "found a BPE model"),
        ("tokenizer.json", lambda t: t.update(post_processor=None), "one token before and one behind"),
        ("tokenizer.json", lambda t: t["model"].update(unk_token="[UNK]"), "unknown token"),  # noqa: S106 (a word)
    ],
)
def test_files_of_other_models_are_refused(copy, file, change, message):
    edit_json(copy / file, change)
    with pytest.raises(ValueError, match=message):
        sdr.models.load("tgpt", checkpoint=copy)


# Options and fast path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "cls"}, ValueError, "`pooling` must be one of"),
        ({"max_length": 2}, ValueError, "`max_length` must be at least 3"),
        ({"max_length": 97}, ValueError, "`max_length` is 97, but the network has"),
        ({"genes": 62}, TypeError, "Unknown option 'genes'"),
    ],
)
def test_wrong_options_are_refused(folder, options, error, message):
    with pytest.raises(error, match=message):
        load(folder, **options)


@pytest.mark.parametrize("pooling", ["genes", "all"])
def test_fast_path_equals_pooled_hidden_states(pooling):
    model = TGPT.random(TGPTConfig(**{**vars(TINY), "pooling": pooling}))
    batch = model.collate(Tokens([0, 9, 12, 24], np.random.default_rng(0).integers(4, 40, 24)))
    torch.testing.assert_close(model(batch), model.pool(model.hidden(batch), batch), rtol=0, atol=2e-6)


def test_what_follows_a_gene_does_not_change_it():
    model = TGPT.random(TINY)
    sequence = np.random.default_rng(0).integers(4, 40, 12)
    long = model.hidden(model.collate(Tokens([0, 12], sequence)))
    short = model.hidden(model.collate(Tokens([0, 5], sequence[:5])))
    torch.testing.assert_close(long[:, :5], short, rtol=0, atol=2e-6)


def test_tokens_that_do_not_fit_are_refused():
    model = TGPT.random(TINY)
    with pytest.raises(ValueError, match="has 33 tokens; this checkpoint has 32 positions"):
        model.embed_tokens(Tokens([0, 33], np.full(33, 5)))
    with pytest.raises(ValueError, match="Token ids must lie between 0 and 39"):
        model.embed_tokens(Tokens([0, 4], np.array([1, 40, 5, 2])))


def test_dropout_has_the_published_rates_and_rests_in_evaluation(folder, tokens):
    model = load(folder)
    assert not model.training
    assert {layer.attn.dropout for layer in model.layers} == {0.1}
    assert {module.p for name, module in model.named_modules() if name.endswith("drop")} == {0.1}
    batch = model.collate(tokens.take([0]))
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)
    assert not torch.equal(model.train()(batch), model(batch))
