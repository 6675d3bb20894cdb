"""Geneformer V1 and V2 against recorded arrays of the original software, and against its own rules."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RunsCode, close
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._data import GeneVocab, Tokens, read_counts
from sc_drugresp._data.rank_kernels import rank_by_value
from sc_drugresp.models.geneformer import Geneformer, GeneformerConfig

MODEL = "geneformer"
NAMES = {"V1": "geneformer.v1-10m", "V2": "geneformer.v2-104m"}
FOLDERS = {"V1": "Geneformer-V1-10M", "V2": "Geneformer-V2-104M"}
versions = pytest.mark.parametrize("version", ["V1", "V2"])
TINY = GeneformerConfig(dim=16, heads=2, layers=3, ffn_dim=24, positions=32, vocab_size=40)


def load(folder: Path, version: str, **options) -> Geneformer:
    return sdr.models.load(NAMES[version], checkpoint=folder / "weights", **options)


def recorded(golden, version: str) -> Tokens:
    return Tokens.from_padded(golden[f"{version}_token_ids"], golden[f"{version}_length"])


# Tokens ---------------------------------------------------------------------------------------------------------------


@versions
def test_tokens_equal_the_recorded_ones(folder, golden, adata, version):
    tokens = load(folder, version).tokenize(adata, genes="exact")
    assert len(tokens) == adata.n_obs
    expected = recorded(golden, version)
    actual = tokens.take(golden["cells"])
    np.testing.assert_array_equal(actual.indptr, expected.indptr)
    np.testing.assert_array_equal(actual.ids, expected.ids)
    special = [] if version == "V1" else [2, 3]
    for cell in set(range(adata.n_obs)) - set(golden["cells"]):  # no counts, unknown genes only
        assert tokens.sequence(cell).tolist() == special


@versions
def test_ranking_equals_the_recorded_one_to_the_bit(folder, golden, adata, version):
    model = load(folder, version)
    (block,) = read_counts(adata).align(model.vocab, "exact").blocks()
    counts = (block.indptr, block.gene_ids, block.counts, block.totals)
    ranked = Tokens(*rank_by_value(*counts, 1.0 / model.medians, model.config.vocab_size, True)).take(golden["cells"])
    np.testing.assert_array_equal(ranked.indptr, golden[f"{version}_rank_offsets"])
    np.testing.assert_array_equal(ranked.ids, golden[f"{version}_rank_tokens"])
    np.testing.assert_array_equal(ranked.values, golden[f"{version}_rank_values"])


def test_different_ids_of_a_gene_collapse_repeated_ones_do_not(folder, adata):
    v1, v2 = load(folder, "V1").vocab, load(folder, "V2").vocab
    ids = adata.var["ensembl_id"].astype(str).tolist()
    assert v1.align(ids, mode="exact").duplicates == "keep"  # TP53 in lower case is the same id
    assert v2.align(ids, mode="exact").duplicates == "collapse"
    without_retired = [name for name in ids if "ENSG000009999" not in name]
    assert v2.align(without_retired, mode="exact").duplicates == "keep"


def test_sums_of_a_collapsed_gene_stand_behind_the_other_columns():
    vocab = GeneVocab(["A", "B", "C"], kind="ensembl", duplicates="collapse", synonyms={"OLD": "A"})
    x = csr_matrix(np.array([[1, 2, 3, 4]], dtype=np.float32))
    adata = ad.AnnData(x, var=pd.DataFrame(index=["A", "C", "OLD", "B"]))
    (block,) = read_counts(adata).align(vocab, "exact").blocks()
    assert block.gene_ids.tolist() == [2, 1, 0]
    assert block.counts.tolist() == [2, 4, 4]


def test_auto_adds_what_exact_keeps_apart(folder, adata):
    model = load(folder, "V1")
    (block,) = read_counts(adata).align(model.vocab, "auto").blocks()
    for cell in range(len(block)):
        genes = block.gene_ids[block.indptr[cell] : block.indptr[cell + 1]]
        assert np.all(np.diff(genes) > 0)


def test_a_full_cell_is_cut_by_rank(folder, adata):
    long, short = load(folder, "V2"), load(folder, "V2", max_length=12)
    full, cut = long.tokenize(adata, genes="exact"), short.tokenize(adata, genes="exact")
    assert cut.lengths.max() == 12
    for cell in range(adata.n_obs):
        genes = full.sequence(cell)[1:-1][:10]
        assert cut.sequence(cell).tolist() == [2, *genes, 3]


# Network --------------------------------------------------------------------------------------------------------------

POOLED = [
    ("V1", "cell", -1),
    ("V1", "cell", 0),
    ("V2", "cell", -1),
    ("V2", "cell", 0),
    ("V2", "cls", -1),
    ("V2", "cls", 0),
]


@pytest.mark.parametrize(("version", "pooling", "emb_layer"), POOLED)
def test_embeddings_equal_the_recorded_ones(folder, golden, adata, version, pooling, emb_layer):
    model = load(folder, version, pooling=pooling, emb_layer=emb_layer)
    expected = golden[f"{version}_{pooling}_emb_layer{emb_layer}"]
    close(model.embed(adata, genes="exact")[golden["cells"]], expected)
    close(model.embed_tokens(recorded(golden, version), batch_tokens=300), expected)
    close(model.embed_tokens(recorded(golden, version), batch_tokens=1), expected)


@versions
def test_defaults_are_those_of_the_original(folder, golden, adata, version):
    pooling = {"V1": "cell", "V2": "cls"}[version]
    close(
        load(folder, version).embed(adata, genes="exact")[golden["cells"]], golden[f"{version}_{pooling}_emb_layer-1"]
    )


@versions
@pytest.mark.parametrize(("array", "row"), [("cell0", 0), ("cellN", -1)])
def test_every_layer_equals_the_recorded_one(folder, golden, version, array, row):
    expected = golden[f"{version}_{array}_hidden"]
    tokens = recorded(golden, version)
    cell = tokens.take([row % len(tokens)])
    for layer in range(len(expected)):
        model = load(folder, version, emb_layer=layer - (len(expected) - 1))
        close(model.hidden(model.collate(cell))[0], expected[layer])
    close(model.inputs(model.collate(cell))[0], expected[0])


def test_padded_mean_without_a_mask(folder, golden):
    model = load(folder, "V1", pooling="padded", emb_layer=0)
    close(model.embed_tokens(recorded(golden, "V1")), golden["V1_nomask_paddedmean_lastlayer"])


@versions
def test_cells_without_genes_are_nan_and_the_others_are_not(folder, golden, adata, version):
    out = load(folder, version).embed(adata, genes="exact")
    nan = np.isnan(out).all(axis=1)
    assert np.flatnonzero(nan).tolist() == sorted(set(range(adata.n_obs)) - set(golden["cells"].tolist()))
    assert np.isfinite(out[~nan]).all()


# Published size -------------------------------------------------------------------------------------------------------


def published_config(published: dict, **options) -> GeneformerConfig:
    v2 = published["vocab_size"] == 20275
    return GeneformerConfig(
        dim=published["hidden_size"],
        heads=published["num_attention_heads"],
        layers=published["num_hidden_layers"],
        ffn_dim=published["intermediate_size"],
        positions=published["max_position_embeddings"],
        vocab_size=published["vocab_size"],
        cls_id=2 if v2 else None,
        eos_id=3 if v2 else None,
        pooling="cls" if v2 else "cell",
        **options,
    )


@pytest.mark.parametrize(
    "name",
    [
        "Geneformer-V1-10M",
        "Geneformer-V2-104M",
        "Geneformer-V2-316M",
        "Geneformer-V1-10M_CellClassifier_cardiomyopathies_220224",
    ],
)
def test_published_tensors_and_ours_are_the_same(manifest, name):
    row = manifest["checkpoints"][name]
    config = published_config(row["config"], emb_layer=0)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape, _ in row["state_dict"]}
        ours = Geneformer(config, Geneformer.example_vocab(config)).state_dict()
    mapped = Geneformer.remap(state)
    assert {key: tuple(value.shape) for key, value in mapped.items()} == {k: tuple(v.shape) for k, v in ours.items()}
    dropped = {key for key in state if not set(Geneformer.remap({key: state[key]}))}
    assert len(dropped) + len(mapped) == len(state)
    assert all(
        key.startswith(("cls.", "classifier.", "bert.pooler.")) or key.endswith("position_ids") for key in dropped
    )
    tied = {"cls.predictions.decoder.weight": torch.empty(1), "cls.predictions.decoder.bias": torch.empty(1)}
    assert Geneformer.remap(tied) == {}


def test_layers_above_the_one_that_is_read_are_not_built(manifest):
    row = manifest["checkpoints"]["Geneformer-V2-104M"]
    config = published_config(row["config"])
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape, _ in row["state_dict"]}
    model = Geneformer.build(config, Geneformer.example_vocab(config), state, source="manifest")
    assert len(model.layers) == 11
    assert sum(p.numel() for p in model.parameters()) < row["n_parameters"]


def test_default_config_is_the_published_one(manifest):
    assert published_config(manifest["checkpoints"]["Geneformer-V2-104M"]["config"]) == GeneformerConfig()


def test_registry_agrees_with_the_manifest(manifest):
    rows = sdr.models._registry.registry()["geneformer"].checkpoints
    files = {file.path: file for row in rows.values() for file in row.files.values()}
    for row in manifest["checkpoints"].values():
        for published in row["files"]:
            file = files.get(published["name"].split(" ")[0])
            if file is not None:
                assert (file.bytes, file.sha256) == (published["bytes"], published["sha256"])
    for published in manifest["dictionaries"]:
        file = files.get(published["file"])
        assert file is None or (file.bytes, file.sha256) == (published["bytes"], published["sha256"])
    assert sum(file.sha256 is not None for file in files.values()) >= 14


# Files as they come ---------------------------------------------------------------------------------------------------


def test_all_layouts_and_formats_of_the_weights_agree(folder, copy, golden):
    tokens = recorded(golden, "V1")
    expected = load(folder, "V1").embed_tokens(tokens)
    own = copy / FOLDERS["V1"]
    np.testing.assert_array_equal(sdr.models.load(NAMES["V1"], checkpoint=own).embed_tokens(tokens), expected)
    old = sdr.models.load(NAMES["V1"], checkpoint=own / "pytorch_model.bin")
    np.testing.assert_array_equal(old.embed_tokens(tokens), expected)
    (own / "model.safetensors").unlink()  # only the older format is left
    np.testing.assert_array_equal(sdr.models.load(NAMES["V1"], checkpoint=own).embed_tokens(tokens), expected)


@pytest.mark.parametrize("wrap", ["module", "nested", "gamma", "bare"])
def test_wrapped_weights_load_alike(folder, copy, golden, wrap):
    own = copy / FOLDERS["V2"]
    state = load_file(own / "model.safetensors")
    if wrap == "module":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrap == "nested":
        state = {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}}
    elif wrap == "gamma":
        state = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }
    else:
        state = {name.removeprefix("bert."): tensor for name, tensor in state.items() if name.startswith("bert.")}
    torch.save(state, own / "other.bin")
    model = sdr.models.load(NAMES["V2"], checkpoint=own / "other.bin")
    np.testing.assert_array_equal(
        model.embed_tokens(recorded(golden, "V2")), load(folder, "V2").embed_tokens(recorded(golden, "V2"))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_used_as_float32(copy, folder, golden, dtype):
    path = copy / FOLDERS["V2"] / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    model = load(copy.parent, "V2")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float64: 1e-6}[dtype]
    close(model.embed_tokens(recorded(golden, "V2")), golden["V2_cls_emb_layer-1"], tolerance)


def edit_state(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


BROKEN = {
    "missing": (lambda s: s.pop("bert.encoder.layer.0.attention.self.key.bias"), "tensors are missing"),
    "extra": (lambda s: s.update({"bert.adapter.weight": torch.zeros(2)}), "tensors are unknown"),
    "shape": (lambda s: s.update({"bert.embeddings.LayerNorm.bias": torch.zeros(3)}), "shapes differ"),
    "another": (lambda s: (s.clear(), s.update({"encoder.x": torch.zeros(2)})), "missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_are_refused(copy, case):
    change, message = BROKEN[case]
    edit_state(copy / FOLDERS["V2"] / "model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        load(copy.parent, "V2")


def test_truncated_weights_are_refused(copy):
    path = copy / FOLDERS["V2"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="truncated"):
        load(copy.parent, "V2")


@pytest.mark.parametrize(
    "file", ["Geneformer-V1-10M/pytorch_model.bin", "geneformer/gene_dictionaries_30m/token_dictionary_gc30M.pkl"]
)
def test_files_that_would_run_code_are_refused(copy, tmp_path, file):
    path, trace = copy / file, tmp_path / "trace"
    with path.open("wb") as handle:
        if file.endswith(".bin"):
            torch.save({"bert.x": RunsCode(trace)}, handle)
            (copy / FOLDERS["V1"] / "model.safetensors").unlink()
        else:
            pickle.dump({"ENSG00000000003": RunsCode(trace)}, handle)
    with pytest.raises(ValueError, match=r"could run code|not a plain pickled dictionary"):
        load(copy.parent, "V1")
    assert not trace.exists()


def test_dictionaries_of_the_other_version_are_refused(copy):
    with pytest.raises(ValueError, match=r"has 316 tokens, but the network .* was made for 324"):
        sdr.models.load(NAMES["V2"], checkpoint=copy / FOLDERS["V1"])


def test_medians_that_lack_a_gene_are_refused(copy):
    path = copy / "geneformer" / "gene_median_dictionary_gc104M.pkl"
    medians = pickle.loads(path.read_bytes())
    tokens = pickle.loads((copy / "geneformer" / "token_dictionary_gc104M.pkl").read_bytes())
    del medians[next(name for name in tokens if name.startswith("ENSG"))]
    path.write_bytes(pickle.dumps(medians))
    with pytest.raises(ValueError, match="has no median for 1 of the genes"):
        load(copy.parent, "V2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "describes a 'gpt2' model"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' positions"),
        ({"hidden_act": "swish"}, "`activation` must be one of"),
        ({"hidden_size": None}, "does not state hidden_size"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"num_hidden_layers": 2}, "unknown"),
        ({"intermediate_size": 40}, "shapes differ"),
    ],
)
def test_configurations_of_other_networks_are_refused(copy, change, message):
    path = copy / FOLDERS["V2"] / "config.json"
    config = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        load(copy.parent, "V2", emb_layer=0)


def test_absent_files_are_named(copy):
    (copy / "geneformer" / "gene_median_dictionary_gc104M.pkl").unlink()
    with pytest.raises(FileNotFoundError, match="gene_median_dictionary_gc104M"):
        load(copy.parent, "V2")


# Options and training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "median"}, ValueError, "`pooling` must be one of"),
        ({"emb_layer": 1}, ValueError, "`emb_layer` must lie between"),
        ({"emb_layer": -9}, ValueError, "`emb_layer` must lie between"),
        ({"max_length": 2}, ValueError, "`max_length` must lie between"),
        ({"max_length": 5000}, ValueError, "`max_length` must lie between"),
        ({"totals": "int"}, ValueError, "`totals` must be"),
        ({"poling": "cls"}, TypeError, "Unknown option 'poling'"),
    ],
)
def test_wrong_options_are_refused(folder, options, error, message):
    with pytest.raises(error, match=message):
        load(folder, "V2", **options)


def test_cls_needs_a_cls_token(folder):
    with pytest.raises(ValueError, match="needs a checkpoint with a <cls> token"):
        load(folder, "V1", pooling="cls")


@pytest.mark.parametrize("pooling", ["cls", "cell", "padded"])
@pytest.mark.parametrize("emb_layer", [0, -1, -3])
def test_fast_path_equals_pooled_hidden_states(pooling, emb_layer):
    model = Geneformer.random(GeneformerConfig(**{**vars(TINY), "pooling": pooling, "emb_layer": emb_layer}))
    tokens = Tokens([0, 9, 12, 32], np.random.default_rng(0).integers(4, 40, 32))
    batch = model.collate(tokens)
    torch.testing.assert_close(model(batch), model.pool(model.hidden(batch), batch), rtol=0, atol=2e-6)


def test_tokens_that_do_not_fit_are_refused():
    model = Geneformer.random(TINY)
    with pytest.raises(ValueError, match="has 33 tokens; this checkpoint has 32 positions"):
        model.embed_tokens(Tokens([0, 33], np.full(33, 5)))
    with pytest.raises(ValueError, match="Token ids must lie between 0 and 39"):
        model.embed_tokens(Tokens([0, 4], np.array([2, 40, 5, 3])))


def test_dropout_has_the_published_rates_and_rests_in_evaluation(folder):
    model = load(folder, "V2")
    assert not model.training
    assert {layer.attn.dropout for layer in model.layers} == {0.1}
    assert {module.p for name, module in model.named_modules() if name.endswith("drop")} == {0.1, 0.0}
    batch = model.collate(Tokens([0, 9], np.arange(2, 11)))
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)
    assert not torch.equal(model.train()(batch), model(batch))
