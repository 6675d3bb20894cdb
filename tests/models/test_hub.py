"""Finding, downloading and verifying published files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sc_drugresp as sdr
from sc_drugresp.models import _hub, _registry
from sc_drugresp.models._spec import Checkpoint, ModelSpec, RemoteFile

WEIGHTS, VOCAB = np.random.default_rng(1).bytes(20_000), b'{"EGFR": 0}'


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def spec(file_server, monkeypatch) -> ModelSpec:
    """A model with two checkpoints that share a vocabulary, published on a local server."""
    file_server.files.update({"/big.bin": WEIGHTS, "/cancer.bin": WEIGHTS[::-1], "/vocab.json": VOCAB})
    vocab = RemoteFile("shared/vocab.json", (f"{file_server.url}/vocab.json",), len(VOCAB), sha256(VOCAB))

    def checkpoint(tag: str, body: bytes, *, commercial: bool | None) -> Checkpoint:
        file = RemoteFile(f"{tag}/{tag}.bin", (f"{file_server.url}/{tag}.bin",), len(body), sha256(body))
        extra = RemoteFile("extra.txt", optional=True)
        files = {"weights": file, "vocab": vocab, "extra": extra}
        return Checkpoint(tag, files, "Research only", "A. Publisher", commercial)

    big, cancer = checkpoint("big", WEIGHTS, commercial=True), checkpoint("cancer", WEIGHTS[::-1], commercial=False)
    row = ModelSpec("tiny", "Tiny", ".tiny:Tiny", "", default="big", checkpoints={"big": big, "cancer": cancer})
    rows = {**_registry.registry(), "tiny": row}
    monkeypatch.setattr(_registry, "registry", lambda: rows)
    monkeypatch.setattr(_hub, "_warned", set())
    return row


def locate(spec: ModelSpec, tag: str = "big", directory: Path | None = None) -> dict[str, Path]:
    return _hub.locate(spec, spec.checkpoints[tag], directory)


def put(folder: Path, **files: bytes) -> Path:
    for name, body in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


@pytest.mark.parametrize(
    "layout",
    ["big__big_dot_bin shared__vocab_dot_json", "big_dot_bin vocab_dot_json", "a__b__big_dot_bin c__vocab_dot_json"],
)
def test_user_folder_may_be_as_published_or_flat_or_deeper(spec, tmp_path, layout, file_server):
    names = layout.split()
    found = locate(spec, directory=put(tmp_path / "mine", **{names[0]: b"mine", names[1]: VOCAB}))
    assert set(found) == {"weights", "vocab"}
    assert found["weights"].read_bytes() == b"mine"  # the user's own weights may have any size
    assert file_server.log == []


def test_user_may_name_the_weights_file(spec, tmp_path):
    folder = put(tmp_path / "mine", tuned_dot_bin=b"mine", vocab_dot_json=VOCAB)
    found = locate(spec, directory=folder / "tuned.bin")
    assert found == {"weights": folder / "tuned.bin", "vocab": folder / "vocab.json"}


def test_two_candidates_of_one_name_are_not_guessed_between(spec, tmp_path):
    folder = put(tmp_path / "mine", a__big_dot_bin=b"1", b__big_dot_bin=b"2", vocab_dot_json=VOCAB)
    with pytest.raises(FileNotFoundError, match=r"big/big\.bin"):
        locate(spec, directory=folder)


def test_a_folder_with_gaps_is_an_error_and_is_not_filled(spec, tmp_path, file_server):
    folder = put(tmp_path / "mine", vocab_dot_json=VOCAB)
    with pytest.raises(FileNotFoundError, match=r"tiny\.big: 1 file(.|\n)*20,000 bytes(.|\n)*A\. Publisher"):
        locate(spec, directory=folder)
    assert file_server.log == []


def test_missing_files_are_downloaded_into_the_cache_once(spec, file_server):
    found = locate(spec)
    assert found["weights"].read_bytes() == WEIGHTS
    assert found["weights"].is_relative_to(sdr.settings.cache_dir / "models" / "tiny" / "big")
    requests = len(file_server.log)
    with sdr.settings.override(offline=True):
        assert locate(spec) == found
    assert len(file_server.log) == requests == 2


def test_offline_with_an_empty_cache_names_files_and_step(spec, file_server):
    with (
        sdr.settings.override(offline=True),
        pytest.raises(FileNotFoundError, match=r"2 file\(s\) not found(.|\n)*big\.bin"),
    ):
        locate(spec)
    assert file_server.log == []


def test_files_without_an_address_are_for_the_user_to_get(spec, monkeypatch, file_server):
    by_hand = RemoteFile("big/big.bin", manual="log in at example.org")
    row = Checkpoint(
        "big", {"weights": by_hand, **dict(list(spec.checkpoints["big"].files.items())[1:])}, "?", "P", True
    )
    with pytest.raises(FileNotFoundError, match=r"log in at example\.org"):
        _hub.locate(spec, row)
    assert file_server.log == []


def test_truncated_file_in_the_cache_is_fetched_again(spec):
    path = locate(spec)["weights"]
    path.write_bytes(WEIGHTS[:500])
    assert locate(spec)["weights"].read_bytes() == WEIGHTS


def test_wrong_hash_is_refused_and_not_kept(spec, file_server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    file_server.files["/big.bin"] = WEIGHTS[::-1]
    with pytest.raises(ValueError, match=f"instead of {sha256(WEIGHTS)}"):
        locate(spec)
    assert not list(sdr.settings.cache_dir.rglob("big.bin"))


def test_broken_download_resumes_in_the_next_call(spec, file_server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    file_server.cut["/big.bin"] = [5_000, 0, 0]
    with pytest.raises(ConnectionError, match=r"big\.bin"):
        locate(spec)
    found = locate(spec)
    assert file_server.log[-2:][0] == ("/big.bin", "bytes=5000-")
    assert found["weights"].read_bytes() == WEIGHTS


def test_a_file_shared_by_checkpoints_is_downloaded_once(spec, file_server):
    locate(spec)
    with pytest.warns(UserWarning, match="may not be used commercially"):
        found = locate(spec, "cancer")
    assert [path for path, _ in file_server.log].count("/vocab.json") == 1
    assert found["vocab"].read_bytes() == VOCAB


def test_license_warning_comes_once_and_before_the_download(spec, file_server):
    with pytest.warns(UserWarning, match="Research only") as caught:
        sdr.models.download("tiny.cancer")
    assert len(caught) == 1
    for path in sdr.settings.cache_dir.rglob("cancer.bin"):
        path.unlink()
    sdr.models.download("tiny.cancer")  # warnings are errors here


def test_unknown_terms_are_told_as_unknown(spec, monkeypatch):
    row = replace(spec.checkpoints["big"], commercial=None, license="none stated")
    monkeypatch.setitem(spec.checkpoints, "big", row)
    with pytest.warns(UserWarning, match=r"does not state whether .* tiny\.big may be used .*none stated"):
        sdr.models.download("tiny.big")


def test_download_to_a_folder(spec, tmp_path):
    got = sdr.models.download("tiny", to=tmp_path / "here")
    assert got == {"weights": tmp_path / "here/big/big.bin", "vocab": tmp_path / "here/shared/vocab.json"}
    assert locate(spec, directory=tmp_path / "here") == got


def test_download_of_a_baseline_says_that_it_has_no_files(monkeypatch):
    row = ModelSpec("fitted", "Fitted", ".fitted:Fitted", "", kind="baseline")
    monkeypatch.setattr(_registry, "registry", lambda: {"fitted": row})
    with pytest.raises(ValueError, match="has no files"):
        sdr.models.download("fitted")


def test_verify_reports_each_file(spec):
    sdr.models.download("tiny")
    assert sdr.models.verify("tiny")["status"].tolist() == ["ok", "ok", "missing (optional)"]
    weights = Path(sdr.models.verify("tiny").loc["weights", "path"])
    weights.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    assert sdr.models.verify("tiny").loc["weights", "status"].startswith("its SHA256 is")
    weights.unlink()
    assert sdr.models.verify("tiny").loc["weights", "status"] == "missing"


def test_verify_says_when_there_is_nothing_to_compare_with(spec, tmp_path, monkeypatch):
    files = {"weights": RemoteFile("w.bin"), "config": RemoteFile("c.json", bytes=2)}
    row = ModelSpec("bare", "", "", "", default="x", checkpoints={"x": Checkpoint("x", files, "?", "P", True)})
    monkeypatch.setattr(_registry, "registry", lambda: {"bare": row})
    put(tmp_path, w_dot_bin=b"1", c_dot_json=b"{}")
    assert sdr.models.verify("bare", tmp_path)["status"].tolist() == ["unchecked", "size ok"]
