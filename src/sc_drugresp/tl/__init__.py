"""Tools: embed, train, predict, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from .._embed.estimate import Estimate as Estimate
    from .._embed.progress import EmbeddingRun as EmbeddingRun
    from .._evaluate.options import EvaluationOptions as EvaluationOptions
    from .._llm.options import LLMOptions as LLMOptions
    from .._response.recipe import Recipe as Recipe
    from .._response.tune.options import FineTuning as FineTuning
    from ._aggregate import aggregate as aggregate
    from ._ask_llm import ask_llm as ask_llm
    from ._embed import embed as embed
    from ._evaluate import evaluate as evaluate
    from ._predict_response import predict_response as predict_response
    from ._rank_drugs import rank_drugs as rank_drugs
    from ._state_control import state_control as state_control
    from ._train_response import train_response as train_response

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "EmbeddingRun": ".._embed.progress",
        "Estimate": ".._embed.estimate",
        "EvaluationOptions": ".._evaluate.options",
        "FineTuning": ".._response.tune.options",
        "LLMOptions": ".._llm.options",
        "Recipe": ".._response.recipe",
        "aggregate": "._aggregate",
        "ask_llm": "._ask_llm",
        "embed": "._embed",
        "evaluate": "._evaluate",
        "predict_response": "._predict_response",
        "rank_drugs": "._rank_drugs",
        "state_control": "._state_control",
        "train_response": "._train_response",
    },
)
