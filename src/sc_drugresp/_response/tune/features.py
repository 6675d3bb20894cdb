"""Tuning inside the folds of an evaluation: a row of its table that learns its features from the training cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .finetune import embed_by_sample, finetune
from .held_out import check_enough_samples
from .processes import own_device, started

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..._data import Tokens
    from ..heads import HeadChoice
    from ..recipe import Recipe


class TunedFeatures:
    """An encoder that is tuned anew in every fold; its feature is the logit of the tuned model.

    Parameters
    ----------
    recipe
        The encoder and how it is tuned.
    tokens, y, groups
        Tokens, label (1 sensitive, 0 resistant) and sample of each labeled cell, in the order of the folds' rows.
    kind, seed
        Head and seed, as in :func:`~sc_drugresp._response.tune.finetune.finetune`.
    """

    def __init__(
        self, recipe: Recipe, tokens: Tokens, y: np.ndarray, groups: np.ndarray, *, kind: HeadChoice, seed: int
    ) -> None:
        self.recipe, self.tokens, self.y, self.groups = recipe, tokens, y, groups
        self.kind, self.seed, self.name = kind, seed, recipe.name

    def check(self, folds: Iterable[Any]) -> None:
        """Refuse folds that cannot be tuned on before the first one is.

        Raises
        ------
        ValueError
            A fold has a single sample of a class to learn from, and `force` is false; or the processes asked for were not
            started.
        """
        started(self.recipe.settings)
        for fold in folds:
            y = self.y[fold.train]
            if len(np.unique(y)) == 2:  # otherwise the evaluation gives 0.5 without asking for features
                where = f" to learn from in fold {fold.name!r}"
                force = self.recipe.settings.force
                check_enough_samples(y, self.groups[fold.train], force=force, where=where)

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tune on the training cells; logits of the test cells, and zeros for the training cells, which nobody reads."""
        with own_device(started(self.recipe.settings)):
            logits = self._logits(train, test)
        return np.zeros((len(train if shown is None else shown), 1)), logits[:, None]

    def _logits(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        encoder = self.recipe.load()
        tuned = finetune(
            encoder,
            self.tokens.take(train),
            self.y[train],
            self.groups[train],
            mode=self.recipe.mode,
            head=self.kind,
            options=self.recipe.settings,
            seed=self.seed,
        )
        return tuned.head.logit(embed_by_sample(encoder, self.tokens.take(test), self.groups[test]))

    @staticmethod
    def head(*_: Any, **__: Any) -> Logit:
        """Fit nothing: the head was trained with the encoder."""
        return Logit()


@dataclass(frozen=True)
class Logit:
    """A head whose only feature is the logit."""

    def logit(self, x: np.ndarray) -> np.ndarray:
        """The feature itself."""
        return x[:, 0]
