"""What is known about a published file, and what a file on disk cannot be."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 200_000_000_000
"""Bytes that are taken for a file of which nothing is known."""
HEAD = 1024
"""Bytes from the beginning of a file that show what it is."""
PAGES = ("<!doctype", "<html", "<head", "<body", "<script", "<title", "<?xml", "<!--")
PAGE_NAMES = (".html", ".htm", ".xml", ".svg")
POINTER = b"version https://git-lfs.github.com/spec/"
SIGNATURES = {
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".zip": (b"PK",),
    ".h5": (b"\x89HDF",),
    ".h5ad": (b"\x89HDF",),
    ".pt": (b"PK", b"\x80"),
    ".pth": (b"PK", b"\x80"),
    ".ckpt": (b"PK", b"\x80"),
    ".pkl": (b"\x80",),
    ".pickle": (b"\x80",),
}


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is here; `about` is a size for planning, where no exact one is published."""

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    about: int | None = None

    @property
    def hashed(self) -> bool:
        """Whether a checksum is known."""
        return bool(self.sha256 or self.md5)

    @property
    def most(self) -> int:
        """Bytes beyond which it cannot be this file."""
        if self.size is not None:
            return self.size
        return LARGEST if self.about is None else max(4 * self.about, self.about + 1_000_000)

    def or_remembered(self, path: Path) -> Expected:
        """The same with the SHA-256 of the first download of `path`, where no checksum is published."""
        if not self.hashed:
            with suppress(OSError, UnicodeDecodeError):
                if found := re.match(r"[0-9a-f]{64}\b", record_of(path).read_text(encoding="utf-8")):
                    return replace(self, sha256=found[0])
        return self

    def problem(self, path: Path, *, name: str = "") -> str | None:
        """Why the file, which is or will be called `name`, is not the expected one; every byte is read."""
        import pooch

        if not path.is_file():
            return "it is not a regular file"
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"it has {found:,} bytes instead of {self.size:,}"
        if found > self.most:
            return f"it has {found:,} bytes, at most {self.most:,} were expected"
        for algorithm in ("sha256", "md5"):
            expected = getattr(self, algorithm)
            if expected and (actual := pooch.file_hash(str(path), alg=algorithm)) != expected.lower():
                return f"its {algorithm.upper()} is {actual} instead of {expected.lower()}"
        if self.hashed:
            return None
        if not found and self.size is None:
            return "it is empty"
        with path.open("rb") as file:
            return wrong_content(name or path.name, file.read(HEAD))

    def problem_once(self, path: Path) -> str | None:
        """As `problem`; a file that was found good is read again only in another process or after a change."""
        try:
            status = path.stat()
        except OSError:
            return "it does not exist"
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, self)
        if key in _good:
            return None
        found = self.problem(path)
        if found is None:
            _good.add(key)
        return found


def record_of(path: Path) -> Path:
    """Where the SHA-256 of the first download is kept."""
    return path.with_name(f"{path.name}.sha256")


_good: set[tuple[object, ...]] = set()
"""Files whose content was compared in this process."""


def wrong_content(name: str, head: bytes) -> str | None:
    """Why a file of this name cannot begin like this: web pages and error messages come in place of many files."""
    name = name.lower()
    text = head.decode("utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig", errors="replace")
    text = text.lstrip().lower()
    if text.startswith(PAGES) and not name.endswith(PAGE_NAMES):
        return "it is a web page, perhaps one to log in"
    if head.startswith(POINTER):
        return "it is a pointer of Git LFS, not the file itself"
    for suffix, signatures in SIGNATURES.items():
        if name.endswith(suffix) and not head.startswith(signatures):
            return f"it does not begin like a {suffix} file"
    if name.endswith(".safetensors") and (head[8:9] != b"{" or int.from_bytes(head[:8], "little") > 100_000_000):
        return "it does not begin like a .safetensors file"
    if name.endswith((".bin", ".tar")) and re.fullmatch(rb"[\t\n\r -~]{8,}", head):
        return "it is text, perhaps an error message"
    if name.endswith(".json") and not text.startswith(("{", "[")):
        return "it is not JSON"
    return None
