"""Probabilities from a language model on this machine: likelihoods of two answers, both orders, corrected."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from language_models import make

import sc_drugresp as sdr
from sc_drugresp._llm.local import CONTENT_FREE, LocalScorer
from sc_drugresp._llm.prompts import Question, local_prompt

QUESTIONS = [
    Question("Genes: EGFR KRAS"),
    Question("Genes: TP53 BRAF MKI67 ACTB"),
    Question("Genes: A", "Genes: B\nResponse: sensitive"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make("llama", tmp_path_factory.mktemp("local") / "tiny", positions=1_500)


@pytest.fixture(scope="module")
def scorer(folder):
    return LocalScorer.open(f"llm:{folder}")


def whole(scorer, prompt: str, word: str) -> float:
    """Log-likelihood of a question and an answer, read alone and without padding."""
    ids = torch.tensor([scorer._ids(*prompt, word)])
    with torch.inference_mode():
        logs = scorer.network(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(logs.gather(1, ids[0, 1:, None]).double().sum())


def odds(scorer, question: Question, drug: str = "erlotinib") -> float:
    """Mean over both orders."""
    orders = (("sensitive", "resistant"), ("resistant", "sensitive"))
    prompts = [local_prompt(drug, question, *order) for order in orders]
    return float(
        np.mean([whole(scorer, prompt, "sensitive") - whole(scorer, prompt, "resistant") for prompt in prompts])
    )


def test_probability_is_the_corrected_likelihood_ratio(scorer):
    found = scorer.score("erlotinib", QUESTIONS)
    for i, question in enumerate(QUESTIONS):
        free = np.mean([odds(scorer, Question(text, question.examples)) for text in CONTENT_FREE])
        assert found.bias[i] == pytest.approx(free, abs=1e-4)
        assert found.prob[i] == pytest.approx(1 / (1 + np.exp(free - odds(scorer, question))), abs=1e-5)
    assert len({*found.prob.round(6)}) == 3


def test_a_record_does_not_depend_on_the_others(scorer):
    together = scorer.score("erlotinib", QUESTIONS)
    alone = [scorer.score("erlotinib", [question]).prob[0] for question in QUESTIONS]
    np.testing.assert_allclose(together.prob, alone, atol=1e-5)
    turned = scorer.score("erlotinib", QUESTIONS[::-1])
    np.testing.assert_allclose(turned.prob[::-1], together.prob, atol=1e-5)


def test_swapping_the_names_of_the_answers_does_not_help_one_of_them(scorer):
    """What the order adds is in the spread alone: the two orders enter the probability in the same way."""
    found = scorer.score("erlotinib", QUESTIONS)
    first, second = scorer._margins("erlotinib", QUESTIONS).T
    np.testing.assert_allclose(found.spread, np.abs(first - second), atol=1e-4)
    np.testing.assert_allclose(np.log(found.prob / (1 - found.prob)), (first + second) / 2 - found.bias, atol=1e-5)
    assert (found.spread > 1e-4).all()


def test_conversations_are_put_in_the_words_of_the_model(folder):
    scorer = LocalScorer.open(f"llm:{folder}")
    scorer.tokenizer.chat_template = "{% for m in messages %}U: {{ m['content'] }}{% endfor %} A:"
    ids = scorer._ids("question", "Answer:", "sensitive")
    assert "".join(scorer.tokenizer.convert_ids_to_tokens(ids)) == "U: question A:sensitive"


def test_ask_llm_without_a_server(folder):
    adata = sdr.datasets.toy(n_samples=4, cells_per_sample=5)
    adata.obs["kept"] = np.arange(20) % 5 > 0
    options = sdr.tl.LLMOptions(n_genes=5)
    before = set(adata.obs), set(adata.uns)
    out = sdr.tl.ask_llm(adata, model=f"llm:{folder}", drug="erlotinib", mask_obs="kept", options=options, copy=True)
    assert (set(adata.obs), set(adata.uns)) == before
    assert set(out.obs) - before[0] == {"llm_response", "llm_response_prob"}
    assert set(out.uns) - before[1] == {"llm_response"}
    prob = out.obs["llm_response_prob"]
    np.testing.assert_array_equal(prob.isna(), ~out.obs["kept"])
    pd.testing.assert_series_equal(
        out.obs["llm_response"] == "sensitive", (prob > 0.5) & out.obs["kept"], check_names=False
    )
    records = out.uns["llm_response"]["records"]
    assert list(records["record"]) == sorted(adata.obs["patient"].unique())
    assert records["n_cells"].tolist() == [4] * 4
    scorer = LocalScorer.open(f"llm:{folder}")
    again = sdr.tl.ask_llm(adata, model=f"llm:{folder}", drug="gefitinib", mask_obs="kept", options=options, copy=True)
    assert not np.allclose(again.uns["llm_response"]["records"]["prob"], records["prob"])
    assert out.uns["llm_response"]["checkpoint"]["sha256"] == scorer.checkpoint["sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"price": (1, 2)}, "`price` is about a server"),
        ({"dry_run": True}, "`dry_run` is about a server"),
        ({"drug": " "}, "`drug` must be"),
        ({"model": "llm:"}, "names no language model"),
        ({"options": sdr.tl.LLMOptions(n_genes=600)}, "Lower `n_genes`"),
        ({"metadata": ["patient"]}, "names samples"),
    ],
)
def test_what_cannot_work_is_refused(folder, options, message):
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5)
    with pytest.raises(ValueError, match=message):
        sdr.tl.ask_llm(adata, **{"model": f"llm:{folder}", "drug": "erlotinib", **options})
    assert "llm_response" not in adata.obs


def test_an_encoder_predicts_no_word(tmp_path):
    with pytest.raises(ValueError, match="predicts no next word"):
        LocalScorer.open(f"llm:{make('bert', tmp_path / 'bert')}")
