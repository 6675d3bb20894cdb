"""What `tl.evaluate` was asked for: checked before work starts, and written down so that it can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from .._core.calls import dataclass_text
from .._core.checks import check_choice
from .._response.heads import HeadChoice, check_tunable
from .._response.model import ResponseModel
from .._response.recipe import Recipe
from .._response.storage import holds_model
from .options import EvaluationOptions, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


ModelArgument = str | PathLike[str] | Recipe | ResponseModel
"""What `model` may hold: a name, a recipe, a trained model or the folder of one."""


@dataclass(frozen=True)
class Request:
    """The arguments of an evaluation, see :func:`~sc_drugresp.tl.evaluate`.

    Raises
    ------
    ValueError
        Unknown protocol, head or model, refits of a tuned model, or saved models with a split or beside other rows.
    TypeError
        `options` is something else.
    """

    use_rep: str | Sequence[str] | None = None
    model: ModelArgument | Sequence[ModelArgument] | None = None
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
    calls: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, Protocol)
        check_choice("head", self.head, HeadChoice)
        if not isinstance(self.options, EvaluationOptions):
            msg = f"`options` must be a sc_drugresp.tl.EvaluationOptions, found {type(self.options).__name__}."
            raise TypeError(msg)
        tuned = any(recipe.tuned for recipe in self.recipes)
        if tuned:
            check_tunable(self.head)
        if self.saved and (self.recipes or self.slots or self.options.obs_features):
            msg = (
                "A trained model is scored as it is, on cells that it was not trained on; everything else is trained in the "
                "folds of these cells. Evaluate them in two calls, with two `key_added`."
            )
            raise ValueError(msg)
        if self.saved and (self.protocol != "leave_group_out" or self.split not in ("auto", "group")):
            msg = (
                f"A trained model is not trained again, so there is nothing to split: leave out `protocol` and `split`, found "
                f"{self.protocol!r} and {self.split!r}."
            )
            raise ValueError(msg)
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
        named = [item for item in _listed(self.model) if not _is_saved(item)]
        return [item if isinstance(item, Recipe) else Recipe(item) for item in named]

    @property
    def saved(self) -> list[ResponseModel | str]:
        """Trained models, or the folders of saved ones."""
        found = [item for item in _listed(self.model) if _is_saved(item)]
        return [item if isinstance(item, ResponseModel) else str(item) for item in found]

    @property
    def command(self) -> str:
        """The call that repeats the evaluation of `adata`."""
        return dataclass_text("sdr.tl.evaluate", self, first=("adata",))


def _listed(value: Any) -> list[Any]:
    single = str | PathLike | Recipe | ResponseModel
    return [] if value is None else [value] if isinstance(value, single) else list(value)


def _is_saved(item: Any) -> bool:
    """A trained model or a folder; a name that is no folder is the name of a model to train."""
    return isinstance(item, ResponseModel | PathLike) or (isinstance(item, str) and holds_model(item))
