"""Reading pickles without running them: opcodes are walked, and what they would make is noted.

It knows those opcodes that torch's weights-only loader knows, which are those of the pickle protocol that
`torch.save` writes.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from farm.errors import quoted
from farm.weights.pickled_names import CALLBACKS, DTYPES, PARAMETER_DICTS, STORAGES, written_out
from farm.weights.rebuilding import FUNCTIONS, NumpyDtype, ParameterDict, Storage, check_keys, rebuild
from farm.weights.tensor_info import Damaged, Inert, is_natural
from farm.weights.tree import check_tree

LONGEST_PICKLE = 32 * 2**20
"""Bytes, without tensors. A checkpoint of SD 1.5 has 0.2 MB."""

PROTOCOL = 2

MOST_OPCODES = 500_000
"""Less than a second. A checkpoint of SD 1.5 has 40,000."""


@dataclass(frozen=True, slots=True)
class _Function:
    """One of the table `FUNCTIONS`, mentioned and not yet called."""

    name: str


@dataclass(frozen=True, slots=True)
class _StorageClass:
    dtype: str


class _ParameterDictClass:
    pass


class _Bounded:
    """A file of which only so much is read, and never as much as a length in it claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = LONGEST_PICKLE

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise Damaged(f"its pickle claims a piece of {count:,} bytes: it is torn, or made to deceive")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


class Unpickling:
    """One pickle, as far as it is read.

    Args:
        storages: those that were mentioned are put here, by key.
    """

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        """What the next pickle of the file describes; the file stands behind it then.

        Raises:
            Damaged: the pickle is torn, or mentions or does what weights need not.
        """
        try:
            for count, (opcode, argument, _) in enumerate(
                pickletools.genops(cast(IO[bytes], _Bounded(file)))
            ):
                if count > MOST_OPCODES:
                    raise Damaged(f"its pickle has more than {MOST_OPCODES:,} steps")
                act = ACTS.get(opcode.name)
                if act is None:
                    raise Damaged(f"its pickle uses {opcode.name}, which no file of torch.save needs")
                act(self, argument)
            tree = self._stack.pop()
        except (IndexError, KeyError, ValueError, OverflowError) as error:
            raise Damaged("its pickle is torn") from error
        check_tree(tree)
        return tree

    def _protocol(self, number: int) -> None:
        if number != PROTOCOL:
            raise Damaged(
                f"its pickle is of the protocol {number}, not of {PROTOCOL} as torch.save writes it"
            )

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _text(self, value: str) -> None:
        if not value.isascii():
            _check_text(value)
        self._stack.append(value)

    def _bytes_as_text(self, value: str) -> None:
        self._stack.append(value.encode("latin1").decode())

    def _mark(self, _: None) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def _marked_tuple(self, _: None) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _mention(self, name: str) -> None:
        """A global; `name` is its module and its name, with a space between them."""
        if name in FUNCTIONS:
            self._stack.append(_Function(name))
        elif name in STORAGES:
            self._stack.append(_StorageClass(STORAGES[name]))
        elif name in CALLBACKS or name in DTYPES:
            self._stack.append(Inert(written_out(name)))
        elif name in PARAMETER_DICTS:
            self._stack.append(_ParameterDictClass())
        else:
            raise Damaged(
                f"it wants {quoted(written_out(name))}, which weights do not need: nothing of it was run"
            )

    def _call(self, _: None) -> None:
        function, arguments = self._last(2)
        if type(function) is not _Function or type(arguments) is not tuple:
            raise Damaged("its pickle calls what is no function")
        self._stack.append(rebuild(function.name, arguments))

    def _make(self, _: None) -> None:
        """An object of a class."""
        kind, arguments = self._last(2)
        if type(kind) is _ParameterDictClass and arguments == ():
            self._stack.append(ParameterDict())
        elif type(kind) is Inert and arguments == ():
            self._stack.append(kind)
        else:
            raise Damaged("its pickle makes an object of what is no class")

    def _build(self, _: None) -> None:
        """An object gets its state."""
        [state] = self._last(1)
        target = self._stack[-1]
        if type(target) is OrderedDict:
            if type(state) is not dict or set(state) != {"_metadata"}:  # of torch.nn.Module.state_dict
                raise Damaged("its pickle gives attributes to an OrderedDict")
        elif type(target) in (ParameterDict, NumpyDtype):
            target.__setstate__(state)
        elif type(target) is not Inert:
            raise Damaged(f"its pickle changes the state of a {type(target).__name__}")

    def _append(self, _: None) -> None:
        self._add(self._last(1))

    def _extend(self, _: None) -> None:
        self._add(self._since_mark())

    def _add(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise Damaged(f"its pickle appends to a {type(self._stack[-1]).__name__}")
        self._stack[-1].extend(items)

    def _set_item(self, _: None) -> None:
        self._update(self._last(2))

    def _set_items(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in (dict, OrderedDict):
            raise Damaged(f"its pickle sets items of a {type(target).__name__}")
        check_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def _refer(self, _: None) -> None:
        """Something outside of the pickle, which can be a storage alone."""
        [reference] = self._last(1)
        match reference:
            case ("storage", _StorageClass(dtype), str(key), str(), count, *view) if is_natural(count):
                if view and view != [None]:
                    raise Damaged("it has views of storages, as torch wrote them before its version 0.4")
                storage = Storage(key, dtype, count)
            case _:
                raise Damaged("its pickle refers to what is no storage")
        if self._storages.setdefault(key, storage) != storage:
            raise Damaged(f"its storage {quoted(key)} is mentioned in two ways")
        self._stack.append(storage)


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Damaged("it has a text that is none") from error


def _fresh(kind: type) -> Callable[[Unpickling, Any], None]:
    return lambda reading, _: reading._push(kind())


def _constant(value: object) -> Callable[[Unpickling, Any], None]:
    return lambda reading, _: reading._push(value)


def _short_tuple(count: int) -> Callable[[Unpickling, Any], None]:
    return lambda reading, _: reading._push(tuple(reading._last(count)))


def _nothing(reading: Unpickling, _: Any) -> None:
    pass


ACTS: dict[str, Callable[[Unpickling, Any], None]] = {
    "PROTO": Unpickling._protocol, "STOP": _nothing, "MARK": Unpickling._mark,
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    "EMPTY_DICT": _fresh(dict), "EMPTY_LIST": _fresh(list), "EMPTY_TUPLE": _constant(()),
    "BININT": Unpickling._push, "BININT1": Unpickling._push, "BININT2": Unpickling._push,
    "LONG1": Unpickling._push, "BINFLOAT": Unpickling._push,
    "BINUNICODE": Unpickling._text, "SHORT_BINSTRING": Unpickling._bytes_as_text,
    "TUPLE": Unpickling._marked_tuple, "TUPLE1": _short_tuple(1), "TUPLE2": _short_tuple(2),
    "TUPLE3": _short_tuple(3),
    "APPEND": Unpickling._append, "APPENDS": Unpickling._extend,
    "SETITEM": Unpickling._set_item, "SETITEMS": Unpickling._set_items,
    "BINPUT": Unpickling._put, "LONG_BINPUT": Unpickling._put,
    "BINGET": Unpickling._get, "LONG_BINGET": Unpickling._get,
    "GLOBAL": Unpickling._mention, "REDUCE": Unpickling._call, "NEWOBJ": Unpickling._make,
    "BUILD": Unpickling._build, "BINPERSID": Unpickling._refer,
}  # fmt: skip
"""What each opcode does."""
