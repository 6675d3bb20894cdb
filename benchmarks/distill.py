"""Students against their teachers: speed at published sizes, and fidelity on held-out samples.

    python benchmarks/distill.py                  # generated data; writes docs/benchmarks/distill.md
    python benchmarks/distill.py --data DIRECTORY # also 21 breast cancer cell lines (GSE173634), if the file is there
    python benchmarks/distill.py --quick --output page.md

Teachers at published size have random weights: right for speed, without meaning for biology. Fidelity is measured on the tiny
recorded checkpoints of `tests/golden`, whose weights are random as well, and on made-up embeddings whose shape is known.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

import sc_drugresp as sdr
from sc_drugresp.models import _load
from sc_drugresp.models._registry import find
from sc_drugresp.models._student_network import StudentNetwork

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "distill.md"
GOLDEN = ROOT / "tests" / "golden"
LINES = "GSE173634_breast21_lines_dropseq.h5ad"
TEACHERS = ("scgpt", "geneformer", "scfoundation")
SEEDS = (0, 1, 2)
Case = Callable[[int], tuple[Any, ad.AnnData, dict[str, Any]]]


def cells(names: list[str], n: int, expressed: int, seed: int) -> ad.AnnData:
    """Cells that express about so many of these genes."""
    rng = np.random.default_rng(seed)
    share = expressed / len(names)
    x = rng.poisson(rng.gamma(0.5, 2 * -np.log1p(-share), (n, len(names))))
    return ad.AnnData(csr_matrix(x.astype(np.float32)), var=pd.DataFrame(index=names))


def speed(model: str, *, n_teacher: int, n_student: int, repeats: int) -> dict[str, Any]:
    """Cells per second of a teacher of published size and of a student of default size, by turns in one run."""
    teacher = _load.model_class(find(model)[0]).random()
    names = list(teacher.vocab.names)[:5_000]
    n_genes = 2_000
    network = StudentNetwork.empty(n_genes + 1, 512, teacher.dim)
    network.draw(0)
    network.scale.fill_(1.0)
    student = sdr.models.Student(names[:n_genes], teacher.vocab.kind, network.arrays(), {"name": model, "sha256": ""})
    few, many = cells(names, n_teacher, 1_000, 0), cells(names, n_student, 1_000, 1)
    student.embed(few)  # genes are matched and kernels compiled once
    teacher.embed(few[:2])
    rates: dict[str, list[float]] = {"teacher": [], "student": []}
    for _ in range(repeats):
        for name, embedder, data in (("teacher", teacher, few), ("student", student, many)):
            start = time.process_time()
            embedder.embed(data)
            rates[name].append(data.n_obs / (time.process_time() - start))
    ratios = np.array(rates["student"]) / np.array(rates["teacher"])
    row = {name: spread(values, "{:,.3g}") for name, values in rates.items()}
    return {"teacher": model, "teacher, cells/s": row["teacher"], "student, cells/s": row["student"]} | {
        "ratio": spread(ratios, "{:,.0f}")
    }


def spread(values: Any, form: str = "{:.3f}") -> str:
    """Mean, and the smallest and largest value."""
    v = np.asarray(values, dtype=float)
    return f"{form.format(v.mean())} ({form.format(v.min())} to {form.format(v.max())})"


def latent(seed: int, per_sample: int) -> tuple[ad.AnnData, np.ndarray]:
    """Counts of ten samples that four hidden factors drive, and the factors."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(10), per_sample)
    z = rng.normal(size=(len(groups), 4))
    own = 0.2 * rng.normal(size=(10, 200))
    x = rng.poisson(np.exp(1 + z @ rng.normal(size=(4, 200)) / 2 + own[groups]))
    obs = pd.DataFrame({"sample": [f"S{g}" for g in groups]}, index=[f"c{i}" for i in range(len(groups))])
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(200)])
    return ad.AnnData(csr_matrix(x.astype(np.float32)), obs=obs, var=var), z


def made_up(per_sample: int, kind: str) -> Case:
    """An embedding that bends, or one that has nothing to do with its cells."""

    def make(seed: int) -> tuple[Any, ad.AnnData, dict[str, Any]]:
        adata, z = latent(seed, per_sample)
        values = np.column_stack([np.abs(z), z[:, [0]] * z[:, [1]], z[:, [2]] * z[:, [3]], np.sin(2 * z)])
        if kind == "shuffled":
            values = np.random.default_rng([seed, 1]).permutation(values)
        adata.obsm["X_made_up"] = values.astype(np.float32)
        return "made-up", adata, {"use_rep": "X_made_up"}

    return make


def recorded(model: str, per_sample: int) -> Case:
    """A tiny recorded checkpoint on toy cells that have its genes."""

    def make(seed: int) -> tuple[Any, ad.AnnData, dict[str, Any]]:
        teacher = sdr.models.load(model, checkpoint=GOLDEN / model / "weights")
        names = list(teacher.vocab.names)
        adata = sdr.datasets.toy(12, per_sample, len(names), rng=seed)
        adata.var_names = names
        return teacher, adata, {}

    return make


def lines(path: Path, model: str) -> Case:
    """Real cells; another split with each seed."""

    def make(_: int) -> tuple[Any, ad.AnnData, dict[str, Any]]:
        teacher = model if model == "pca" else sdr.models.load(model, checkpoint=GOLDEN / model / "weights")
        return teacher, ad.read_h5ad(path), {"group_key": "cell_line"}

    return make


def cases(data: Path | None, *, quick: bool) -> Iterator[tuple[str, str, Case]]:
    n = 60 if quick else 300
    yield "hidden factors", "bent (made up)", made_up(n, "bent")
    yield "hidden factors", "shuffled (made up)", made_up(n, "shuffled")
    yield "toy", "pca", lambda seed: ("pca", sdr.datasets.toy(12, n, 600, rng=seed), {})
    for model in ("scgpt",) if quick else ("scgpt", "tgpt", "cellplm"):
        yield "toy", f"{model} (tiny)", recorded(model, n)
    if data is not None and (data / LINES).is_file():
        yield "21 breast cancer lines", "pca", lines(data / LINES, "pca")
        yield "21 breast cancer lines", "scgpt (tiny)", lines(data / LINES, "scgpt")


def fidelity(cells_of: str, teacher: str, case: Case, seeds: tuple[int, ...]) -> dict[str, Any]:
    """One row: means over seeds with the smallest and the largest."""
    students = []
    for seed in seeds:
        model, adata, options = case(seed)
        students.append(sdr.models.distill(model, adata, rng=seed, **{"group_key": "sample", **options}))
    tables = [student.fidelity_df() for student in students]
    row: dict[str, Any] = {"cells": cells_of, "teacher": teacher}
    for column, what in (("cosine", "cosine"), ("neighbors_kept", "neighbors kept")):
        for name in ("student", "ridge") if column == "cosine" else ("student", "ridge", "pca"):
            row[f"{what}, {name}"] = spread([table.loc[name, column] for table in tables])
    row["5 % of cells below"] = spread([table.loc["student", "cosine_p05"] for table in tables])
    gaps = np.array([table.loc["student", "auroc_difference"] for table in tables])
    row["AUROC of heads, student - teacher"] = spread(gaps) if np.isfinite(gaps).all() else "no labels of both classes"
    verdicts = [student.fidelity["verdict"] for student in students]
    row["verdict"] = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts))
    print(row, flush=True)
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table."""
    head = list(rows[0])
    body = [[str(row[name]) for name in head] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


TEXT = """# Students

`{command}` writes this page, on one thread of {processor}.

{{func}}`sc_drugresp.models.distill` trains a student; {{doc}}`/explanation/students` says when that is worth it.

## Speed

Teachers of published size with random weights, and students of default size (2,000 genes, width 512) for embeddings of their
width; cells with 1,000 expressed genes of 5,000. CPU time, reading and gene matching included, by turns in one run; mean, smallest and largest of
{repeats} turns.

{speed}

## Fidelity

On held-out samples, which neither training nor early stopping saw; mean, smallest and largest over {seeds} seeds (of the cells, the
split and the weights). *Bent* embeddings are absolute values, products and sines of four hidden factors: a linear map cannot give
them. *Shuffled* ones have nothing to do with their cells and must be reported as not learned. The tiny checkpoints of `tests/golden` have random weights, so that
these rows say how hard a random network is to imitate from a few thousand cells, and nothing about published ones. PCA is linear: nothing is to be gained over a ridge
regression there, and students say so. A difference of AUROC is that of heads that learn from the other samples; with few held-out samples of each class it is known badly, and
its interval stands in `fidelity_df`.

{fidelity}
"""


def processor() -> str:
    """Name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "an unnamed processor"
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the file of the breast cancer cell lines")
    parser.add_argument("--quick", action="store_true", help="few cells, one seed, one small teacher")
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    repeats, seeds = (2, SEEDS[:1]) if arguments.quick else (5, SEEDS)
    sdr.settings.device = "cpu"
    with warnings.catch_warnings(), sdr.settings.override(progress=False):
        warnings.simplefilter("ignore")
        measured = [fidelity(*case, seeds) for case in cases(arguments.data, quick=arguments.quick)]
        fast = [
            speed(model, n_teacher=4 if arguments.quick else 8, n_student=2_048, repeats=repeats)
            for model in (TEACHERS[:1] if arguments.quick else TEACHERS)
        ]
    command = "python benchmarks/distill.py" + (" --data DIRECTORY" if arguments.data else "")
    told = {"command": command, "processor": processor(), "repeats": repeats, "seeds": len(seeds)}
    text = TEXT.format(**told, speed=markdown(fast), fidelity=markdown(measured))
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
