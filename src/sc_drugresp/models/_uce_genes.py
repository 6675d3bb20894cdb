"""Which genes UCE knows for a species, and where they lie: read from the published side files."""

from __future__ import annotations

import csv
import io
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.log import logger
from .._data import GeneVocab
from ._weights import read_pickled_dict, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROTEINS = "proteins_"
"""Roles of the protein files are this and the species."""


@dataclass(frozen=True)
class GenomeTable:
    """Genes of a species in the token table.

    Parameters
    ----------
    vocab
        Symbols and their token.
    first
        Token of the first gene of the species.
    chromosome, place
        Chromosome code of each token from `first` on, and rank of its start position, shape `(n_genes,)`, int32.
    chromosome_offset
        Token of chromosome code 0.
    """

    vocab: GeneVocab
    first: int
    chromosome: np.ndarray
    place: np.ndarray
    chromosome_offset: int


def read_genome(files: Mapping[str, Path], species: str, n_tokens: int) -> GenomeTable:
    """Combine token offsets, protein keys and chromosome positions.

    Parameters
    ----------
    files
        Published files by role.
    species
        A species of the offsets file.
    n_tokens
        Rows of the token table; the chromosomes come last.

    Raises
    ------
    ValueError
        Unknown species, or files that do not fit together.
    FileNotFoundError
        The protein file of the species is missing.
    """
    offsets = {str(name): int(row) for name, row in read_pickled_dict(files["offsets"]).items()}
    if species not in offsets:
        msg = f"UCE has no species {species!r} in {files['offsets']}. Available species: {sorted(offsets)}."
        raise ValueError(msg)
    symbols = protein_symbols(files, species)
    codes, positions = read_positions(files["chromosomes"], species)
    first, chromosome_offset = offsets[species], n_tokens - len(codes)
    limit = min([row for row in offsets.values() if row > first], default=chromosome_offset)
    if first + len(symbols) > limit:
        msg = (
            f"{species} has {len(symbols)} genes, which do not fit between rows {first} and {limit} of a token table "
            f"with {n_tokens} rows, {len(codes)} of them chromosomes. Take all UCE files from one release."
        )
        raise ValueError(msg)
    chromosome, start = np.zeros(len(symbols), dtype=np.int32), np.zeros(len(symbols), dtype=np.int64)
    placed = []
    for i, symbol in enumerate(symbols):
        if symbol in positions:
            name, start[i] = positions[symbol]
            chromosome[i] = codes[f"{species}_{name}"]
            placed.append(i)
    if len(placed) < len(symbols):
        logger.info("%s: %d genes without a chromosome position are left out", species, len(symbols) - len(placed))
    if not placed:
        msg = f"None of the {len(symbols)} genes of {species} has a position in {files['chromosomes']}."
        raise ValueError(msg)
    vocab = GeneVocab(
        [symbols[i] for i in placed], first + np.asarray(placed, dtype=np.int32), duplicates="keep", fold_case=True
    )
    place = np.unique(start, return_inverse=True)[1].astype(np.int32)
    return GenomeTable(vocab, first, chromosome, place, chromosome_offset)


def read_positions(path: Path, species: str) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
    """Code of every `species_chromosome` of all species, and chromosome and start of the symbols of one.

    Raises
    ------
    ValueError
        The file is damaged, or gives a symbol two positions.
    """
    names: set[str] = set()
    positions: dict[str, tuple[str, int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                names.add(f"{row['species']}_{row['chromosome']}")
                if row["species"] == species:
                    position = (row["chromosome"], int(float(row["start"])))
                    if positions.setdefault(row["gene_symbol"].upper(), position) != position:
                        msg = f"{path} gives {row['gene_symbol']!r} of {species} two positions."
                        raise ValueError(msg)
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        msg = f"{path} is not UCE's table of chromosome positions ({error}); it needs the columns gene_symbol, chromosome, start, species."
        raise ValueError(msg) from error
    return {name: code for code, name in enumerate(sorted(names))}, positions


def protein_symbols(files: Mapping[str, Path], species: str) -> list[str]:
    """Upper-case symbols in the order of the protein file; its embeddings are not read."""
    path = files.get(PROTEINS + species)
    if path is None and "protein_archive" in files:
        path = _unpack(files["protein_archive"], species)
    if path is None:
        known = sorted(role.removeprefix(PROTEINS) for role in files if role.startswith(PROTEINS))
        msg = (
            f"The protein file of {species!r} is missing (found: {known}). Unpack protein_embeddings.tar.gz "
            "(figshare 24320806) beside the weights."
        )
        raise FileNotFoundError(msg)
    return list(dict.fromkeys(key.upper() for key in _keys(path)))


class _KeyUnpickler(pickle.Unpickler):
    """Rebuilds containers alone: tensors become nothing, anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" or (module, name) in {
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._tensor", "_rebuild_from_type_v2"),
            ("torch._utils", "_rebuild_parameter"),
        }:
            return _nothing  # never the named object: nothing of torch is called
        msg = f"it refers to {module}.{name}"
        raise pickle.UnpicklingError(msg)

    def persistent_load(self, pid: Any) -> None:
        return None


def _nothing(*_: Any) -> None:
    return None


def _keys(path: Path) -> list[str]:
    """Keys of a torch file with a dictionary of many tensors; reading the tensors too takes seconds."""
    table: Any
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                inner = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                table = _KeyUnpickler(io.BytesIO(archive.read(inner))).load()
        except (pickle.UnpicklingError, zipfile.BadZipFile, StopIteration, EOFError, IndexError, TypeError) as error:
            msg = f"{path} holds more than a dictionary of tensors and was not loaded ({error})."
            raise ValueError(msg) from error
    else:
        table = read_state(path)
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        msg = f"{path} should hold a dictionary of symbols, found {type(table).__name__}."
        raise ValueError(msg)
    return list(table)


PROTEIN_FILES = {
    "human": "Homo_sapiens.GRCh38",
    "mouse": "Mus_musculus.GRCm39",
    "frog": "Xenopus_tropicalis.Xenopus_tropicalis_v9.1",
    "zebrafish": "Danio_rerio.GRCz11",
    "mouse_lemur": "Microcebus_murinus.Mmur_3.0",
    "pig": "Sus_scrofa.Sscrofa11.1",
    "macaca_fascicularis": "Macaca_fascicularis.Macaca_fascicularis_6.0",
    "macaca_mulatta": "Macaca_mulatta.Mmul_10",
}


def _unpack(archive: Path, species: str) -> Path | None:
    """Take the file of one species out of the published archive, once."""
    if species not in PROTEIN_FILES:
        return None
    name = f"{PROTEIN_FILES[species]}.gene_symbol_to_embedding_ESM2.pt"
    target = archive.parent / "protein_embeddings" / name
    logger.info("unpacking %s from %s", name, archive)
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                if member.isfile() and member.name.rsplit("/", 1)[-1] == name:
                    member.name = name
                    tar.extract(member, target.parent, filter="data")
                    return target
    except (tarfile.TarError, EOFError) as error:
        msg = f"{archive} cannot be read ({error}). Download it again."
        raise ValueError(msg) from error
    return None
