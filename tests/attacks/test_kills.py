"""SIGKILL at random moments of every write of ours: the old or the new file is there, nothing half, no orphan afterwards.

Saved response models, downloads and archives have tests of their own beside the code that writes them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = """
import json, os, sys, warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[2])
import numpy as np
import anndata as ad
import sc_drugresp as sdr
from sc_drugresp._core import folders
from kills import kill_often
sdr.settings.verbosity = 0
folder = Path(sys.argv[1])
count = [0]

def turn():
    count[0] += 1
    return count[0] % 2

{setup}

def leftovers():
    found = {{str(path.relative_to(folder)) for path in folder.rglob("*")}}
    return sorted(found - expected)

for one in (0, 1):
    write(one)
expected = {{str(path.relative_to(folder)) for path in folder.rglob("*")}}
seen = set()

def check(i):
    seen.add(json.dumps(read()))
    if i % 2:
        write(i // 2 % 2)
        assert leftovers() == [], leftovers()

kill_often(lambda i: write(turn()), check, n={n}, longest={longest})
write(0)
assert leftovers() == [], leftovers()
assert len(seen) <= {kinds}, seen
"""
REPORT = """
from sc_drugresp._report import _page, _sections
cells = sdr.datasets.toy(6, 10, 50)
sdr.tl.evaluate(cells, model="pca", options=sdr.tl.EvaluationOptions(n_boot=5, n_permutations=0, baselines=False, n_pairings=2))
which = [0]
for name in ("data", "evaluation"):
    setattr(_sections, f"describe_{name}", lambda *_, **__: {})
_page.render = lambda **_: f"<html>{which[0]}" + "x" * 3_000_000 + "</html>"

def write(i):
    which[0] = i
    cells.uns["evaluation"]["command"] = f"number {i}"
    sdr.report(cells, folder / "r.html")

def read():
    page = (folder / "r.html").read_text()
    assert page.endswith("x</html>") and len(page) == 3_000_000 + 14, len(page)
    card = json.loads((folder / "r.card.json").read_text())
    assert card["command"] in ("number 0", "number 1")
    return page[6]
"""
REFERENCE = """
from screens import toy_reference
made = toy_reference()[0]
if {renames}:
    folders.exchange = lambda first, second: False
models = [replace(made, info={{**made.info, "which": i}}, weights=made.weights + i) for i in range(2)]

def write(i):
    models[i].save(folder / "ref", overwrite=True)

def read():
    found = sdr.models.Reference.load(folder / "ref")
    i = found.info["which"]
    np.testing.assert_array_equal(found.weights, models[i].weights.astype(np.float32))
    return i
"""
H5AD = """
from sc_drugresp.datasets import _fetch, _read
from sc_drugresp.datasets._registry import registry
made = [sdr.datasets.toy(4, 20, 200, rng=i) for i in range(2)]
sdr.settings.cache_dir = folder
name = next(iter(registry()))
dataset = replace(registry()[name], files={{}})
which = [0]
_read.read = lambda *_: made[which[0]]

def write(i):
    which[0] = i
    _fetch._download(dataset, _fetch._cached(name), force=True)

def read():
    found = sdr.datasets.load(name).X.toarray()
    same = [i for i in range(2) if np.array_equal(found, made[i].X.toarray())]
    assert len(same) == 1
    return same[0]
"""
TERMS = """
from sc_drugresp.datasets import _terms
from sc_drugresp.datasets._screen_registry import screen_registry
sdr.settings.cache_dir = folder
terms = list(screen_registry().terms.values())[:2]

def write(i):
    _terms.write_text(_terms.record_path(), json.dumps({{"which": i, "long": "x" * 500_000}}))
    _terms.require_terms(terms, accept=True, call="x")

def read():
    known = json.loads(_terms.record_path().read_text())
    return known["which"]
"""
HASHES = """
from sc_drugresp._core import hashing
sdr.settings.cache_dir = folder / "cache"
hashing._SMALL = 1
(folder / "cache").mkdir()
data = folder / "data"

def write(i):
    data.write_bytes(bytes([i]) * 10)
    os.utime(data, ns=(10**18 + i, 10**18 + i))
    hashing.sha256(data)

def read():
    store = folder / "cache" / "sha256.json"
    known = json.loads(store.read_text())
    assert all(len(value) == 64 for value in known.values())
    return 0
"""
DEMO = """
import matplotlib.pyplot as plt
from sc_drugresp import demo
import pandas as pd
tables = [pd.DataFrame({{"x": np.arange(20_000) + i}}) for i in range(2)]

def write(i):
    demo.write_text(folder / "samples.csv", tables[i].to_csv(index=False))
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.set_title(str(i))
    demo._save(ax, folder / "a.png")

def read():
    found = pd.read_csv(folder / "samples.csv")
    png = (folder / "a.png").read_bytes()
    assert png.startswith(b"\\x89PNG") and png.rstrip().endswith(b"IEND\\xaeB`\\x82"), png[-20:]
    return [i for i in range(2) if found.equals(tables[i])][0]
"""
WRITERS = {
    "report": (REPORT, 0.12, 2),
    "reference": (REFERENCE.format(renames=False), 0.06, 2),
    "reference by renames": (REFERENCE.format(renames=True), 0.06, 2),
    "data set in the cache": (H5AD, 0.1, 2),
    "accepted terms": (TERMS, 0.03, 2),
    "remembered hashes": (HASHES, 0.03, 2),
    "tables and figures of the demo": (DEMO, 0.2, 2),
}
QUICK = ("report", "reference")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(
    ("name", "n"),
    [
        *((name, 20) for name in QUICK),
        *(pytest.param(name, 200, marks=pytest.mark.slow) for name in WRITERS),
    ],
)
def test_old_or_new(name, n, tmp_path):
    setup, longest, kinds = WRITERS[name]
    code = SCRIPT.format(setup=setup.replace("{{", "{").replace("}}", "}"), n=n, longest=longest, kinds=kinds)
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(TESTS)], capture_output=True, text=True)
    assert run.stdout.strip().endswith(f"killed {n} times"), run.stderr[-3000:]
    assert run.returncode == 0, run.stderr[-3000:]
