"""The genes of a species in UCE and their chromosome positions, read from the published side files."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._core.files import copy_member
from .._core.growth import DAMAGED, GuardedMember, check_growth
from .._core.log import logger
from .._data import GeneVocab
from ._files import read_text
from ._pickles import read_pickled_dict
from ._registry import registry
from ._weights import read_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

PROTEINS = "proteins_"
"""Roles of the protein files are this and the species."""
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

    @classmethod
    def made_up(cls, vocab: GeneVocab, *, first: int = 4, n_chromosomes: int = 24) -> Self:
        """Spread the genes of a vocabulary over chromosomes; their tokens come first, in order."""
        genes = np.arange(len(vocab), dtype=np.int32)
        vocab = replace(vocab, ids=first + genes)
        return cls(vocab, first, genes % n_chromosomes, genes, first + len(vocab))


def read_genome(
    files: Mapping[str, Path], species: str, n_tokens: int, published: Mapping[str, Any] | None = None
) -> GenomeTable:
    """Combine token offsets, protein keys and chromosome positions.

    Parameters
    ----------
    files
        Published files by role.
    species
        A species of the offsets file.
    n_tokens
        Rows of the token table; the chromosomes come last.
    published
        The `config.json` of the checkpoint, which may tell how many rows are chromosomes.

    Raises
    ------
    ValueError
        Unknown species, or files that do not fit together.
    FileNotFoundError
        The protein file of the species is missing.
    """
    offsets = read_pickled_dict(files["offsets"], int)
    if species not in offsets:
        msg = f"UCE has no species {species!r} in {files['offsets']}. Available species: {sorted(offsets)}."
        raise ValueError(msg)
    symbols = protein_symbols(files, species)
    positions, n_chromosomes = read_positions(files["chromosomes"], species, known=offsets)
    first, chromosome_offset = offsets[species], n_tokens - n_chromosomes
    limit = min([row for row in offsets.values() if row > first], default=chromosome_offset)
    if first + len(symbols) > limit:
        msg = (
            f"{species} has {len(symbols)} genes, which do not fit between rows {first} and {limit} of a token table "
            f"with {n_tokens} rows, {n_chromosomes} of them chromosomes. Take all UCE files from one release."
        )
        raise ValueError(msg)
    _check_layout(files, offsets, chromosome_offset, n_chromosomes, published or {})
    placed = np.flatnonzero(np.isin(symbols, positions.index))
    if left_out := len(symbols) - len(placed):
        if not _is_published(files["chromosomes"]):
            raise ValueError(_unplaced(files["chromosomes"], symbols, placed, species))
        logger.info("%s: %d genes without a chromosome position are left out", species, left_out)
    if not len(placed):
        raise ValueError(_unplaced(files["chromosomes"], symbols, placed, species))
    found = positions.reindex(symbols, fill_value=0)
    names = [symbols[i] for i in placed]
    vocab = GeneVocab(names, first + placed.astype(np.int32), duplicates="keep", fold_case=True)
    place = np.unique(found["start"], return_inverse=True)[1].astype(np.int32)
    return GenomeTable(vocab, first, found["code"].to_numpy(dtype=np.int32), place, chromosome_offset)


def _is_published(chromosomes: Path) -> bool:
    """Whether a table of positions is the published one, in which a gene without a position is no damage."""
    return registry()["uce"].checkpoints["4l"].files["chromosomes"].expected.problem(chromosomes) is None


def _unplaced(path: Path, symbols: list[str], placed: np.ndarray, species: str) -> str:
    lost = symbols[min(set(range(len(symbols))) - set(placed.tolist()))]
    return (
        f"{path} has no position for {len(symbols) - len(placed)} of the {len(symbols)} genes of {species} (such as "
        f"{lost}); expected one for each. The file is truncated or of another release: take the published one."
    )


def _check_layout(
    files: Mapping[str, Path],
    offsets: Mapping[str, int],
    chromosome_offset: int,
    n_chromosomes: int,
    published: Mapping[str, Any],
) -> None:
    """Check that the chromosomes begin in the token table where the genes of the last species end.

    Raises
    ------
    ValueError
        The token table or the table of positions lacks rows, or has too many.
    """
    last = max(offsets, key=lambda name: offsets[name])
    stated = {
        "n_chrom_tokens": (published.get("n_chrom_tokens"), n_chromosomes),
        "CHROM_TOKEN_OFFSET": (published.get("CHROM_TOKEN_OFFSET"), chromosome_offset),
    }
    if PROTEINS + last in files:
        stated[f"the end of {last}"] = (offsets[last] + len(protein_symbols(files, last)), chromosome_offset)
    for name, (expected, found) in stated.items():
        if expected is not None and expected != found:
            msg = (
                f"{files['chromosomes']} has {n_chromosomes} chromosomes, with which they begin at row "
                f"{chromosome_offset} of the token table in {files['weights']}; expected {expected} ({name}), found "
                f"{found}. One of the files is truncated: take both from one release."
            )
            raise ValueError(msg)


def read_positions(path: Path, species: str, known: Iterable[str] = ()) -> tuple[pd.DataFrame, int]:
    """Chromosome `code` and `start` of each symbol of a species, and the number of chromosomes of all species.

    `known` are species that must be there.

    Raises
    ------
    ValueError
        The file is damaged, lacks a species, or gives a symbol two positions.
    """
    import pandas as pd

    columns = ["gene_symbol", "chromosome", "start", "species"]
    text = read_text(path)
    try:
        table = pd.read_csv(StringIO(text), usecols=columns, dtype=str, keep_default_na=False)
        start = table["start"].astype(float).to_numpy()
        if not (np.isfinite(start) & (np.abs(start) < 1e15)).all():
            msg = "a start that is no number"
            raise ValueError(msg)
    except (ValueError, OverflowError) as error:
        msg = f"{path} is not UCE's table of chromosome positions ({error}); it needs the columns {', '.join(columns)}."
        raise ValueError(msg) from error
    empty = (table["species"] == "").to_numpy()
    if empty.any() or not text.endswith("\n"):
        line = 2 + int(empty.argmax()) if empty.any() else 1 + len(table)
        msg = f"{path} ends or breaks off within line {line}; expected {', '.join(columns)}. Download it again."
        raise ValueError(msg)
    if absent := sorted(set(known) - set(table["species"])):
        msg = (
            f"{path} has no position of {', '.join(absent)}; it is truncated or of another release. Download it again."
        )
        raise ValueError(msg)
    codes, names = pd.factorize(table["species"] + "_" + table["chromosome"], sort=True)
    table = table.assign(code=codes, start=start.astype(np.int64))[table["species"] == species]
    own = table.set_index(table["gene_symbol"].str.upper())[["code", "start"]]
    own = own[~own.reset_index().duplicated().to_numpy()]
    if not own.index.is_unique:
        msg = f"{path} gives {own.index[own.index.duplicated()][0]!r} of {species} two positions."
        raise ValueError(msg)
    return own, len(names)


def protein_symbols(files: Mapping[str, Path], species: str) -> list[str]:
    """Upper-case symbols in the order of the protein file; its embeddings are not read.

    Raises
    ------
    FileNotFoundError
        There is no protein file of this species.
    ValueError
        The file is damaged, or no dictionary of symbols.
    """
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
    table = read_state(path)
    if not isinstance(table, dict) or not table or not all(isinstance(key, str) for key in table):
        msg = f"{path} should hold a dictionary of symbols, found {type(table).__name__}. Take the published file."
        raise ValueError(msg)
    return list(dict.fromkeys(key.upper() for key in table))


def _unpack(archive: Path, species: str) -> Path | None:
    """Take the file of one species out of the published archive, once."""
    if species not in PROTEIN_FILES:
        return None
    name = f"{PROTEIN_FILES[species]}.gene_symbol_to_embedding_ESM2.pt"
    target = archive.parent / "protein_embeddings" / name
    logger.info("unpacking %s from %s", name, archive)
    try:
        with tarfile.open(archive, "r|*", tarinfo=GuardedMember) as tar:
            for member in tar:
                if member.isfile() and member.name.rsplit("/", 1)[-1] == name:
                    check_growth(archive, member.size, member.name)
                    copy_member(tar, member, target)
                    return target
    except (tarfile.TarError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk
        msg = f"{archive} cannot be read ({error}). Download it again."
        raise ValueError(msg) from error
    return None
