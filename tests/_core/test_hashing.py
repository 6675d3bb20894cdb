"""Hashes of weights are those of the content, also after a file changed."""

from __future__ import annotations

import hashlib
import os

from sc_drugresp import settings
from sc_drugresp._core import hashing as _hash


def test_hash_follows_the_content(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_hash, "_SMALL", 0)
    path = tmp_path / "weights.bin"
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        os.utime(path, ns=(len(content), hash(content) % 10**9))
        for _ in range(2):
            assert _hash.sha256(path) == hashlib.sha256(content).hexdigest()
    assert (settings.cache_dir / "sha256.json").is_file()


def test_large_files_are_read_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_hash, "_SMALL", 0)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"content")
    expected = _hash.sha256(path)
    monkeypatch.setattr(_hash, "_compute", lambda _: "computed again")
    assert _hash.sha256(path) == expected
    (settings.cache_dir / "sha256.json").write_text("damaged")
    assert _hash.sha256(path) == "computed again"
