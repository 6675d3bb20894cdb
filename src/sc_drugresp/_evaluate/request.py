"""What `tl.evaluate` was asked for: checked before work starts, and written down so that it can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._core.calls import dataclass_text
from .._core.checks import check_choice
from .._response.heads import HeadChoice, check_tunable
from .._response.recipe import Recipe
from .options import EvaluationOptions, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    head: HeadChoice = "logistic"
    options: EvaluationOptions = field(default_factory=EvaluationOptions)
    layer: str | None = None
    modality: str = "rna"
    rng: int = 0
    key_added: str | None = None

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, Protocol)
        check_choice("head", self.head, HeadChoice)
        if not isinstance(self.options, EvaluationOptions):
            msg = f"`options` must be a sc_drugresp.tl.EvaluationOptions, found {type(self.options).__name__}."
            raise TypeError(msg)
        tuned = any(recipe.tuned for recipe in self.recipes)
        if tuned:
            check_tunable(self.head)
        if self.options.n_refits and tuned:
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


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str | Recipe) else list(value)
