"""The table of models: names, sizes, terms, and rows that are written once for many checkpoints."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sc_drugresp as sdr
from sc_drugresp.models._registry import canonical, find, registry
from sc_drugresp.models._spec import ModelSpec

SPECIES = {"human", "mouse", "frog", "zebrafish", "mouse_lemur", "pig", "macaca_fascicularis", "macaca_mulatta"}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("scGPT", "scgpt"),
        ("SCGPT.Pan-Cancer", "scgpt.pan-cancer"),
        ("Geneformer.V2-104M", "geneformer.v2-104m"),
        ("PCA", "pca"),
        ("uce", "uce"),
    ],
)
def test_names_are_found_whatever_their_case(typed, name):
    assert canonical(typed) == name
    assert find(typed) == find(name)


def test_a_baseline_is_loaded_in_any_case():
    assert sdr.models.load("PCA", n_comps=7).dim == 7


def test_slots_do_not_depend_on_how_the_name_was_typed():
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=10)
    sdr.tl.embed(adata, "PCA", n_comps=3)
    assert list(adata.obsm) == ["X_sdr_pca"]
    assert adata.uns["sdr_pca"]["params"]["model"] == "pca"
    assert sdr.tl.Recipe("scGPT", mode="lora").name == "scgpt.lora"


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ValueError, match=r"Unknown model name 'scGTP'.*Did you mean 'scgpt'"):
        find("scGTP")
    with pytest.raises(ValueError, match=r"no checkpoint 'v9'.*geneformer\.v2-104m"):
        find("Geneformer.V9")
    with pytest.raises(ValueError, match="'pca' has no checkpoints"):
        find("PCA.big")


def test_every_download_has_a_size_unless_the_publisher_gives_none():
    table = sdr.models.table()
    assert set(table.index[table["download_gb"].isna()]) == {"celllm.2m", "cellplm.20231027", "cellplm.20230926"}
    assert (table.loc[["pca", "hvg", "scvi"], "download_gb"] == 0).all()
    # Token dictionary, medians and mapping come with the weights; so do the proteins of UCE.
    expected = (417_571_156 + 425_590 + 1_512_661 + 3_957_652) / 1e9
    assert table.loc["geneformer.v2-104m", "download_gb"] == pytest.approx(expected, abs=1e-3)
    expected = (3_403_514_339 + 4_097_781 + 2_735_410_523) / 1e9
    assert table.loc["uce.4l", "download_gb"] == pytest.approx(expected, abs=1e-3)
    assert table.loc["scfoundation.cell", "download_gb"] == pytest.approx(1.433, abs=1e-3)


def test_weights_are_as_large_as_their_parameters():
    """An independent look at the sizes: parameters of 4 bytes, or 2, more where the files hold more than the network."""
    for spec in registry().values():
        bytes_each = 2 if spec.name == "llama3" else 4
        for row in spec.checkpoints.values():
            parts = [file for role, file in row.files.items() if role.startswith("weights")]
            sizes = [file.bytes or file.about_bytes for file in parts]
            if None not in sizes:
                assert sum(sizes) > 0.97 * bytes_each * row.parameters, (spec.name, row.tag)


def test_species_are_shown():
    table = sdr.models.table()
    for name in ("uce.4l", "uce.33l"):
        assert set(table.loc[name, "species"].split(", ")) == SPECIES
    assert table.loc["scgpt.whole-human", "species"] == "human"


def test_unknown_terms_are_missing_and_not_a_guess():
    table = sdr.models.table()
    unknown = table.index[table["commercial"].isna()]
    assert {name.split(".")[0] for name in unknown} == {"celllm", "cellplm", "scgpt", "student", "tgpt"}
    assert table.loc["student", "weights_license"] == "that of its teacher"
    assert (
        table["weights_license"][unknown.drop("student")].str.contains("none stated|not stated|no separate terms").all()
    )
    assert not table.loc["scfoundation.cell", "commercial"]
    assert table.loc["geneformer.v2-104m", "commercial"]
    assert str(table["commercial"].dtype) == "boolean"
    assert "celllm.2m" not in table[table["commercial"]].index


ROW = """
name = "tiny"
title = "Tiny"
target = "package.module:Class"
summary = "A model."
license = "MIT"
commercial = true
publisher = "P"
default = "a"
dim = 3

[files.vocab]
path = "vocab.json"
bytes = 7

[files.config]
path = "config.json"

[checkpoints.a.files.weights]
path = "a.bin"
urls = ["https://example.org/a.bin"]

[checkpoints.b]
commercial = false
manual = "write to P"
files.weights.path = "b.bin"
files.vocab.bytes = 9

[checkpoints.c]
like = "b"
dim = 5
files.config.path = "other.json"
"""


@pytest.fixture
def spec(tmp_path) -> ModelSpec:
    path = tmp_path / "tiny.toml"
    path.write_text(ROW)
    return ModelSpec.from_toml(path)


def test_files_of_all_checkpoints_are_written_once(spec):
    a, b, c = spec.checkpoints.values()
    assert [set(row.files) for row in (a, b, c)] == [{"vocab", "config", "weights"}] * 3
    assert [row.files["vocab"].bytes for row in (a, b, c)] == [7, 9, 9]
    assert [row.files["vocab"].path for row in (a, b, c)] == ["vocab.json"] * 3
    assert [row.files["config"].path for row in (a, b, c)] == ["config.json", "config.json", "other.json"]
    assert [row.commercial for row in (a, b, c)] == [True, False, False]
    assert [row.dim for row in (a, b, c)] == [3, 3, 5]
    assert [row.license for row in (a, b, c)] == ["MIT"] * 3


def test_a_manual_step_belongs_to_files_without_an_address(spec):
    a, b, _ = spec.checkpoints.values()
    assert a.files["weights"].manual == ""
    assert b.files["weights"].manual == b.files["vocab"].manual == "write to P"
    assert a.download_bytes is None


def test_a_field_that_does_not_exist_is_an_error(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(ROW.replace('path = "a.bin"', 'pth = "a.bin"'))
    with pytest.raises(TypeError, match="pth"):
        ModelSpec.from_toml(path)


LIGHT = """
import sys
import sc_drugresp as sdr
for name in sdr.models.__all__:
    if name != "CellEncoder":
        getattr(sdr.models, name)
sdr.models.table(), sdr.models.available()
assert sdr.models.load("pca").dim == 50
print(sorted({"torch", "sklearn", "scanpy", "lightning"} & sys.modules.keys()))
"""


def test_torch_is_loaded_when_a_network_is_needed_and_not_before():
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_pca_embeds_without_torch():
    code = (
        "import sys, sc_drugresp as sdr\n"
        "adata = sdr.datasets.toy(n_samples=2, cells_per_sample=10)\n"
        "sdr.models.load('pca', n_comps=3).embed(adata)\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_capabilities_tell_networks_and_baselines_apart():
    from sc_drugresp.models._load import model_class

    for name, spec in registry().items():
        if spec.extra is not None:
            continue
        cls = model_class(spec)
        can = {"encoder": (True, True, False), "baseline": (False, False, True), "student": (True, False, False)}
        assert (cls.aligns_genes, cls.tunable, cls.needs_fit) == can[spec.kind], name
        assert (spec.kind == "encoder") == bool(spec.checkpoints), name
        assert (cls.set_based, cls.expects) == (spec.set_based, spec.expects), name
