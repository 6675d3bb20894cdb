"""Files of other names: readers, search order and the one download."""

from __future__ import annotations

import gzip
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import sc_drugresp as sdr
from sc_drugresp.genes import _aliases as module
from sc_drugresp.genes import fetch_file, load_aliases
from sc_drugresp.genes._aliases import read_hgnc, read_orthologs

HGNC = (
    "hgnc_id\tsymbol\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    'HGNC:1\tTP53\tApproved\t"p53|LFS1"\tOLD1\tENSG00000141510\n'
    "HGNC:2\tEGFR\tApproved\tERBB\tOLD1\tENSG00000146648\n"
    "HGNC:3\tGONE\tEntry Withdrawn\tX\tY\t\n"
)
MGI = (
    "DB Class Key\tCommon Organism Name\tNCBI Taxon ID\tSymbol\n"
    "1\tmouse, laboratory\t10090\tTrp53\n1\thuman\t9606\tTP53\n"
    "2\tmouse, laboratory\t10090\tDup1\n2\tmouse, laboratory\t10090\tDup2\n2\thuman\t9606\tDUP\n"
)
HCOP = (
    "human_symbol\tmouse_symbol\tsupport\n"
    "TP53\tTrp53\tEnsembl,HGNC\nEGFR\tEgfr\tEnsembl\nA1\tB1\tEnsembl,HGNC\nA1\tB2\tOMA,HGNC\n-\tLone\tOMA,HGNC\n"
)


def test_hgnc_formats(tmp_path, shared):
    (tmp_path / "a.txt").write_text(HGNC)
    approved, previous, alias = read_hgnc(tmp_path / "a.txt")
    assert approved == {"TP53": "ENSG00000141510", "EGFR": "ENSG00000146648"}
    assert previous == {"OLD1": ("TP53", "EGFR")}
    assert alias == {"p53": ("TP53",), "LFS1": ("TP53",), "ERBB": ("EGFR",)}
    approved, previous, _ = read_hgnc(shared / "data" / "genes" / "hgnc_genes.tsv.gz")
    assert len(approved) == 44_081
    assert previous["H3F3A"] == ("H3-3A",)


def test_ortholog_formats(tmp_path, shared):
    (tmp_path / "mgi").write_text(MGI)
    assert read_orthologs(tmp_path / "mgi") == {"Trp53": "TP53"}
    (tmp_path / "hcop.gz").write_bytes(gzip.compress(HCOP.encode()))
    assert read_orthologs(tmp_path / "hcop.gz") == {"Trp53": "TP53"}
    pairs = read_orthologs(shared / "data" / "genes" / "human_mouse_homologs.tsv.gz")
    assert pairs["Trp53"] == "TP53"
    assert len(set(pairs.values())) == len(pairs) == 12_601


def test_wrong_files(tmp_path):
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_hgnc(tmp_path / "empty")
    (tmp_path / "other").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="Expected a column 'symbol'"):
        read_hgnc(tmp_path / "other")
    with pytest.raises(ValueError, match="human_gene_symbol"):
        read_orthologs(tmp_path / "other")


def test_nothing_here_means_empty_parts():
    aliases = load_aliases(download=("hgnc", "orthologs"))  # the tests are offline
    assert (aliases.previous, aliases.orthologs, aliases.sources) == ({}, {}, {})


def test_data_dir_comes_before_the_cache(tmp_path):
    (tmp_path / "data" / "genes").mkdir(parents=True)
    (tmp_path / "data" / "genes" / "hgnc_complete_set.txt").write_text(HGNC)
    cache = sdr.settings.cache_dir / "genes"
    cache.mkdir(parents=True)
    (cache / "hgnc_complete_set.txt").write_text(HGNC.replace("OLD1", "CACHED"))
    assert set(load_aliases().previous) == {"CACHED"}
    with sdr.settings.override(data_dir=tmp_path / "data"):
        assert set(load_aliases().previous) == {"OLD1"}
        assert load_aliases().sources["hgnc"].startswith("hgnc_complete_set.txt (SHA-256 ")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that stands for HGNC; it counts requests and may refuse the first ones."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "hgnc.txt").write_text(HGNC)
    state = {"requests": 0, "refuse": 0}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            state["requests"] += 1
            if state["requests"] <= state["refuse"]:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    source = replace(module.SOURCES["hgnc"], url=f"http://127.0.0.1:{httpd.server_port}/hgnc.txt")
    monkeypatch.setitem(module.SOURCES, "hgnc", source)
    monkeypatch.setattr(module, "_failed", set())
    state["file"] = folder / "hgnc.txt"
    with sdr.settings.override(offline=False):
        yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_fetched_once_after_a_retry(server):
    server["refuse"] = 1
    aliases = load_aliases(download=("hgnc",))
    assert aliases.previous["OLD1"] == ("TP53", "EGFR")
    assert server["requests"] == 2
    assert load_aliases(download=("hgnc",)).previous == aliases.previous
    assert server["requests"] == 2  # from the cache


def test_a_changed_file_is_refused(server):
    path = fetch_file("hgnc")
    path.unlink()
    server["file"].write_text(HGNC + "HGNC:9\tNEW\tApproved\t\t\t\n")
    with pytest.raises(ValueError, match="SHA256"):
        fetch_file("hgnc")
    assert not path.exists()


def test_failure_is_explained_and_not_repeated(server):
    server["refuse"] = 99
    with pytest.raises(ConnectionError, match=r"(?s)503.*SC_DRUGRESP_DATA"):
        fetch_file("hgnc")
    before = server["requests"]
    assert load_aliases(download=("hgnc",)).sources == {}
    tried = server["requests"]
    assert tried > before
    assert load_aliases(download=("hgnc",)).sources == {}
    assert server["requests"] == tried


def test_offline_names_the_manual_step(server):
    with sdr.settings.override(offline=True), pytest.raises(ConnectionError, match=r"(?s)offline.*download http"):
        fetch_file("hgnc")
    assert server["requests"] == 0


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b"symbol\tensembl_gene_id\tprev_symbol\talias_symbol\n", mtime=0)[:-9],
        gzip.compress(bytes(100_000_000)),
        b'symbol\tensembl_id\n"EGFR\tx\n',
    ],
)
def test_a_damaged_gene_table_is_one_clear_error(tmp_path, body):
    path = tmp_path / "hgnc_complete_set.txt"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"hgnc_complete_set\.txt"):
        read_hgnc(path)
