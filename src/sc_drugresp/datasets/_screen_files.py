"""Tables in a folder, recognized by their columns and not by their names: CSV, TSV, Excel, parquet, also in archives."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.hashing import sha256
from .._core.imports import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd

_TEXT = (".csv", ".tsv", ".tab", ".txt")
_ENDINGS = (*_TEXT, ".gz", ".zip", ".xlsx", ".xlsm", ".parquet", ".pq")
_SKIPPED = "__MACOSX"
_EXTRA = "screens"


@dataclass(frozen=True)
class Table:
    """A table on disk that has not been read: its file, its place in the file, its columns and its first row.

    Parameters
    ----------
    path
        The file.
    part
        Member of an archive, or sheet of a workbook; `""` for a plain file.
    columns
        Names as published, stripped.
    first
        Cells of the first row, as text.
    """

    path: Path
    part: str
    columns: tuple[str, ...]
    first: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """File name, with the member or sheet."""
        return f"{self.path.name}:{self.part}" if self.part else self.path.name

    @property
    def stem(self) -> str:
        """Name without endings: the same for a file, its archive and the same table in another format."""
        name = Path(self.part).name if _kind(self.path, self.part) == "text" and self.part else self.path.name
        while name.lower().endswith(_ENDINGS):
            name = name.rpartition(".")[0]
        return name

    @property
    def speed(self) -> int:
        """How quickly it can be read, from 0: text, archive, workbook."""
        return 2 if _kind(self.path, self.part) == "excel" else 1 if self.part else 0

    def has(self, *wanted: str) -> bool:
        """Whether all these columns exist, whatever their case."""
        return set(map(str.lower, wanted)) <= {column.lower() for column in self.columns}

    def cell(self, column: str) -> str:
        """Text of a column in the first row; `""` if there is no such column."""
        lower = [name.lower() for name in self.columns]
        return self.first[lower.index(column.lower())] if column.lower() in lower and self.first else ""

    def read(self, columns: Iterable[str] | None = None, **options: Any) -> pd.DataFrame:
        """Read the table: all columns, or the named ones (in any case), under these names.

        Columns that do not exist are left out of the result.
        """
        import pandas as pd

        actual = None
        if columns is not None:
            wanted = {column.lower(): column for column in columns}
            actual = {column: wanted[column.lower()] for column in self.columns if column.lower() in wanted}
        kind = _kind(self.path, self.part)
        if kind == "parquet":
            require("pyarrow", extra=_EXTRA)
            frame = pd.read_parquet(self.path)
            frame = frame.reset_index() if any(frame.index.names) else frame
        elif kind == "excel":
            require("openpyxl", extra=_EXTRA)
            frame = pd.read_excel(self.path, sheet_name=self.part, engine="openpyxl", dtype=options.get("dtype"))
        else:
            separator = _separator(self.path, self.part)
            with _open(self.path, self.part) as file:
                frame = pd.read_csv(file, sep=separator, encoding_errors="replace", low_memory=False, **options)
        frame.columns = [_plain(column) for column in frame.columns]
        return frame if actual is None else frame.loc[:, list(actual)].rename(columns=actual)


@dataclass(frozen=True)
class Tables:
    """All tables of some folders or files.

    Parameters
    ----------
    found
        Recognizable tables.
    unread
        Files that may hold tables, and why they were not looked into.
    """

    found: tuple[Table, ...]
    unread: dict[str, str]

    def like(self, test: Callable[[Table], bool]) -> list[Table]:
        """Tables that pass a test."""
        return [table for table in self.found if test(table)]


def tables_in(places: Iterable[Path]) -> Tables:
    """Look at the first rows of every table in these folders (and their subfolders) or files."""
    found: list[Table] = []
    unread: dict[str, str] = {}
    for place in places:
        below = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        for path in below:
            if path.name.startswith("."):
                continue
            try:
                found += _look(path)
            except (ImportError, OSError, ValueError, zipfile.BadZipFile) as error:
                unread[path.name] = str(error)
    return Tables(tuple(found), unread)


def hashes(tables: Iterable[Table]) -> dict[str, str]:
    """File name to SHA-256 of the files of these tables."""
    return {path.name: sha256(path) for path in dict.fromkeys(table.path for table in tables)}


def _plain(cell: object) -> str:
    """Text of a cell or header in one line."""
    return "" if cell is None else " ".join(str(cell).split())


def _kind(path: Path, part: str) -> str | None:
    name = (part or path.name).lower().removesuffix(".gz")
    if path.suffix.lower() == ".zip":
        return "zip" if not part else "text" if name.endswith(_TEXT) else None
    if path.suffix.lower() in {".xlsx", ".xlsm"}:
        return "excel"
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    return "text" if name.endswith(_TEXT) else None


def _look(path: Path) -> list[Table]:
    kind = _kind(path, "")
    if kind == "zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.startswith(_SKIPPED)]
        return [_text_table(path, name) for name in members if _kind(path, name) == "text"]
    if kind == "excel":
        return _sheets(path)
    if kind == "parquet":
        return [_parquet(path)]
    return [_text_table(path, "")] if kind == "text" else []


@contextmanager
def _open(path: Path, part: str) -> Iterator[io.TextIOWrapper]:
    """Text of a file or member, without a byte-order mark; characters that are not UTF-8 are replaced."""
    if part:
        with zipfile.ZipFile(path) as archive, archive.open(part) as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
    elif path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
    else:
        with path.open("r", encoding="utf-8-sig", errors="replace", newline="") as file:
            yield file


def _separator(path: Path, part: str) -> str:
    with _open(path, part) as file:
        header = file.readline()
    return max("\t,;", key=header.count)


def _text_table(path: Path, part: str) -> Table:
    separator = _separator(path, part)
    with _open(path, part) as file:
        rows = csv.reader(file, delimiter=separator)
        header, first = next(rows, []), next(rows, [])
    return Table(path, part, tuple(map(_plain, header)), tuple(map(_plain, first)))


def _sheets(path: Path) -> list[Table]:
    openpyxl = require("openpyxl", extra=_EXTRA)
    book = openpyxl.load_workbook(path, read_only=True)
    tables = []
    for sheet in book.worksheets:
        rows = [tuple(map(_plain, row)) for row in sheet.iter_rows(max_row=2, values_only=True)]
        header, first = [*rows, (), ()][:2]
        tables.append(Table(path, sheet.title, header, first))
    book.close()
    return tables


def _parquet(path: Path) -> Table:
    require("pyarrow", extra=_EXTRA)
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    first = next(file.iter_batches(batch_size=1), None)
    cells = () if first is None or not first.num_rows else tuple(str(value[0]) for value in first.to_pydict().values())
    return Table(path, "", tuple(file.schema_arrow.names), cells)
