"""`tl.ask_llm` against a server on this machine that misbehaves."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections import Counter
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from llm_server import Answering, chat_server, cohort, good, record

import sc_drugresp as sdr
from sc_drugresp._llm import retry
from sc_drugresp._llm.store import store_path

SECRET = "sk-do-not-tell-4711"  # noqa: S105 (made up)


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """A cache of its own, and no real waiting."""
    monkeypatch.setattr(retry, "pause", lambda line, seconds: WAITS.append(seconds))
    WAITS.clear()
    with sdr.settings.override(cache_dir=tmp_path / "cache"):
        yield


WAITS: list[float] = []


def ask(adata, server, **how):
    how = {"model": "m", "drug": "erlotinib", "group_key": "sample", "api_key": SECRET} | how
    return sdr.tl.ask_llm(adata, base_url=server.url, **how)


def slots(adata):
    return [list(adata.obs), list(adata.uns), list(adata.obsm), list(adata.layers), adata.obs_names.tolist()]


def test_calls_of_samples_stand_on_their_cells_and_nothing_else_is_written(tmp_path):
    adata = cohort()
    before = slots(adata)
    with chat_server() as server:
        assert ask(adata, server, price=(1.0, 2.0)) is None
    found = adata.uns["llm_response"]
    assert [len(asked.records) for asked in server.log] == [1] * 6
    assert list(adata.obs) == [*before[0], "llm_response", "llm_response_confidence"]
    assert list(adata.uns) == [*before[1], "llm_response"]
    assert slots(adata)[2:] == before[2:]
    said = {asked.records[0]: json.loads(good(asked).content)["records"][0]["call"] for asked in server.log}
    assert sorted(adata.obs.groupby("sample", observed=True)["llm_response"].first()) == sorted(said.values())
    assert (adata.obs.groupby("sample", observed=True)["llm_response"].nunique() == 1).all()
    assert adata.obs["llm_response"].cat.categories.tolist() == ["sensitive", "resistant", "uncertain"]
    assert found["cost"] == pytest.approx((600 * 1 + 120 * 2) / 1e6)
    assert (found["model"], found["template"], found["temperature"], found["seed"]) == ("m", "call-1", 0, 0)
    body = server.log[0].body
    assert (body["temperature"], body["seed"], body["model"], body["max_tokens"]) == (0, 0, "m", 200)
    assert body["response_format"]["json_schema"]["strict"] is True
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").uns["llm_response"]
    assert back["records"]["call"].tolist() == found["records"]["call"].tolist()


def test_nothing_that_names_or_labels_a_sample_is_sent():
    adata = cohort()
    with chat_server() as server:
        ask(adata, server, metadata=["tissue"])
    sent = "\n".join(asked.prompt for asked in server.log)
    assert "tissue: " in sent
    assert not re.search(r"GSM|Mustermann|S0\d|patient|sample_|batch", sent)
    assert "Response:" not in sent
    record_lines = [line for asked in server.log for line in asked.prompt.splitlines() if line.startswith("Record")]
    assert set(record_lines) == {"Record 1"}


def test_labels_are_not_looked_at_without_examples():
    adata, other = cohort(), cohort()
    other.obs["response"] = "no such label"
    with chat_server() as server:
        ask(adata, server)
        ask(other, server)
        assert len(server.log) == 6  # the second time everything was known
    assert other.obs["llm_response"].tolist() == adata.obs["llm_response"].tolist()


def test_a_second_run_costs_nothing_and_another_question_does():
    adata = cohort()
    with chat_server() as server:
        ask(adata, server, price=(1, 1))
        ask(adata, server, price=(1, 1))
        assert len(server.log) == 6
        found = adata.uns["llm_response"]
        assert (found["requests"], found["cost"], found["replies_from_store"]) == (0, 0, 6)
        assert found["cost_of_all_replies"] == pytest.approx(720 / 1e6)
        for change in ({"drug": "cisplatin"}, {"model": "n"}, {"options": sdr.tl.LLMOptions(seed=1)}):
            before = len(server.log)
            ask(adata, server, **change)
            assert len(server.log) == before + 6


def test_several_records_in_one_request_each_asked_once():
    adata = cohort(10)
    with chat_server() as server:
        ask(adata, server, options=sdr.tl.LLMOptions(per_request=4))
    assert sorted(len(asked.records) for asked in server.log) == [2, 4, 4]
    assert max(Counter(server.records).values()) == 1
    assert adata.uns["llm_response"]["n_missing"] == 0


BAD = {
    "malformed": lambda asked: Answering('{"records": [{"id": 1, "call": '),
    "prose": lambda asked: Answering("These cells are sensitive."),
    "cut off": lambda asked: Answering(good(asked).content[:-5], finish="length"),
    "cut off at a brace": lambda asked: Answering(good(asked).content, finish="length"),
    "filtered": lambda asked: Answering(good(asked).content, finish="content_filter"),
    "nothing": lambda asked: Answering(None),
    "none": lambda asked: Answering('{"records": []}'),
    "too many": lambda asked: Answering(json.dumps({"records": [record(i) for i in range(7, 20)]})),
    "twice": lambda asked: Answering(json.dumps({"records": [record(1), record(1)]})),
    "another word": lambda asked: Answering(json.dumps({"records": [record(1, "responder")]})),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_answers_that_cannot_be_read_are_missing_after_two_tries_and_counted(bad):
    adata = cohort()
    victim: list[str] = []

    def answer(asked):
        if not victim:
            victim.append(asked.records[0])
        return bad(asked) if asked.records[0] == victim[0] else good(asked)

    with chat_server(answer) as server:
        ask(adata, server, options=sdr.tl.LLMOptions(n_threads=1))
        times = Counter(server.records)
        assert (times[victim[0]], max(n for text, n in times.items() if text != victim[0])) == (2, 1)
        found = adata.uns["llm_response"]
        assert (found["n_missing"], found["n_records"], sum(found["counts"].values())) == (1, 6, 6)
        assert adata.n_obs == 24
        assert adata.obs["llm_response"].isna().sum() == 4
        assert found["records"].query("call == ''")["attempts"].tolist() == [2]
        ask(adata, server, options=sdr.tl.LLMOptions(n_threads=1))
        assert len(server.log) == 7  # not asked again: it was paid for


def test_only_the_missing_record_is_asked_again():
    def answer(asked):
        if asked.again:
            return good(asked)
        return Answering(json.dumps({"records": [record(1), record(2), record(2), record(9)]}))

    adata = cohort()
    with chat_server(answer) as server:
        ask(adata, server, options=sdr.tl.LLMOptions(per_request=3))
    assert [len(asked.records) for asked in server.log if asked.again] == [2, 2]
    assert adata.uns["llm_response"]["n_missing"] == 0
    assert sorted(adata.uns["llm_response"]["records"]["attempts"]) == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("first", "waited"),
    [
        (Answering(status=429, headers={"Retry-After": "17"}), 17), (Answering(status=429), None),
        (Answering(status=500), None), (Answering(status=503, headers={"Retry-After": "x"}), None), (Answering(reset=True), None),
        (Answering(raw=b"<html>busy</html>", headers={"Content-Type": "text/html"}), None), (Answering(raw=b"{"), None),
        (Answering(raw=b'{"error": "busy"}'), None), (Answering(good, wait=3.0), None),
    ],
    ids=["429 with time", "429", "500", "503", "reset", "html", "no json", "no choices", "timeout"],
)  # fmt: skip
def test_passing_errors_are_tried_again(first, waited):
    seen: set[str] = set()

    def answer(asked):
        text = asked.records[0]
        if text in seen:
            return good(asked)
        seen.add(text)
        return first

    adata = cohort(3)
    with chat_server(answer) as server:
        ask(adata, server, price=(1, 1), options=sdr.tl.LLMOptions(timeout=0.5, n_threads=1))
    assert set(Counter(server.records).values()) == {2}
    assert adata.uns["llm_response"]["n_missing"] == 0
    assert len(WAITS) == 3
    assert waited is None or all(waited <= seconds < waited + 1 for seconds in WAITS)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "api_key"), (404, "no such model"), (400, "response_format"), (307, "not followed"), (301, "not followed")],
)
def test_a_refusal_ends_the_run_at_once_and_writes_nothing(status, words):
    told = json.dumps({"error": {"message": f"Incorrect key {SECRET}: you said Genes: EPCAM"}}).encode()
    with chat_server() as aim:
        answer = Answering(status=status, raw=told, headers={"Location": f"{aim.url}/chat/completions"})
        adata = cohort()
        before = slots(adata)
        with chat_server(lambda asked: answer) as server:
            with pytest.raises(ConnectionError, match=f"(?s)base_url.*{words}.*0 of 6") as error:
                ask(adata, server, options=sdr.tl.LLMOptions(n_threads=1))
            assert len(server.log) == 1
        assert aim.log == []
    assert slots(adata) == before
    shown = "".join(traceback.format_exception(error.value))
    assert SECRET not in shown
    assert "EPCAM" not in shown


def test_errors_in_a_row_end_the_run_and_the_same_call_goes_on():
    good_ones: list[str] = []

    def answer(asked):
        if len(good_ones) == 3 or SECRET not in asked.headers["authorization"]:
            return Answering(status=500)
        good_ones.append(asked.records[0])
        return good(asked)

    adata = cohort(8)
    before = slots(adata)
    with chat_server(answer) as server:
        with pytest.raises(ConnectionError, match=r"`most_errors`.*HTTP 500.*3 of 8"):
            ask(adata, server, options=sdr.tl.LLMOptions(n_threads=1, most_errors=5))
        assert len(server.log) == 3 + 5
        assert slots(adata) == before
        server.log.clear()
        server.answer = good
        ask(adata, server, options=sdr.tl.LLMOptions(n_threads=1, most_errors=5))
        assert len(server.log) == 5
        assert not set(server.records) & set(good_ones)


def test_one_record_without_reply_is_missing_and_asked_again_next_time():
    victim: list[str] = []

    def answer(asked):
        victim.extend(asked.records if not victim else ())
        return Answering(status=503) if asked.records == victim[:1] else good(asked)

    adata = cohort()
    with chat_server(answer) as server:
        ask(adata, server, options=sdr.tl.LLMOptions(n_threads=2, max_seconds=3, most_errors=1000))
        assert adata.uns["llm_response"]["counts"] == {"answered": 5, "no reply": 1}
        server.answer = good
        server.log.clear()
        ask(adata, server)
        assert server.records == victim[:1]
        assert adata.uns["llm_response"]["counts"] == {"answered": 6}


# ---------------------------------------------------------------------------------------------------- money


def test_dry_run_sends_and_writes_nothing():
    adata = cohort()
    before = slots(adata)
    with chat_server() as server:
        plan = ask(adata, server, dry_run=True, price=(1, 1))
        assert (server.log, slots(adata), store_path().exists()) == ([], before, False)
        assert plan["n_requests"] == plan["n_records"] == 6
        assert 0 < plan["cost"] < plan["cost_most"]
        assert "Drug: erlotinib" in plan["first_prompt"]
        ask(adata, server)
        assert plan["first_prompt"] in {
            asked.prompt.replace("records below.\n", "") or asked.prompt for asked in server.log
        } | {"\n\n".join(m["content"] for m in asked.body["messages"]) for asked in server.log}
        assert ask(adata, server, dry_run=True, price=(1, 1))["n_requests"] == 0
    assert sdr.tl.ask_llm(adata, model="m", drug="d", base_url="https://x.org/v1", dry_run=True)["leaves_this_machine"]


def test_a_budget_below_the_estimate_is_refused_before_anything_is_sent():
    with chat_server() as server:
        with pytest.raises(ValueError, match=r"`max_cost`=0\.001"):
            ask(cohort(), server, price=(1, 1), max_cost=0.001)
        with pytest.raises(ValueError, match="`max_cost` needs `price`"):
            ask(cohort(), server, max_cost=1)
        with pytest.raises(ValueError, match="`price` must be two numbers"):
            ask(cohort(), server, price=(1,))
    assert server.log == []


def test_a_budget_is_never_exceeded_though_the_server_counts_more():
    adata = cohort(12)
    with chat_server(lambda asked: Answering(good(asked).content, usage=(1500, 150))) as server:
        plan = ask(adata, server, dry_run=True, price=(1, 1))
        most = plan["cost"] * 1.05
        with pytest.raises(ValueError, match="could exceed `max_cost`"):
            ask(adata, server, price=(1, 1), max_cost=most)
        n = len(server.log)
        assert 0 < n < 12
        assert n * 1650 / 1e6 <= most
        assert "llm_response" not in adata.uns
        ask(adata, server, price=(1, 1), max_cost=1)
        assert len(server.log) == 12
        assert adata.uns["llm_response"]["cost"] == pytest.approx((12 - n) * 1650 / 1e6)
        assert adata.uns["llm_response"]["cost_of_all_replies"] == pytest.approx(12 * 1650 / 1e6)


# ---------------------------------------------------------------------------------------------------- consent and secrets


def test_bad_input_is_refused_before_anything_is_sent():
    adata = cohort()
    with chat_server() as server:
        wrong = [
            ({"drug": " "}, "`drug`"), ({"model": "a\nb"}, "`model`"), ({"metadata": ["response"]}, "`metadata`"),
            ({"examples": 40}, "`examples=40`"), ({"unit": "cluster"}, "`groupby`"), ({"group_key": "nope"}, "group_key"),
            ({"api_key": "a b"}, "`api_key`"),
        ]  # fmt: skip
        for how, words in wrong:
            with pytest.raises((ValueError, KeyError), match=words):
                ask(adata, server, **how)
    assert server.log == []
    assert not store_path().exists()
    with pytest.raises(ValueError, match="`base_url` is needed"):
        sdr.tl.ask_llm(adata, model="folder", drug="d")
    with pytest.raises(TypeError, match="`api_key` must be text") as error:
        sdr.tl.ask_llm(adata, model="m", drug="d", api_key=SECRET.encode())
    assert SECRET not in str(error.value)


def test_the_environment_does_not_lead_data_or_names_elsewhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_ORG_ID", "my-secret-org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "my-secret-project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: my-secret-gateway")
    with chat_server() as proxy, chat_server() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("OPENAI_BASE_URL", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        ask(cohort(), server, api_key=None)
        assert (len(proxy.log), len(server.log)) == (0, 6)
    sent = json.dumps([asked.headers for asked in server.log])
    assert "secret" not in sent
    assert SECRET not in sent


def test_key_and_question_are_nowhere(tmp_path, caplog):
    """Store, log (of all libraries, at the lowest level), object, errors and report."""
    adata = cohort(8)

    def echo(asked):
        return Answering(json.dumps({"records": [record(1, reason=f"key {SECRET[:3]}, because {asked.records[0]}")]}))

    with caplog.at_level(logging.DEBUG), chat_server(echo) as server:
        for name in ("openai", "openai._base_client", "httpx2", "httpx", "httpcore", "httpcore2", "sc_drugresp"):
            caplog.set_level(logging.DEBUG, logger=name)
        ask(adata, server)
        server.answer = lambda asked: Answering(status=400, raw=json.dumps({"error": SECRET + asked.prompt}).encode())
        with pytest.raises(ConnectionError) as error:
            ask(adata, server, drug="other")
        server.answer = good
    assert server.log[0].headers["authorization"] == f"Bearer {SECRET}"
    options = sdr.tl.EvaluationOptions(baselines=False, n_boot=5, n_permutations=0, n_pairings=1)
    sdr.tl.evaluate(adata, model="pca", calls={"m": "llm_response"}, group_key="sample", options=options)
    sdr.report(adata, tmp_path / "r.html")
    adata.write_h5ad(tmp_path / "a.h5ad")
    shown = [caplog.text, "".join(traceback.format_exception(error.value)), repr(adata.uns)]
    files = [path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert len(files) >= 3
    genes = server.records[0].removeprefix("Genes: ").split()
    for needle in (SECRET, " ".join(genes[:8]), "You are an expert"):
        assert not any(needle in text for text in shown), needle
        assert not any(needle.encode() in content for content in files), needle


def test_examples_are_other_samples_for_training():
    adata = cohort(10)
    with chat_server() as server:
        ask(adata, server, examples=2)
        found = adata.uns["llm_response"]["records"]
        assert all(len(set(row.split("\t"))) == 2 for row in found["examples"])
        assert not any(name in row.split("\t") for name, row in zip(found["sample"], found["examples"]))
        assert all(asked.prompt.count("Response: sensitive") == 1 for asked in server.log)
        label = adata.obs.groupby("sample", observed=True)["response"].first()
        assert all({label[n] for n in row.split("\t")} == {"sensitive", "resistant"} for row in found["examples"])
        sdr.pp.split(adata, group_key="sample", val_size=0, test_size=0.4)
        ask(adata, server, examples=2)
        train = set(adata.obs.loc[adata.obs["split"] == "train", "sample"].astype(str))
        shown = {name for row in adata.uns["llm_response"]["records"]["examples"] for name in row.split("\t")}
        assert shown <= train
    assert not re.search("GSM|Mustermann", "".join(asked.prompt for asked in server.log))


def test_cells_and_identical_records():
    adata = cohort(2, 3)
    X = adata.X.toarray()
    X[1] = X[0]
    adata.X = X
    with chat_server() as server:
        ask(adata, server, unit="cell")
    assert len(server.log) == 5  # two cells are the same
    assert adata.obs["llm_response"].notna().all()
    assert len(adata.uns["llm_response"]["records"]) == 6
    assert np.array_equal(adata.uns["llm_response"]["records"]["record"], adata.obs_names)
