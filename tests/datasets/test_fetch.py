"""`datasets.available` and `datasets.load`: own folder, cache, archive; readers of what GEO offers."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest
from scipy import io as mmio
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp.datasets import _fetch, _registry
from sc_drugresp.datasets._read import read_tar

GENES = ["EGFR", "DUSP6", "VIM", "ACTB"]
COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 5], [7, 1, 0]])  # genes x cells


def table(counts=COUNTS, cells=("c1", "c2", "c3"), *, sep="\t", corner=True, trailing=False, second=None) -> bytes:
    end = sep if trailing else ""
    lines = [sep.join(([""] if corner else []) + list(cells)) + end]
    if second is not None:
        lines.append(sep.join(["", *second]) + end)
    lines += [sep.join([gene, *map(str, row)]) + end for gene, row in zip(GENES, counts)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def triple(counts=COUNTS) -> dict[str, bytes]:
    matrix = io.BytesIO()
    mmio.mmwrite(matrix, sparse.coo_matrix(counts))
    features = "\n".join(f"ENSG0000000000{i}\t{gene}\tGene Expression" for i, gene in enumerate(GENES))
    return {
        "matrix.mtx.gz": gzip.compress(matrix.getvalue()),
        "features.tsv.gz": gzip.compress(features.encode()),
        "barcodes.tsv.gz": gzip.compress(b"AAA-1\nCCC-1\nGGG-1"),
    }


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def geo(file_server, monkeypatch):
    """A stand-in for the archive: `geo(accession, role, body)` publishes one of its files."""
    monkeypatch.setattr(_registry, "GEO", file_server.url)

    def publish(accession: str, role: str, body: bytes) -> None:
        name = _registry.registry()[accession].files[role]
        file_server.files[f"/{accession[:-3]}nnn/{accession}/suppl/{name}"] = body

    publish.server = file_server
    return publish


def folder(accession: str):
    return sdr.settings.cache_dir / "datasets" / accession


def test_addresses_follow_the_rule_of_the_archive():
    row = _registry.registry()["GSE149214"]
    base = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE149nnn/GSE149214/suppl/GSE149214_RAW.tar"
    assert row.urls("matrix")[0] == base


def test_every_row_is_complete():
    for row in _registry.registry().values():
        assert row.reader in {"table", "tar"}
        assert "matrix" in row.files
        assert all(name.startswith(row.accession) for name in row.files.values())
        assert row.drugs or row.accession == "GSE138267"  # whose regimen the catalogue does not state
        assert set(row.labels) in (set(), {"column", "sensitive", "resistant"})


def test_available_lists_rows_and_own_files(tmp_path):
    sdr.datasets.toy(2, 5).write_h5ad(tmp_path / "GSE149214_mine.h5ad")
    with sdr.settings.override(data_dir=tmp_path):
        listed = sdr.datasets.available()
    assert listed.loc["GSE149214_mine", ["where", "cancer"]].tolist() == ["data_dir", "Lung cancer"]
    assert listed.loc["GSE149214", "where"] == "download"
    assert len(listed) == len(_registry.registry()) + 1


def test_own_folder_comes_first_by_name_and_by_accession(tmp_path):
    own = sdr.datasets.toy(2, 5)
    own.write_h5ad(tmp_path / "GSE149214_mine.h5ad")
    with sdr.settings.override(data_dir=tmp_path):
        for name in ("GSE149214_mine", "GSE149214_mine.h5ad", "GSE149214"):
            assert (sdr.datasets.load(name).X != own.X).nnz == 0


def test_an_accession_that_fits_two_files_is_ambiguous(tmp_path):
    for name in ("GSE149214_a", "GSE149214_b"):
        sdr.datasets.toy(2, 5).write_h5ad(tmp_path / f"{name}.h5ad")
    with sdr.settings.override(data_dir=tmp_path), pytest.raises(ValueError, match="several files"):
        sdr.datasets.load("GSE149214")


def test_unknown_name_suggests_near_ones():
    with pytest.raises(ValueError, match="Did you mean 'GSE149214'"):
        sdr.datasets.load("GSE14921")


def test_offline_gives_the_manual_step():
    with pytest.raises(ConnectionError, match=r"By hand: get GSE149214_RAW\.tar from https://www\.ncbi"):
        sdr.datasets.load("GSE149214")
    assert not folder("GSE149214").exists()


def test_table_with_cells_is_read_labeled_and_cached(geo):
    title = "characteristics: patinet ID (Pre=baseline; Post= on treatment)"
    columns = ["title", title, "characteristics: response", "characteristics: therapy"]
    cells = [["c1", "Pre_P1", "Responder", "anti-PD1"], ["c3", "Post_P2", "Non-responder", "anti-CTLA4"]]
    preamble = "\n".join("# text" for _ in range(19))
    text = "\n".join([preamble, "\t".join(columns), *("\t".join(row) for row in cells)])
    geo("GSE120575", "matrix", table(COUNTS / 2, trailing=True, second=["Pre_P1", "Pre_P1", "Post_P2"]))
    geo("GSE120575", "cells", gzip.compress(text.encode("latin-1")))
    adata = sdr.datasets.load("GSE120575")
    assert list(adata.obs_names) == ["c1", "c2", "c3"]
    np.testing.assert_allclose(adata.X.toarray(), COUNTS.T / 2)
    assert adata.obs["response"].tolist() == ["sensitive", np.nan, "resistant"]
    assert adata.obs["timepoint"].tolist()[::2] == ["Pre", "Post"]
    assert adata.obs["patient"].tolist()[::2] == ["P1", "P2"]
    assert adata.uns["dataset"]["values"] == "TPM"
    requests = len(geo.server.log)
    with sdr.settings.override(offline=True):
        again = sdr.datasets.load("GSE120575")
    assert len(geo.server.log) == requests
    assert (again.X != adata.X).nnz == 0
    assert again.obs.equals(adata.obs)
    for key, value in adata.uns["dataset"].items():
        assert type(value) is type(again.uns["dataset"][key])
        assert np.array_equal(value, again.uns["dataset"][key])
    assert sdr.datasets.available().loc["GSE120575", "where"] == "cache"


def test_header_without_a_corner_is_read(geo):
    geo("GSE123813", "matrix", table(corner=False))
    text = "cell.id\tpatient\ttreatment\tsort\tcluster\nc1\tsu1\tpre\tall\tB\nc2\tsu1\tpost\tall\tT\nc3\tsu2\tpre\tall\tT\n"
    geo("GSE123813", "cells", gzip.compress(text.encode()))
    adata = sdr.datasets.load("GSE123813")
    assert list(adata.obs_names) == ["c1", "c2", "c3"]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS.T)
    assert adata.obs["cell_type"].tolist() == ["B", "T", "T"]
    assert "response" not in adata.obs


def test_archive_of_samples_is_joined_and_labeled(geo):
    members = {f"GSM4494347_D0_{name}": body for name, body in triple().items()}
    members["GSM4494348_D11.dge.txt.gz"] = table(cells=("x", "y", "z"))
    members["GSM4494349_D11c.csv.gz"] = table(cells=("u", "v", "w"), sep=",")
    members["GSM4494349_metadata.txt.gz"] = gzip.compress(b"not\ta matrix")
    geo("GSE149214", "matrix", archive(members))
    adata = sdr.datasets.load("GSE149214")
    assert adata.shape == (9, 4)
    np.testing.assert_array_equal(adata[:, GENES].X.toarray(), np.tile(COUNTS.T, (3, 1)))
    assert adata.obs["response"].tolist() == ["sensitive"] * 3 + ["resistant"] * 6
    assert adata.obs["sample"].nunique() == 3
    assert adata.obs_names.is_unique


def test_genes_of_one_sample_only_are_zero_in_the_others(tmp_path):
    path = tmp_path / "a_RAW.tar"
    short = gzip.compress(b"\tc1\nEGFR\t4\nONLY\t2\n")
    path.write_bytes(archive({"GSM1_a.txt.gz": table(), "GSM2_b.txt.gz": short}))
    adata = read_tar(path)
    assert adata[:, "ONLY"].X.toarray().ravel().tolist() == [0, 0, 0, 2]
    assert adata[:, "ACTB"].X.toarray().ravel().tolist() == [7, 1, 0, 0]


def test_archive_without_a_matrix_says_what_it_holds(tmp_path):
    path = tmp_path / "b_RAW.tar"
    path.write_bytes(archive({"GSM1.bw": b"x"}))
    with pytest.raises(ValueError, match=r"holds \['GSM1\.bw'\]"):
        read_tar(path)


@pytest.mark.parametrize("body", [b"\0no archive", archive({"GSM1_a.txt.gz": table()})[:700]])
def test_damaged_archive_is_an_error_and_nothing_is_cached(geo, body):
    geo("GSE149214", "matrix", body)
    with pytest.raises(ValueError, match=r"not a complete tar archive|not a table"):
        sdr.datasets.load("GSE149214")
    assert not (folder("GSE149214") / "GSE149214.h5ad").exists()


def test_table_of_words_is_an_error(geo):
    geo("GSE207422", "matrix", gzip.compress(b"\ta\tb\nEGFR\tlow\thigh\n"))
    with pytest.raises(ValueError, match="not a table of numbers"):
        sdr.datasets.load("GSE207422")


def test_cells_of_another_study_are_an_error(geo):
    geo("GSE115978", "matrix", table(sep=","))
    text = "cells,samples,cell.types,treatment.group,Cohort\nother,P1,Mal,treatment.naive,New\n"
    geo("GSE115978", "cells", gzip.compress(text.encode()))
    with pytest.raises(ValueError, match="No cell of the matrix is listed"):
        sdr.datasets.load("GSE115978")


def test_interrupted_write_leaves_no_cached_file(geo, monkeypatch):
    import anndata as ad

    geo("GSE207422", "matrix", table())

    def interrupted(self, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(ad.AnnData, "write_h5ad", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sdr.datasets.load("GSE207422")
    body = table()
    names = sorted(path.name for path in folder("GSE207422").iterdir())
    matrix = _registry.registry()["GSE207422"].files["matrix"]
    assert names == sorted([matrix, f"{matrix}.sha256"])
    assert hashlib.sha256((folder("GSE207422") / matrix).read_bytes()).hexdigest() == hashlib.sha256(body).hexdigest()


def test_real_folder_is_read(shared):
    with sdr.settings.override(data_dir=shared / "data"):
        adata = sdr.datasets.load("GSE108383")
        assert (sdr.datasets.available()["where"] == "data_dir").sum() >= 5
    assert set(adata.obs["response"].astype(str)) == {"sensitive", "resistant"}


def test_private_helpers_know_no_folder_by_default():
    assert _fetch._own_files() == []


def test_members_that_climb_out_of_an_archive_are_refused(tmp_path):
    path = tmp_path / "c_RAW.tar"
    path.write_bytes(archive({"../outside.csv.gz": b"x"}))
    with pytest.raises(ValueError, match=r"'\.\./outside\.csv\.gz' lies outside"):
        read_tar(path)
    assert [file.name for file in tmp_path.iterdir()] == ["c_RAW.tar"]
