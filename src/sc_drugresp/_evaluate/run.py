"""One evaluation from candidates to tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.hashing import data_hash
from .._core.log import warn
from .._core.progress import progress_bar
from .._core.threads import one_thread
from .._core.versions import package_versions
from .._data.obs import read_labels, require_both_classes
from .._design.quality import measured, qc_features
from .._response.choose import Matrices
from .candidates import check_folds, make_candidates, weigh_candidates
from .cohort import read_cohort
from .design_only import design_features
from .doubles import Doubles
from .leakage import chosen_by_label, genes_chosen_before
from .naive import NaiveBaseline, naive_baselines
from .options import FEW_SHOT, STRICT
from .protocols import make_runs, shared_names
from .result import collect, describe
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .._response.crossfit import OutOfFold
    from .candidates import Candidate
    from .protocols import Run
    from .request import Request


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Parameters
    ----------
    rows
        The labeled cells.
    tables
        What goes to `.uns`.
    shown, folds
        Out-of-fold predictions of the first model under the wanted protocol, and the names of its folds.
    """

    rows: np.ndarray
    tables: dict[str, Any]
    shown: OutOfFold
    folds: list[str]


@one_thread()
def run_evaluation(adata: AnnData, obs: pd.DataFrame, request: Request) -> Evaluation:
    """Score what was asked for and naive baselines, under the wanted protocol and those that stand beside it."""
    options, rng = request.options, request.rng
    y = read_labels(obs, request.label_key)
    require_both_classes(y, request.label_key)
    matrices = Matrices(adata, np.flatnonzero(y >= 0), request.layer)
    source = matrices.labeled()
    qc = qc_features(source)
    doubles = Doubles(source)
    cohort = read_cohort(obs, y, request, measured(qc), doubles.join)
    candidates, left_out = make_candidates(adata, obs, cohort, matrices, request)
    cohort = weigh_candidates(cohort, candidates, chosen_by_label(source, cohort.confounding.table))
    runs = make_runs(
        cohort, doubles.same_hashes(), request.protocol, options.few_shot, rng, allow_leaks=options.allow_leaks
    )
    if not cohort.plan.strict:
        warn(f"{cohort.plan.verdict} Only the score of a random split of cells is given.")
    check_folds(candidates, [fold for run in runs.values() for fold in run.folds])
    known = [candidate.features for candidate in candidates]
    baselines = {}
    if options.baselines:
        found = design_features(cohort.confounding, cohort.units)
        design = NaiveBaseline(*found) if found else None
        baselines = naive_baselines(source, cohort.units, qc, design=design, known=known, rng=rng)
    with progress_bar(total=_fits(runs, candidates, baselines), desc="evaluating", unit="fits") as bar:
        table = Table(cohort, options, rng, bar.update)
        for name, run in runs.items():
            for candidate in candidates:
                table.add_model(candidate, name, run, head=request.head)
            if baselines and name != FEW_SHOT:
                table.add_naive(baselines, name, run)
    first, wanted = candidates[0].name, next(iter(runs))
    strict = table.predictions.get((first, STRICT))
    params = describe(request, cohort, source.origin, [candidate.name for candidate in candidates])
    tables = collect(
        cohort,
        table.rows,
        table.predictions,
        runs,
        params=params | {"prob_model": first, "prob_protocol": wanted},
        cautions=[*genes_chosen_before(adata), *left_out, *doubles.cautions(cohort.units), *shared_names(runs)],
        digest=data_hash(doubles.hashes, cohort.y, cohort.units),
        shown=None if strict is None else strict.prob,
    )
    tables |= {"versions": package_versions(), "command": request.command}
    return Evaluation(cohort.rows, tables, table.predictions[first, wanted], [fold.name for fold in runs[wanted].folds])


def _fits(runs: dict[str, Run], candidates: Sequence[Candidate], baselines: dict[str, NaiveBaseline]) -> int:
    """Folds that will be fitted, for the progress bar."""
    each = {name: len(run.folds) for name, run in runs.items()}
    naive = sum(n for name, n in each.items() if name != FEW_SHOT)
    fitted = max(len(baselines) - 1, 0)  # all but the one whose labels are dealt out again and again
    return sum(each.values()) * len(candidates) + naive * fitted
