"""Public modules whose members are loaded on first use, and whose functions leave the process as it was."""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from .process import leaves_alone, left_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attach(
    module: str, homes: Mapping[str, str], *, around: Callable[[Any], Any] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a public module.

    Parameters
    ----------
    module
        `__name__` of the public module.
    homes
        Public name to the module that defines it, relative to `module`.
    around
        Decorator for every function of the module.

    Examples
    --------
    >>> getter, listed, names = attach("sc_drugresp.tl", {"embed": "._embed"})
    >>> listed()
    ['embed']
    """

    def getter(name: str) -> Any:
        if name not in homes:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg)
        with left_alone():
            home = import_module(homes[name], module)
        value = getattr(home, name)
        if isfunction(value):
            value = leaves_alone(value if around is None else around(value))
            setattr(home, name, value)  # one function, wherever it is looked for: it can be pickled by its name
        setattr(sys.modules[module], name, value)
        return value

    return getter, lambda: sorted(homes), sorted(homes)
