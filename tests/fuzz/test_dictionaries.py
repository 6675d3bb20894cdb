"""The interpreter of pickled dictionaries against random and hostile programs: right, or refused, quickly and in little memory.

`SC_DRUGRESP_FUZZ=100000 pytest tests/fuzz` tries that many changed files; without it, a few seconds' worth.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from damage import mutate
from helpers import GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sc_drugresp.models._pickles import read_pickled_dict

ROUNDS = int(os.environ.get("SC_DRUGRESP_FUZZ", "3000"))
PLAIN = (str, int, float, bool, list, tuple)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
tables = st.dictionaries(st.text(max_size=20), numbers | st.text(max_size=20), min_size=1, max_size=30)
relaxed = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(table=tables, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_was_pickled_is_what_is_read(table, protocol, tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(table, protocol))
    assert read_pickled_dict(path) == table


@relaxed
@given(
    values=st.lists(st.sampled_from("bhilqBHILQefd?"), min_size=1, max_size=30),
    order=st.sampled_from("<>"),
    protocol=st.integers(3, pickle.HIGHEST_PROTOCOL),
    seed=st.integers(0, 99),
)
def test_numpy_scalars_are_read_as_numbers(values, order, protocol, seed, tmp_path):
    rng = np.random.default_rng(seed)
    table = {}
    for i, code in enumerate(values):
        dtype = np.dtype(code).newbyteorder(order)
        table[str(i)] = np.asarray(rng.integers(0, 100)).astype(dtype)[()]
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(table, protocol))
    assert read_pickled_dict(path) == {key: value.item() for key, value in table.items()}


@relaxed
@given(content=st.binary(max_size=400))
def test_random_bytes_are_refused(content, tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(content)
    outcome(path)


def outcome(path: Path) -> str:
    """Read a file: plain values, or a refusal that names it."""
    message = ""
    try:
        table = read_pickled_dict(path)
    except ValueError as error:
        message = str(error)
    if message:
        assert str(path) in message
        return "refused"
    assert all(type(key) is str and type(value) in PLAIN for key, value in table.items())
    return "read"


@pytest.mark.slow
def test_changed_dictionaries_are_read_or_refused(tmp_path):
    """Bytes of the recorded dictionaries are changed once to four times."""
    rng = np.random.default_rng(0)
    corpus = [path.read_bytes() for path in sorted(GOLDEN.rglob("*.pkl"))]
    corpus += [
        pickle.dumps({"a": np.float64(2.5), "b": np.int16(3), "c": 1.5, "d": "x"}, protocol) for protocol in (3, 4, 5)
    ]
    path, slowest = tmp_path / "table.pkl", 0.0
    found = {"read": 0, "refused": 0}
    for _ in range(ROUNDS):
        content = corpus[int(rng.integers(len(corpus)))]
        for _ in range(int(rng.integers(1, 5))):
            content = mutate(content, rng) or b"."
        path.write_bytes(content)
        start = time.process_time()
        found[outcome(path)] += 1
        slowest = max(slowest, time.process_time() - start)
    assert min(found.values()) > 0.01 * ROUNDS
    assert slowest < 1.0


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


DTYPE = text("numpy") + text("dtype") + b"\x93"
SCALAR = text("numpy.core.multiarray") + text("scalar") + b"\x93"


def dtype_of(code: str) -> bytes:
    return DTYPE + text(code) + b"\x89\x88\x87R"


def state(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"tb"


MINUS, NONE = b"J\xff\xff\xff\xff", b"N"
HOSTILE: dict[str, bytes] = {
    "object type": program(b"}", text("a"), SCALAR, dtype_of("O8"), text("x"), b"\x86Rs."),
    "void type": program(b"}", text("a"), SCALAR, dtype_of("V99999999"), b"C\x01x\x86Rs."),
    "sub-array": program(
        b"}",
        text("a"),
        SCALAR,
        dtype_of("f8"),
        state(b"K\x03", text("|"), dtype_of("f8") + b"J\xff\xff\xff\x7f\x85\x86", NONE, NONE, MINUS, MINUS, b"K\x00"),
        b"C\x08" + bytes(8) + b"\x86Rs.",
    ),
    "fields beyond the end": program(
        b"}",
        text("a"),
        SCALAR,
        dtype_of("i8"),
        state(
            b"K\x03",
            text("|"),
            NONE,
            text("x") + b"\x85",
            b"}" + text("x") + dtype_of("O8") + b"J\xff\xff\xff\x7f\x86s",
            b"K\x10",
            b"K\x01",
            b"K\x1b",
        ),
        b"C\x08" + bytes(8) + b"\x86Rs.",
    ),
    "short scalar": program(b"}", text("a"), SCALAR, dtype_of("f8"), b"C\x01x\x86Rs."),
    "import": program(b"}", text("a"), text("os"), text("system"), b"\x93", text("true"), b"\x85Rs."),
    "global": b"cos\nsystem\n(S'true'\ntR.",
    "deep lists": program(b"]" * 400_000, b"a" * 399_999, b"."),
    "deep tuples": program(b")" + b"\x85" * 400_000, b"."),
    "marks": program(b"(" * 7_000_000),
    "many": program(b"N0" * 3_900_000),
    "dictionaries": program(b"}" * 7_000_000, b"."),
    "memo": program(b"}\x94" * 3_900_000),
    "itself": program(b"]\x94h\x00a."),
    "laughs": program(b"]\x94", b"(h\x00h\x00e" * 100_000, b"."),
    "huge text": program(b"\x8d", (1 << 62).to_bytes(8, "little"), b"x"),
    "huge bytes": program(b"\x8e", (1 << 62).to_bytes(8, "little"), b"x"),
    "huge number": program(b"\x8b", (7_000_000).to_bytes(4, "little"), b"\x7f" * 7_000_000, b"."),
    "negative length": program(b"\x8b", b"\xff" * 4, b"."),
    "long decimal": b"I" + b"9" * 7_000_000 + b"\n.",
    "huge place": b"}p" + b"9" * 4_000 + b"\n.",
    "same key": program(b"}(", text("a"), b"K\x01", text("a"), b"K\x02u."),
    "list as key": program(b"}", b"]K\x01s."),
    "persistent": program(text("x"), b"Q."),
    "extension": program(b"\x82\x01."),
    "instance": b"(i__main__\nX\n.",
    "new object": program(text("os"), text("system"), b"\x93)\x81."),
    "buffer": b"\x80\x05\x97.",
    "nothing": b".",
    "empty": program(b"}."),
    "no dictionary": program(b"]."),
    "wide text": program(b"X", (7_900_000).to_bytes(4, "little"), b"a" * 7_899_996, "\U0001f600".encode(), b"."),
    "too large": b"N" * 9_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_refused_within_a_second(name, tmp_path):
    """A second of the processor: what else the machine does is not the reader's fault."""
    path = tmp_path / "table.pkl"
    path.write_bytes(HOSTILE[name])
    start = time.process_time()
    with pytest.raises(ValueError, match=r"table\.pkl"):
        read_pickled_dict(path)
    assert time.process_time() - start < 1.0


MEMORY = """
import resource, sys
from pathlib import Path
from sc_drugresp.models._pickles import read_pickled_dict
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_pickled_dict(Path(sys.argv[1]))
except ValueError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in the unit of Linux")
@pytest.mark.parametrize("name", ["deep lists", "marks", "memo", "dictionaries", "huge number", "wide text", "laughs"])
def test_hostile_programs_take_little_memory(name, tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(HOSTILE[name])
    run = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 200_000  # kB
