"""Attacks on the evaluation: data without any biology in which something else goes with the label.

`python benchmarks/attacks.py` writes `docs/benchmarks/attacks.md`; `--quick` makes a tenth of it. Each attack is a function
that makes a cohort without signal (`@attack`) or a clean one (`@clean`); the rest is `tl.evaluate`, as a user calls it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `benchmarks/coverage.py` must not be taken for the library of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import sc_drugresp as sdr
from sc_drugresp._design.judge import judge
from sc_drugresp._evaluate.doubles import Doubles
from sc_drugresp._response.choose import Matrices

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENTS, CELLS, GENES = 16, 40, 300
Call = dict[str, Any]
"""Further arguments of `tl.evaluate`."""


@dataclass(frozen=True)
class Attack:
    """How a cohort is made, and what the first version said of it (from the audit of version 0.1)."""

    section: str
    name: str
    make: Callable[[np.random.Generator], tuple[ad.AnnData, Call]]
    before: str
    options: dict[str, Any] = field(default_factory=dict)


ATTACKS: list[Attack] = []
CLEAN: dict[str, Callable[[np.random.Generator], ad.AnnData]] = {}


def attack(section: str, name: str, before: str, **options: Any) -> Callable[[Any], Any]:
    """Register an attack of a section; `options` go to `EvaluationOptions`."""

    def add(make: Any) -> Any:
        ATTACKS.append(Attack(section, name, make, before, options))
        return make

    return add


def clean(name: str) -> Callable[[Any], Any]:
    """Register a clean design."""

    def add(make: Any) -> Any:
        CLEAN[name] = make
        return make

    return add


def cohort(
    rng: np.random.Generator,
    *,
    n: int = PATIENTS,
    cells: int = CELLS,
    genes: int = GENES,
    batch: np.ndarray | None = None,
    batch_effect: float = 0.6,
    patient_effect: float = 0.3,
    depth: np.ndarray | None = None,
    signal: float = 0.0,
) -> ad.AnnData:
    """Counts of patients that differ from each other, and by batch; labels say nothing unless there is a `signal`.

    Parameters
    ----------
    rng
        Generator.
    n, cells, genes
        Patients, cells of each, genes.
    batch
        Batch of each patient.
    batch_effect, patient_effect
        Standard deviation of log expression between batches and between patients.
    depth
        Factor of the counts of each patient.
    signal
        Difference of log expression in a tenth of the genes.
    """
    y = np.arange(n) % 2
    unit = np.repeat(np.arange(n), cells)
    level = rng.normal(0, 1.2, genes) + patient_effect * rng.normal(size=(n, genes))
    if batch is not None:
        level = level + batch_effect * rng.normal(size=(int(batch.max()) + 1, genes))[batch]
    level[:, : genes // 10] += signal * y[:, None]
    share = np.exp(level)
    share /= share.sum(axis=1, keepdims=True)
    total = 600 * np.exp(0.4 * rng.normal(size=len(unit))) * (1 if depth is None else depth[unit])
    counts = rng.poisson(share[unit] * total[:, None]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "patient": [f"P{i:02d}" for i in unit],
            "response": np.where(y[unit] == 1, "sensitive", "resistant"),
        },
        index=[f"c{i}" for i in range(len(unit))],
    )
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))


def of_patients(adata: ad.AnnData, values: np.ndarray) -> np.ndarray:
    """One value per patient, given to its cells."""
    return np.asarray(values)[np.unique(adata.obs["patient"], return_inverse=True)[1]]


LABEL = np.arange(PATIENTS) % 2


# --------------------------------------------------------------------------------------------------------- section A


def named(name: str, words: tuple[str, str]) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """A column that is the label under another name, with a batch effect."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        adata = cohort(rng, batch=LABEL)
        adata.obs[name] = np.where(of_patients(adata, LABEL) == 1, *words)
        return adata, {}

    return make


for column, pair in {
    "platform": ("10x v3", "Smart-seq2"),
    "site": ("Basel", "Boston"),
    "chemistry": ("v2", "v3"),
    "condition": ("treated", "vehicle"),
    "seq_run": ("R1", "R2"),
    "group_code": ("x", "y"),
}.items():
    attack("A", f"`{column}` equal to the label", "OK, 1.00")(named(column, pair))


def swapped(k: int) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """A batch that agrees with the label in all but `k` patients."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        batch = LABEL.copy()
        batch[:k] = 1 - batch[:k]
        adata = cohort(rng, batch=batch)
        adata.obs["batch"] = of_patients(adata, np.char.add("B", batch.astype(str)))
        adata.obs["cell_type"] = rng.choice(["T", "B", "tumor"], adata.n_obs)
        return adata, {}

    return make


attack("A", "batch agrees in 15 of 16", "OK, 0.90")(swapped(1))
attack("A", "batch agrees in 14 of 16", "OK, 0.79")(swapped(2))


@attack("A", "two batches per class", "OK, 0.95")
def two_batches(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Four batches, each of one class."""
    batch = 2 * LABEL + np.arange(PATIENTS) // 2 % 2
    adata = cohort(rng, batch=batch)
    adata.obs["batch"] = of_patients(adata, np.char.add("B", batch.astype(str)))
    return adata, {}


@attack("A", "two columns, only together the label", "")
def together(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Site and chemistry say nothing alone; each combination has one class."""
    site = np.arange(PATIENTS) // 2 % 2
    chemistry = site ^ LABEL
    adata = cohort(rng, batch=2 * site + chemistry)
    adata.obs["site"] = of_patients(adata, np.array(["Basel", "Boston"])[site])
    adata.obs["chemistry"] = of_patients(adata, np.array(["v2", "v3"])[chemistry])
    return adata, {}


@attack("A", "date of processing, as text", "")
def dates(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Every patient on a day of its own, sensitive ones later."""
    adata = cohort(rng, batch=LABEL)
    days = pd.Timestamp("2021-01-04") + pd.to_timedelta(np.arange(PATIENTS) + 60 * LABEL, unit="D")
    adata.obs["processed_on"] = of_patients(adata, days.strftime("%Y-%m-%d").to_numpy())
    return adata, {}


@attack("A", "date of processing, as numbers", "")
def numbers(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """The same as numbers."""
    adata = cohort(rng, batch=LABEL)
    adata.obs["day"] = of_patients(adata, np.arange(PATIENTS) + 60.0 * LABEL)
    return adata, {}


@attack("A", "boolean column with missing values", "")
def boolean(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Frozen or fresh; missing for a tenth of the cells."""
    adata = cohort(rng, batch=LABEL)
    frozen = pd.Series(of_patients(adata, LABEL == 1), index=adata.obs_names).astype("boolean")
    frozen[rng.random(adata.n_obs) < 0.1] = pd.NA
    adata.obs["frozen"] = frozen
    return adata, {}


@attack("A", "sensitive patients sequenced half as deep, in no column", "")
def shallow(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Depth alone tells the classes apart."""
    return cohort(rng, depth=np.where(LABEL == 1, 0.5, 1.0)), {}


# --------------------------------------------------------------------------------------------------------- section B


def added(adata: ad.AnnData, part: ad.AnnData, extra: int, rng: np.random.Generator) -> ad.AnnData:
    """Both objects together, the second with a few counts more in every cell."""
    counts = part.X.toarray()
    for row in counts:
        row[rng.choice(len(row), extra, replace=False)] += 1
    part.X = sparse.csr_matrix(counts)
    return ad.concat([adata, part], index_unique="-")


@attack("B", "copies of cells plus 3 counts under other patients", "OK, 0.94")
def copies(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """A third of the cells of each patient also stands under the next patient of its class."""
    adata = cohort(rng)
    part = adata[rng.random(adata.n_obs) < 0.34].copy()
    number = part.obs["patient"].str[1:].astype(int)
    part.obs["patient"] = [f"P{(i + 2) % PATIENTS:02d}" for i in number]
    return added(adata, part, 3, rng), {}


@attack("B", "copies of whole patients plus 3 counts", "")
def copied_patients(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Every patient a second time, under another name."""
    adata = cohort(rng)
    part = adata.copy()
    part.obs["patient"] = "X" + part.obs["patient"].astype(str)
    return added(adata, part, 3, rng), {}


def two_names(k: int, n: int) -> Callable[[np.random.Generator], tuple[ad.AnnData, Call]]:
    """The first `k` of `n` patients under two names each."""

    def make(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
        adata = cohort(rng, n=n, cells=2 * CELLS)
        number = adata.obs["patient"].str[1:].astype(int).to_numpy()
        other = (number < k) & (np.arange(adata.n_obs) % 2 == 1)
        adata.obs["patient"] = np.where(other, "X" + adata.obs["patient"].astype(str), adata.obs["patient"])
        return adata, {}

    return make


attack("B", "every patient under two names", "OK, 0.82")(two_names(8, 8))
attack("B", "6 of 14 patients under two names", "OK, 0.65")(two_names(6, 14))


@attack("B", "50 genes chosen on all data", "OK, 0.81")
def chosen(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """The genes that differ most between the classes, of 2,000."""
    adata = cohort(rng, genes=2000)
    y = (adata.obs["response"] == "sensitive").to_numpy()
    logged = np.log1p(adata.X.toarray())
    names = adata.obs["patient"].to_numpy()
    means = np.array([logged[names == name].mean(axis=0) for name in np.unique(names)])
    label = np.array([y[names == name][0] for name in np.unique(names)])
    gap = means[label].mean(axis=0) - means[~label].mean(axis=0)
    return adata[:, np.argsort(-np.abs(gap))[:50]].copy(), {}


@attack("B", "a label-derived dimension in `.obsm`", "OK, 1.00")
def smuggled(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Ten dimensions of noise; one is shifted by the label."""
    adata = cohort(rng)
    values = rng.normal(size=(adata.n_obs, 10))
    values[:, 3] += 3 * (adata.obs["response"] == "sensitive")
    adata.obsm["X_external"] = values
    return adata, {"use_rep": "X_external", "model": None}


@attack("B", "a proxy of AUROC 0.92 in `obs_features`", "passes", obs_features=("proxy",))
def proxy(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """A noisy copy of the label, cell by cell."""
    adata = cohort(rng)
    adata.obs["proxy"] = 2.0 * (adata.obs["response"] == "sensitive") + rng.normal(size=adata.n_obs)
    return adata, {"model": None}


@attack("B", "`cross_dataset` with shared patients", "", few_shot=())
def shared(rng: np.random.Generator) -> tuple[ad.AnnData, Call]:
    """Half of the patients of one data set also stand in the other."""
    adata = cohort(rng, n=12, cells=2 * CELLS)
    number = adata.obs["patient"].str[1:].astype(int).to_numpy()
    second = np.where((number >= 4) & (number < 8), np.arange(adata.n_obs) % 2 == 1, number >= 8)
    adata.obs["dataset"] = np.where(second, "two", "one")
    return adata, {"protocol": "cross_dataset"}


# ----------------------------------------------------------------------------------------------------- clean designs


def size(rng: np.random.Generator) -> int:
    """Patients of a clean cohort."""
    return int(rng.choice([12, 14, 16, 20, 24]))


def technical(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Add columns of the kind that a sequencing core delivers, dealt out at random."""
    n = adata.obs["patient"].nunique()
    for name, levels in {"site": 2, "chemistry": 2, "lane": 4, "seq_run": 3, "operator": 3}.items():
        adata.obs[name] = of_patients(adata, rng.integers(0, levels, n).astype(str))
    adata.obs["age"] = of_patients(adata, rng.integers(30, 85, n))
    adata.obs["sex"] = of_patients(adata, rng.choice(["f", "m"], n))
    adata.obs["pct_counts_mt"] = rng.beta(2, 20, adata.n_obs) + of_patients(adata, rng.beta(2, 20, n))
    return adata


@clean("balanced batches, cell types")
def balanced(rng: np.random.Generator) -> ad.AnnData:
    """Two batches with as many patients of each class."""
    n = size(rng)
    batch = np.arange(n) // 2 % 2
    adata = cohort(rng, n=n, cells=30, batch=batch)
    adata.obs["batch"] = of_patients(adata, batch.astype(str))
    mix = [rng.choice(["T", "B", "tumor"], 30, p=rng.dirichlet([3, 3, 3])) for _ in range(n)]
    adata.obs["cell_type"] = np.concatenate(mix)
    return adata


@clean("eight technical columns at random")
def random_columns(rng: np.random.Generator) -> ad.AnnData:
    """Depth varies between patients, too."""
    n = size(rng)
    return technical(cohort(rng, n=n, cells=30, depth=np.exp(0.3 * rng.normal(size=n))), rng)


@clean("one cell type, patients all but the same")
def near_identical(rng: np.random.Generator) -> ad.AnnData:
    """Cells of different patients are as alike as counting allows."""
    return cohort(rng, n=size(rng), cells=30, patient_effect=0.02)


@clean("two samples of each patient")
def replicates(rng: np.random.Generator) -> ad.AnnData:
    """Replicates, named as samples of their patient."""
    adata = technical(cohort(rng, n=size(rng), cells=30), rng)
    adata.obs["sample"] = adata.obs["patient"].astype(str) + np.where(np.arange(adata.n_obs) % 2, "a", "b")
    return adata


@clean("true signal")
def with_signal(rng: np.random.Generator) -> ad.AnnData:
    """A tenth of the genes goes with response, and nothing else does."""
    n = size(rng)
    adata = cohort(rng, n=n, cells=30, signal=1.0, depth=np.exp(0.3 * rng.normal(size=n)))
    adata.obs["batch"] = of_patients(adata, (np.arange(n) // 2 % 2).astype(str))
    return adata


# --------------------------------------------------------------------------------------------------------- the table


def score(one: Attack, seed: int) -> dict[str, Any]:
    """Evaluate an attack once."""
    adata, call = one.make(np.random.default_rng(seed))
    options = sdr.tl.EvaluationOptions(n_boot=0, n_permutations=200, baselines=False, **one.options)
    try:
        sdr.tl.evaluate(adata, **{"model": "pca", "options": options} | call)
    except ValueError as error:
        return {"verdict": "refused", "told": str(error)}
    result = adata.uns["evaluation"]
    metrics = result["metrics"]
    rows = metrics[(metrics["protocol"] == call.get("protocol", "leave_group_out")) & (metrics["dataset"] == "macro")]
    rows = rows[(rows["metric"] == "auroc") & (rows["level"] == "sample")]
    verdict = result["verdict"]
    return {
        "verdict": verdict["code"],
        "auroc": float(rows["value"].iloc[0]) if len(rows) else np.nan,
        "within": verdict["score_within"],
        "strongest": verdict["strongest"] if verdict["strongest"] in verdict["reason"] else "",
        "told": next((text for word in SAID for text in verdict["cautions"] if word in text), ""),
    }


SAID = ("held out together", "copies", "50 genes only", "made elsewhere", "share patients")
"""Cautions of section B, by a word in each."""


def attack_row(one: Attack, repeats: int) -> dict[str, str]:
    """One line of the table."""
    found = [score(one, seed) for seed in range(repeats)]
    verdicts = Counter(f["verdict"] for f in found)
    told = next((f["told"] for f in found if f["told"]), "")
    names = Counter(f["strongest"] for f in found if f.get("strongest"))
    return {
        "attack": one.name,
        "before": one.before or "not measured",
        "verdict": ", ".join(f"{name} {n} of {repeats}" for name, n in verdicts.most_common()),
        "strict AUROC": spread([f.get("auroc", np.nan) for f in found]),
        "within strata": spread([f.get("within", np.nan) for f in found]),
        "names": ", ".join(name for name, _ in names.most_common(2)),
        "caution": (told[:160] + " ...") if len(told) > 160 else told,
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    known = np.array([v for v in values if np.isfinite(v)])
    if not len(known):
        return "none"
    return f"{known.mean():.2f} ± {known.std():.2f}"


def clean_row(name: str, repeats: int) -> dict[str, str]:
    """Verdicts of clean cohorts, before anything is fitted: nothing else lowers them."""
    lowered = joined = 0
    for seed in range(repeats):
        adata = CLEAN[name](np.random.default_rng(10_000 + seed))
        y = (adata.obs["response"] == "sensitive").to_numpy().astype(int)
        source = Matrices(adata, np.arange(adata.n_obs)).labeled()
        units = adata.obs["patient"].to_numpy(dtype=str)
        doubles = Doubles(source)
        together = doubles.join(units, y)
        joined += together is not units or bool(doubles.cautions(together))
        lowered += judge(_with_quality(adata, source), y, group_key=None, label_key="response").code != "OK"
    return {
        "clean design": name,
        "cohorts": str(repeats),
        "lower verdict": f"{lowered} ({lowered / repeats:.1%})",
        "patients joined or cells called copies": f"{joined} ({joined / repeats:.1%})",
    }


def _with_quality(adata: ad.AnnData, source: Any) -> pd.DataFrame:
    from sc_drugresp._design.quality import measured, qc_features

    return adata.obs.assign(**measured(qc_features(source)))


def page(quick: bool) -> str:
    """The whole page."""
    repeats, cohorts = (1, 20) if quick else (5, 200)
    start = time.perf_counter()
    lines = [
        "# Attacks on the evaluation",
        "",
        "Made by `python benchmarks/attacks.py`. The data have no biology: labels are dealt out to patients whose cells differ at",
        f"random. *Before* is what the first version said. {PATIENTS} patients unless it says otherwise, {repeats} cohorts each;",
        "AUROC over patients, mean ± standard deviation.",
        "",
    ]
    titles = {"A": "Something else goes with the label", "B": "Leaks", "C": "Calls and probabilities"}
    for section in sorted({one.section for one in ATTACKS}):
        lines += [f"## {section}. {titles[section]}", ""]
        rows = []
        for one in ATTACKS:
            if one.section == section:
                rows.append(attack_row(one, repeats))
                print(f"{time.perf_counter() - start:5.0f} s  {rows[-1]}", flush=True)
        lines += [table(rows), ""]
    lines += ["## Clean designs", "", "A lower verdict than without these checks, and patients taken for one:", ""]
    rows = []
    for name in CLEAN:
        rows.append(clean_row(name, cohorts))
        print(f"{time.perf_counter() - start:5.0f} s  {rows[-1]}", flush=True)
    return "\n".join([*lines, table(rows), ""])


def table(rows: list[dict[str, str]]) -> str:
    """Rows in Markdown."""
    names = list(rows[0])
    body = ["| " + " | ".join(row[name].replace("|", "/") or " " for name in names) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |", *body])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, printed only")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/attacks.md"))
    arguments = parser.parse_args()
    sdr.settings.verbosity = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = page(arguments.quick)
    if arguments.quick:
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
