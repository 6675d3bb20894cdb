"""Slots of an object that belong together: all of them are written, or none."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

ORDER = ("layers", "obsm", "obs", "var", "uns")
"""Arrays first: they are the ones that may not fit."""


def write_together(adata: AnnData, slots: Mapping[str, Mapping[str, Any]]) -> None:
    """Write values into `obs`, `var`, `obsm`, `layers` and `uns`; after an error everything is as it was.

    A view becomes an object of its own, as in scanpy, once everything is written. Columns take the place of an index of the
    same name, which keeps its values and loses its name: files cannot hold both.
    """
    target = adata.copy() if adata.is_view else adata
    with ExitStack() as undo:
        for slot in sorted(slots, key=ORDER.index):
            place = getattr(target, slot)
            undo.callback(_keep(target, slot, place, slots[slot]))
            for name, value in slots[slot].items():
                if slot in {"obs", "var"}:
                    _free_name(place, name, value)
                place[name] = value
        if target is not adata:
            adata._init_as_actual(target)
        undo.pop_all()


def _keep(adata: AnnData, slot: str, place: Any, names: Mapping[str, Any]) -> Callable[[], None]:
    """What puts these names of a slot back to what they hold now."""
    before = place.copy() if slot in {"obs", "var"} else dict(place)
    held = {name: place[name] for name in names if name in place}
    index_name = place.index.name if slot in {"obs", "var"} else None

    def restore() -> None:
        if slot in {"obs", "var"} and not hasattr(place, "iterrows"):  # a lazy frame cannot lose a column
            setattr(adata, slot, before)
            return
        whole = False
        try:
            for name in names:
                if name in held and (name not in place or place[name] is not held[name]):
                    place[name] = held[name]
                elif name not in held and name in place:
                    del place[name]
            if slot in {"obs", "var"}:
                place.index.name = index_name
            whole = True
        finally:
            if not whole:  # what cannot be written to is replaced
                setattr(adata, slot, before)

    return restore


def _free_name(frame: Any, name: str, values: Any) -> None:
    """Take its name from an index that is called like a column and holds something else."""
    if frame.index.name != name:
        return
    if not hasattr(frame, "iterrows"):  # a lazy frame keeps every column apart from the index; this name means "none"
        frame.index = frame.index.rename("_index")
    elif not np.array_equal(np.asarray(frame.index, dtype=object), np.asarray(values, dtype=object)):
        frame.index = frame.index.rename(None)
