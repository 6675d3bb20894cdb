"""Tools: embed, train, predict, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._train.options import FineTuning
    from ._aggregate import aggregate
    from ._embed import embed
    from ._evaluate import evaluate
    from ._predict_response import predict_response
    from ._state_control import state_control
    from ._train_response import train_response

__all__ = ["FineTuning", "aggregate", "embed", "evaluate", "predict_response", "state_control", "train_response"]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "FineTuning":
        return importlib.import_module(".._train.options", __name__).FineTuning
    if name in __all__:
        return getattr(importlib.import_module(f"._{name}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
