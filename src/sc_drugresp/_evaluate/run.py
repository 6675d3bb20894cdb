"""One evaluation from candidates to tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._core.hashing import data_hash
from .._core.log import warn
from .._core.progress import progress_bar
from .._core.versions import package_versions
from .._stats.folds import profile_hashes
from .candidates import check_folds
from .naive import naive_baselines
from .protocols import FEW_SHOT, make_runs
from .result import collect
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._data import CountSource
    from .._response.crossfit import OutOfFold
    from .candidates import Candidate
    from .cohort import Cohort
    from .naive import NaiveBaseline
    from .options import EvaluationOptions
    from .protocols import Protocol, Run


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Parameters
    ----------
    tables
        What goes to `.uns`.
    shown
        Out-of-fold predictions of the first model under the wanted protocol, and the names of its folds.
    """

    tables: dict[str, Any]
    shown: tuple[OutOfFold, list[str]]


def run_evaluation(
    cohort: Cohort,
    candidates: Sequence[Candidate],
    source: CountSource,
    *,
    protocol: Protocol,
    head: str,
    options: EvaluationOptions,
    params: dict[str, Any],
    cautions: Sequence[str],
    command: str,
    rng: int,
) -> Evaluation:
    """Score all candidates and naive baselines under the wanted protocol and those that stand beside it.

    Parameters
    ----------
    cohort
        The labeled cells and their split.
    candidates
        Rows of the comparison.
    source
        Reader of the labeled cells, for the naive baselines and to find copies of cells.
    protocol, head, options, rng
        As in :func:`~sc_drugresp.tl.evaluate`.
    params, command
        What was asked for, for the record.
    cautions
        Remarks on the data, in words.
    """
    hashes = profile_hashes(source.blocks(), source.n_obs)
    runs = make_runs(cohort, hashes, protocol, options.few_shot, rng)
    if not cohort.plan.strict:
        warn(f"{cohort.plan.verdict} Only the score of a random split of cells is given.")
    check_folds(candidates, [fold for run in runs.values() for fold in run.folds])
    baselines = naive_baselines(source, cohort.units, rng=rng) if options.baselines else {}
    with progress_bar(total=_fits(runs, candidates, baselines), desc="evaluating", unit="fits") as bar:
        table = Table(cohort, options, rng, bar.update)
        for name, run in runs.items():
            for candidate in candidates:
                table.add_model(candidate, name, run, head=head)
            if baselines and name != FEW_SHOT:
                table.add_naive(baselines, name, run)
    first, wanted = candidates[0].name, next(iter(runs))
    tables = collect(
        cohort,
        table.rows,
        table.predictions,
        runs,
        params=params | {"prob_model": first, "prob_protocol": wanted},
        cautions=cautions,
        digest=data_hash(hashes, cohort.y, cohort.units),
    )
    tables |= {"versions": package_versions(), "command": command}
    return Evaluation(tables, (table.predictions[first, wanted], [fold.name for fold in runs[wanted].folds]))


def _fits(runs: dict[str, Run], candidates: Sequence[Candidate], baselines: dict[str, NaiveBaseline]) -> int:
    """Folds that will be fitted, for the progress bar."""
    each = {name: len(run.folds) for name, run in runs.items()}
    naive = sum(n for name, n in each.items() if name != FEW_SHOT)
    fitted = max(len(baselines) - 1, 0)  # all but the one whose labels are dealt out again and again
    return sum(each.values()) * len(candidates) + naive * fitted
