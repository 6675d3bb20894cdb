"""`_download.fetch` against a server that fails in every way we know of."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp._core import download as _download
from sc_drugresp._core.download import Expected, fetch

BODY = np.random.default_rng(0).bytes(50_000)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


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
    def interrupted(url: str, part: Path, expected: Expected) -> None:
        part.write_bytes(BODY[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(_download, "_from_web", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(target, [f"{file_server.url}/file.bin"])
    assert not target.exists()
    assert left_over(target) == []


def test_full_disk_is_not_taken_for_the_network(target, file_server, monkeypatch):
    def full(url: str, part: Path, expected: Expected) -> None:
        part.write_bytes(BODY[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_download, "_from_web", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(target, [f"{file_server.url}/file.bin"], pause=60)
    assert left_over(target) == []


def test_hub_address_is_taken_apart(target, monkeypatch):
    import huggingface_hub

    asked = {}

    def download(repo, name, *, revision, local_dir, etag_timeout):
        asked.update(repo=repo, name=name, revision=revision)
        path = Path(local_dir) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(BODY)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fetch(target, ["hf://owner/repo@abc123/folder/file.bin"], Expected(sha256=SHA256))
    assert asked == {"repo": "owner/repo", "name": "folder/file.bin", "revision": "abc123"}
    assert target.read_bytes() == BODY
    assert left_over(target) == []


def test_hub_trouble_is_reported_with_the_address(target, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*args, **kwargs):
        raise LocalEntryNotFoundError("cannot reach the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ConnectionError, match=r"hf://owner/repo/file\.bin: LocalEntryNotFoundError: cannot reach"):
        fetch(target, ["hf://owner/repo/file.bin"], pause=0.01)
