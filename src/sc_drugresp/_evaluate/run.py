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
from .._design.doubles import Doubles
from .._design.given_away import chosen_by_label, genes_chosen_before
from .._design.quality import measured, qc_features
from .._response.choose import Matrices
from .._stats.folds import Fold
from .calls import read_calls
from .candidates import check_folds, check_names, make_candidates, weigh_candidates
from .cohort import read_cohort
from .design_only import design_features
from .external import apply_saved
from .naive import PERMUTED, NaiveBaseline, naive_baselines
from .options import EXTERNAL, FEW_SHOT, STRICT
from .protocols import Run, make_runs, shared_names
from .result import collect, describe
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from .._data.counts import CountSource
    from .candidates import Candidate
    from .cohort import Cohort
    from .request import Request
    from .table import Scored


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
        What was found for the cells by the first model under the wanted protocol, and the names of its folds.
    """

    rows: np.ndarray
    tables: dict[str, Any]
    shown: Scored
    folds: list[str]


@one_thread()
def run_evaluation(adata: AnnData, obs: pd.DataFrame, request: Request) -> Evaluation:
    """Score what was asked for and naive baselines, under the wanted protocol and those that stand beside it."""
    y = read_labels(obs, request.label_key)
    require_both_classes(y, request.label_key)
    matrices = Matrices(adata, np.flatnonzero(y >= 0), request.layer)
    source = matrices.labeled()
    qc = qc_features(source)
    doubles = Doubles(source)
    cohort = read_cohort(obs, y, request, measured(qc), doubles.join)
    if request.saved:
        return _score_saved(adata, obs, cohort, source, request, doubles)
    options, rng = request.options, request.rng
    calls = read_calls(adata, obs, cohort, request)
    candidates, left_out = make_candidates(adata, obs, cohort, matrices, request)
    check_names(calls, candidates)
    cohort = weigh_candidates(cohort, [*candidates, *calls], chosen_by_label(source, cohort.confounding.table))
    hashes = doubles.same_hashes()
    leaks = options.allow_leaks
    runs = make_runs(cohort, hashes, request.protocol, options.few_shot, options.n_pairings, rng, allow_leaks=leaks)
    if not cohort.plan.strict:
        warn(f"{cohort.plan.verdict} Only the score of a random split of cells is given.")
    check_folds(candidates, [fold for run in runs.values() for fold in run.folds])
    known = [candidate.features for candidate in candidates]
    baselines = {}
    if options.baselines:
        found = design_features(cohort.confounding, cohort.units)
        design = NaiveBaseline(*found) if found else None
        baselines = naive_baselines(source, cohort.units, qc, design=design, known=known, rng=rng)
    with progress_bar(total=_fits(runs, candidates, baselines), desc="evaluating", unit=" fits") as bar:
        table = Table(cohort, options, rng, bar.update)
        for name, run in runs.items():
            for candidate in candidates:
                table.add_model(candidate, name, run, head=request.head)
            for row in calls if name != FEW_SHOT else ():
                table.add_calls(row, name, run.tested)
            if baselines and name != FEW_SHOT:
                table.add_naive(baselines, name, run)
    models = [candidate.name for candidate in candidates if candidate.kind == "model"]
    models += [row.name for row in calls]
    said = [*genes_chosen_before(adata), *left_out, *doubles.cautions(cohort.units), *shared_names(runs)]
    return _collected(cohort, table, runs, request, source.origin, models, said, doubles.hashes)


def _score_saved(
    adata: AnnData, obs: pd.DataFrame, cohort: Cohort, source: CountSource, request: Request, doubles: Doubles
) -> Evaluation:
    """Score trained models on cells that they were not trained on."""
    calls = read_calls(adata, obs, cohort, request)
    found = apply_saved(adata, obs, cohort, request)
    check_names(calls, found)
    if cohort.plan.verdict.code == "ALIASED":
        warn(str(cohort.plan.verdict))
    everything = np.arange(len(cohort.y))
    runs = {EXTERNAL: Run([[Fold("external", everything[:0], everything)]])}
    table = Table(cohort, request.options, request.rng)
    for model in found:
        table.add_external(model.name, EXTERNAL, model.deployed, caution=model.caution, prevalence=model.prevalence)
    for row in calls:
        table.add_calls(row, EXTERNAL, everything)
    if request.options.baselines:
        table.add_constant(EXTERNAL, everything)
    said = [f"{model.name}: {model.caution}" for model in found if model.caution]
    said += [f"{row.name}: {row.caution}" for row in calls if row.caution]
    said += doubles.cautions(cohort.units)
    names = [*(model.name for model in found), *(row.name for row in calls)]
    return _collected(cohort, table, runs, request, source.origin, names, said, doubles.hashes)


def _collected(
    cohort: Cohort,
    table: Table,
    runs: Mapping[str, Run],
    request: Request,
    origin: str,
    models: list[str],
    cautions: Sequence[str],
    hashes: np.ndarray,
) -> Evaluation:
    first, wanted = models[0], next(iter(runs))
    strict = next((table.found[first, name] for name in (STRICT, EXTERNAL) if (first, name) in table.found), None)
    params = describe(request, cohort, origin, models)
    tables = collect(
        cohort,
        table.rows,
        table.found,
        runs,
        params=params | {"prob_model": first, "prob_protocol": wanted},
        cautions=cautions,
        digest=data_hash(hashes, cohort.y, cohort.units),
        shown=None if strict is None else strict.score,
    )
    tables |= {"versions": package_versions(), "command": request.command}
    return Evaluation(cohort.rows, tables, table.found[first, wanted], [fold.name for fold in runs[wanted].folds])


def _fits(runs: Mapping[str, Run], candidates: Sequence[Candidate], baselines: Mapping[str, NaiveBaseline]) -> int:
    """Folds that will be fitted, for the progress bar."""
    rows = [(1 if hasattr(candidate.features, "head") else None, True) for candidate in candidates]
    rows += [(row.most_repeats, False) for name, row in baselines.items() if name != PERMUTED]
    return sum(
        len(folds)
        for most, few_shot in rows
        for name, run in runs.items()
        for folds in run.repeats[:most]
        if few_shot or name != FEW_SHOT
    )
