"""Attacks on the evaluation: data without any biology in which something else goes with the label.

`python benchmarks/attacks.py` writes `docs/benchmarks/attacks.md`; `--quick` makes a tenth of it. Each attack is a function
in `benchmarks/simulated` that makes a cohort without signal (`@attack`) or a clean one (`@clean`); the rest is `tl.evaluate`,
as a user calls it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `benchmarks/coverage.py` must not be taken for the library of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks._page import publish, tables_in

sys.path.append(str(Path(__file__).resolve().parent / "simulated"))

import attack_calls
import attack_clean  # noqa: F401 - registers clean designs
import attack_confounders  # noqa: F401 - registers section A
import attack_leaks  # noqa: F401 - registers section B
import numpy as np
from attack_registry import ATTACKS, CALLS, CLEAN, PATIENTS

import sc_drugresp as sdr
from sc_drugresp._design.doubles import Doubles
from sc_drugresp._design.judge import assess
from sc_drugresp._response.choose import Matrices

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    from attack_registry import Attack


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


def said_of_new(name: str, seed: int) -> dict[str, float]:
    """Train on some patients, predict new ones: what is called, and what of it is wrong."""
    known, new = CALLS[name][1](np.random.default_rng(seed))
    model = sdr.tl.train_response(known, model="pca", group_key="patient")
    sdr.tl.predict_response(new, model, allow_aliased=True)
    sdr.tl.aggregate(new, group_key="patient")
    samples = new.uns["predicted_response"]["samples"]
    truth = new.obs.groupby("patient", observed=True)["response"].first()
    cells, whole = new.obs["predicted_response"].astype(str), samples["call"].astype(str)
    prob = new.obs["predicted_response_prob"]
    shifted = sdr.tl.predict_response(new, model, allow_aliased=True, correct_prevalence=True, copy=True)
    return {
        "cells": float((cells != "uncertain").sum()),
        "wrong cells": float(((cells != "uncertain") & (cells != new.obs["response"].astype(str))).sum()),
        "samples": float((whole != "uncertain").sum()),
        "wrong samples": float(((whole != "uncertain") & (whole != truth[whole.index].astype(str))).sum()),
        "all cells": float(len(cells)),
        "all samples": float(len(whole)),
        "low": float(prob.min()),
        "high": float(prob.max()),
        "flagged": float(new.obs["predicted_response_ood"].mean()),
        "refused": float(bool(shifted.uns["predicted_response"]["prevalence"].get("refused"))),
    }


def calls_row(name: str, repeats: int) -> dict[str, str]:
    """One line of section C."""
    found = [said_of_new(name, seed) for seed in range(repeats)]
    total = {key: sum(f[key] for f in found) for key in found[0]}

    def share(kind: str) -> str:
        told = f"{total[kind] / total[f'all {kind}']:.0%} of {total[f'all {kind}']:.0f}"
        return told if not total[kind] else f"{told}; {total[f'wrong {kind}'] / total[kind]:.1%} of them wrong"

    return {
        "new patients": name,
        "before": CALLS[name][0] or "not measured",
        "cells called": share("cells"),
        "patients called": share("samples"),
        "P(sensitive)": f"{min(f['low'] for f in found):.2f} to {max(f['high'] for f in found):.2f}",
        "cells flagged": f"{total['flagged'] / repeats:.0%}",
        "prevalence refused": f"{total['refused']:.0f} of {repeats}",
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
        lowered += assess(_with_quality(adata, source), y, group_key=None, label_key="response").verdict.code != "OK"
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
    titles = {"A": "Something else goes with the label", "B": "Leaks"}
    for section in sorted({one.section for one in ATTACKS}):
        lines += [f"## {section}. {titles[section]}", ""]
        rows = []
        for one in ATTACKS:
            if one.section == section:
                rows.append(attack_row(one, repeats))
                print(f"{time.perf_counter() - start:5.0f} s  {rows[-1]}", flush=True)
        lines += [table(rows), ""]
    lines += [
        "## C. Calls and probabilities",
        "",
        f"Models of simulated patients predict {attack_calls.NEW} new ones. Without signal half of all calls would be wrong.",
        "",
    ]
    rows = []
    for name in CALLS:
        rows.append(calls_row(name, repeats))
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
        publish(arguments.out, text, tables_in(text))


if __name__ == "__main__":
    main()
