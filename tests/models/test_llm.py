"""Language models from folders: equal to a direct call of transformers, one cell a sentence, tuned by LoRA."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers import close
from language_models import make
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp._report._sections import describe_data
from sc_drugresp._response.tune.adapters import apply_tuned, inject, lora_config
from sc_drugresp.genes import gene_table
from sc_drugresp.get._names import model_name
from sc_drugresp.models._language_open import quiet

pytestmark = pytest.mark.filterwarnings(
    "ignore:1 of 12 cells have no gene", "ignore:Embeddings of .* are nearly parallel"
)
KINDS = ("llama", "bert", "roberta", "gpt2")
GENES = ["A2M", "BRAF", "CD3E", "EGFR", "KRAS", "MALAT1", "MKI67", "TP53"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: make(kind, tmp_path_factory.mktemp("llm") / f"tiny-{kind}") for kind in KINDS}


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    x = rng.poisson(1.5, (12, len(GENES)))
    x[3] = 0
    x[4] = [0, 5, 0, 9, 0, 0, 5, 0]
    obs = pd.DataFrame({"tissue": ["lung", "skin"] * 6, "patient": [f"P{i // 3}" for i in range(12)]})
    obs.index = obs.index.astype(str)
    return ad.AnnData(csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))


def direct(folder, texts, side):
    """The usual call: the tokenizer pads, the mask says where, the mean leaves padding out."""
    with quiet():
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side=side)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    given = {"input_ids": batch["input_ids"], "attention_mask": mask}
    if side == "left":
        offset = 3 if "Roberta" in type(network).__name__ else 0
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0) + offset
    with torch.inference_mode():
        hidden = network(**given).last_hidden_state
    mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    last = hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]
    return {"mean": mean.numpy(), "last": last.numpy()}


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_a_direct_call(folders, adata, kind, padding):
    texts = [
        "Genes of a human cell, highest expression first: EGFR BRAF MKI67",
        "Genes of a human cell, highest expression first: " + " ".join(GENES),
    ]
    x = np.array([[0, 5, 0, 9, 0, 0, 5, 0], [9, 8, 7, 6, 5, 4, 3, 2]], dtype=np.float32)
    cells = ad.AnnData(csr_matrix(x), var=pd.DataFrame(index=GENES))
    for pooling in ("mean", "last"):
        model = sdr.models.load(f"llm:{folders[kind]}", padding=padding, pooling=pooling)
        expected = direct(folders[kind], texts, padding)[pooling]
        close(model.embed(cells, batch_tokens=10_000), expected)
        close(model.embed(cells, batch_tokens=1), expected)  # each cell alone, without padding


def test_a_cell_is_a_sentence(folders, adata):
    model = sdr.models.load(f"llm:{folders['llama']}", n_genes=2)
    tokens = model.tokenize(adata)
    decoded = "".join(model.tokenizer.convert_ids_to_tokens(tokens.sequence(4).tolist()))
    assert decoded == "<s>Genes of a human cell, highest expression first: EGFR BRAF"  # BRAF and MKI67 are equal
    assert tokens.lengths[3] == 0
    assert np.isnan(model.embed(adata)[3]).all()
    valued = sdr.models.load(f"llm:{folders['llama']}", n_genes=1, values=True, template="Top: {genes}!")
    text = "".join(valued.tokenizer.convert_ids_to_tokens(valued.tokenize(adata).sequence(4).tolist()))
    assert text == f"<s>Top: EGFR {np.log1p(9 / 19 * 1e4):.1f}<unk>"


def test_names_of_the_data_do_not_matter(folders, adata):
    table = gene_table("human")
    other = adata.copy()
    other.var_names = [table.ensembl_id[table.row_of_symbol[name]] for name in GENES]
    model = sdr.models.load(f"llm:{folders['llama']}")
    np.testing.assert_array_equal(model.tokenize(other).ids, model.tokenize(adata).ids)


def test_what_does_not_fit_is_cut_after_a_gene_and_counted(folders, adata):
    out = sdr.tl.embed(adata, f"llm:{folders['llama']}", max_tokens=65, copy=True)
    note = out.uns["llm_tiny_llama"]["sentences"]
    model = sdr.models.load(f"llm:{folders['llama']}", max_tokens=65)
    texts = [
        "".join(model.tokenizer.convert_ids_to_tokens(ids.tolist()))
        for ids in map(model.tokenize(adata).sequence, range(12))
    ]
    assert all(text.split()[-1] in GENES for i, text in enumerate(texts) if i != 3)
    assert max(map(len, texts)) <= 65 + 2  # "<s>" is one token
    assert note["cells_cut"] > 0
    assert note["genes_written"] < note["genes_expressed"]
    with pytest.raises(ValueError, match="Raise `max_tokens`"):
        sdr.tl.embed(adata, f"llm:{folders['llama']}", max_tokens=20)
    assert list(adata.obsm) == []


def test_embed_writes_the_promised_slots_and_a_file_holds_them(folders, adata, tmp_path):
    sdr.tl.embed(adata, f"llm:{folders['bert']}", metadata=["tissue"])
    assert list(adata.obsm) == ["X_llm_tiny_bert"]
    assert list(adata.uns) == ["llm_tiny_bert"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    note = ad.read_h5ad(tmp_path / "a.h5ad").uns["llm_tiny_bert"]
    assert list(note["params"]["metadata"]) == ["tissue"]
    assert note["checkpoint"]["source"] == "local"
    assert "model card" in note["checkpoint"]["license"]
    plain = sdr.models.load(f"llm:{folders['bert']}").embed(adata)
    assert np.nanmax(np.abs(plain - adata.obsm["X_llm_tiny_bert"])) > 1e-3


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("patient", None, "names samples"),
        ("response", ["sensitive", "resistant"] * 6, "is the label"),
        ("outcome", ["CR", "PD"] * 6, "response in other words"),
        ("series", ["GSM123456", "GSM123457"] * 6, "accession"),
        ("code", [f"x{i // 3}" for i in range(12)], "tells 'patient'"),
        ("ic50", np.arange(12) / 3, "response in other words"),
        ("arm", ["a", "b"] * 6, "determines the label"),
    ],
)
def test_columns_that_give_the_answer_away_are_not_told(folders, adata, column, values, message):
    if values is not None:
        adata.obs[column] = values
    if column == "arm":
        adata.obs["response"] = ["sensitive", "resistant"] * 6
    with pytest.raises(ValueError, match=message):
        sdr.tl.embed(adata, f"llm:{folders['bert']}", metadata=[column])
    with pytest.raises(KeyError, match="not found"):
        sdr.tl.embed(adata, f"llm:{folders['bert']}", metadata=["nothing"])


@pytest.mark.parametrize(
    ("kind", "mode", "merge"),
    [("llama", "lora", False), ("llama", "full", False), ("bert", "lora", True), ("gpt2", "lora", False)],
)
@pytest.mark.filterwarnings("ignore:Tuning did not improve", "ignore:All calls are 'uncertain'", "ignore:Only")
def test_tuning_changes_the_network_and_a_saved_model_knows_how(folders, tmp_path, kind, mode, merge):
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=4)
    tuning = sdr.tl.FineTuning(
        epochs=1, rank=2, learning_rate=1e-2, batch_size=8, merge=merge, gradient_checkpointing=True
    )
    options = {"n_genes": 5, "padding": "left"}
    name = f"llm:{folders[kind]}"
    model = sdr.tl.train_response(adata, model=name, mode=mode, tuning=tuning, **options)
    assert len(model.info["adapted"]) == (0 if mode == "full" else {"llama": 14, "bert": 12, "gpt2": 8}[kind])
    model.save(tmp_path / "model")
    again = sdr.models.ResponseModel.load(tmp_path / "model")
    assert again.representation["model"] == name
    assert again.representation["options"] == options
    base, tuned = sdr.models.load(name, **options), apply_tuned(sdr.models.load(name, **options), again)
    assert np.nanmax(np.abs(base.embed(adata) - tuned.embed(adata))) > 1e-3
    out = sdr.tl.predict_response(adata, again, copy=True)
    assert f"X_llm_tiny_{kind}_{mode}" in out.obsm
    np.testing.assert_allclose(out.obsm[f"X_llm_tiny_{kind}_{mode}"], tuned.embed(adata), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="another checkpoint"):
        sdr.tl.predict_response(adata, again, checkpoint=folders["roberta"])


def test_recomputed_activations_give_the_same_gradients(folders, adata):
    gradients = []
    for recompute in (False, True):
        model = sdr.models.load(f"llm:{folders['llama']}")
        inject(model, lora_config(model, rank=2, alpha=4, dropout=0.0))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1)
        model.gradient_checkpointing = recompute
        tokens = model.tokenize(adata[:3].copy())
        model.train()(model.collate(tokens)).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 28
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_files_are_refused_before_anything_is_run(folders, tmp_path):
    bad = make("bert", tmp_path / "bad")
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin; expected model\.safetensors"):
        sdr.models.load(f"llm:{bad}")
    (bad / "pytorch_model.bin").rename(bad / "model.safetensors")
    config = json.loads((bad / "config.json").read_text())
    (bad / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    foreign = config | {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.C"}}
    (bad / "config.json").write_text(json.dumps(foreign))
    with pytest.raises(ValueError, match="never run"):
        sdr.models.load(f"llm:{bad}")
    assert not (tmp_path / "ran").exists()
    (bad / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="tensors are missing"):
        sdr.models.load(f"llm:{bad}")
    (bad / "config.json").write_text(json.dumps(config))
    weights = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="cannot be opened"):
        sdr.models.load(f"llm:{bad}")
    (bad / "model.safetensors").write_bytes(weights)
    (bad / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ValueError, match="tokenizer"):
        sdr.models.load(f"llm:{bad}")
    with sdr.settings.override(offline=True), pytest.raises(FileNotFoundError, match="forbids the network"):
        sdr.models.load("llm:nobody/nothing")
    with pytest.raises(FileNotFoundError, match="no folder"):
        sdr.models.load(f"llm:{tmp_path}/no where")
    with pytest.raises(ValueError, match="names no language model"):
        sdr.models.load("llm:")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": 3}, ValueError, "Sizes come from the files"),
        ({"template": "no place"}, ValueError, "genes"),
        ({"template": "{genes} {0.__class__}"}, ValueError, "template"),
        ({"metadata": ["a"], "template": "{genes}"}, ValueError, "no place"),
        ({"pooling": "max"}, ValueError, "pooling"),
        ({"max_tokens": 301}, ValueError, "positions"),
        ({"n_genes": 0}, ValueError, "n_genes"),
        ({"colour": 1}, TypeError, "Unknown option"),
    ],
)
def test_options_are_checked(folders, options, error, message):
    with pytest.raises(error, match=message):
        sdr.models.load(f"llm:{folders['llama']}", **options)


def test_weights_in_several_files_are_one_model(folders, tmp_path):
    with quiet():
        network = transformers.AutoModel.from_pretrained(folders["bert"])
        network.save_pretrained(tmp_path / "tiny-bert", max_shard_size="20KB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "tiny-bert" / file).write_bytes((folders["bert"] / file).read_bytes())
    assert len(list((tmp_path / "tiny-bert").glob("model-*.safetensors"))) > 1
    one, many = (sdr.models.load(f"llm:{folder}") for folder in (folders["bert"], tmp_path / "tiny-bert"))
    for name, tensor in one.state_dict().items():
        assert torch.equal(many.state_dict()[name], tensor)
    part = sorted((tmp_path / "tiny-bert").glob("model-*.safetensors"))[-1]
    digest = many.checkpoint["sha256"]
    part.write_bytes(part.read_bytes()[:-4] + b"\0\0\0\1")
    assert sdr.models.load(f"llm:{tmp_path}/tiny-bert").checkpoint["sha256"] != digest
    part.unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of its"):
        sdr.models.load(f"llm:{tmp_path}/tiny-bert")


def test_quantized_weights_need_a_library_and_a_device_of_it(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="bitsandbytes"):
        sdr.models.load(f"llm:{folders['llama']}", quantize="8bit")
    library = types.SimpleNamespace(__version__="0.40", supported_torch_devices={"cuda"})
    monkeypatch.setitem(sys.modules, "bitsandbytes", library)
    with sdr.settings.override(device="cpu"), pytest.raises(ValueError, match=r"cuda.*found 'cpu'"):
        sdr.models.load(f"llm:{folders['llama']}", quantize="4bit")


def test_transformers_waits_until_it_is_needed():
    code = "import sys, sc_drugresp as sdr; sdr.models.table(); sdr.tl.embed; sdr.tl.ask_llm; print('transformers' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_a_label_of_another_name_is_not_told_to_a_head(folders):
    """`tl.embed` does not know the label; training and evaluation do."""
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=4)
    adata.obs["fate"] = adata.obs["response"]
    adata.obs["tube"] = np.where(adata.obs.pop("response") == "sensitive", "a", "b")
    recipe = sdr.tl.Recipe(f"llm:{folders['bert']}", options={"metadata": ["tube"], "n_genes": 3})
    with pytest.raises(ValueError, match="determines the label 'fate'"):
        sdr.tl.train_response(adata, model=recipe.model, label_key="fate", **recipe.options)
    with pytest.raises(ValueError, match="determines the label 'fate'"):
        sdr.tl.evaluate(adata, model=recipe, label_key="fate")


def test_a_report_names_the_license_and_not_the_folder(folders):
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=5)
    sdr.tl.embed(adata, f"llm:{folders['bert']}", n_genes=3)
    facts = describe_data(adata, "response", "rna")["facts"]
    told = facts["embedding X_llm_tiny_bert"]
    assert told.startswith("llm:tiny-bert (100% of the counts")
    assert "license of the weights: that of its publisher" in told
    assert str(folders["bert"].parent) not in str(facts)
    assert model_name("llm:owner/name") == "llm:owner/name"
