"""Archives that are damaged, ambiguous, nested or made to grow: no cell is lost without a word, no memory is filled."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest

from sc_drugresp._core.files import copy_member
from sc_drugresp.datasets._read import read_table, read_tar

GENES = ["EGFR", "DUSP6", "VIM", "ACTB"]
COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 5], [7, 1, 0]])  # genes x cells
MEGA = 1_000_000


def table(scale: int = 1, sep: str = "\t") -> bytes:
    lines = [sep.join(["", "c1", "c2", "c3"])]
    lines += [sep.join([gene, *map(str, row * scale)]) for gene, row in zip(GENES, COUNTS)]
    return "\n".join(lines).encode()


def triple(prefix: str = "", *, genes: str = "features", scale: int = 1, packed: bool = True) -> dict[str, bytes]:
    rows, columns = np.nonzero(COUNTS)
    lines = [f"{i + 1} {j + 1} {COUNTS[i, j] * scale}" for i, j in zip(rows, columns)]
    matrix = "\n".join(["%%MatrixMarket matrix coordinate integer general", f"4 3 {len(lines)}", *lines, ""])
    names = "".join(f"ENSG{i}\t{gene}\tGene Expression\n" for i, gene in enumerate(GENES))
    files = {"matrix.mtx": matrix.encode(), f"{genes}.tsv": names.encode(), "barcodes.tsv": b"AAA-1\nCCC-1\nGGG-1\n"}
    if packed:
        files = {f"{name}.gz": gzip.compress(body) for name, body in files.items()}
    return {prefix + name: body for name, body in files.items()}


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            file.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def read(tmp_path: Path, body: bytes) -> ad.AnnData:
    path = tmp_path / "GSE1_RAW.tar"
    path.write_bytes(body)
    return read_tar(path)


def samples(adata: ad.AnnData) -> dict[str, int]:
    """Sum of the counts of each sample: tables of different scale tell which was read."""
    return {name: int(adata[adata.obs["sample"] == name].X.sum()) for name in adata.obs["sample"].cat.categories}


TOTAL = int(COUNTS.sum())


# Every cell -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({"A/GSM1.txt": table(), "B/GSM1.txt": table(2)}, {"GSM1_A": 1, "GSM1_B": 2}),
        ({"GSM1.txt": table(), "B/GSM1.txt": table(2)}, {"GSM1": 1, "GSM1_B": 2}),
        ({"GSM1.txt": table(), "GSM1.csv": table(2, ",")}, {"GSM1_txt": 1, "GSM1_csv": 2}),
        ({"GSM1.txt": table(), "GSM1.txt.gz": gzip.compress(table(2))}, {"GSM1_1": 1, "GSM1_2": 2}),
        (triple("A/") | triple("B/", scale=2), {"A": 1, "B": 2}),
        (triple("A/filtered_feature_bc_matrix/") | triple("B/outs/", scale=2), {"A": 1, "B": 2}),
        (triple("GSM1_") | {"GSM1.csv": table(2, ",")}, {"GSM1_mtx": 1, "GSM1_csv": 2}),
        (triple("A/GSM1_") | triple("B/GSM1_", scale=2), {"GSM1_A": 1, "GSM1_B": 2}),
        (
            triple("GSM1_", genes="genes", packed=False) | triple("GSM2_", genes="genes", scale=2),
            {"GSM1": 1, "GSM2": 2},
        ),
        ({"GSM1.txt": table(), "gsm1.TXT": table(2)}, {"GSM1": 1, "gsm1": 2}),
        ({"a b/ü:1.txt": table(), "a_b/ü:1.txt": table(2)}, {"ü:1_a b": 1, "ü:1_a_b": 2}),
    ],
)
def test_samples_that_share_a_name_are_all_read(tmp_path, members, names):
    found = samples(read(tmp_path, tar(members)))
    assert found == {name: TOTAL * scale for name, scale in names.items()}


@pytest.mark.parametrize("packed", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_in_archives_are_read(tmp_path, packed):
    suffix = {"w": "tar", "w:gz": "tar.gz", "w:bz2": "tar.bz2", "w:xz": "tar.xz"}[packed]
    inner = {
        f"GSM1_a.{suffix}": tar(triple("filtered_feature_bc_matrix/"), packed),
        f"GSM2_b.{suffix}": tar(triple("filtered_feature_bc_matrix/", scale=2), packed),
        f"GSM3_c.{suffix}": tar({f"deep.{suffix}": tar({"GSM3.csv": table(3, ",")}, packed)}, packed),
    }
    found = samples(read(tmp_path, tar(inner)))
    assert found == {"GSM1_a": TOTAL, "GSM2_b": 2 * TOTAL, "GSM3": 3 * TOTAL}


def test_archives_in_archives_share_one_limit(tmp_path):
    """Each level may grow three hundredfold on its own; together they would fill the disk."""
    body = tar({"GSM1.bin": bytes(60 * MEGA)})
    for _ in range(2):
        body = tar({"a.tar.gz": gzip.compress(body), "b.tar.gz": gzip.compress(body)})
    with pytest.raises(ValueError, match="more than a real file would"):
        read(tmp_path, body)
    assert [file.name for file in tmp_path.iterdir()] == ["GSE1_RAW.tar"]


def test_what_a_killed_process_unpacked_goes_with_the_next_call(tmp_path):
    left = tmp_path / ".GSE1_RAW.tar.sc_drugresp-unpacked"
    left.mkdir()
    (left / "GSM9.txt").write_bytes(table(9))
    (tmp_path / ".GSE1_RAW.tar.lock").touch()
    assert samples(read(tmp_path, tar({"GSM1.txt": table()}))) == {"GSM1": TOTAL}
    assert [file.name for file in tmp_path.iterdir()] == ["GSE1_RAW.tar"]


def test_archives_without_end_are_refused(tmp_path):
    body = tar({"GSM1.csv": table(1, ",")})
    for _ in range(6):
        body = tar({"x.tar": body})
    with pytest.raises(ValueError, match="archives in archives"):
        read(tmp_path, body)


def test_what_is_not_read_is_listed(tmp_path):
    members = {"GSM1.txt": table(), "readme.md": b"x", "b/GSM1_metadata.txt": b"y", "GSM2_barcodes.tsv": b"AAA\n"}
    adata = read(tmp_path, tar(members | {"in.tar": tar({"plot.pdf": b"z"})}))
    listed = ["GSM2_barcodes.tsv", "b/GSM1_metadata.txt", "in.tar!plot.pdf", "readme.md"]
    assert adata.uns["dataset"]["ignored_files"].tolist() == listed
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["dataset"]["ignored_files"].tolist() == listed


@pytest.mark.parametrize("name", ["GSM2.rds", "GSM2.zip", "GSM2.h5ad", "GSM2_counts.mtx.gz"])
def test_what_may_hold_cells_but_cannot_be_read_is_warned_of(tmp_path, name):
    with pytest.warns(UserWarning, match=f"may hold cells and cannot be read: {name}"):
        read(tmp_path, tar({"GSM1.txt": table(), name: b"x"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_not_followed_and_listed(tmp_path, kind):
    buffer = io.BytesIO(tar({"GSM1.txt": table()}))
    with tarfile.open(fileobj=buffer, mode="a") as file:
        info = tarfile.TarInfo("GSM2.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.warns(UserWarning, match=r"GSM2\.txt \(no file\)"):
        adata = read(tmp_path, buffer.getvalue())
    assert samples(adata) == {"GSM1": TOTAL}


def test_two_members_of_one_name_are_refused(tmp_path):
    body = tar({"GSM1.txt": table()})[:1024] + tar({"GSM1.txt": table(2)})
    with pytest.raises(ValueError, match=r"two members called 'GSM1\.txt'"):
        read(tmp_path, body)


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "b/../../a.txt", "..\\a.txt", "C:\\a.txt"])
def test_a_member_outside_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="lies outside"):
        read(tmp_path, tar({name: table()}))
    assert [file.name for file in tmp_path.iterdir()] == ["GSE1_RAW.tar"]


# Damage ---------------------------------------------------------------------------------------------------------------


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path):
    body = bytearray(tar({f"GSM{i}.txt": table() for i in range(3)}))
    body[1024 + 150] ^= 0xFF  # in the checksum of the second member
    with pytest.raises(ValueError, match="not a complete tar archive"):
        read(tmp_path, bytes(body))


def test_an_archive_after_the_archive_is_not_passed_over(tmp_path):
    with pytest.raises(ValueError, match="something after member 1"):
        read(tmp_path, tar({"GSM1.txt": table()}) + tar({"GSM2.txt": table()}))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_cut_and_every_flipped_byte_is_an_error_or_harmless(tmp_path, mode):
    """A cut archive must never be read in part."""
    body = tar({"GSM1.txt": table(), "GSM2.txt": table(2)}, mode)
    whole = {"GSM1": TOTAL, "GSM2": 2 * TOTAL}
    for cut in np.linspace(1, len(body) - 1, 40).astype(int):
        try:
            found = samples(read(tmp_path, body[:cut]))
        except ValueError:
            continue
        assert found == whole


DAMAGES = {
    "no genes": lambda files: files.pop("features.tsv.gz"),
    "no barcodes": lambda files: files.pop("barcodes.tsv.gz"),
    "two lists of genes": lambda files: files.update({"genes.tsv": b"a\tb\n"}),
    "genes cut": lambda files: files.update({"features.tsv.gz": files["features.tsv.gz"][:-9]}),
    "one gene less": lambda files: files.update({"features.tsv.gz": b"E1\tEGFR\tGene Expression\n"}),
    "a gene without a name": lambda files: files.update({"features.tsv.gz": b"a\tA\n\tB\nc\tC\nd\tD\n"}),
    "no text": lambda files: files.update({"features.tsv.gz": b"\xff\xfe\x00" * 50}),
    "empty genes": lambda files: files.update({"features.tsv.gz": b""}),
    "more barcodes": lambda files: files.update({"barcodes.tsv.gz": b"a\nb\nc\nd\n"}),
    "matrix cut": lambda files: files.update({"matrix.mtx.gz": files["matrix.mtx.gz"][:-9]}),
    "matrix empty": lambda files: files.update({"matrix.mtx.gz": gzip.compress(b"")}),
    "no sizes": lambda files: files.update(mtx(sizes="x y z")),
    "index beyond": lambda files: files.update(mtx(entries="5 1 1")),
    "index zero": lambda files: files.update(mtx(entries="0 1 1")),
    "words": lambda files: files.update(mtx(entries="1 1 x")),
    "fewer entries": lambda files: files.update(mtx(sizes="4 3 2")),
    "dense": lambda files: files.update(mtx(banner="%%MatrixMarket matrix array real general")),
    "billions of entries": lambda files: files.update(mtx(sizes="4 3 900000000000")),
    "billions of cells": lambda files: files.update(mtx(sizes="4 900000000000 1")),
    "negative": lambda files: files.update(mtx(sizes="-4 3 1")),
}


def mtx(
    banner: str = "%%MatrixMarket matrix coordinate integer general", sizes: str = "4 3 1", entries: str = "1 1 1"
) -> dict[str, bytes]:
    return {"matrix.mtx.gz": gzip.compress(f"{banner}\n{sizes}\n{entries}\n".encode())}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_triple_names_the_member(tmp_path, damage):
    files = triple()
    DAMAGES[damage](files)
    members = {f"GSM1_{name}": body for name, body in files.items()}
    with pytest.raises(ValueError, match=r"GSM1_matrix\.mtx\.gz cannot be read"):
        read(tmp_path, tar(members))


def h5(tmp_path: Path, change: object = None) -> bytes:
    path = tmp_path / "a.h5"
    columns = [np.flatnonzero(cell) for cell in COUNTS.T]
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"] = np.concatenate([COUNTS[rows, j] for j, rows in enumerate(columns)]).astype("int32")
        group["indices"] = np.concatenate(columns).astype("int64")
        group["indptr"] = np.cumsum([0, *map(len, columns)]).astype("int64")
        group["shape"] = np.array([4, 3], dtype="int32")
        group["barcodes"] = np.array([b"AAA", b"CCC", b"GGG"])
        features = group.create_group("features")
        features["name"] = features["id"] = np.array([name.encode() for name in GENES])
        features["feature_type"] = np.array([b"Gene Expression"] * 4)
        features["genome"] = np.array([b"GRCh38"] * 4)
        if change is not None:
            change(group)
    return path.read_bytes()


def replaced(name: str, **options: object) -> object:
    def change(group: h5py.Group) -> None:
        del group[name]
        group.create_dataset(name, **options)

    return change


def foreign(group: h5py.Group) -> None:
    del group["data"]
    group["data"] = h5py.ExternalLink("/etc/other.h5", "x")


def test_a_file_of_cell_ranger_is_read(tmp_path):
    assert samples(read(tmp_path, tar({"GSM1.h5": h5(tmp_path)}))) == {"GSM1": TOTAL}


@pytest.mark.parametrize(
    "change",
    [
        replaced("data", shape=(10**13,), dtype="int32", chunks=(1000,), compression="gzip"),
        replaced("indices", data=np.full(7, 10**9)),
        replaced("indices", data=np.full(7, -1)),
        replaced("indptr", data=np.array([0, 5, 2, 7])),
        replaced("shape", data=np.array([10**9, 3])),
        replaced("shape", data=np.array([-4, 3])),
        replaced("barcodes", data=np.array([b"A"])),
        replaced("data", data=np.array([b"x"] * 7)),
        lambda group: group.__delitem__("barcodes"),
        lambda group: group["features"].__delitem__("name"),
        foreign,
    ],
)
def test_a_damaged_h5_names_the_member(tmp_path, change):
    with pytest.raises(ValueError, match=r"GSM1\.h5 cannot be read"):
        read(tmp_path, tar({"GSM1.h5": h5(tmp_path, change)}))


@pytest.mark.parametrize("body", [b"", b"\x89HDF\r\n\x1a\n", b"x" * 500])
def test_what_is_no_h5_names_the_member(tmp_path, body):
    with pytest.raises(ValueError, match=r"GSM1\.h5 cannot be read"):
        read(tmp_path, tar({"GSM1.h5": body}))


TABLES = {
    "empty": b"",
    "only a header": b"\tc1\tc2\n",
    "cut": table()[:-3],
    "gzip cut": gzip.compress(table())[:-9],
    "gzip damaged": gzip.compress(table())[:30] + b"\xff" * 30,
    "words": b"\tc1\tc2\nEGFR\ta\tb\n",
    "zeros": bytes(5000),
    "binary": np.random.default_rng(0).bytes(5000),
}


@pytest.mark.parametrize("damage", TABLES)
def test_a_damaged_table_names_the_file(tmp_path, damage):
    suffix = ".txt.gz" if damage.startswith("gzip") else ".txt"
    (tmp_path / f"t{suffix}").write_bytes(TABLES[damage])
    with pytest.raises(ValueError, match=r"t\.txt"):
        read_table(tmp_path / f"t{suffix}")


# Bombs ----------------------------------------------------------------------------------------------------------------


def zeros(size: int, packer: object = gzip) -> bytes:
    return packer.compress(bytes(size))


def sparse_member() -> bytes:
    info = tarfile.TarInfo("GSM1.txt")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = tarfile.itn(10**15, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return tar({"GSM2.txt": table()})[:1024] + bytes(block) + bytes(1024)


def long_header() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 * 10**9
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(30 * MEGA))


BOMBS = {
    "table of zeros": lambda: tar({"GSM1.txt.gz": zeros(400 * MEGA)}),
    "one long line": lambda: tar({"GSM1.txt.gz": gzip.compress(b"a\t" * (100 * MEGA) + os.urandom(700_000))}),
    "genes": lambda: tar(triple("GSM1_") | {"GSM1_features.tsv.gz": zeros(400 * MEGA)}),
    "barcodes": lambda: tar(triple("GSM1_") | {"GSM1_barcodes.tsv.gz": zeros(400 * MEGA)}),
    "matrix": lambda: tar(triple("GSM1_") | {"GSM1_matrix.mtx.gz": zeros(400 * MEGA)}),
    "packed archive": lambda: gzip.compress(tar({"GSM1.bin": bytes(100 * MEGA), "GSM1.txt": table()})),
    "packed archive, bz2": lambda: bz2.compress(tar({"GSM1.bin": bytes(100 * MEGA), "GSM1.txt": table()})),
    "packed archive, xz": lambda: lzma.compress(tar({"GSM1.bin": bytes(100 * MEGA), "GSM1.txt": table()})),
    "nested": lambda: tar({"a.tar.gz": gzip.compress(tar({"GSM1.bin": bytes(100 * MEGA)}))}),
    "header": long_header,
    "h5": None,
}


@pytest.mark.skipif(os.name != "posix", reason="Windows does not tell the largest memory")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_little_memory(tmp_path, bomb):
    """In a process of its own, which may take half a gigabyte beyond what importing takes."""
    change = replaced("data", shape=(10**10,), dtype="int32", chunks=(10**6,), compression="gzip", fillvalue=1)
    body = tar({"GSM1.h5": h5(tmp_path, change)}) if bomb == "h5" else BOMBS[bomb]()
    path = tmp_path / "GSE1_RAW.tar"
    path.write_bytes(body)
    code = (
        "import sys, resource, pathlib, anndata, scanpy, pandas, scipy.io, h5py\n"
        "from sc_drugresp.datasets._read import read_tar\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_tar(pathlib.Path(sys.argv[1]))\n"
        "except ValueError as error:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 500_000, "kilobytes"


def test_a_sparse_member_is_not_unpacked(tmp_path):
    with pytest.warns(UserWarning, match=r"GSM1\.txt \(sparse\)"):
        adata = read(tmp_path, sparse_member())
    assert samples(adata) == {"GSM2": TOTAL}


def test_a_table_of_many_zeros_is_no_bomb(tmp_path):
    """Real ones shrink a hundredfold."""
    cells, genes = 2000, 300
    line = "\t".join(["0"] * (cells - 1) + ["1"])
    text = "\n".join(["\t" + "\t".join(f"cell{i}" for i in range(cells)), *(f"G{i}\t{line}" for i in range(genes))])
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert read_table(path).shape == (cells, genes)


# One member of an archive ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_member_that_is_cut_short_leaves_no_file(tmp_path, stream):
    whole = tar({"big.pt": np.random.default_rng(0).bytes(50_000)})
    for cut in (600, 20_000, 50_000):
        path = tmp_path / f"{cut}.tar"
        path.write_bytes(whole[:cut])
        with tarfile.open(path, "r|*" if stream else "r") as archive:
            member = archive.next()
            with pytest.raises((ValueError, tarfile.ReadError)):
                copy_member(archive, member, tmp_path / "out" / "big.pt")
        assert list((tmp_path / "out").iterdir()) == []


KILLS = """
import os, sys, tarfile
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from kills import kill_often
from sc_drugresp._core.files import copy_member
root = Path(sys.argv[1])
target = root / "out" / "big.pt"
def action(i):
    target.unlink(missing_ok=True)
    with tarfile.open(root / "a.tar.gz", "r|*") as archive:
        copy_member(archive, archive.next(), target)
def check(i):
    assert not target.exists() or target.stat().st_size == 3_000_000
    action(i)
    assert os.listdir(target.parent) == ["big.pt"], os.listdir(target.parent)
kill_often(action, check, n=NUMBER, longest=0.05)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("n", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_leave_the_member_or_nothing_and_the_next_call_no_orphan(tmp_path, n):
    (tmp_path / "a.tar.gz").write_bytes(tar({"big.pt": np.random.default_rng(0).bytes(3_000_000)}, "w:gz"))
    arguments = [str(tmp_path), str(Path(__file__).parents[1])]
    code = KILLS.replace("NUMBER", str(n))
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True)
    assert run.stdout.strip() == f"killed {n} times", run.stderr
