"""The verdict: whether a performance estimate is possible at all, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from .._stats.auroc import hanley_mcneil
from .._stats.groups import encode_groups, majority_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .aliasing import Aliasing

VerdictCode = Literal["OK", "CONFOUNDED", "UNDERPOWERED", "ALIASED"]
_SMALLEST_P = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether a performance estimate is possible, with the reason in words.

    `OK`: yes. `CONFOUNDED`: the split is valid, but something else goes with the label, so that a score can come from it.
    `UNDERPOWERED`: the split is valid, but so few independent samples cannot show much. `ALIASED`: no; the label cannot be
    told from something else.

    Parameters
    ----------
    code, reason
        The conclusion, and why.
    suggestions
        What would help.
    cautions
        Further remarks in words.
    """

    code: VerdictCode
    reason: str
    suggestions: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"

    def with_cautions(self, *cautions: str) -> Self:
        """The verdict with more remarks."""
        return replace(self, cautions=(*self.cautions, *cautions))

    def lowered(self, reason: str, suggestion: str) -> Self:
        """`CONFOUNDED` for this reason where it was `OK`; otherwise one more caution."""
        if self.code != "OK":
            return self.with_cautions(reason)
        return replace(
            self,
            code="CONFOUNDED",
            reason=reason,
            suggestions=(suggestion, *self.suggestions),
            cautions=(self.reason, *self.cautions),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values that :meth:`from_dict` reads."""
        return {
            "code": self.code,
            "reason": self.reason,
            "suggestions": list(self.suggestions),
            "cautions": list(self.cautions),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from what :meth:`to_dict` gave."""
        code, reason, *rest = (values[name] for name in ("code", "reason", "suggestions", "cautions"))
        return cls(code, str(reason), *(tuple(map(str, texts)) for texts in rest))


def aliased(kind: Aliasing, thing: str) -> Verdict:
    few = [name for name, n in (("sensitive", kind.with_sensitive), ("resistant", kind.with_resistant)) if n < 2]
    source = "each class comes" if len(few) != 1 else f"all {few[0]} cells come"
    reason = (
        f"{source} from one {thing} only "
        f"({kind.n_sensitive} sensitive, {kind.n_resistant} resistant, {kind.n_mixed} mixed {plural(thing)}). "
        f"Response cannot be told from {thing}, so that no performance estimate is possible within these data; "
        "a random split of cells would score recognition of it."
    )
    suggestions = (
        f"Add data with at least two {plural(thing)} of each class.",
        "Score the model on other data sets with protocol='cross_dataset'.",
    )
    if kind.role == "timepoint":
        suggestions = (
            "Use cells from before treatment only: a treated cell differs whatever its fate.",
            suggestions[1],
        )
    return Verdict("ALIASED", reason, suggestions)


def plural(thing: str) -> str:
    """Several of them."""
    return f"{thing}es" if thing.endswith("ch") else f"{thing}s"


def power_of(y: np.ndarray, units: np.ndarray, thing: str) -> Verdict:
    codes, names = encode_groups(units[y >= 0])
    classes = majority_classes(y[y >= 0], codes, len(names))
    n_mixed = int((classes == 2).sum())
    pure = int((classes == 1).sum())
    n_s, n_r = pure + n_mixed, int((classes == 0).sum()) + n_mixed
    smallest = min(2.0**-n_mixed, 1 / comb(len(names) - n_mixed, pure))
    half = 1.96 * np.sqrt(hanley_mcneil(0.8, n_s, n_r))
    several = plural(thing)
    size = f"{len(names)} {several}" if n_mixed else f"{n_s} sensitive and {n_r} resistant {several}"
    accuracy = f"an AUROC of 0.80 over samples would be known to +-{half:.2f}"
    if min(n_s, n_r) < 3 or smallest >= _SMALLEST_P:
        told = f"the smallest possible permutation p-value is {smallest:.2g}"
        lone = f"{told}, and a model that leaves one out learns a class from {min(n_s, n_r) - 1}"
        reason = f"only {size}: {accuracy}, {lone if min(n_s, n_r) < 3 else f'and {told}'}."
        advice = ("Read the interval, not the value.", "Add samples of the smaller class.")
        return Verdict("UNDERPOWERED", reason, advice)
    return Verdict("OK", f"{size}; {accuracy}.")


def one_unit(known: list[str]) -> Verdict:
    what = (
        f"there is only one {' and one '.join(known)}" if known else "no column names samples, patients or cell lines"
    )
    reason = (
        f"{what}, so that nothing independent can be held out. The score of a random split of cells says how well other "
        "cells of the same sample are predicted, and nothing about another sample."
    )
    return Verdict("UNDERPOWERED", reason, ("Name the samples with `group_key=`.", "Add data of other samples."))
