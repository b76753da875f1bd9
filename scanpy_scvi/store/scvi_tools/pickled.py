"""A pickle as data: what it would call is written down, and nothing is called.

`pickletools.genops` of the standard library splits a pickle into its operations. Those that build containers are
carried out; a global becomes its :class:`Name`, and what would be called a :class:`Call` with its arguments, both
inert. So no list of functions that count as harmless is needed.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MOST_OPERATIONS = 5_000_000
"""Operations of a pickle that are read; a model of 60,000 genes has some 300,000."""
DAMAGE = (IndexError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError, DeprecationWarning)
"""What reading a damaged pickle may raise."""

PUSH = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}


class Name(NamedTuple):
    """A global that a pickle asks for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Call:
    """What a pickle would have called, and what it would have put into the result."""

    function: str
    args: tuple[Any, ...]
    state: Any = None
    items: dict[str, Any] = field(default_factory=dict)
    """What `result[key] = value` would have set."""


class Stored(NamedTuple):
    """Reference to an array that lies outside the pickle."""

    reference: Any


def parse(data: bytes) -> Any:
    """Return the content of a pickle: containers, text, numbers, and :class:`Name`, :class:`Call`, :class:`Stored`.

    Raises
    ------
    ValueError
        For what is no pickle, is damaged, or does what no model needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # an escape that is none, in a text: damage
            return _run(data)
    except DAMAGE as error:
        msg = f"the pickle is damaged ({type(error).__name__})"
        raise ValueError(msg) from error


def _run(data: bytes) -> Any:
    """Carry out the operations of a pickle, as far as they are harmless."""
    machine = _Machine()
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if operation.name == "STOP":
            return machine.stack.pop()
        if count >= MOST_OPERATIONS:
            break
        machine.do(operation.name, argument)
    msg = f"the pickle has more than {MOST_OPERATIONS:,} operations"
    raise ValueError(msg)


class _Machine:
    """Stack and memo of an unpickler that calls nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """Carry out one operation."""
        if name in PUSH:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self.stack.append(tuple(self._pop(TUPLES[name])))
        elif name in IGNORED:
            pass
        else:
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                msg = f"the pickle has the operation {name}, which no model needs"
                raise ValueError(msg)
            step(argument)

    def _pop(self, count: int) -> list[Any]:
        """Take the topmost values off the stack."""
        if count > len(self.stack):
            raise IndexError
        start = len(self.stack) - count
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _tuple(self, _: None) -> None:
        items = self._to_mark()
        self.stack.append(tuple(items))

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _put(self, position: int) -> None:
        self.memo[position] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, position: int) -> None:
        self.stack.append(self.memo[position])

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        module, name = argument.split(" ", 1)  # as `genops` joins them
        self._push_name(module, name)

    def _stack_global(self, _: None) -> None:
        self._push_name(*self._pop(2))

    def _push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        self.stack.append(Name("builtins" if module == "__builtin__" else module, name))

    def _reduce(self, _: None) -> None:
        function, args = self._pop(2)
        if not isinstance(args, tuple):
            raise TypeError
        named = str(function) if isinstance(function, Name) else "something without a name"
        self.stack.append(Call(named, args))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        target, state = self._pop(2)
        if isinstance(target, Call):
            target.state = state
        self.stack.append(target)

    def _append(self, _: None) -> None:
        (item,) = self._pop(1)
        self._extend([item])

    def _appends(self, _: None) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Call):
            raise TypeError

    def _setitem(self, _: None) -> None:
        self._set(self._pop(2))

    def _setitems(self, _: None) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.items if isinstance(target, Call) else target
        if not isinstance(entries, dict) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str):  # others are in no part of a model that is read
                entries[key] = value

    def _binpersid(self, _: None) -> None:
        (reference,) = self._pop(1)
        self.stack.append(Stored(reference))
