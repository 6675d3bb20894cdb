"""Annotations of our functions, read as text, as a type checker does: nothing is imported for it.

Types of other packages are imported for type checkers alone, and some of these packages take seconds to load. So the
source is read once a function is called for the first time, names are followed through the imports of the file and of our
other files, and classes are known by their names.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

from . import kinds
from .kinds import ANYTHING, NONE, PATH, PLAIN, Kind

_PACKAGE = __package__.partition(".")[0]
_LISTS = frozenset({"Sequence", "Collection", "Iterable", "list", "tuple", "set", "frozenset"})
_DICTIONARIES = frozenset({"Mapping", "dict"})
_LIMITS = {"Range": kinds.Range, "Slot": kinds.Slot, "Filled": kinds.Filled}


class _Module:
    """Names that a file of ours binds at its top: imports, classes and aliases of types."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, ast.AST | tuple[str, str]] = {}
        spec = find_spec(name)
        source = spec.loader.get_source(name) if spec is not None and hasattr(spec.loader, "get_source") else None  # type: ignore[union-attr]
        self._package = (spec.name if spec.submodule_search_locations is not None else spec.parent) if spec else ""
        for node in ast.parse(source or "").body:
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body if checking else (node,):  # type: ignore[attr-defined]
                self._bind(statement)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            base = str(self._package).split(".")[: None if node.level < 2 else 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            self.names |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            self.names |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            self.names[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            self.names[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            self.names[node.target.id] = node.value


_module = cache(_Module)


def kind_of(annotation: Any, module: str) -> Kind:
    """What an annotation, as text, promises in a module of ours; anything, where it cannot be told.

    Examples
    --------
    >>> kind_of("int | None", __name__).expected
    'a whole number or None'
    """
    if not isinstance(annotation, str):  # no annotation, or one that was evaluated
        return ANYTHING
    return _kind(ast.parse(annotation, mode="eval").body, _module(module))


def _kind(node: ast.AST, where: _Module) -> Kind:
    if isinstance(node, ast.BinOp):
        return kinds.either([_kind(part, where) for part in _parts(node)])
    if isinstance(node, ast.Constant):
        return NONE if node.value is None else kind_of(node.value, where.name)
    if isinstance(node, ast.Subscript):
        return _parametrized(node, where)
    if isinstance(node, ast.Attribute):
        outer, _, inner = ast.unparse(node.value).partition(".")
        found = where.names.get(outer)
        return (
            kinds.instance(node.attr, ".".join(filter(None, [found[0], inner])))
            if isinstance(found, tuple)
            else ANYTHING
        )
    return _named(node.id, where) if isinstance(node, ast.Name) else ANYTHING


def _parts(node: ast.AST) -> list[ast.AST]:
    return [*_parts(node.left), *_parts(node.right)] if isinstance(node, ast.BinOp) else [node]


def _parametrized(node: ast.Subscript, where: _Module) -> Kind:
    outer = ast.unparse(node.value).rpartition(".")[2]
    inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Literal":
        return kinds.choice_of(tuple(ast.literal_eval(part) for part in inside))
    if outer == "Annotated":
        kind = _kind(inside[0], where)
        for limits in inside[1:]:
            kind = kinds.within(kind, _limits(limits))
        return kind
    if outer == "ClassVar":
        return ANYTHING
    if outer in _LISTS:
        return kinds.many(_kind(inside[0], where))
    if outer in _DICTIONARIES:
        return kinds.mapping(*(_kind(part, where) for part in inside))
    return _kind(node.value, where)


def _limits(node: ast.expr) -> kinds.Range | kinds.Slot | kinds.Filled:
    """A call such as `Range(least=1)`, whose arguments are constants."""
    call = cast("ast.Call", node)
    given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return _LIMITS[ast.unparse(call.func)](**given)


def _named(name: str, where: _Module) -> Kind:
    if name in {"PathLike", "Path"}:
        return PATH
    if name in _LISTS:
        return kinds.many(ANYTHING)
    if name in _DICTIONARIES:
        return kinds.mapping(ANYTHING, ANYTHING)
    if name in PLAIN:
        return PLAIN[name]
    found = where.names.get(name)
    if isinstance(found, ast.ClassDef):
        return kinds.instance(name, _PACKAGE)
    if isinstance(found, tuple):
        module, original = found
        if module.partition(".")[0] == _PACKAGE:
            return _named(original, _module(module))
        return kinds.instance(original, module)
    return ANYTHING if found is None else _kind(found, where)
