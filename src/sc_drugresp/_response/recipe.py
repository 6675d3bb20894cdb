"""How a model turns cells into vectors: its name, checkpoint and options, and whether it is tuned."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from .. import models
from .._core.arguments import check_fields
from .._core.calls import dataclass_text
from ..models._engines import check_engine
from ..models._load import check_options, model_class
from ..models._registry import canonical, find
from .tune.options import FineTuning

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from .._core.kinds import Engine, Precision

Mode = Literal["frozen", "lora", "full"]


@dataclass(frozen=True)
class Recipe:
    """A model with its settings, checked when it is made; no file is opened.

    :func:`~sc_drugresp.tl.evaluate` takes recipes beside plain names, so that one call can compare a model with its tuned
    self or with another checkpoint.

    Parameters
    ----------
    model
        `'model'` or `'model.checkpoint'`, see :func:`~sc_drugresp.models.table`.
    mode
        `'frozen'` leaves the network as published; `'lora'` and `'full'` tune it.
    checkpoint
        Folder with the published files. `None` uses the cache and downloads what is missing.
    tuning
        Settings of `'lora'` and `'full'`.
    options
        Options of the model, as in :func:`~sc_drugresp.tl.embed`.
    engine, precision
        What computes a frozen network, as in :func:`~sc_drugresp.tl.embed`; noted in models that are trained on it, and used
        for new cells. Tuned networks are computed by PyTorch in float32.

    Raises
    ------
    ValueError
        There is no such model or mode, or the model cannot be tuned or converted for the engine.
    TypeError
        The model has no such option, or `tuning` is given for a frozen model.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.tl.Recipe("pca", options={"n_comps": 20}).name
    'pca'
    """

    model: str
    mode: Mode = "frozen"
    checkpoint: str | PathLike[str] | None = None
    tuning: FineTuning | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    engine: Engine = "torch"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "model", canonical(self.model))
        if self.tuned and not model_class(find(self.model)[0]).tunable:
            msg = (
                f"mode={self.mode!r} tunes a foundation model: name one with `model=`, found {self.model!r}. "
                f"Available: {models.available('encoder')}."
            )
            raise ValueError(msg)
        if self.tuning is not None and not self.tuned:
            msg = "`tuning` holds settings of mode='lora' and mode='full', but the mode is 'frozen'."
            raise TypeError(msg)
        if self.tuned and (self.engine, self.precision) != ("torch", "float32"):
            msg = f"`engine` and `precision` are for mode='frozen', found mode={self.mode!r}: tuning is done by PyTorch in float32."
            raise TypeError(msg)
        if (self.engine, self.precision) != ("torch", "float32"):
            check_engine(model_class(find(self.model)[0]), self.model, self.engine, self.precision)
        try:
            check_options(self.model, self.options, self.checkpoint)
        except TypeError as error:
            misplaced = sorted(self.options.keys() & {item.name for item in fields(FineTuning)})
            if not misplaced:
                raise
            hint = f"{misplaced[0]!r} is a setting of fine-tuning: pass tuning=sc_drugresp.tl.FineTuning({misplaced[0]}=...)."
            msg = f"{error} {hint}"
            raise TypeError(msg) from None

    def __repr__(self) -> str:
        return dataclass_text("sdr.tl.Recipe", self)

    @property
    def tuned(self) -> bool:
        """Whether the network itself is trained."""
        return self.mode != "frozen"

    @property
    def told(self) -> tuple[str, ...]:
        """Columns of `.obs` that the model is told in words (`metadata` of language models)."""
        return tuple(self.options.get("metadata", ()))

    @property
    def name(self) -> str:
        """Row of a table: the model, with the mode of a tuned one."""
        return f"{self.model}.{self.mode}" if self.tuned else self.model

    @property
    def settings(self) -> FineTuning:
        """Settings of tuning, the defaults if none were given."""
        return self.tuning or FineTuning()

    def load(self) -> Any:
        """The model, ready to embed or to be fitted."""
        return models.load(self.model, checkpoint=self.checkpoint, **self.options)
