"""The archive of proteins: its members appear complete or not at all."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sc_drugresp.models._uce_genes import PROTEIN_FILES, _unpack

NAME = f"{PROTEIN_FILES['human']}.gene_symbol_to_embedding_ESM2.pt"
BODY = np.random.default_rng(0).bytes(60_000)


def archive(folder: Path, body: bytes = BODY) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in (("other.pt", b"x"), (f"model_files/protein_embeddings/{NAME}", body)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    path = folder / "protein_embeddings.tar.gz"
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


def unpacked(path: Path) -> list[str]:
    return sorted(file.name for file in (path.parent / "protein_embeddings").glob("*"))


def test_the_member_of_a_species_is_unpacked(tmp_path):
    path = archive(tmp_path)
    found = _unpack(path, "human")
    assert found is not None
    assert found.read_bytes() == BODY
    assert unpacked(path) == [NAME]
    assert _unpack(path, "mouse") is None


def test_a_cut_archive_leaves_no_file(tmp_path):
    path = archive(tmp_path)
    whole = path.read_bytes()
    for cut in np.linspace(10, len(whole) - 1200, 12).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"protein_embeddings\.tar\.gz"):
            _unpack(path, "human")
        assert unpacked(path) == []


def test_what_a_killed_process_left_is_replaced(tmp_path):
    path = archive(tmp_path)
    (tmp_path / "protein_embeddings").mkdir()
    (tmp_path / "protein_embeddings" / f".{NAME}.part").write_bytes(BODY[:1000])
    (tmp_path / "protein_embeddings" / f".{NAME}.lock").write_bytes(b"")
    assert _unpack(path, "human").read_bytes() == BODY
    assert unpacked(path) == [NAME]


def test_a_bomb_is_refused(tmp_path):
    path = archive(tmp_path, bytes(100_000_000))
    with pytest.raises(ValueError, match="more than a real file would"):
        _unpack(path, "human")
    assert unpacked(path) == []
