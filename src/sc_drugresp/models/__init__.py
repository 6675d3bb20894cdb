"""Foundation models and baselines behind one door; the table needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.lazy import attach

if TYPE_CHECKING:
    from .._data.tokens import Tokens as Tokens
    from .._data.vocab import GeneVocab as GeneVocab
    from .._distill.distill import distill as distill
    from .._reference.build import build_reference as build_reference
    from .._reference.platform import platform_shift as platform_shift
    from .._reference.reference import Reference as Reference
    from .._reference.shift import PlatformShift as PlatformShift
    from .._reference.table import reference_table as reference_table
    from .._response.model import ResponseModel as ResponseModel
    from ._config import Config as Config
    from ._encoder import CellEncoder as CellEncoder
    from ._hub import download as download
    from ._hub import verify as verify
    from ._load import load as load
    from ._registry import available as available
    from ._registry import table as table
    from ._spec import ModelSpec as ModelSpec
    from .student import Student as Student

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CellEncoder": "._encoder",
        "Config": "._config",
        "GeneVocab": ".._data.vocab",
        "ModelSpec": "._spec",
        "PlatformShift": ".._reference.shift",
        "Reference": ".._reference.reference",
        "ResponseModel": ".._response.model",
        "Student": ".student",
        "Tokens": ".._data.tokens",
        "available": "._registry",
        "build_reference": ".._reference.build",
        "distill": ".._distill.distill",
        "download": "._hub",
        "load": "._load",
        "platform_shift": ".._reference.platform",
        "reference_table": ".._reference.table",
        "table": "._registry",
        "verify": "._hub",
    },
)
