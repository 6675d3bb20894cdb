"""Importing and using the package leaves the process as it was: environment, generators, logging, styles, filters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
WATCH = """
import json, logging, os, random, sys, warnings
sys.path.insert(0, sys.argv[1])
LOADED = {loaded}
for name in LOADED:
    __import__(name)
import numpy as np
random.seed(5), np.random.seed(5)

def state():
    found = {{
        "environment": dict(os.environ),
        "random": repr(random.getstate()),
        "numpy": repr([part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()]),
        "errors": np.geterr(),
        "root handlers": repr(logging.getLogger().handlers),
        "root level": logging.getLogger().level,
        "folder": os.getcwd(),
        "path": list(sys.path),
        "hooks": [repr(sys.excepthook), repr(sys.path_hooks)],
    }}
    if "torch" in sys.modules:
        import torch
        found["torch"] = torch.random.get_rng_state().tolist()
        found["torch modes"] = [torch.is_grad_enabled(), str(torch.get_default_dtype())]
    if LOADED:  # libraries add filters, and default styles, when they are loaded by anybody
        import matplotlib as mpl
        import pandas as pd
        found |= {{"filters": repr(warnings.filters), "styles": repr(dict(mpl.rcParams)), "pandas": pd.get_option("display.max_rows")}}
        found["threads"] = torch.get_num_threads()
    return found

before, told = state(), {{}}

def step(name):
    now = state()
    for key, value in now.items():
        if key in before and value != before[key]:
            if isinstance(value, dict):
                value = {{k: (before[key].get(k), value.get(k)) for k in {{*value, *before[key]}} if value.get(k) != before[key].get(k)}}
            told.setdefault(name + ": " + key, str(value)[:300])
    for key in now:
        before.setdefault(key, now[key])
    before.update({{key: now[key] for key in now if key in before}})

import sc_drugresp as sdr
step("import")
sdr.settings.verbosity = 0
for door in ("pp", "tl", "pl", "get", "models", "datasets"):
    for name in getattr(sdr, door).__all__:
        getattr(getattr(sdr, door), name)
        step("touch " + door + "." + name)
{work}
step("end")
print(json.dumps(told))
"""
WORK = """
import tempfile, contextlib, io
import studies
with contextlib.redirect_stderr(io.StringIO()):
    adata = studies.cells(); step("toy")
    sdr.pp.check(adata); step("check")
    studies.run(adata); step("every verb")
    model = sdr.tl.train_response(adata, use_rep="X_sdr_pca", head="mlp"); step("train mlp")
    folder = tempfile.mkdtemp()
    model.save(folder + "/m"); sdr.models.ResponseModel.load(folder + "/m"); step("save and load")
    sdr.tl.predict_response(adata, folder + "/m"); step("predict")
    sdr.report(adata, folder + "/r.html"); step("report")
    sdr.pl.response(adata, "X_sdr_pca"); sdr.pl.roc(adata); step("plots")
    sdr.models.table(); sdr.models.reference_table(); step("tables")
"""
ENCODER = """
import tempfile
from helpers import cell_lines, golden
cells, weights = cell_lines(8, lines=6), golden("scgpt").weights
sdr.tl.embed(cells, "scgpt", checkpoint=weights); step("embed")
sdr.tl.train_response(cells, model="scgpt", checkpoint=weights, mode="lora", group_key="cell_line"); step("tune")
"""
SCVI = """
from helpers import cell_lines
sdr.tl.embed(cell_lines(8, lines=6), "scvi", max_epochs=1); step("scvi")
"""
HEAVY = (
    "scipy.sparse",
    "scipy.special",
    "anndata",
    "mudata",
    "scanpy",
    "sklearn",
    "torch",
    "torch._dynamo",
    "lightning.pytorch",
    "peft",
    "matplotlib.pyplot",
)


def watch(work: str, loaded: tuple[str, ...] = ()) -> dict[str, str]:
    """What changed in a process of its own, by step and by kind."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("KMP_", "TORCH", "XLA", "PYTORCH"))
    }
    code = WATCH.format(loaded=loaded, work=work)
    run = subprocess.run(
        [sys.executable, "-W", "ignore::UserWarning", "-c", code, str(TESTS)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "loaded",
    [
        pytest.param((), id="nothing loaded before"),
        pytest.param(HEAVY, id="everything loaded before", marks=pytest.mark.slow),
    ],
)
def test_nothing_changes(loaded):
    assert watch(WORK, loaded) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(ENCODER, id="scgpt"),
        pytest.param(
            SCVI, id="scvi", marks=pytest.mark.skipif(find_spec("scvi") is None, reason="scvi-tools is not installed")
        ),
    ],
)
def test_nothing_changes_by_networks(work):
    assert watch(work) == {}


def test_the_watch_sees_changes():
    """The test above can fail."""
    told = watch(
        "import os, random; os.environ['MINE'] = '1'; random.random(); np.random.rand(); logging.basicConfig(); step('mine')"
    )
    assert {name.removeprefix("mine: ") for name in told} >= {"environment", "random", "numpy", "root handlers"}


def test_what_others_did_stays():
    """A change by the user during a call in which nothing is imported is not taken back."""
    from sc_drugresp._core.process import left_alone

    try:
        with left_alone():
            os.environ["SC_DRUGRESP_TEST"] = "1"
        assert os.environ["SC_DRUGRESP_TEST"] == "1"
    finally:
        os.environ.pop("SC_DRUGRESP_TEST", None)
