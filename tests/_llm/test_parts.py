"""Addresses, templates, replies, the store, patience, money, gene lists and metadata."""

from __future__ import annotations

import json
import random
import sqlite3
import stat
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from llm_server import cohort, record

from sc_drugresp._data.counts import read_counts
from sc_drugresp._llm import retry
from sc_drugresp._llm.budget import Budget, BudgetError, tokens_expected, tokens_most
from sc_drugresp._llm.metadata import check_metadata, describe
from sc_drugresp._llm.profiles import gene_lists
from sc_drugresp._llm.prompts import Question, write_messages
from sc_drugresp._llm.replies import ABSENT, FILTERED, LONGEST_REASON, TRUNCATED, UNPARSABLE, read_reply
from sc_drugresp._llm.retry import Line, ServerError, TransientError, with_patience
from sc_drugresp._llm.server import find_key, read_address
from sc_drugresp._llm.store import Store, key_of
from sc_drugresp._llm.units import read_units

HERE = [
    "http://127.0.0.1:8000/v1", "http://127.9.9.9/v1", "http://[::1]:8000/v1", "http://localhost:1234/v1",
    "http://LOCALHOST:1234/v1/", "https://127.0.0.1/v1",
]  # fmt: skip
ELSEWHERE = [
    "https://api.openai.com/v1", "http://10.0.0.1/v1", "http://0.0.0.0:8000/v1", "http://127.1/v1", "http://2130706433/v1",
    "http://0x7f.1/v1", "http://localhost.example.org/v1", "http://127.0.0.1.example.org/v1", "http://[::ffff:10.0.0.1]/v1",
]  # fmt: skip
NOWHERE = [
    "", "127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://127.0.0.1@example.org/v1", "http://user:pw@127.0.0.1/v1",
    "http://127.0.0.1\\@example.org/v1", "http://127.0.0.1#@example.org", "http://127.0.0.1?x=1", "http://127.0.0.1:99999/v1",
    "http://127.0.0.1:0/v1", "http://127.0.0.1 .example.org/v1", "http://127.0.0.1/v1\nHost: x", "file:///etc/passwd", "http:///v1",
    "http://１２７.0.0.1/v1",
]  # fmt: skip


@pytest.mark.parametrize("address", HERE)
def test_this_machine(address):
    assert read_address(address).loopback


@pytest.mark.parametrize("address", ELSEWHERE)
def test_another_machine(address):
    assert not read_address(address).loopback


@pytest.mark.parametrize("address", NOWHERE)
def test_no_address(address):
    with pytest.raises(ValueError, match="`base_url` must be an address"):
        read_address(address)


def test_localhost_needs_no_name_service():
    assert read_address("http://localhost:8000/v1").url == "http://127.0.0.1:8000/v1"


def test_key_of_the_environment_is_for_servers_elsewhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    here, there = read_address(HERE[0]), read_address(ELSEWHERE[0])
    assert find_key(here, None) == "none"
    assert find_key(there, None) == "sk-of-the-environment"
    assert find_key(here, "mine") == "mine"
    with pytest.raises(ValueError, match="`api_key`") as error:
        find_key(here, "sk-secret\r\nX: y")
    assert "secret" not in str(error.value)


# ---------------------------------------------------------------------------------------------------- replies


def told(*items):
    return json.dumps({"records": list(items)})


def test_a_good_reply_and_one_between_fences():
    text = told(record(1), record(2, "resistant"))
    for content in (text, f"```json\n{text}\n```", f"Sure! Here it is: {text} Anything else?"):
        reply = read_reply(content, "stop", n=2)
        assert [reply.of(i).call for i in (1, 2)] == ["sensitive", "resistant"]


@pytest.mark.parametrize(
    "item",
    [
        record(1) | {"call": "Sensitive"}, record(1) | {"confidence": 0.9}, record(1) | {"confidence": "certain"},
        {"id": 1, "call": "sensitive"}, record(1) | {"id": "1"}, record(1) | {"id": True}, record(0), record(3),
        record(1) | {"reason": None}, [1], "sensitive", None, record(1) | {"id": 10**400},
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_missing_and_the_other_is_not(item):
    reply = read_reply(told(item, record(2)), "stop", n=2)
    assert reply.of(1).missing
    assert reply.of(2).call == "sensitive"


def test_repeated_numbers_count_for_nobody():
    reply = read_reply(told(record(1), record(1, "resistant"), record(2)), "stop", n=2)
    assert reply.of(1).missing
    assert not reply.of(2).missing
    assert reply.of(1).status == ABSENT


@pytest.mark.parametrize(
    ("content", "finish", "status"),
    [
        (told(record(1)), "length", TRUNCATED),
        (told(record(1)), "content_filter", FILTERED),
        (told(record(1)), "tool_calls", FILTERED),
        (None, "stop", FILTERED),
        ("", "stop", UNPARSABLE),
        ('{"records": [{"id": 1,', "stop", UNPARSABLE),
        ("They are sensitive.", "stop", UNPARSABLE),
        ('{"records": {"id": 1}}', "stop", UNPARSABLE),
        ("[" * 100_000 + "{}" + "]" * 100_000, "stop", UNPARSABLE),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "stop", UNPARSABLE),
        ("{" + "x" * 2_000_000 + "}", "stop", UNPARSABLE),
        (told(), "stop", ABSENT),
    ],
)
def test_what_cannot_be_read_is_missing(content, finish, status):
    reply = read_reply(content, finish, n=1)
    assert reply.of(1).missing
    assert reply.of(1).status == status


def test_reasons_are_short_and_do_not_repeat_the_question():
    long = read_reply(told(record(1, reason="word " * 500)), "stop", n=1).of(1)
    assert len(long.reason) <= LONGEST_REASON
    prompt = "Genes: " + " ".join(f"GENE{i}" for i in range(50))
    echo = read_reply(told(record(1, reason="I see " + prompt[:100])), "stop", n=1, prompt=prompt).of(1)
    assert (echo.call, echo.reason) == ("sensitive", "")


# ---------------------------------------------------------------------------------------------------- the store


def test_store_keeps_what_was_read_for_the_user_alone(tmp_path):
    path = tmp_path / "llm" / "answers.sqlite"
    assert Store(path, write=False).get("key", 1) is None
    assert not path.exists()
    store = Store(path, write=True)
    reply = read_reply(told(record(1), record(3)), "stop", n=3)
    store.put("key", reply, {"in": 5, "out": 2})
    assert Store(path, write=False).get("key", 3) == (reply, {"in": 5, "out": 2})
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


@pytest.mark.parametrize(
    "reply",
    ["no json", "[]", '{"answers": {"1": ["yes", "low", ""]}, "status": "not readable"}', '{"answers": {}, "status": "fine"}',
     '{"answers": {"7": ["sensitive", "low", ""]}, "status": "not readable"}', '{"answers": 1}'],
)  # fmt: skip
def test_a_changed_store_is_asked_again(tmp_path, reply):
    path = tmp_path / "answers.sqlite"
    store = Store(path, write=True)
    store._db.execute("INSERT INTO replies VALUES (?, ?, ?, ?)", ("key", reply, '{"in": 1, "out": 1}', ""))
    assert store.get("key", 1) is None
    store.close()


def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(ValueError, match=r"answers\.sqlite.*cannot be used as a store"):
        Store(path, write=True)
    assert path.read_bytes() == b"something else" * 1000


def test_the_key_depends_on_every_part():
    parts = {"server": "a", "model": "b", "messages": [{"role": "user", "content": "c"}], "seed": 0, "temperature": 0.0}
    changed = [parts | {name: "other"} for name in parts]
    assert len({key_of(p) for p in [parts, dict(reversed(parts.items())), *changed]}) == 1 + len(changed)


# ---------------------------------------------------------------------------------------------------- patience and money


@pytest.fixture
def waits(monkeypatch):
    """Seconds that would have been waited."""
    found = []
    monkeypatch.setattr(retry, "pause", lambda line, seconds: found.append(seconds))
    return found


def jitter_of(seed):
    return random.Random(seed)  # noqa: S311 (no secret)


def failing(*errors):
    left = list(errors)

    def send():
        if left:
            raise left.pop(0)
        return "reply"

    return send


def test_back_off_grows_and_jitters(waits):
    errors = [TransientError("HTTP 500") for _ in range(8)]
    assert with_patience(failing(*errors), Line(100), max_seconds=1e9, jitter=jitter_of(0)) == "reply"
    assert all(0.5 * min(30, 2**i) <= w / 0.5 / 2 <= min(60, 2**i) or w <= 30 for i, w in enumerate(waits))
    assert waits[-1] > 5 * waits[0]
    assert max(waits) <= 30
    other = list(waits)
    waits.clear()
    with_patience(failing(*[TransientError("x") for _ in range(8)]), Line(100), max_seconds=1e9, jitter=jitter_of(1))
    assert waits != other


def test_retry_after_is_honored_and_has_an_end(waits):
    busy = TransientError("HTTP 429", wait=40.0, busy=True)
    assert with_patience(failing(busy), Line(1), max_seconds=600, jitter=jitter_of(0)) == "reply"
    assert 40 <= waits[0] < 41
    with pytest.raises(TransientError):
        with_patience(
            failing(TransientError("HTTP 429", wait=1e6, busy=True)), Line(9), max_seconds=600, jitter=jitter_of(0)
        )
    assert len(waits) == 1


def test_time_has_a_cap(waits):
    line = Line(10_000)
    with pytest.raises(TransientError):
        with_patience(failing(*[TransientError("x") for _ in range(1000)]), line, max_seconds=100, jitter=jitter_of(0))
    assert 50 < sum(waits) <= 100


def test_errors_in_a_row_stop_everything_and_a_reply_starts_anew(waits):
    line = Line(4)
    for _ in range(3):
        assert with_patience(failing(*[TransientError("x")] * 3), line, max_seconds=1e9, jitter=jitter_of(0)) == "reply"
    assert not line.stop.is_set()
    with pytest.raises(TransientError):
        with_patience(failing(*[TransientError("HTTP 503")] * 9), line, max_seconds=1e9, jitter=jitter_of(0))
    assert (line.stop.is_set(), line.broken, line.last) == (True, True, "HTTP 503")


def test_a_refusal_is_not_tried_again(waits):
    with pytest.raises(ServerError):
        with_patience(failing(ServerError("HTTP 401")), Line(4), max_seconds=1e9, jitter=jitter_of(0))
    assert waits == []


def test_patience_leaves_the_global_generator_alone(waits):
    before = random.getstate()
    with_patience(failing(TransientError("x")), Line(4), max_seconds=1e9, jitter=jitter_of(0))
    assert random.getstate() == before


def test_budget_waits_for_open_requests_and_is_never_exceeded():
    money = Budget((1e6, 0.0), most=10.0)  # a unit for a token
    first = money.reserve(6, 0, lambda: False)
    other = Thread(target=lambda: money.settle(money.reserve(6, 0, lambda: False), {"in": 2, "out": 0}, 6))
    other.start()
    other.join(0.3)
    assert other.is_alive()
    money.settle(first, {"in": 2, "out": 0}, 6)
    other.join(5)
    assert money.spent == 4
    money.give_up(money.reserve(3, 0, lambda: False), lost=True)
    with pytest.raises(BudgetError):
        money.reserve(4, 0, lambda: False)
    assert money.spent + money.lost == 7


def test_a_server_that_counts_more_than_we_thought_raises_what_is_reserved():
    money = Budget((1e6, 0.0), most=100.0)
    money.settle(money.reserve(10, 0, lambda: False), {"in": 30, "out": 0}, 10)
    assert money.reserve(10, 0, lambda: False) == 30


def test_estimates_are_in_order():
    messages = write_messages("call-1", "erlotinib", [Question("Genes: EGFR KRAS")], again=False)
    assert 0 < tokens_expected(messages) < tokens_most(messages)


# ---------------------------------------------------------------------------------------------------- what is told


def test_genes_of_a_record_are_those_of_its_cells_whatever_else_is_there():
    adata = cohort()
    adata.var_names = [f"G{i}" for i in range(adata.n_vars - 3)] + ["MT-CO1", "RPL3", "ENSG00000000001"]
    X = adata.X.toarray()
    units = read_units(adata.obs, "sample", groupby=None, group_key="sample", mask_obs=None)
    lists = gene_lists(read_counts(adata, expect="any"), units.codes, len(units.names), n_genes=10, genes="expressed")
    for i, listed in enumerate(lists):
        sums = pd.Series(X[units.codes == i].sum(axis=0), index=adata.var_names).iloc[:-3]
        assert sums[listed].min() >= sums.drop(listed).max()
        assert list(sums[listed]) == sorted(sums[listed], reverse=True)
    alone = adata[units.codes == 2].copy()
    codes = np.zeros(alone.n_obs, dtype=int)
    assert gene_lists(read_counts(alone, expect="any"), codes, 1, n_genes=10, genes="expressed")[0] == lists[2]
    turned = adata[:, ::-1].copy()
    assert (
        gene_lists(read_counts(turned, expect="any"), units.codes, len(units.names), n_genes=10, genes="expressed")
        == lists
    )


@pytest.mark.parametrize("unit", ["sample", "cell"])
def test_specific_genes_exceed_the_other_records(unit):
    adata = cohort(4, 3)
    X = adata.X.toarray() + 1
    X[adata.obs["sample"].cat.codes == 1, 7] = 5000
    adata.X = X
    units = read_units(adata.obs, unit, groupby=None, group_key="sample", mask_obs=None)
    lists = gene_lists(read_counts(adata, expect="any"), units.codes, len(units.names), n_genes=3, genes="specific")
    own = [i for i, sample in enumerate(units.samples) if sample.endswith("S02")]
    gene = adata.var_names[7]
    assert all((lists[i][0] == gene) == (i in own) for i in range(len(lists)))


def test_units():
    obs = cohort(3, 4).obs.assign(cluster=["a", "b", "b", None] * 3, keep=[True, True, False, True] * 3)
    clusters = read_units(obs, "cluster", groupby="cluster", group_key="sample", mask_obs=None)
    assert clusters.names[:2] == ["GSM99000S01 | a", "GSM99000S01 | b"]
    assert clusters.codes.tolist()[:4] == [0, 1, 1, -1]
    cells = read_units(obs, "cell", groupby=None, group_key=None, mask_obs="keep")
    assert cells.codes.tolist()[:4] == [0, 1, -1, 2]
    assert cells.samples[0] == obs["patient"].iloc[0]
    for wrong in ({"unit": "cluster", "groupby": None}, {"unit": "sample", "groupby": "cluster"}):
        with pytest.raises(ValueError, match="`groupby`"):
            read_units(obs, group_key=None, mask_obs=None, **wrong)


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("response", None, "the label"), ("sample", None, "names samples"), ("patient", None, "names samples"),
        ("batch", None, "names samples"), ("study", "x", "names samples"), ("series", "GSE149214", "accession"),
        ("run", "SRR1234567 of plate 2", "accession"),
        ("origin", "of donor S-77", "names of samples"), ("outcome", "PR", "words for a response"), ("alias", "each", "of its own for every sample"),
        ("arm", "label", "the same as the label"),
    ],
)  # fmt: skip
def test_columns_that_must_not_be_sent(column, values, why):
    obs = cohort().obs
    obs["sample"] = obs["sample"].cat.rename_categories({"GSM99000S01": "S-77"})
    if values == "each":
        obs[column] = "t" + obs["sample"].cat.codes.astype(str)
    elif values == "label":
        obs[column] = np.where(obs["response"] == "sensitive", 2, 1)
    elif values is not None:
        obs[column] = values
    units = read_units(obs, "sample", groupby=None, group_key="sample", mask_obs=None)
    with pytest.raises(ValueError, match=f"`metadata`.*{why}"):
        check_metadata(obs, ["tissue", column], units, "response", None)


def test_metadata_of_a_record():
    obs = cohort(2, 4).obs.assign(age=[50.0, np.nan, 52, 54, 1, 1, 1, 1], stage=["IV", "IV", None, "I", *[None] * 4])
    units = read_units(obs, "sample", groupby=None, group_key="sample", mask_obs=None)
    check_metadata(obs, ["age", "stage"], units, "response", None)
    assert describe(obs, ["age", "stage"], units.codes, 2) == ["age: 52\nstage: IV", "age: 1"]
