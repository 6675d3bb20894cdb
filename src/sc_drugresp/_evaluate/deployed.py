"""What users would have got: the calibrated probability and the call of every held-out cell.

A trained model calibrates its scores on samples that its head had not seen, and takes the thresholds of its calls from
them. Here the calibrator and the thresholds of a fold are fitted to the held-out scores of all other samples, so that no
label of the fold enters. The heads behind these other scores were learned from the fold's samples, among others; nesting
all fits would cost their square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .._stats.calibration import fit_calibration
from .._stats.conformal import fit_conformal, fit_sample_calls
from .._stats.groups import encode_groups, majority_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._stats.folds import Fold

ERROR_LEVEL = 0.1
"""That of `tl.train_response` where nothing is asked for."""
UNCERTAIN = -1


@dataclass(frozen=True)
class Deployed:
    """What is said of each cell and of its sample.

    Parameters
    ----------
    prob
        P(sensitive), NaN for cells that were not tested.
    calls
        1 sensitive, 0 resistant, -1 uncertain; of each cell. `None` where nothing is called.
    sample_calls
        The same of the sample that the cell belongs to; `None` where samples have no label.
    """

    prob: np.ndarray
    calls: np.ndarray | None = None
    sample_calls: np.ndarray | None = None

    def call_codes(self) -> np.ndarray:
        """Calls as positions in the categories sensitive, resistant, uncertain; -1 where there is none."""
        if self.calls is None:
            return np.full(len(self.prob), -1)
        return np.where(np.isnan(self.prob), -1, np.select([self.calls == 1, self.calls == 0], [0, 1], 2))


def deploy(
    prob: np.ndarray,
    logit: np.ndarray,
    whole: np.ndarray,
    y: np.ndarray,
    units: np.ndarray,
    folds: Sequence[Fold],
) -> Deployed:
    """Calibrate the held-out scores of each fold, and call its cells and samples, by the scores of all other samples.

    Parameters
    ----------
    prob
        P(sensitive) before calibration; it stays where a cell has no logit (no embedding).
    logit
        Held-out scores, NaN where there is none.
    whole
        Held-out score of each sample by the head, in the order of the sorted names; NaN where there is none.
    y, units
        Label (1 sensitive, 0 resistant) and sample of each cell.
    folds
        What was held out together.
    """
    codes, names = encode_groups(units)
    known, kind = np.isfinite(logit), majority_classes(y, codes, len(names))
    labeled, scored = bool((kind < 2).all()), np.isfinite(whole)
    total, times = np.zeros(len(y)), np.zeros(len(y))
    cells, samples = np.zeros((len(y), 2), dtype=np.int64), np.zeros((len(names), 2), dtype=np.int64)
    tested = np.zeros(len(names), dtype=np.int64)
    for fold in folds:
        held, test = np.unique(codes[fold.test]), fold.test[known[fold.test]]
        rest, others = known & ~np.isin(codes, held), np.setdiff1d(np.flatnonzero(scored), held)
        times[test] += 1
        tested[held] += 1
        if not rest.any():
            total[test] += expit(logit[test])
            continue
        # The interval is not scored: two draws are the fewest that it can be made from.
        calibration = fit_calibration(logit[rest], y[rest], codes[rest], n_boot=2)
        how: dict[str, Any] = {"alpha": ERROR_LEVEL, "informative": calibration.informative}
        total[test] += calibration.probability(logit[test])
        cells[test] += fit_conformal(logit[rest], y[rest], codes[rest], **how).calls(logit[test])
        if labeled and len(others):
            samples[held] += fit_sample_calls(whole[others], kind[others], **how).calls(whole[held])
    deployed = np.where(times > 0, total / np.maximum(times, 1), prob)
    return Deployed(deployed, _calls(cells, times), _calls(samples, tested)[codes] if labeled else None)


def _calls(called: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The class that every fold called."""
    always = (called == np.asarray(times, dtype=np.int64)[:, None]) & (called > 0)
    return np.where(always.any(axis=1), always[:, 0], UNCERTAIN).astype(np.int64)
