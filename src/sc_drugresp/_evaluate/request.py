"""What `tl.evaluate` was asked for: checked before work starts, and written down so that it can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.calls import dataclass_text
from .._core.checks import check_choice
from .._response.heads import HeadKind
from .._response.recipe import Recipe
from .options import EvaluationOptions
from .protocols import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cohort import Cohort

_NOTED = ("protocol", "split", "head", "label_key", "rng")
_NOTED_OPTIONS = ("hold_out", "n_boot", "n_permutations", "n_refits", "allow_leaks")


@dataclass(frozen=True)
class Request:
    """The arguments of an evaluation, see :func:`~sc_drugresp.tl.evaluate`.

    Raises
    ------
    ValueError
        Unknown protocol, head or model, or refits of a tuned model.
    TypeError
        `options` is something else.
    """

    use_rep: str | Sequence[str] | None = None
    model: str | Recipe | Sequence[str | Recipe] | None = None
    label_key: str = "response"
    group_key: str | None = None
    dataset_key: str | None = None
    protocol: Protocol = "leave_group_out"
    split: str = "auto"
    head: HeadKind = "logistic"
    options: EvaluationOptions = field(default_factory=EvaluationOptions)
    layer: str | None = None
    modality: str = "rna"
    rng: int = 0
    key_added: str | None = None

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, Protocol)
        check_choice("head", self.head, HeadKind)
        if not isinstance(self.options, EvaluationOptions):
            msg = f"`options` must be a sc_drugresp.tl.EvaluationOptions, found {type(self.options).__name__}."
            raise TypeError(msg)
        if self.options.n_refits and any(recipe.tuned for recipe in self.recipes):
            msg = "`n_refits` refits heads to permuted labels, not encoders; use n_refits=0 with a tuned model."
            raise ValueError(msg)

    @property
    def slots(self) -> list[str]:
        """Embeddings that were named."""
        return _listed(self.use_rep)

    @property
    def recipes(self) -> list[Recipe]:
        """Models that were named."""
        return [item if isinstance(item, Recipe) else Recipe(item) for item in _listed(self.model)]

    @property
    def command(self) -> str:
        """The call that repeats the evaluation of `adata`."""
        return dataclass_text("sdr.tl.evaluate", self, first=("adata",))

    def params(self, cohort: Cohort, origin: str, models: list[str]) -> dict[str, Any]:
        """What was asked for and what was found for it, in values that survive h5ad."""
        recipes = [repr(recipe) for recipe in self.recipes if recipe.name != recipe.model or recipe.options]
        return {
            **{name: getattr(self, name) for name in _NOTED},
            **{name: getattr(self.options, name) for name in _NOTED_OPTIONS},
            "level": cohort.plan.level,
            "level_key": cohort.keys.get(cohort.plan.level, self.group_key or ""),
            "group_key": cohort.unit_key or self.group_key or "",
            "dataset_key": cohort.keys.get("dataset", ""),
            "layer": origin,
            "models": np.array(models, dtype=str),
            "recipes": np.array(recipes, dtype=str),
            "obs_features": np.array(list(self.options.obs_features), dtype=str),
        }


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str | Recipe) else list(value)
