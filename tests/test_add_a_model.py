"""The page that explains how to add a model, taken at its word: its files become a package, which keeps the contract."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "contributing" / "add_a_model.md"
CONTRACT = ROOT / "tests" / "models" / "test_contract.py"
SIZES = {"dim": 16, "heads": 2, "layers": 2, "ffn_dim": 24, "genes": 80}


def blocks() -> dict[str, str]:
    """Code blocks of the page by the name of the file that stands before them."""
    if not PAGE.is_file():
        pytest.skip("the documentation is not part of this installation")
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", text, flags=re.DOTALL))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder as `pip install` leaves it: the package of the page, and its metadata with the entry point."""
    folder = tmp_path_factory.mktemp("site-packages")
    files = blocks()
    group, points = next(iter(tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"].items()))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    info = folder / "mymodel-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mymodel\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    return folder


def run(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_holds_all_files():
    assert set(blocks()) == {"mymodel/mymodel.toml", "mymodel/network.py", "mymodel/__init__.py", "pyproject.toml"}


def test_the_row_is_in_the_table_without_torch(installed):
    code = (
        "import sys, sc_drugresp as sdr\n"
        "row = sdr.models.table().loc['mymodel.base']\n"
        "assert 'mymodel' in sdr.models.available('encoder')\n"
        "assert 'torch' not in sys.modules\n"
        "print(row.dim, row.parameters, row.download_gb, row.commercial, row.weights_license)"
    )
    done = run(installed, "-c", code)
    assert done.stdout.split() == ["32", "657216.0", "0.003", "True", "CC", "BY", "4.0"], done.stderr


def test_the_numbers_of_the_row_are_those_of_the_network(installed):
    code = (
        "from mymodel.network import MyModel\n"
        "model = MyModel.random()\n"
        "print(model.dim, sum(p.numel() for p in model.parameters()), len(model.vocab))"
    )
    done = run(installed, "-c", code)
    assert done.stdout.split() == ["32", "657216", "20000"], done.stderr


PUBLISH = """
import sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from mymodel.network import MyModelConfig, MyModel

folder = Path(sys.argv[1])
model = MyModel.random(MyModelConfig(**{sizes}), seed=1)
generator = torch.Generator().manual_seed(2)
state = {{
    "encoder." + name.replace(".attn.", ".attention."): x + 0.3 * torch.randn(x.shape, generator=generator)
    for name, x in model.state_dict().items()
}}
save_file(state | {{"decoder.weight": torch.zeros(3)}}, folder / "model.safetensors")
(folder / "genes.txt").write_text("\\n".join(model.vocab.names))
"""


@pytest.fixture(scope="module")
def published(installed, tmp_path_factory) -> Path:
    """Files of a tiny checkpoint, under the names that its publisher uses."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "config.json").write_text(json.dumps(SIZES))
    done = run(installed, "-c", PUBLISH.format(sizes=SIZES), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("files", ["random parameters", "published files"])
def test_the_model_keeps_the_contract(installed, published, files):
    wanted = "mymodel" if files == "random parameters" else f"mymodel={published}"
    done = run(
        installed, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", str(CONTRACT),
        SC_DRUGRESP_CONTRACT=wanted,
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert passed is not None
    assert int(passed[1]) > 30
    assert "failed" not in done.stdout


def test_pooling_of_another_kind_is_an_option(installed, published):
    code = (
        "import sys, sc_drugresp as sdr\n"
        "model = sdr.models.load('MyModel', checkpoint=sys.argv[1], pooling='mean')\n"
        "print(model.name, model.config.pooling, model.checkpoint['file'])\n"
        "try:\n    sdr.models.load('mymodel', checkpoint=sys.argv[1], pooling='max')\n"
        "except ValueError as error:\n    print(error)"
    )
    done = run(installed, "-c", code, str(published))
    first, second = done.stdout.splitlines()
    assert first == "mymodel.base mean model.safetensors"
    assert second == "MyModel: `pooling` must be one of ('cls', 'mean'), found 'max'."
