"""Optional dependencies: one message for all of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or say which extra installs it.

    An absent module and a broken one are different problems, so the original message is kept.

    Raises
    ------
    ImportError
        `module` cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        found = "is not installed" if getattr(error, "name", None) == module.split(".")[0] else "cannot be imported"
        msg = f"{module!r} {found} ({error}). Install it with: pip install 'sc-drugresp[{extra}]'"
        raise ImportError(msg, name=module) from error
