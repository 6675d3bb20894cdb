"""`_download.fetch` against a server that fails in every way we know of."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp._core import download as _download
from sc_drugresp._core.download import fetch
from sc_drugresp._core.expected import Expected

BODY = np.random.default_rng(0).bytes(50_000)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY, usedforsecurity=False).hexdigest()


@pytest.fixture
def target(tmp_path: Path, file_server) -> Path:
    file_server.files["/file.bin"] = BODY
    return tmp_path / "deep" / "folder" / "file.bin"


def left_over(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target) if target.parent.exists() else []


def test_file_arrives_verified_and_alone(target, file_server):
    got = fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256, MD5))
    assert got == target
    assert target.read_bytes() == BODY
    assert left_over(target) == []


def test_a_file_that_is_there_needs_no_network(target, file_server):
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    with sdr.settings.override(offline=True):
        fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256))
    assert file_server.log == []


def test_offline_names_the_manual_step(target, file_server):
    with (
        sdr.settings.override(offline=True),
        pytest.raises(ConnectionError, match=r"settings\.offline forbids(.|\n)*By hand: ask Anna"),
    ):
        fetch(target, [f"{file_server.url}/file.bin"], manual="ask Anna")
    assert file_server.log == []
    assert not target.parent.exists()


def test_server_errors_are_retried(target, file_server):
    file_server.status["/file.bin"] = [503, 500]
    fetch(target, [f"{file_server.url}/file.bin"], Expected(sha256=SHA256), pause=0.01)
    assert len(file_server.log) == 3
    assert target.read_bytes() == BODY


def test_not_found_goes_to_the_next_address_at_once(target, file_server):
    fetch(target, [f"{file_server.url}/gone", f"{file_server.url}/file.bin"], Expected(sha256=SHA256), pause=60)
    assert [path for path, _ in file_server.log] == ["/gone", "/file.bin"]


def test_not_found_anywhere_says_so(target, file_server):
    with pytest.raises(ConnectionError, match=r"gone: the server answered 404(.|\n)*By hand: look elsewhere"):
        fetch(target, [f"{file_server.url}/gone"], manual="look elsewhere")
    assert not target.exists()
    assert left_over(target) == []


def test_truncated_body_is_continued_where_it_stopped(target, file_server):
    file_server.cut["/file.bin"] = [20_000]
    fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256), pause=0.01)
    assert [wanted for _, wanted in file_server.log] == [None, "bytes=20000-"]
    assert target.read_bytes() == BODY


def test_server_without_ranges_sends_it_all_again(target, file_server):
    file_server.ranges = False
    file_server.cut["/file.bin"] = [20_000]
    fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256), pause=0.01)
    assert target.read_bytes() == BODY


def test_a_later_call_resumes_when_a_checksum_is_known(target, file_server):
    file_server.cut["/file.bin"] = [20_000]
    with pytest.raises(ConnectionError, match="IncompleteRead"):
        fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256), attempts=1)
    assert not target.exists()
    assert left_over(target) == [".file.bin.part"]
    fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256), attempts=1)
    assert file_server.log[-1][1] == "bytes=20000-"
    assert target.read_bytes() == BODY
    assert left_over(target) == []


def test_nothing_stays_without_a_checksum(target, file_server):
    file_server.cut["/file.bin"] = [20_000]
    with pytest.raises(ConnectionError):
        fetch(target, [f"{file_server.url}/file.bin"], attempts=1)
    assert not target.exists()
    assert left_over(target) == []


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(sha256="0" * 64), f"SHA256 is {SHA256} instead of 000"),
        (Expected(md5="0" * 32), f"MD5 is {MD5} instead of 000"),
        (Expected(size=len(BODY) + 1), "has 50,000 bytes instead of 50,001"),
    ],
)
def test_another_file_is_refused(target, file_server, expected, message):
    with pytest.raises(ValueError, match=message):
        fetch(target, [f"{file_server.url}/file.bin"], expected, pause=0.01, attempts=2)
    assert not target.exists()
    assert left_over(target) == []


def test_a_foreign_partial_file_is_thrown_away(target, file_server):
    target.parent.mkdir(parents=True)
    (target.parent / ".file.bin.part").write_bytes(b"x" * 30_000)
    fetch(target, [f"{file_server.url}/file.bin"], Expected(len(BODY), SHA256), pause=0.01)
    assert target.read_bytes() == BODY
    assert len(file_server.log) == 2


def test_a_partial_file_beyond_the_end_is_thrown_away(target, file_server):
    target.parent.mkdir(parents=True)
    (target.parent / ".file.bin.part").write_bytes(b"x" * 60_000)
    fetch(target, [f"{file_server.url}/file.bin"], Expected(sha256=SHA256), pause=0.01)
    assert target.read_bytes() == BODY


def test_first_download_is_remembered(target, file_server):
    fetch(target, [f"{file_server.url}/file.bin"])
    assert (target.parent / "file.bin.sha256").read_text().split() == [SHA256, "file.bin"]
    target.unlink()
    file_server.files["/file.bin"] = BODY[::-1]
    with pytest.raises(ValueError, match=f"instead of {SHA256}"):
        fetch(target, [f"{file_server.url}/file.bin"], pause=0.01)
    assert not target.exists()


def test_interruption_leaves_nothing(target, file_server, monkeypatch):
    def interrupted(url: str, part: Path, *_: object) -> None:
        part.write_bytes(BODY[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(_download, "transfer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(target, [f"{file_server.url}/file.bin"])
    assert not target.exists()
    assert left_over(target) == []


def test_full_disk_is_not_taken_for_the_network(target, file_server, monkeypatch):
    def full(url: str, part: Path, *_: object) -> None:
        part.write_bytes(BODY[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_download, "transfer", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(target, [f"{file_server.url}/file.bin"], pause=60)
    assert left_over(target) == []


@pytest.fixture
def hub(file_server, monkeypatch):
    """The Hugging Face Hub is the local server."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    template = file_server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return file_server


def test_hub_address_is_taken_apart(target, hub):
    hub.files["/owner/repo/resolve/abc123/folder/file.bin"] = BODY
    fetch(target, ["hf://owner/repo@abc123/folder/file.bin"], Expected(sha256=SHA256))
    assert [path for path, _ in hub.log] == ["/owner/repo/resolve/abc123/folder/file.bin"]
    assert target.read_bytes() == BODY
    assert left_over(target) == []


def test_hub_downloads_go_on_where_they_stopped(target, hub):
    hub.files["/owner/repo/resolve/main/file.bin"] = BODY
    hub.cut["/owner/repo/resolve/main/file.bin"] = [20_000]
    fetch(target, ["hf://owner/repo/file.bin"], Expected(len(BODY), SHA256), pause=0.01)
    assert [wanted for _, wanted in hub.log] == [None, "bytes=20000-"]
    assert target.read_bytes() == BODY


def test_hub_trouble_is_reported_with_the_address(target, hub):
    with pytest.raises(ConnectionError, match=r"hf://owner/repo/file\.bin: the server answered 404"):
        fetch(target, ["hf://owner/repo/file.bin"], pause=60)


def test_the_hubs_own_offline_switch_is_kept(target, hub, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        fetch(target, ["hf://owner/repo/file.bin"], pause=60)
    assert hub.log == []


# No network -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("where", ["closed port", "unknown host"])
def test_a_server_that_cannot_be_reached_is_asked_once(target, file_server, nobody, where, monkeypatch, caplog):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waited for another try"))
    monkeypatch.setenv("NO_PROXY", "*")
    url = f"{nobody}/file.bin" if where == "closed port" else "http://no-such-host.invalid/file.bin"
    with (
        caplog.at_level("DEBUG"),
        pytest.raises(ConnectionError, match=r"cannot be reached(.|\n)*By hand: ask Anna") as caught,
    ):
        fetch(target, [url], manual="ask Anna")
    assert str(caught.value).count(url) == 1
    assert left_over(target) == []
    assert [record for record in caplog.records if record.levelname != "DEBUG" and record.name != "sc_drugresp"] == []


def test_the_next_address_is_tried_when_one_is_down(target, file_server, nobody):
    fetch(target, [f"{nobody}/file.bin", f"{file_server.url}/file.bin"], Expected(sha256=SHA256), pause=60)
    assert target.read_bytes() == BODY


def test_embedding_without_a_network_fails_fast_with_one_message(nobody, tmp_path):
    """A user's process: an empty cache, and the hub out of reach."""
    code = (
        "import sc_drugresp as sdr\n"
        "adata = sdr.datasets.toy(n_samples=2, cells_per_sample=3)\n"
        "try:\n    sdr.tl.embed(adata, 'scgpt')\n"
        "except ConnectionError as error:\n    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": nobody,
        "NO_PROXY": "*",
        "SC_DRUGRESP_CACHE": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.count("cannot be reached") == 1, run
    assert "best_model.pt" in run.stdout
    assert "By hand" in run.stdout
    assert run.stderr == ""
    assert time.monotonic() - start < 60
