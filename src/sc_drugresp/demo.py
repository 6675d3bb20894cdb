"""The main job on one data set: `python -m sc_drugresp.demo [--out DIR]`.

Real data if there are any (`SC_DRUGRESP_DATA`, the cache, a download), else generated ones; the first line says which.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import datasets
from ._core.keys import GROUP_CANDIDATES, RESPONSE, EmbeddingKeys, EvaluationKeys, PredictionKeys
from ._core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

OUT = "sc_drugresp_demo"
LOCAL = ("GSE120575_melanoma_ICB_partA", "GSE118767_lung5_afatinib_celseq2", "GSE149214_PC9_erlotinib")
"""Looked for in `settings.data_dir`, best design first: most patients or lines of both classes."""
PUBLIC = "GSE149214"
MAX_CELLS = 3_000
"""A demonstration should end in minutes on two cores."""


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

    if name is not None and name != "toy":
        path = Path(name)
        if path.suffix == ".h5ad" and path.is_file():
            return ad.read_h5ad(path), f"the file {path}"
        return datasets.load(name), f"{name} (see sc_drugresp.datasets.available())"
    reason = "generated data were asked for"
    if name is None:
        here = datasets.available()
        for local in (*LOCAL, *here.index[here["where"] == "data_dir"]):
            if local in here.index and here.loc[local, "where"] == "data_dir":
                adata = datasets.load(local)
                if RESPONSE in adata.obs:
                    return adata, f"real data: {local} from {settings.data_dir}"
        try:
            cached = here.loc[PUBLIC, "where"] == "cache"
            return datasets.load(PUBLIC), f"real data: {PUBLIC} from {'the cache' if cached else 'GEO'}"
        except (ConnectionError, ValueError) as error:
            reason = f"no real data at hand ({str(error).splitlines()[0].rstrip(':.')})"
    return datasets.toy(n_samples=12, rng=rng), f"generated data with a known answer, because {reason}"


def run(adata: AnnData, out: Path, *, rng: int = 0) -> dict[str, Path]:
    """Check, embed, evaluate, train, predict, aggregate, plot, report; returns the files it wrote.

    Parameters
    ----------
    adata
        Cells with `.obs['response']`; changed in place.
    out
        Folder for the results.
    rng
        Seed.
    """
    from . import pp, tl

    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    group_key = _group_key(adata)
    step = _Steps()
    step(f"checking {adata.n_obs:,} cells x {adata.n_vars:,} genes; the unit is {group_key!r}")
    findings = pp.check(adata, group_key=group_key)
    files["findings"] = out / "findings.csv"
    findings.to_csv(files["findings"], index=False)
    for row in findings[findings["severity"] != "info"].itertuples():
        step.note(f"{row.severity}: {row.message}")
    layer = "X" if _has_no_counts(findings) else None  # normalized values: the baselines take them as they are

    step("embedding with the PCA baseline")
    tl.embed(adata, "pca", layer=layer, rng=rng)

    step("evaluating on held-out groups, beside naive predictors and a random split")
    tl.evaluate(adata, use_rep=_rep(), group_key=group_key, layer=layer, rng=rng)
    verdict = adata.uns[EvaluationKeys().uns]["verdict"]
    step.note(f"verdict {verdict['code']}: {verdict['reason']}")

    hidden = _hide_one_group(adata, group_key)
    step(f"training on the labeled cells (labels of {hidden!r} are hidden) and predicting all cells")
    model = tl.train_response(adata, use_rep=_rep(), group_key=group_key, layer=layer, rng=rng)
    files["model"] = out / "model"
    model.save(files["model"], overwrite=True)
    tl.predict_response(adata, group_key=group_key, layer=layer, rng=rng)
    tl.aggregate(adata, group_key, rng=rng)
    samples = adata.uns[PredictionKeys().uns][PredictionKeys().samples]
    files["samples"] = out / "samples.csv"
    samples.to_csv(files["samples"])
    for line in samples.iloc[:, :4].to_string().splitlines():
        step.note(line)

    step("drawing figures")
    files |= dict(_figures(adata, out))
    step("writing the report")
    from ._report import report

    files["report"] = out / "report.html"
    report(adata, files["report"])
    files["data"] = out / "predicted.h5ad"
    adata.write_h5ad(files["data"], compression="gzip")
    step(f"done: {len(files)} results in {out}")
    return files


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m sc_drugresp.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(OUT), help=f"folder for the results (default: {OUT})")
    parser.add_argument(
        "--data", help="name of a data set, path of an .h5ad file, or 'toy' (default: the best at hand)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    options = parser.parse_args(arguments)
    adata, source = choose(options.data, rng=options.seed)
    print(f"Data: {source}")
    if adata.n_obs > MAX_CELLS:
        rows = np.sort(np.random.default_rng(options.seed).choice(adata.n_obs, MAX_CELLS, replace=False))
        adata = adata[rows].copy()
        print(f"      {MAX_CELLS:,} cells drawn at random, to be quick")
    files = run(adata, options.out, rng=options.seed)
    print(f"Open {files['report'].resolve().as_uri()}")
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


def _rep() -> str:
    return EmbeddingKeys.of("sdr_pca").obsm


def _has_no_counts(findings: Any) -> bool:
    subjects = findings.loc[findings["severity"] == "error", "code"].astype(str)
    return bool(subjects.str.contains("count|normal|raw|negative", case=False).any())


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
    group = sorted(table.index[table == counts.idxmax()].astype(str))[0]
    rows = adata.obs[group_key].astype(str) == group
    adata.obs[f"{RESPONSE}_known"] = adata.obs[RESPONSE].copy()
    adata.obs.loc[rows, RESPONSE] = np.nan
    return group


def _figures(adata: AnnData, out: Path) -> Iterator[tuple[str, Path]]:
    """One file per plot, drawn without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from . import pl

    plots: tuple[Callable[..., Any], ...] = (pl.response, pl.samples, pl.metrics, pl.roc, pl.leakage_gap)
    for plot in plots:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        plot(adata, ax=figure.subplots())
        path = out / f"{plot.__name__}.png"
        FigureCanvasAgg(figure).print_figure(path, dpi=120, bbox_inches="tight")
        yield plot.__name__, path


if __name__ == "__main__":
    raise SystemExit(main())
