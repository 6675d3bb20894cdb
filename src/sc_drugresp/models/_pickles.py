"""Dictionaries in pickle files, read by a small interpreter: plain values alone exist in it, and nothing is imported.

A pickle is a program. :class:`pickle.Unpickler` runs it with real objects, and even where the classes that it may name
are restricted, the states that it gives them are not: a crafted state of :class:`numpy.dtype` is enough to write beyond
the end of memory. Here each instruction is one of a few dozen that make texts, numbers, lists, tuples and dictionaries, or
take a number out of a numpy scalar.
"""

from __future__ import annotations

import pickletools
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import check_file

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_BYTES = 8_000_000
_MOST_STEPS = 600_000
_MOST_STACK = 50_000
"""Bounds of memory and time: the largest published dictionary has 4 MB, about half a million instructions, and groups of
2,000 operands."""
_SCALAR, _DTYPE = object(), object()
_GLOBALS = {
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("numpy", "dtype"): _DTYPE,
}
_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_KINDS = {str: "text", int: "whole numbers", float: "finite numbers above 0"}


class _RefusedError(Exception):
    """The program does something that a dictionary of plain values does not need."""


class _NumberType:
    """A numpy number type; the byte order comes with its state."""

    def __init__(self, args: Any) -> None:
        if not (type(args) is tuple and args and type(args[0]) is str and _NUMBERS.fullmatch(args[0])):
            msg = "a numpy type that is no plain number"
            raise _RefusedError(msg)
        self.dtype = np.dtype(args[0])

    def set_state(self, state: Any) -> None:
        if not (
            type(state) is tuple
            and len(state) == 8
            and type(state[0]) is int
            and state[1] in ("<", ">", "|", "=")
            and state[2:] == (None, None, None, -1, -1, 0)
        ):
            msg = "a numpy type with fields or parts"
            raise _RefusedError(msg)
        self.dtype = self.dtype.newbyteorder(state[1])


_PLAIN = frozenset({str, int, float, bool, bytes, type(None), _NumberType})


class _Machine:
    """Stack, marks and memo of the program.

    Lists and tuples hold plain values, and dictionaries these and lists and tuples: nothing can be deep, or inside itself.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            msg = "an instruction without its operands"
            raise _RefusedError(msg)
        return self.stack.pop()

    def plain(self, items: list[Any]) -> list[Any]:
        for item in items:
            if type(item) not in _PLAIN:
                msg = f"a {type(item).__name__} inside of a list or tuple"
                raise _RefusedError(msg)
        return items

    def since_mark(self) -> list[Any]:
        if not self.marks:
            msg = "the end of a group without its beginning"
            raise _RefusedError(msg)
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            msg = f"an instruction that needs a {kind.__name__}"
            raise _RefusedError(msg)
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        table = self.top(dict)
        if len(items) % 2:
            msg = "a key without a value"
            raise _RefusedError(msg)
        for key, value in zip(items[::2], items[1::2]):
            if type(key) is not str:
                msg = f"a key that is a {type(key).__name__}"
                raise _RefusedError(msg)
            if type(value) not in _PLAIN and type(value) not in (list, tuple):
                msg = f"a {type(value).__name__} inside of a dictionary"
                raise _RefusedError(msg)
            if key in table:
                msg = f"the key {key!r:.60} twice"
                raise _RefusedError(msg)
            table[key] = value

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in _GLOBALS:
            msg = f"it refers to {str(module)[:40]}.{str(name)[:40]}"
            raise _RefusedError(msg)
        self.stack.append(_GLOBALS[module, name])

    def call(self) -> None:
        args, what = self.pop(), self.pop()
        if what is _DTYPE:
            self.stack.append(_NumberType(args))
        elif what is _SCALAR and type(args) is tuple and len(args) == 2 and type(args[0]) is _NumberType:
            dtype, content = args[0].dtype, args[1]
            if type(content) is not bytes or len(content) != dtype.itemsize:
                msg = f"a numpy scalar without its {dtype.itemsize} bytes"
                raise _RefusedError(msg)
            self.stack.append(np.frombuffer(content, dtype)[0].item())
        else:
            msg = "a call of something that is no numpy scalar"
            raise _RefusedError(msg)

    def build(self) -> None:
        state = self.pop()
        self.top(_NumberType).set_state(state)

    def get(self, place: int) -> None:
        if place not in self.memo:
            msg = f"value {place}, which was never stored"
            raise _RefusedError(msg)
        self.stack.append(self.memo[place])

    def put(self, place: int) -> None:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            msg = "an instruction without its operands"
            raise _RefusedError(msg)
        self.memo[place] = self.stack[-1]

    def push_number(self, value: Any) -> None:
        if not -(1 << 63) <= value < 1 << 64:
            msg = "a whole number of more than 64 bits"
            raise _RefusedError(msg)
        self.stack.append(value)

    def group(self, n: int) -> None:
        items = [self.pop() for _ in range(n)]
        self.stack.append(tuple(reversed(self.plain(items))))


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _mark(machine: _Machine, _: Any) -> None:
    machine.marks.append(len(machine.stack))


def _global(machine: _Machine, names: Any) -> None:
    module, _, name = str(names).partition(" ")
    machine.find(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.find(module, name)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.top(list).extend(machine.plain([value]))


def _appends(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.top(list).extend(machine.plain(items))


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    machine.set_items(items)


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _mark,
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.plain(machine.since_mark()))),
    "TUPLE1": lambda machine, _: machine.group(1),
    "TUPLE2": lambda machine, _: machine.group(2),
    "TUPLE3": lambda machine, _: machine.group(3),
    "LIST": lambda machine, _: machine.stack.append(machine.plain(machine.since_mark())),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine.push_number),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "UNICODE", "SHORT_BINSTRING", "BINSTRING"), _push),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _push),
}


def _interpret(content: bytes) -> Any:
    """What the program leaves on its stack."""
    machine, file = _Machine(), BytesIO(content)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == _MOST_STEPS or len(machine.stack) + len(machine.marks) > _MOST_STACK:
            msg = f"more than {_MOST_STEPS:,} instructions, or {_MOST_STACK:,} operands at once"
            raise _RefusedError(msg)
        if opcode.name == "STOP":
            break
        run = _STEPS.get(opcode.name)
        if run is None:
            msg = f"the instruction {opcode.name}"
            raise _RefusedError(msg)
        run(machine, argument)
    if len(machine.stack) != 1 or machine.marks or file.tell() != len(content):
        msg = "something before or behind the dictionary"
        raise _RefusedError(msg)
    return machine.stack[0]


def read_pickled_dict(path: Path, of: type = object) -> dict[str, Any]:
    """Read a pickled dictionary of texts and numbers by text; anything else is refused, and nothing is executed.

    Parameters
    ----------
    path
        The file.
    of
        What the values must be: `str`, `int`, `float` (finite and above 0), or any of them.

    Raises
    ------
    ValueError
        The file is damaged, holds other objects, or is no dictionary.
    FileNotFoundError
        There is no such file.
    """
    size = check_file(path).stat().st_size
    again = "Get it from its publisher again."
    if size > _MOST_BYTES:
        msg = f"{path} has {size:,} bytes; expected a pickled dictionary of at most {_MOST_BYTES:,}. {again}"
        raise ValueError(msg)
    try:
        with warnings.catch_warnings():  # damaged escapes in texts of the oldest protocol
            warnings.simplefilter("ignore", DeprecationWarning)
            value = _interpret(Path(path).read_bytes())
    except (_RefusedError, ValueError, OverflowError) as error:
        found = f"{error}".splitlines()[0][:200] if str(error) else type(error).__name__
        msg = f"{path} is not a plain pickled dictionary and was not loaded; found {found}. {again}"
        raise ValueError(msg) from None
    if type(value) is not dict or not value:
        msg = f"{path} should hold a dictionary, found {type(value).__name__}{'' if value else ' (empty)'}. {again}"
        raise ValueError(msg)
    for key, item in value.items():
        if item is None or type(item) in (bytes, _NumberType) or not _fits(item, of):
            wanted = _KINDS.get(of, "text or numbers")
            msg = f"{path}: expected {wanted} by name, found {key!r:.60}: {_brief(item)}. {again}"
            raise ValueError(msg)
    return value


def _fits(item: Any, of: type) -> bool:
    if of is float:
        return type(item) in (int, float) and 0 < item < float("inf")
    return of is object or type(item) is of


def _brief(item: Any) -> str:
    return f"{item!r:.60}" if type(item) in (str, int, float, bool) else f"a {type(item).__name__}"
