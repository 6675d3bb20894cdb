"""`fetch` against servers that send something else, too much, too little, too slowly, or never end."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp._core import watch
from sc_drugresp._core.download import fetch
from sc_drugresp._core.expected import Expected

BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class RawServer:
    """Answers with whatever `reply` says, byte by byte; `requests` holds what was asked."""

    def __init__(self) -> None:
        self.reply: Callable[[socket.socket, str], None]
        self.requests: list[str] = []
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/file.bin"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            request = ""
            while "\r\n\r\n" not in request:
                request += connection.recv(4096).decode("latin-1")
            self.requests.append(request)
            self.reply(connection, request)

    def says(self, body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if length else []
        answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.reply = lambda connection, _: connection.sendall(answer)

    def drips(self, start: bytes, drop: bytes) -> None:
        def reply(connection: socket.socket, _: str) -> None:
            connection.sendall(start)
            while not self._stop.wait(0.01):
                connection.sendall(drop)

        self.reply = reply

    def close(self) -> None:
        self._stop.set()
        self._listener.close()


@pytest.fixture
def server(monkeypatch) -> Iterator[RawServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(watch, "WINDOW", 0.5)
    server = RawServer()
    with sdr.settings.override(offline=False):
        yield server
    server.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(server: RawServer, path: Path, expected: Expected | None, match: str) -> None:
    with pytest.raises((ValueError, ConnectionError), match=match):
        fetch(path, [server.url], expected, pause=0.001)
    assert files(path.parent) == []


@pytest.mark.parametrize(
    "name", ["file.bin", "model.safetensors", "weights.pt", "genes.txt", "a_RAW.tar", "vocab.json"]
)
@pytest.mark.parametrize(
    "body", [PAGE, b"\n\n  <HTML>", "\ufeff<!doctype html>".encode(), "<html>".encode("utf-16"), PAGE + bytes(300_000)]
)
def test_a_web_page_is_no_file_and_is_not_remembered(server, tmp_path, name, body):
    server.says(body, "Content-Type: application/octet-stream")
    refused(server, tmp_path / name, None, "web page")
    server.says(BODY, "Content-Type: application/octet-stream")
    if name == "file.bin":
        assert fetch(tmp_path / name, [server.url]).read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "body", "match"),
    [
        ("m.safetensors", b"{}" * 100, "does not begin like a .safetensors"),
        ("m.pt", b'{"error": "gone"}', "does not begin like a .pt"),
        ("m.h5ad", BODY, "does not begin like a .h5ad"),
        ("m.txt.gz", b"gene\tcell\n", "does not begin like a .gz"),
        ("m.json", b"Not found", "not JSON"),
        ("m.bin", b'{"error": "gone"}', "it is text"),
        ("m.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    ],
)
def test_content_must_fit_the_name(server, tmp_path, name, body, match):
    server.says(body)
    refused(server, tmp_path / name, None, match)


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "202 Accepted", "299 Odd"])
@pytest.mark.parametrize("expected", [None, Expected(about=300_000), Expected(sha256=SHA256)])
def test_an_empty_answer_is_no_file(server, tmp_path, status, expected):
    server.says(b"", status=status, length=not status.startswith(("204", "304")))
    refused(server, tmp_path / "file.bin", expected, r"empty|answered|SHA256")


def test_a_part_that_was_not_asked_for_is_no_file(server, tmp_path):
    server.says(BODY[100:], f"Content-Range: bytes 100-{len(BODY) - 1}/{len(BODY)}", status="206 Partial Content")
    refused(server, tmp_path / "file.bin", None, "another part")


@pytest.mark.parametrize("how", ["length", "chunked", "unknown"])
def test_a_cut_transfer_without_a_checksum_is_refused(server, tmp_path, how):
    header = {"length": f"Content-Length: {len(BODY) + 1}", "chunked": "Transfer-Encoding: chunked", "unknown": "X: y"}
    body = b"10000\r\n" + BODY[:0x10000] + b"\r\n" if how == "chunked" else BODY
    server.says(body, header[how], length=False)
    refused(server, tmp_path / "file.bin", None, r"IncompleteRead|InvalidChunk|Protocol|how long")


def test_a_wrong_content_range_is_not_appended(server, tmp_path):
    path = tmp_path / "file.bin"
    (tmp_path / ".file.bin.part").write_bytes(BODY[:1000])
    server.says(BODY[500:], f"Content-Range: bytes 500-{len(BODY) - 1}/{len(BODY)}", status="206 Partial Content")
    refused(server, path, Expected(sha256=SHA256), "another part")


@pytest.mark.parametrize("expected", [Expected(300_000, SHA256), Expected(about=300_000)])
@pytest.mark.parametrize("stated", [True, False])
def test_a_flood_is_refused_early(server, tmp_path, expected, stated):
    sent = []

    def flood(connection: socket.socket, _: str) -> None:
        how = "Content-Length: 944000000" if stated else "Transfer-Encoding: chunked"
        connection.sendall(f"HTTP/1.1 200 OK\r\n{how}\r\n\r\n".encode())
        for _ in range(944):
            chunk = bytes(1_000_000)
            connection.sendall(chunk if stated else f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            sent.append(len(chunk))

    server.reply = flood
    refused(server, tmp_path / "file.bin", expected, r"bytes")
    assert sum(sent) < 30_000_000  # what the system's buffers take


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 300000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_what_drips_is_cut_off(server, tmp_path, start, drop):
    server.drips(start, drop)
    before = time.monotonic()
    refused(server, tmp_path / "file.bin", None, r"bytes in 0\.5 seconds|headers|Timeout|timed out|LineTooLong|Aborted")
    assert time.monotonic() - before < 8
    assert not [thread for thread in threading.enumerate() if "download watch" in thread.name]


def test_the_body_of_a_redirect_is_not_read(server, tmp_path):
    sent = []

    def reply(connection: socket.socket, request: str) -> None:
        if "/file.bin " not in request:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n"
            connection.sendall(head.encode() + BODY)
            return
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /real\r\nContent-Length: 944000000\r\n\r\n")
        for _ in range(944):
            connection.sendall(bytes(1_000_000))
            sent.append(1_000_000)

    server.reply = reply
    assert fetch(tmp_path / "file.bin", [server.url]).read_bytes() == BODY
    assert sum(sent) < 30_000_000


def test_redirects_without_end_are_refused(server, tmp_path):
    server.says(b"", "Location: /file.bin", status="302 Found")
    refused(server, tmp_path / "file.bin", None, "redirects more than 10 times")


def test_a_token_does_not_follow_to_another_server(server, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    elsewhere = RawServer()
    elsewhere.says(BODY)
    server.says(b"", f"Location: {elsewhere.url.replace('127.0.0.1', 'localhost')}", status="302 Found")
    monkeypatch.setenv("NO_PROXY", "*")
    fetch(tmp_path / "file.bin", ["hf://owner/repo/file.bin"])
    assert "hf_secret" in server.requests[0]
    assert elsewhere.requests
    assert "hf_secret" not in elsewhere.requests[0]
    elsewhere.close()


def test_a_transfer_has_an_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "LONGEST", 1.0)
    server.drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + bytes(1024) + b"\r\n")
    refused(server, tmp_path / "file.bin", None, "longer than 1 seconds")


@pytest.mark.parametrize("header", ["Content-Length: abc", "Content-Length: -5", "Content-Length: 1, 2", "X" * 70_000])
def test_senseless_headers_are_one_clear_message(server, tmp_path, header):
    server.says(b"", header, length=False)
    refused(server, tmp_path / "file.bin", None, "Could not download file.bin")


@pytest.mark.parametrize(
    "url", ["hf://owner", "hf://o/r@x/../../f", "http://", "ftp://x/y", "http://[::1", "hf://a b/c/d"]
)
def test_an_address_that_is_none_is_one_clear_message(tmp_path, url, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}{filename}"
    )
    with sdr.settings.override(offline=False), pytest.raises(ConnectionError, match="Could not download f"):
        fetch(tmp_path / "f", [url], pause=0.001)


def test_a_gated_repository_says_what_to_do(server, tmp_path):
    server.says(b"", "X-Error-Code: GatedRepo", "X-Error-Message: Access is restricted", status="403 Forbidden")
    refused(server, tmp_path / "file.bin", None, r"403 \(Access is restricted\); accept its terms")


def test_the_checksum_that_the_hub_states_is_required(server, tmp_path):
    server.says(BODY, f'X-Linked-Etag: "{"0" * 64}"')
    refused(server, tmp_path / "file.bin", None, f"{SHA256} instead of 000")
    server.says(BODY, f'X-Linked-Etag: "{SHA256}"')
    assert fetch(tmp_path / "file.bin", [server.url]).read_bytes() == BODY


# What is there already ------------------------------------------------------------------------------------------------


def test_other_content_of_the_right_size_is_found(file_server, tmp_path):
    file_server.files["/file.bin"] = BODY
    path, url = tmp_path / "file.bin", f"{file_server.url}/file.bin"
    for expected in (Expected(len(BODY), SHA256), None):
        fetch(path, [url], expected, force=True)
        path.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
        with sdr.settings.override(offline=True), pytest.raises(ConnectionError, match="its SHA256 is"):
            fetch(path, [url], expected)
        assert fetch(path, [url], expected).read_bytes() == BODY


def test_a_good_file_is_read_once_per_process(file_server, tmp_path, monkeypatch):
    import pooch

    file_server.files["/file.bin"] = BODY
    read = []
    original = pooch.file_hash
    monkeypatch.setattr(pooch, "file_hash", lambda *args, **kwargs: read.append(args) or original(*args, **kwargs))
    for _ in range(4):
        fetch(tmp_path / "file.bin", [f"{file_server.url}/file.bin"], Expected(sha256=SHA256))
    assert len(read) <= 2  # what arrived, and the file under its name


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither FIFOs nor SIGKILL")
@pytest.mark.parametrize("place", ["folder", "fifo", "dangling link"])
def test_what_is_no_file_is_not_opened(file_server, tmp_path, place):
    path = tmp_path / "file.bin"
    {"folder": path.mkdir, "fifo": lambda: os.mkfifo(path), "dangling link": lambda: path.symlink_to("gone")}[place]()
    with sdr.settings.override(offline=True), pytest.raises(ConnectionError, match="forbids the network"):
        fetch(path, [f"{file_server.url}/file.bin"])


def test_a_remembered_checksum_is_forgotten_when_told(file_server, tmp_path):
    path, url = tmp_path / "file.bin", f"{file_server.url}/file.bin"
    file_server.files["/file.bin"] = BODY
    fetch(path, [url])
    file_server.files["/file.bin"] = BODY[::-1]
    path.unlink()
    with pytest.raises(ValueError, match=r"force=True, or remove .*file\.bin\.sha256"):
        fetch(path, [url], pause=0.001)
    assert fetch(path, [url], force=True).read_bytes() == BODY[::-1]
    with sdr.settings.override(offline=True):
        assert fetch(path, [url]) == path


def test_forcing_keeps_the_old_file_until_the_new_one_is_there(file_server, tmp_path):
    path, url = tmp_path / "file.bin", f"{file_server.url}/file.bin"
    file_server.files["/file.bin"] = BODY
    fetch(path, [url])
    file_server.status["/file.bin"] = [500, 500, 500]
    with pytest.raises(ConnectionError):
        fetch(path, [url], force=True, pause=0.001)
    assert path.read_bytes() == BODY
    with sdr.settings.override(offline=True):
        assert fetch(path, [url]) == path  # and what is remembered of it


@pytest.mark.parametrize("text", ["", "x", "\x00" * 64, "é"])
def test_a_damaged_record_is_no_record(file_server, tmp_path, text):
    file_server.files["/file.bin"] = BODY
    (tmp_path / "file.bin.sha256").write_text(text, encoding="latin-1")
    assert fetch(tmp_path / "file.bin", [f"{file_server.url}/file.bin"]).read_bytes() == BODY


# Several at once, and kills -------------------------------------------------------------------------------------------


def test_six_threads_bring_one_file_once(file_server, tmp_path):
    file_server.files["/file.bin"] = BODY
    errors = []

    def work() -> None:
        try:
            assert fetch(tmp_path / "file.bin", [f"{file_server.url}/file.bin"]).read_bytes() == BODY
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(file_server.log) == 1
    assert files(tmp_path) == ["file.bin", "file.bin.sha256"]


CHILD = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
import sc_drugresp as sdr
from sc_drugresp._core.download import fetch
from sc_drugresp._core.expected import Expected
sdr.settings.offline, sdr.settings.progress = False, False
path, url, sha256 = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
"""


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD + code, *map(str, arguments), tests],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_wait_for_each_other(file_server, tmp_path):
    file_server.files["/file.bin"] = BODY
    code = "fetch(path, [url])\nprint('ok')"
    processes = [run(code, tmp_path / "file.bin", f"{file_server.url}/file.bin", SHA256) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in outputs] == ["ok", "ok"], outputs
    assert len(file_server.log) == 1
    assert files(tmp_path) == ["file.bin", "file.bin.sha256"]


KILLS = """
import hashlib, os
from kills import kill_often
def action(i):
    path.unlink(missing_ok=True)
    fetch(path, [url], Expected(sha256=sha256) if i % 2 else None, pause=0.001)
def check(i):
    if path.exists():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    fetch(path, [url], Expected(sha256=sha256) if i % 2 else None, pause=0.001)
    left = sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.sha256"})
    assert not left, left
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
action(0)
kill_often(action, check, n=NUMBER, longest=0.08)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither FIFOs nor SIGKILL")
@pytest.mark.parametrize("n", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_leave_the_file_or_nothing_and_the_next_call_no_orphan(file_server, tmp_path, n):
    file_server.files["/file.bin"] = body = np.random.default_rng(1).bytes(8_000_000)
    code = KILLS.replace("NUMBER", str(n))
    child = run(code, tmp_path / "file.bin", f"{file_server.url}/file.bin", hashlib.sha256(body).hexdigest())
    out, error = child.communicate(timeout=1500)
    assert out.strip() == f"killed {n} times", error
    assert any(wanted for _, wanted in file_server.log)  # some went on where they were killed
