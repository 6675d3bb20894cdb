"""The numbers and switches of an evaluation that are rarely changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .._core.arguments import check_fields
from .._core.calls import dataclass_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.kinds import Draws, NonNegativeInt, PositiveInt

HoldOut = Literal["pairs", "one"]
Protocol = Literal["leave_group_out", "pooled", "cross_dataset"]
STRICT, POOLED, CROSS, FEW_SHOT, EXTERNAL = "leave_group_out", "pooled", "cross_dataset", "few_shot", "external"
PROTOCOLS = (STRICT, POOLED, CROSS, FEW_SHOT, EXTERNAL)
"""What the column `protocol` of a table of metrics may hold."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How :func:`~sc_drugresp.tl.evaluate` holds out, repeats and reports. The defaults suit most studies.

    Parameters
    ----------
    hold_out
        `'pairs'` holds out a sensitive and a resistant sample at a time, so that every training set has the same balance;
        `'one'` holds out one at a time (the usual leave-one-out), which pulls scores without signal below 0.5. Beyond 20
        samples, both are ten class-stratified folds.
    n_pairings
        Pairings of a sensitive with a resistant sample over which held-out scores are averaged, because a single one is a
        matter of luck; the spread between single ones is reported. Once there are as many as the smaller class has
        samples, each sensitive sample has been held out with each resistant one, and more are not made. Time grows in
        proportion. Encoders that are tuned in the folds get one.
    random_weights
        Evaluate each foundation model that `model` names a second time with weights drawn at random. What such a network
        scores is owed to its architecture and to the counts, not to pretraining. Doubles the time of embedding.
    baselines
        Add the naive baselines.
    obs_features
        Columns of `.obs` to evaluate as a row of their own, for example clinical covariates.
    ignore_obs
        Columns of `.obs` that are no confounders, for example other outcomes: the verdict does not look at them. All other
        columns are compared with the label over patients.
    few_shot
        Numbers of labeled samples of the target, for `protocol='cross_dataset'`.
    n_boot
        Bootstrap draws over samples; 0 leaves out all intervals but those of AUROC.
    n_permutations
        Arrangements of the sample labels for the p-values of AUROC; all of them are tried where they are at most 10,000.
        Scores are held fixed, which is slightly liberal for cross-validated scores. A random split of cells gets no such
        p-value, since it rewards recognizing samples.
    n_refits
        Take the p-values from so many refits of each model to labels dealt out to the samples at random instead: exact,
        and slow. 99 or more are needed for a p-value of 0.01.
    allow_leaks
        Score splits and features that are known to leak; what leaks is recorded.

    Raises
    ------
    ValueError
        A number is negative, `n_pairings` is 0, or `hold_out` is unknown.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.tl.EvaluationOptions(n_boot=200)
    sdr.tl.EvaluationOptions(n_boot=200)
    """

    hold_out: HoldOut = "pairs"
    n_pairings: PositiveInt = 10
    random_weights: bool = True
    baselines: bool = True
    obs_features: Sequence[str] = ()
    ignore_obs: Sequence[str] = ()
    few_shot: Sequence[NonNegativeInt] = (1, 3, 5, 10)
    n_boot: Draws = 1000
    n_permutations: Draws = 1000
    n_refits: Draws = 0
    allow_leaks: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return dataclass_text("sdr.tl.EvaluationOptions", self)
