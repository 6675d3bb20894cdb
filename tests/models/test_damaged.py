"""Damaged, exchanged and hostile checkpoints of all eight models: refused, with the file and what was found in it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import Copy, publish
from helpers import GOLDEN_MODELS, RunsCode, golden

import sc_drugresp as sdr
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find


@pytest.fixture(params=GOLDEN_MODELS)
def copy(request, tmp_path) -> Copy:
    return Copy(request.param, tmp_path)


def refused(copy: Copy, *words: str, file: Path | None = None, kind: type = ValueError) -> None:
    """Loading fails with a message that names the file and says each of `words`."""
    with pytest.raises(kind) as caught:
        copy.load()
    message = str(caught.value)
    for word in (str(file or copy.weights), *words):
        assert word in message, message


def test_an_intact_copy_is_local_and_loads(copy):
    encoder = copy.load()
    assert encoder.checkpoint["name"] == copy.name
    assert encoder.checkpoint["source"] == "local"


# Tensors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int64], ids=str)
def test_numbers_of_another_kind_are_refused(copy, dtype):
    name = copy.used()[0]
    copy.change(lambda s: s.update({name: s[name].to(dtype)}) if name in s else None)
    refused(copy, f"is stored as {dtype}", "expected torch.float")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_refused(copy, value):
    name = copy.used()[-1]
    copy.change(lambda s: s[name].view(-1)[:1].fill_(value) if name in s else None)
    refused(copy, "NaN or infinite", "1 numbers of")


def test_entries_that_are_no_tensors_are_refused(copy):
    if copy.weights.suffix == ".safetensors":
        copy.weights.unlink()
        copy.weights = copy.weights.with_name("pytorch_model.bin")
    name = copy.used()[0]
    copy.change(lambda s: s.update({name: [1.0, 2.0]}))
    refused(copy, name, "is a list, expected a tensor")


def test_tensors_of_other_dimensions_are_refused(copy):
    name = copy.used()[0]
    copy.change(lambda s: s.update({name: s[name].reshape(-1)}) if name in s else None)
    refused(copy)


def test_every_matrix_with_a_row_more_or_less_is_refused(copy):
    for name in copy.used():
        for change in (
            lambda x: torch.cat([x, x[-1:]]),
            lambda x: x[:-1].clone(),
            lambda x: torch.cat([x] + [x[:1]] * 3),
        ):
            before = copy.weights.read_bytes()
            copy.change(lambda s, name=name, change=change: s.update({name: change(s[name])}) if name in s else None)
            with pytest.raises(ValueError) as caught:
                copy.load()
            assert str(copy.folder) in str(caught.value), (name, caught.value)
            copy.weights.unlink()  # not the mapped one
            copy.weights.write_bytes(before)
    copy.load()


def test_a_missing_last_layer_is_refused(copy):
    lost = copy.last_layer()
    assert len(lost) > 4
    copy.change(lambda s: [s.pop(name, None) for name in lost])
    refused(copy)


def test_a_missing_last_layer_is_refused_where_no_file_states_the_depth(copy):
    if copy.model not in ("scbert", "celllm", "uce"):
        return  # the others do not load without a configuration
    lost, kept = set(copy.last_layer()), dict(copy.state)
    copy.weights.unlink()
    torch.save({name: x for name, x in kept.items() if name not in lost}, copy.weights)  # without torch's own list
    for path in (copy.folder / "cellLM.json", copy.folder.parent / "config.json"):
        path.unlink(missing_ok=True)
    options = {"heads": 4} if copy.model == "uce" else {}
    with pytest.raises(ValueError, match="does not say how many layers") as caught:
        copy.load(**options)
    assert str(copy.weights) in str(caught.value)
    assert copy.load(**options, verify=False).checkpoint["source"] == "local"


def test_a_missing_layer_in_between_is_refused(copy):
    cls = model_class(find(copy.name)[0])
    lost = [
        n for n, x in copy.state.items() if cls.remap({n: x}) and next(iter(cls.remap({n: x}))).startswith("layers.0.")
    ]
    copy.change(lambda s: [s.pop(name, None) for name in lost])
    refused(copy)


# Files ----------------------------------------------------------------------------------------------------------------


def test_empty_files_folders_pipes_and_dangling_links_are_refused_at_once(copy):
    for role, path in copy.files.items():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(b"")
        refused(copy, "is empty (0 bytes)", file=path)
        path.unlink()
        path.mkdir()
        refused(copy, "is a folder", file=path)
        path.rmdir()
        os.mkfifo(path)
        refused(copy, "is a pipe", file=path)
        path.unlink()
        path.symlink_to(path.with_name("nowhere"))
        if not find(copy.name)[1].files[role].optional and "model.safetensors" not in path.name:
            with pytest.raises((FileNotFoundError, ValueError), match=copy.folder.name):  # or the file of another one
                copy.load()
        path.unlink()
        path.write_bytes(content)
    copy.load()


def test_text_that_is_not_utf_8_and_deep_json_are_refused(copy):
    for path in {path for path in copy.files.values() if path.suffix in (".json", ".txt", ".tsv", ".csv")}:
        content = path.read_bytes()
        path.write_bytes(b"\xff\xfe" + content)
        refused(copy, "not text in UTF-8", file=path)
        if path.suffix == ".json":
            for text in ("[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5_000 + "}"):
                path.write_text(text)
                refused(copy, "not valid JSON", file=path)
        path.write_bytes(content)


def test_every_flipped_bit_of_a_torch_file_is_found(copy):
    if copy.weights.suffix == ".safetensors":
        return  # holds no checksums: that of the registry tells, see below
    content = bytearray(copy.weights.read_bytes())
    place = content.index(bytes(next(iter(copy.state.values())).numpy().tobytes()[:16]))
    content[place + 5] ^= 4
    copy.weights.unlink()
    copy.weights.write_bytes(content)
    refused(copy, "is not what was written")
    copy.load(verify=False)


def test_pickles_that_run_code_are_not_executed(copy, tmp_path):
    for path in set(copy.files.values()):
        if path.suffix in (".json", ".txt", ".tsv", ".csv", ".h5ad", ".safetensors"):
            continue
        content = path.read_bytes()
        path.unlink()
        torch.save({"x": RunsCode(tmp_path / "executed")}, path, _use_new_zipfile_serialization=path.suffix != ".pkl")
        with suppress(ValueError):  # proteins of other species are not even opened
            copy.load()
        path.unlink()
        path.write_bytes(content)
    assert not (tmp_path / "executed").exists()


# Identity -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(copy, monkeypatch) -> Copy:
    """The recorded checkpoint as if it had been published."""
    publish(copy, monkeypatch)
    return copy


def test_a_registered_checkpoint_is_known_by_its_hashes(registered):
    assert registered.load().checkpoint["source"] == "published"


def test_any_changed_byte_of_a_registered_file_is_refused(registered):
    for role, path in registered.files.items():
        if find(registered.name)[1].files[role].sha256 is None:
            continue
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content + b"\n" if path.suffix in (".json", ".txt", ".tsv", ".csv") else content)
        if path.read_bytes() != content:
            refused(registered, "SHA-256", "expected", "verify=False", file=path)
            assert registered.load(verify=False).checkpoint["source"] == "local"
        path.write_bytes(content)


def test_changed_numbers_of_a_registered_network_are_refused(registered):
    name = registered.used()[0]
    registered.change(lambda s: s[name].view(-1)[:1].add_(1.0) if name in s else None)
    refused(registered, "SHA-256", "expected", "verify=False")
    assert registered.load(verify=False).checkpoint["source"] == "local"


def test_files_of_another_registered_checkpoint_are_not_taken_for_the_one_that_was_named(registered):
    name = f"{registered.model}.other"
    with pytest.raises(ValueError, match=f"belongs to {registered.name}, found by SHA-256") as caught:
        sdr.models.load(name, checkpoint=registered.folder)
    assert str(registered.weights) in str(caught.value)
    first = registered.used()[0]
    registered.change(lambda s: s[first].view(-1)[:1].add_(1.0))  # only the sizes tell
    number = find(registered.name)[1].sizes["layers"]
    with pytest.raises(ValueError, match=rf"belongs to {registered.name}, found by layers = {number}"):
        sdr.models.load(name, checkpoint=registered.folder)


# What single models have ----------------------------------------------------------------------------------------------


def test_the_folder_of_another_checkpoint_is_refused_by_its_name(tmp_path):
    tgpt = Copy("tgpt", tmp_path)
    folder = tgpt.weights.parent
    longer = shutil.copytree(folder, tmp_path / "transcriptome-gpt-1024-8-16-128", copy_function=shutil.copyfile)
    with pytest.raises(ValueError, match=r"belongs to tgpt\.126, found by its name transcriptome-gpt-1024-8-16-128"):
        sdr.models.load("tgpt.62", checkpoint=longer)
    other = golden("cellplm").weights / "20230926_85M.best.ckpt"
    assert sdr.models.load("cellplm", checkpoint=other).name == "cellplm.20230926"  # no checkpoint was named
    geneformer = golden("geneformer").copy(tmp_path)
    larger = (geneformer / "Geneformer-V2-104M").rename(geneformer / "Geneformer-V2-316M")
    with pytest.raises(ValueError, match=r"belongs to geneformer\.v2-316m"):
        sdr.models.load("geneformer.v2-104m", checkpoint=larger)
    assert sdr.models.load("geneformer.v2-316m", checkpoint=larger).name == "geneformer.v2-316m"


@pytest.mark.parametrize("lines", [1, 5, 40])
def test_a_truncated_table_of_chromosomes_is_refused(tmp_path, lines):
    uce = Copy("uce", tmp_path)
    path = uce.files["chromosomes"]
    whole, intact = path.read_text().splitlines(keepends=True), uce.load().genome
    for config in (True, False):
        if not config:
            (uce.folder.parent / "config.json").unlink()
        for rows in (whole[:-lines], [whole[0], *whole[1 + lines :]], whole[:100] + whole[100 + lines :]):
            path.write_text("".join(rows))
            try:
                found = uce.load(**({} if config else {"heads": 4})).genome
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017 (either way is right)
            else:  # what is missing says nothing about human genes or chromosomes
                assert set(whole) - set(rows) == {whole[1]}
                assert np.array_equal(found.chromosome, intact.chromosome)
                assert found.chromosome_offset == intact.chromosome_offset
    path.write_text("".join(whole)[:-4])
    with pytest.raises(ValueError, match="breaks off"):
        uce.load(heads=4)


def test_a_token_table_with_a_row_more_is_refused_without_a_configuration(tmp_path):
    uce = Copy("uce", tmp_path)
    (uce.folder.parent / "config.json").unlink()
    table = "pe_embedding.weight"
    uce.change(lambda s: s.update({table: torch.cat([s[table], s[table][-1:]])}))
    with pytest.raises(ValueError, match=r"expected 324.*found 325"):
        uce.load(heads=4)


@pytest.mark.parametrize("model", ["scbert", "celllm"])
def test_a_moved_gene_table_is_refused(tmp_path, model):
    copy = Copy(model, tmp_path)
    table = "pos_emb.emb.weight"
    copy.change(lambda s: s.update({table: s[table].roll(1, 0)}))
    refused(copy, "the last", "rows of the gene table")


def test_a_vocabulary_that_lacks_a_gene_is_refused(tmp_path):
    copy = Copy("scgpt", tmp_path)
    path = copy.files["vocab"]
    vocab = json.loads(path.read_text())
    vocab.pop("ACTB")
    path.write_text(json.dumps(vocab))
    refused(copy, "none for row 5 of the gene table", file=path)


def test_heads_that_no_file_states_are_not_guessed(tmp_path):
    copy = Copy("uce", tmp_path)
    (copy.folder.parent / "config.json").unlink()
    refused(copy, "give it as `heads=`")


def test_verify_must_be_true_or_false():
    with pytest.raises(TypeError, match="`verify` must be True or False, found 'no'"):
        sdr.models.load("tgpt", verify="no")


def test_verify_reaches_the_public_functions():
    assert sdr.tl.Recipe("tgpt", options={"verify": False}).options == {"verify": False}
    with pytest.raises(TypeError, match="verify"):
        sdr.tl.Recipe("pca", options={"verify": False})
