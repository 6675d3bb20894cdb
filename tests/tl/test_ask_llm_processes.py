"""`tl.ask_llm` in a process of its own: interrupted, killed, and watched for connections."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from llm_server import Answering, chat_server, good

TESTS = Path(__file__).parents[1]
N, THREADS = 40, 3
RUN = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in the background ignore it
sys.path.insert(0, sys.argv[1])
import sc_drugresp as sdr
from llm_server import cohort
sdr.settings.cache_dir = sys.argv[3]
adata = cohort({N}, 1)
print("ready", flush=True)
how = dict(price=(1, 1), options=sdr.tl.LLMOptions(n_threads={THREADS}))
sdr.tl.ask_llm(adata, model="m", drug="d", base_url=sys.argv[2], api_key="sk-secret-0815", group_key="sample", **how)
found = adata.uns["llm_response"]
print(found["n_missing"], found["requests"], found["cost"], found["cost_of_all_replies"])
"""


def start(url, cache):
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(TESTS), url, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(cache):
    """Replies on the disk, read as another process reads them."""
    with sqlite3.connect(cache / "llm" / "answers.sqlite") as db:
        return db.execute("SELECT count(*) FROM replies").fetchone()[0]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_run_that_ends_early_goes_on_and_pays_for_nothing_twice(tmp_path, sign):
    def slowly(asked):
        return Answering(good(asked).content, wait=0.05)

    with chat_server(slowly) as server:
        child = start(server.url, tmp_path)
        deadline = time.monotonic() + 120
        while len(server.log) < 12 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(sign)
        _, errors = child.communicate(timeout=60)
        assert child.returncode != 0
        first, kept = list(server.records), stored(tmp_path)
        assert 12 - THREADS <= kept <= len(first) < N
        if sign is signal.SIGINT:
            assert "KeyboardInterrupt" in errors
            assert kept == len(first)  # those on their way were waited for
        server.answer = good
        again = start(server.url, tmp_path)
        out, errors = again.communicate(timeout=120)
        assert again.returncode == 0, errors
    second = server.records[len(first) :]
    assert len(second) == N - kept
    times = Counter(server.records)
    assert len(times) == N
    assert (
        sum(n - 1 for n in times.values()) == len(first) - kept <= THREADS
    )  # asked, and killed before the reply was kept
    missing, requests, cost, whole = out.splitlines()[-1].split()
    assert (int(missing), int(requests)) == (0, N - kept)
    assert float(cost) == pytest.approx((N - kept) * 120e-6)
    assert float(whole) == pytest.approx(N * 120e-6)
    assert stored(tmp_path) == N
    assert "sk-secret" not in errors
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


GUARD = """
import os, sys
def look(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{event} {args[1:] if event == 'socket.connect' else args}\\n")
sys.addaudithook(look)
"""
CONSENT = """
import sys
sys.path.insert(0, sys.argv[1])
import sc_drugresp as sdr
from llm_server import cohort
sdr.settings.cache_dir = sys.argv[3]
adata = cohort(3, 1)
how = dict(model="m", drug="d", group_key="sample", options=sdr.tl.LLMOptions(max_seconds=0.1, most_errors=1))
for address in ("https://api.openai.com/v1", "http://10.1.2.3/v1", "http://localhost.example.org/v1", "http://127.1/v1"):
    try:
        sdr.tl.ask_llm(adata, base_url=address, **how)
    except PermissionError as error:
        assert "allow_remote" in str(error)
    else:
        raise AssertionError(address)
    sdr.tl.ask_llm(adata, base_url=address, dry_run=True, **how)
assert "openai" not in sys.modules
print(open(__import__("os").environ["CONNECTIONS"]).read() if __import__("os").path.exists(__import__("os").environ["CONNECTIONS"]) else "", end="")
print("now here")
sdr.tl.ask_llm(adata, base_url=sys.argv[2].replace("127.0.0.1", "localhost"), **how)
"""


def guarded(code, tmp_path, url):
    """Run a child in which, and in whose children, every connection is noted."""
    place = tmp_path / "guard"
    place.mkdir()
    (place / "sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    connections = tmp_path / "connections.txt"
    environment = os.environ | {"PYTHONPATH": path, "CONNECTIONS": str(connections)}
    command = [sys.executable, "-W", "ignore", "-c", code, str(TESTS), url, str(tmp_path / "cache")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout, connections.read_text() if connections.exists() else ""


def test_nothing_leaves_this_machine_without_consent(tmp_path):
    with chat_server() as server:
        out, connections = guarded(CONSENT, tmp_path, server.url)
    assert out.splitlines() == ["now here"]
    assert len(server.log) == 3
    lines = [line for line in connections.splitlines() if line.startswith("socket.connect")]
    assert lines
    assert all("('127.0.0.1'," in line for line in lines), lines
    assert not any("example" in line or "openai" in line for line in connections.splitlines())


def test_the_guard_sees_children(tmp_path):
    """The test above can fail."""
    code = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; s = socket.socket(); s.settimeout(1); s.connect_ex((\"127.0.0.1\", 9))'])"
    )
    with chat_server() as server:
        assert "('127.0.0.1', 9)" in guarded(code, tmp_path, server.url)[1]
