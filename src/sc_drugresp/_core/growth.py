"""How much a compressed file may become: what grows beyond every real one is refused before memory is taken for it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

RATIO, ALWAYS = 300, 64_000_000
"""Counts compress 10 to 100 times; gzip of zeros 1,030 times. A file may always unpack to the second number of bytes."""
LONGEST_LINE = 512_000_000
HEADER = 1_000_000
"""Bytes of a name or an extended header in a tar archive."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, OSError)
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def most_bytes(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(ALWAYS, RATIO * path.stat().st_size)


def check_growth(path: Path, size: int, what: str = "it") -> None:
    """Refuse a size that no file of this length has.

    Raises
    ------
    ValueError
        The size is beyond the limit.
    """
    if size > (most := most_bytes(path)):
        msg = (
            f"{path.name} has {path.stat().st_size:,} bytes, and {what} would take {size:,}, more than a real file would "
            f"({most:,}). It is refused."
        )
        raise ValueError(msg)


def open_packed(path: Path) -> Any:
    """A binary file to read the unpacked content from, whatever the name says."""
    with path.open("rb") as file:
        magic = file.read(2)
    return _OPENERS[magic](path) if magic in _OPENERS else path.open("rb")


def unpacked_size(path: Path) -> int:
    """Unpack once, keeping nothing, and count.

    Raises
    ------
    ValueError
        The file is damaged, or grows too much, or has a line that no table has.
    """
    size = line = 0
    try:
        with open_packed(path) as file:
            while chunk := file.read(1 << 20):
                size += len(chunk)
                first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
                longest = line + (len(chunk) if first < 0 else first)
                line = longest if first < 0 else len(chunk) - last
                if size > most_bytes(path):
                    check_growth(path, size, "unpacked it")
                if longest > LONGEST_LINE:
                    msg = f"{path.name} has a line of more than {LONGEST_LINE:,} bytes; no table has."
                    raise ValueError(msg)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk
        msg = f"{path.name} is damaged or cut short ({error})."
        raise ValueError(msg) from error
    return size


class GuardedMember(tarfile.TarInfo):
    """A member of an archive whose headers cannot fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header block.

        Raises
        ------
        tarfile.ReadError
            A name or an extended header is too long.
        """
        member = super().frombuf(buf, encoding, errors)
        plain = member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isdev()
        if not plain and member.size > HEADER:
            msg = f"a header of {member.size:,} bytes"
            raise tarfile.ReadError(msg)
        return member
