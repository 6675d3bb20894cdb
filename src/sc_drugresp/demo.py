"""The main job on one data set: `python -m sc_drugresp.demo [--out DIR]`.

Real data if there are any (`SC_DRUGRESP_DATA`, the cache, a download), else generated ones; the first line says which.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import datasets, get
from ._core.files import draft_of, write_text
from ._core.keys import GROUP_CANDIDATES, RESPONSE, DrugRankingKeys, EmbeddingKeys, EvaluationKeys, PredictionKeys
from ._core.settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

OUT = "sc_drugresp_demo"
LOCAL = ("GSE120575_melanoma_ICB_partA", "GSE118767_lung5_afatinib_celseq2", "GSE149214_PC9_erlotinib")
"""Looked for in `settings.data_dir`, best design first: most patients or lines of both classes."""
LINES = LOCAL[1]
"""Asked about without labels, where it is at hand: untreated cells that a screen of cell lines may be asked about."""
DRUG = "afatinib"
PUBLIC = "GSE149214"
MAX_CELLS = 3_000
"""A demonstration should end in minutes on two cores."""
PLOTS = ("response", "samples", "metrics", "roc", "leakage_gap")
REP = EmbeddingKeys.of("sdr_pca").obsm


def choose(name: str | None = None, *, rng: int = 0) -> tuple[AnnData, str]:
    """A data set and a sentence that says where it comes from.

    Parameters
    ----------
    name
        Name for :func:`~sc_drugresp.datasets.load`, or the path of an `.h5ad` file; `'toy'` for generated data. `None`
        takes the best real data at hand.
    rng
        Seed of generated data.
    """
    import anndata as ad

    if name == "toy":
        reason = "generated data were asked for"
    elif name is not None and Path(name).suffix == ".h5ad" and Path(name).is_file():
        return ad.read_h5ad(name), f"the file {name}"
    elif name is not None:
        return datasets.load(name), f"{name} (see sc_drugresp.datasets.available())"
    else:
        where = datasets.available()["where"]
        here = where.index[where == "data_dir"]
        for local in [*(known for known in LOCAL if known in here), *here]:
            adata = datasets.load(local)
            if RESPONSE in adata.obs:
                return adata, f"real data: {local} from {settings.data_dir}"
        try:
            source = "the cache" if where[PUBLIC] == "cache" else "GEO"
            return datasets.load(PUBLIC), f"real data: {PUBLIC} from {source}"
        except (ConnectionError, ValueError) as error:
            reason = f"no real data at hand ({str(error).splitlines()[0].rstrip(':.')})"
    return datasets.toy(n_samples=12, rng=rng), f"generated data with a known answer, because {reason}"


def run(adata: AnnData, out: Path, *, rng: int = 0) -> Path:
    """Answer without labels, then check, embed, evaluate, train, predict, aggregate, plot, report; returns the page of the report.

    Parameters
    ----------
    adata
        Cells with `.obs['response']`; changed in place.
    out
        Folder for the results.
    rng
        Seed.
    """
    from . import pl, pp, tl
    from ._report import report

    out.mkdir(parents=True, exist_ok=True)
    group_key = _group_key(adata)
    step = _Steps()
    answer_without_labels(adata, group_key, out, step, rng=rng)
    step(f"checking {adata.n_obs:,} cells x {adata.n_vars:,} genes; the unit is {group_key!r}")
    findings = pp.check(adata, group_key=group_key)
    write_text(out / "findings.csv", findings.to_csv(index=False))
    for row in findings[findings["severity"] != "info"].itertuples():
        step.note(f"{row.severity}: {row.message}")
    # Without raw counts, the baselines take normalized values as they are.
    no_counts = ((findings["code"] == "raw-counts") & (findings["severity"] == "error")).any()
    common: dict[str, Any] = {"layer": "X" if no_counts else None, "rng": rng}

    step("embedding with the PCA baseline")
    tl.embed(adata, "pca", **common)

    step("evaluating on held-out groups, beside naive baselines and a random split")
    known = f"{RESPONSE}_known"  # the evaluation keeps its labels when some are hidden below
    adata.obs[known] = adata.obs[RESPONSE].copy()
    tl.evaluate(adata, use_rep=REP, label_key=known, group_key=group_key, **common)
    verdict = adata.uns[EvaluationKeys().uns]["verdict"]
    step.note(f"verdict {verdict['code']}: {verdict['reason']}")

    hidden = _hide_one_group(adata, group_key)
    step(f"training on the labeled cells (labels of {hidden!r} are hidden) and predicting all cells")
    model = tl.train_response(adata, use_rep=REP, group_key=group_key, **common)
    model.save(out / "model", overwrite=True)
    tl.predict_response(adata, group_key=group_key, **common)
    tl.aggregate(adata, group_key, rng=rng)
    samples = get.samples_df(adata, label_key=None)
    write_text(out / "samples.csv", samples.to_csv())
    for line in samples.iloc[:, :4].to_string(float_format="{:.2f}".format).splitlines():
        step.note(line)

    step("drawing figures")
    for plot in PLOTS:
        _save(getattr(pl, plot)(adata), out / f"{plot}.png")
    step("writing the report")
    page = report(adata, out / "report.html")
    adata.write_h5ad(out / "predicted.h5ad", compression="gzip")
    step(f"done: everything is in {out}")
    return page


def answer_without_labels(adata: AnnData, group_key: str, out: Path, step: _Steps, *, rng: int) -> None:
    """Ask the reference of the package about cells without labels; writes two tables and, if there is an answer, a figure.

    Parameters
    ----------
    adata, group_key
        The data of the demonstration and their unit. Generated data have too few genes: others are generated.
    out
        Folder for the results.
    step
        Prints what happens.
    rng
        Seed.
    """
    from . import pl, tl

    asked: dict[str, Any] = {"groupby": group_key, "rng": rng}
    if "toy" in adata.uns:
        cells, asked = datasets.toy(2, 40, 12_000, rng=rng), {"groupby": "sample", "malignant_key": "cell_type"}
        asked |= {"chemistry": "dropseq", "rng": rng}
        what = "two generated samples, of which the numbers mean nothing"
    elif datasets.available()["where"].get(LINES) == "data_dir":
        cells, asked["groupby"] = datasets.load(LINES), "cell_line"
        what = "lung cancer lines"
    else:
        cells, what = adata.copy(), "these cells"
    if RESPONSE in cells.obs:
        del cells.obs[RESPONSE]
    step(f"answering without labels, from a screen of cell lines: {DRUG} in {what}")
    step.note(get.reliability(DRUG).verdict)
    tl.predict_response(cells, drug=DRUG, **asked)
    groups = cells.uns[PredictionKeys().uns]["groups"]
    write_text(out / "without_labels.csv", groups.to_csv(index=False))
    shown = groups[["group", "n_cells", "z", "P", "call", "tissue_mean_z"]]
    for line in shown.to_string(index=False, float_format="{:.2f}".format).splitlines():
        step.note(line)
    for reason in groups.loc[groups["abstain_reason"] != "", "abstain_reason"].unique()[:3]:
        step.note(f"no answer: {reason}")
    tl.rank_drugs(cells, **asked)
    write_text(out / "drug_ranking.csv", get.drug_ranking_df(cells, answered=True).to_csv(index=False))
    if len(cells.uns[DrugRankingKeys().uns]["drugs"]):
        _save(pl.drug_heatmap(cells), out / "drug_heatmap.png")


def _save(ax: Any, path: Path) -> None:
    """Write a figure and close it."""
    import matplotlib.pyplot as plt

    with draft_of(path) as draft:
        ax.figure.savefig(draft, dpi=120, bbox_inches="tight", format="png")
    plt.close(ax.figure)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m sc_drugresp.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for the results (default: {OUT})")
    parser.add_argument("--data", help="name of a data set, an .h5ad file, or 'toy' (default: the best at hand)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    options = parser.parse_args(arguments)
    adata, source = choose(options.data, rng=options.seed)
    print(f"Data: {source}")
    if adata.n_obs > MAX_CELLS:
        rows = np.sort(np.random.default_rng(options.seed).choice(adata.n_obs, MAX_CELLS, replace=False))
        adata = adata[rows].copy()
        print(f"      {MAX_CELLS:,} cells drawn at random, to be quick")
    page = run(adata, options.out, rng=options.seed)
    print(f"Open {page.resolve().as_uri()}")
    return 0


class _Steps:
    """Numbered lines with the seconds since the start."""

    def __init__(self) -> None:
        self.start, self.count = time.perf_counter(), 0

    def __call__(self, text: str) -> None:
        self.count += 1
        print(f"[{time.perf_counter() - self.start:5.1f} s] {self.count}. {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"            {text}", flush=True)


def _group_key(adata: AnnData) -> str:
    """Strictest column with more than one group in which a group has one class, else the first with several groups."""
    several = [key for key in GROUP_CANDIDATES if key in adata.obs and adata.obs[key].nunique() > 1]
    if not several:
        msg = f"None of {GROUP_CANDIDATES} is a column of .obs with more than one value."
        raise ValueError(msg)
    labeled = adata.obs[adata.obs[RESPONSE].notna()]
    pure = [key for key in several if labeled.groupby(key, observed=True)[RESPONSE].nunique().max() == 1]
    return (pure or several)[0]


def _hide_one_group(adata: AnnData, group_key: str) -> str:
    """Take the labels of one group of the larger class away, so that there is something to predict."""
    labeled = adata.obs[adata.obs[RESPONSE].notna()]
    table = labeled.groupby(group_key, observed=True)[RESPONSE].first().astype(str)
    counts = table.value_counts()
    if adata.obs[RESPONSE].isna().any() or counts.max() < 3:
        return "no group"
    group = min(table.index[table == counts.idxmax()].astype(str))
    adata.obs.loc[adata.obs[group_key].astype(str) == group, RESPONSE] = np.nan
    return group


if __name__ == "__main__":
    raise SystemExit(main())
