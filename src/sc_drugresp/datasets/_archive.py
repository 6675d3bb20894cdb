"""Unpack the archives of a series, archives in archives too, so that no member is passed over without a word."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .._core.files import write_member
from .._core.growth import DAMAGED, GuardedMember, check_growth

if TYPE_CHECKING:
    from collections.abc import Iterator

NESTED = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
DEEPEST = 3
GENERIC = re.compile(r"((filtered|raw)_.*matri(x|ces).*|outs|mex|hg19|hg38|mm10|GRCh38|mm39)$", re.IGNORECASE)
"""Folders of Cell Ranger, which name no sample."""


@dataclass(frozen=True)
class Member:
    """A file of an archive: where it was unpacked, the archives and folders it came from, and its name there."""

    file: Path
    archives: tuple[str, ...]
    path: PurePosixPath

    @property
    def name(self) -> str:
        """For people: archives and path."""
        return "!".join((*self.archives, str(self.path)))

    @property
    def place(self) -> str:
        """What tells a sample that has no name of its own: its folder, or the archive inside the archive."""
        folders = [part for part in self.path.parent.parts if not GENERIC.match(part)]
        return (
            folders[-1] if folders else NESTED.sub("", PurePosixPath(self.archives[-1]).name) if self.archives else ""
        )

    @property
    def format(self) -> str:
        """The suffix, packed or not."""
        return self.path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]

    @property
    def where(self) -> str:
        """All folders and archives as one word."""
        parts = [NESTED.sub("", part) for archive in self.archives for part in PurePosixPath(archive).parts]
        return "_".join((*parts, *self.path.parent.parts))


def unpack(archive: Path, root: Path) -> tuple[list[Member], list[str]]:
    """Unpack the regular files below `root`, each folder of the archive into one of ours.

    Returns
    -------
    The files, sorted by name, and the names of what is no file: links, devices.

    Raises
    ------
    ValueError
        The archive is damaged or cut short, names two members alike, climbs out of its folder, or grows too much.
    """
    work = _Unpacking(archive, root)
    work.take(archive, ())
    return sorted(work.members, key=lambda member: (member.path.name, member.name)), work.skipped


@dataclass
class _Unpacking:
    """One archive with all that lie in it, which share the limits."""

    archive: Path
    root: Path
    members: list[Member] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    bytes: int = 0

    def take(self, archive: Path, above: tuple[str, ...]) -> None:
        """Unpack an archive that lies in the archives `above`."""
        name = "!".join(above) or str(archive)
        if len(above) > DEEPEST:
            msg = f"{name} holds archives in archives, more than {DEEPEST} deep. Unpack it yourself."
            raise ValueError(msg)
        try:
            nested = self._files(archive, above, name)
        except (tarfile.TarError, *DAMAGED) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk
            msg = f"{name} is not a complete tar archive ({error}). Remove it and load the data set again."
            raise ValueError(msg) from error
        for file, inner in nested:
            self.take(file, (*above, inner))
            file.unlink()

    def _files(self, archive: Path, above: tuple[str, ...], name: str) -> list[tuple[Path, str]]:
        """Write the files of one archive; those that are archives are returned."""
        folders: dict[PurePosixPath, Path] = {}
        nested: list[tuple[Path, str]] = []
        with tarfile.open(archive, tarinfo=GuardedMember) as tar:
            for item in tar:
                path = _safe(item, name)
                plain = item.isfile() and not item.issparse()
                self._count(item.size if plain else 0)
                if item.isdir():
                    continue
                if not plain:
                    self.skipped.append(
                        "!".join((*above, item.name)) + (" (sparse)" if item.issparse() else " (no file)")
                    )
                    continue
                if path.parent not in folders:
                    folders[path.parent] = Path(tempfile.mkdtemp(dir=self.root))
                file = folders[path.parent] / re.sub(r"[^\w.+() -]", "_", path.name)[-200:]
                if file.exists():
                    msg = f"{name} has two members called {item.name!r}; which one counts is not known."
                    raise ValueError(msg)
                write_member(tar, item, file)
                if NESTED.search(path.name):
                    nested.append((file, item.name))
                else:
                    self.members.append(Member(file, above, path))
            _check_end(tar, name)
        return nested

    def _count(self, size: int) -> None:
        """Add a member of this size to what the whole takes, its header too."""
        self.bytes += size + tarfile.BLOCKSIZE
        check_growth(self.archive, self.bytes, "what it holds")
        if size > (free := shutil.disk_usage(self.root).free):
            msg = f"A member of {self.archive.name} takes {size:,} bytes; {free:,} are free in {self.root.parent}."
            raise ValueError(msg)


def _safe(item: tarfile.TarInfo, archive: str) -> PurePosixPath:
    path = PurePosixPath(item.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        msg = f"{item.name!r} lies outside of the archive {archive}. It is refused."
        raise ValueError(msg)
    return path


def _check_end(tar: tarfile.TarFile, name: str) -> None:
    """After the last member there are zeros; `tarfile` takes a damaged header, or a second archive, for the end."""
    for block in _rest(tar):
        if block.strip(b"\0"):
            msg = f"{name} is not a complete tar archive (there is something after member {len(tar.getmembers())})."
            raise ValueError(msg)


def _rest(tar: tarfile.TarFile) -> Iterator[bytes]:
    file = tar.fileobj
    if file is not None:
        file.seek(tar.offset)
        while block := file.read(1 << 20):
            yield block
