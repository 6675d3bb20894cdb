"""`datasets.screen` and its publishers: terms, downloads, the cache, what cannot be fetched."""

from __future__ import annotations

import dataclasses
import json

import pytest
import screen_files as files

import sc_drugresp as sdr
from sc_drugresp._core.hashing import sha256
from sc_drugresp.datasets import _screens, _terms
from sc_drugresp.datasets._screen_registry import ScreenRegistry, screen_registry

SOURCES = {
    "gdsc1_response": lambda folder: files.gdsc_response(folder, "GDSC1"),
    "gdsc2_response": files.gdsc_response,
    "gdsc_compounds": files.gdsc_compounds,
    "gdsc_arrays": files.gdsc_arrays,
    "sanger_models": files.sanger_models,
    "depmap_models": files.depmap_models,
    "depmap_expression": files.depmap_expression,
    "prism_curves": files.prism_curves,
    "ctrp_archive": files.ctrp_archive,
}


@pytest.fixture
def publishers(tmp_path, file_server, monkeypatch):
    """A stand-in for all publishers: the files of the registry, small, at addresses of the local server."""
    monkeypatch.setattr("sc_drugresp._core.download.time.sleep", lambda seconds: None)
    real = screen_registry()
    local = {}
    for name, file in real.files.items():
        path = SOURCES[name](tmp_path / "published")
        assert path.name == file.name  # the layouts of the tests carry the names of the registry
        file_server.files[f"/{name}"] = path.read_bytes()
        hashed = {"sha256": sha256(path), "md5": None} if file.expected.hashed else {}
        local[name] = dataclasses.replace(file, urls=(f"{file_server.url}/{name}",), **hashed)
    monkeypatch.setattr(_screens, "screen_registry", lambda: ScreenRegistry(real.screens, local, real.terms))
    return file_server


def record():
    return json.loads(_terms.record_path().read_text())


def test_every_file_has_an_address_terms_and_a_use():
    registry = screen_registry()
    used = {name for row in registry.screens.values() for name in row.response}
    used |= {name for row in registry.screens.values() for names in row.expression.values() for name in names}
    assert used == set(registry.files) == set(SOURCES)
    for file in registry.files.values():
        assert all(url.startswith("https://") for url in (*file.urls, file.page))
        assert file.terms in registry.terms
    assert {file.terms for file in registry.files.values()} == set(registry.terms)
    for terms in registry.terms.values():
        assert terms.page in terms.text
    assert "redistribution" in registry.terms["gdsc"].text
    assert all("doi:" in row.citation for row in registry.screens.values())


def test_nothing_is_fetched_before_the_terms_are_accepted(publishers):
    with pytest.raises(PermissionError) as error:
        sdr.datasets.screen("ctrp2")
    text = str(error.value)
    assert "Acknowledge the CTD2 Network" in text
    assert "Creative Commons Attribution 4.0" in text
    assert "Genomics of Drug Sensitivity" not in text
    assert text.endswith("sc_drugresp.datasets.screen('ctrp2', accept_terms=True)")
    assert publishers.log == []
    assert not _terms.record_path().exists()


def test_terms_are_accepted_once(publishers):
    sdr.datasets.screen("ctrp2", accept_terms=True)
    assert set(record()) == {"ctd2", "depmap"}
    assert record()["depmap"]["licence"] == "CC BY 4.0"
    assert record()["ctd2"]["date"].startswith("20")
    sdr.datasets.screen("prism")  # the same terms
    with pytest.raises(PermissionError, match="Genomics of Drug Sensitivity"):
        sdr.datasets.screen("gdsc2")
    before = record()["depmap"]
    sdr.datasets.screen("gdsc2", accept_terms=True)
    assert set(record()) == {"ctd2", "depmap", "gdsc"}
    assert record()["depmap"] == before


def test_changed_terms_and_a_damaged_record_are_asked_for_again(publishers):
    sdr.datasets.screen("prism", accept_terms=True)
    path = _terms.record_path()
    changed = record()
    changed["depmap"]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed))
    with pytest.raises(PermissionError):
        sdr.datasets.screen("prism")
    path.write_text("{half")
    with pytest.raises(PermissionError):
        sdr.datasets.screen("prism")
    sdr.datasets.screen("prism", accept_terms=True)
    assert len(record()["depmap"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "options", "fetched"),
    [
        ("gdsc1", {}, {"gdsc1_response", "gdsc_compounds", "sanger_models", "gdsc_arrays"}),
        ("gdsc2", {}, {"gdsc2_response", "gdsc_compounds", "sanger_models", "gdsc_arrays"}),
        (
            "gdsc2",
            {"expression": "log2tpm"},
            {"gdsc2_response", "gdsc_compounds", "sanger_models", "depmap_models", "depmap_expression"},
        ),
        ("ctrp2", {}, {"ctrp_archive", "depmap_models", "depmap_expression"}),
        ("prism", {}, {"prism_curves", "depmap_models", "depmap_expression"}),
    ],
)
def test_screens_come_from_their_publishers_and_then_from_the_cache(publishers, name, options, fetched):
    screen = sdr.datasets.screen(name, accept_terms=True, **options)
    assert {path.strip("/") for path, _ in publishers.log} == fetched
    assert screen.release == screen_registry().screens[name].release
    assert screen.lines.loc[["A549", "TDOTT", "TT"], "tissue"].tolist() == ["lung", "esophagus", "thyroid"]
    assert len(screen.response) >= 16
    assert len(set(screen.response["line"]) & set(screen.expression.index)) == 8
    assert all(len(value) == 64 for value in screen.sources.values())
    with sdr.settings.override(offline=True):
        again = sdr.datasets.screen(name, **options)
    assert len(publishers.log) == len(fetched)
    assert again.response.equals(screen.response)
    assert again.expression.equals(screen.expression)
    assert again.sources == screen.sources


def test_screens_share_files(publishers):
    sdr.datasets.screen("ctrp2", accept_terms=True)
    before = len(publishers.log)
    sdr.datasets.screen("prism")
    assert [path for path, _ in publishers.log[before:]] == ["/prism_curves"]


def test_own_folder_comes_before_the_cache(publishers, tmp_path):
    own = tmp_path / "own"
    files.prism_curves(own / "screens")
    files.depmap_models(own)
    with sdr.settings.override(data_dir=own):
        sdr.datasets.screen("prism", accept_terms=True)
    assert [path for path, _ in publishers.log] == ["/depmap_expression"]


def test_offline_names_the_file_and_the_manual_step():
    with pytest.raises(ConnectionError) as error:
        sdr.datasets.screen("gdsc2", accept_terms=True)
    text = str(error.value)
    assert (
        "By hand: get GDSC2_fitted_dose_response_27Oct23.csv (about 45.0 MB) from https://www.cancerrxgene.org" in text
    )
    assert "`expression='log2tpm'` needs other files" in text


def test_a_page_instead_of_the_file_is_not_kept(publishers):
    for name in ("ctrp_archive", "sanger_models"):
        publishers.files[f"/{name}"] = b"\n<!doctype html><title>Moved</title>"
    with pytest.raises(ValueError, match=r"(?s)CTRPv2\.0_2015.*it is a web page.*By hand: get CTRPv2"):
        sdr.datasets.screen("ctrp2", accept_terms=True)
    with pytest.raises(ValueError, match=r"(?s)model_list.*it is a web page"):
        sdr.datasets.screen("gdsc2", accept_terms=True)
    kept = {path.name for path in (sdr.settings.cache_dir / "screens").rglob("*") if path.is_file()}
    assert not [name for name in kept if "CTRPv2" in name or "model_list" in name]


def test_a_file_that_is_not_the_published_one_is_refused(publishers):
    publishers.files["/prism_curves"] += b"more\n"
    with pytest.raises(ValueError, match="the file is not the published one"):
        sdr.datasets.screen("prism", accept_terms=True)
    publishers.files["/prism_curves"] = publishers.files["/prism_curves"][:-5]
    assert len(sdr.datasets.screen("prism").drugs) == 3


def test_the_first_download_of_an_unhashed_file_is_required_later(publishers):
    sdr.datasets.screen("gdsc2", accept_terms=True)
    cached = sdr.settings.cache_dir / "screens" / "gdsc_8.5" / "GDSC2_fitted_dose_response_27Oct23.csv"
    cached.unlink()
    publishers.files["/gdsc2_response"] += b"more\n"
    with pytest.raises(ValueError, match="the file is not the published one"):
        sdr.datasets.screen("gdsc2")
