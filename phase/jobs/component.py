"""Reads the sections of a component that its limits depend on (component model, binary format).

A component holds core modules, and other components. As in `phase.jobs.binary`, nothing is validated here:
that is the engine's work. What the engine would understand otherwise than this file is refused.
"""

from phase.jobs import binary, wire
from phase.jobs.binary import Limits, Shape, leb, name, unsigned

_MAGIC = b"\0asm\x0d\0\x01\0"
_CUSTOM, _MODULE, _CORE_INSTANCE, _COMPONENT, _ALIAS, _CANON, _IMPORT, _EXPORT = 0, 1, 2, 4, 6, 8, 10, 11
#: Components within components, and sections of all of them together.
_DEPTH, _MOST_SECTIONS = 16, 20_000
#: Of an alias or an export: sorts of the core (their kind follows), and a core module among them.
_CORE_SORT, _MODULE_KIND = 0, 0x11
#: What a command exports; versions 0.2.0 and later have the same.
RUN = b"wasi:cli/run@0.2."
STDIN = b"wasi:cli/stdin@0.2."


class Parts(Shape):
    """The parts of a component, those of its modules together.

    Args:
        module: the bytes to compile: without custom sections.
        tables: least and most elements of each table that there will be; None where that cannot be known
            before it is instantiated.
        largest: of the elements with which a table starts, the most.
        reads: whether it asks for standard input.
    """

    kind = "component"

    def __init__(self, module: bytes) -> None:
        super().__init__(module)
        self.known: list[Limits] | None = []
        self.largest = 0
        self.reads = False

    def packed(self) -> bytes:
        """What is needed of it beside the compiled component; for `unpacked`."""
        known = b"" if self.known is None else b" ".join(b"%d-%d" % each for each in self.known)
        numbers = b"%d %d %d" % (self.known is not None, self.largest, self.reads)
        return wire.pack(b"component", numbers, known)


def unpacked(packed: bytes) -> Shape:
    """The shape of a module or component that was compiled earlier.

    Raises:
        ValueError: it was packed by another version.
    """
    fields = wire.unpack(packed)
    if fields[:1] != [b"component"]:
        return binary.unpacked(packed)
    _, numbers, known = fields
    parts = Parts(b"")
    certain, parts.largest, reads = map(int, numbers.split())
    parts.reads = bool(reads)
    pairs = [each.split(b"-") for each in known.split()]
    parts.known = [(int(least), int(most)) for least, most in pairs] if certain else None
    return parts


def is_one(module: bytes) -> bool:
    """Whether bytes are a component rather than a module: the field behind the version."""
    return module[:4] == _MAGIC[:4] and module[6:8] == _MAGIC[6:]


def read(component: bytes) -> Parts:
    """Read a component's sections.

    Args:
        component: bytes from anywhere.

    Raises:
        ValueError: it cannot be read.
    """
    return _Reader().read(component)


class _Reader:
    def __init__(self) -> None:
        self._left = _MOST_SECTIONS
        self._modules: list[list[Limits] | None] = []
        self._started: list[int] = []
        self._parts = Parts(b"")

    def read(self, component: bytes) -> Parts:
        parts = self._parts
        try:
            parts.module = self._component(component, 0)
            if parts.known is not None:
                each = [self._modules[number] for number in self._started]
                parts.known = None if None in each else [limits for one in each for limits in one or ()]
        except IndexError:
            raise ValueError("it ends within a section, or names a module that it does not have") from None
        return parts

    def _component(self, component: bytes, depth: int) -> bytes:
        """Note the parts of a component; returns it without its custom sections."""
        if not component.startswith(_MAGIC) or depth > _DEPTH:
            raise ValueError(f"components may be nested {_DEPTH} deep" if depth > _DEPTH else "bad header")
        out, at = [_MAGIC], len(_MAGIC)
        while at < len(component):
            self._left -= 1
            kind = component[at]
            size, at = leb(component, at + 1)
            body = component[at : at + size]
            at += size
            if at > len(component) or self._left < 0:
                raise ValueError(f"a section runs over the end, or it has more than {_MOST_SECTIONS}")
            if kind == _CUSTOM:  # names and debug information: the engine would keep a copy
                continue
            body = self._section(kind, body, depth)
            out += (bytes([kind]), unsigned(len(body)), body)
        return b"".join(out)

    def _section(self, kind: int, body: bytes, depth: int) -> bytes:
        parts = self._parts
        if kind == _COMPONENT:
            return self._component(body, depth + 1)
        if depth and kind in (_MODULE, _CORE_INSTANCE):
            parts.known = None  # how often a component is instantiated, the engine alone can tell
        if kind == _MODULE:
            return self._module(body)
        if kind == _CANON:
            parts.functions += leb(body, 0)[0]
        if depth == 0:
            if kind == _CORE_INSTANCE:
                self._started += _instantiated(body)
            if kind == _ALIAS and _names_module(body):
                parts.known = None
            if kind == _IMPORT:
                parts.reads = parts.reads or STDIN in body
            if kind == _EXPORT and RUN in body:
                parts.start = 0
        return body

    def _module(self, body: bytes) -> bytes:
        shape, parts = binary.read(body, ask=False), self._parts
        if shape.limits is not None:
            parts.largest = max([parts.largest, *(least for least, _ in shape.limits)])
        self._modules.append(shape.limits)
        parts.code_bytes += shape.code_bytes
        parts.functions += shape.functions
        parts.memories += shape.memories
        parts.shared = parts.shared or shape.shared
        return shape.module


def _instantiated(body: bytes) -> list[int]:
    """Which modules a section of core instances instantiates, each as often as it does."""
    found = []
    count, at = leb(body, 0)
    for _ in range(count):
        form, at = body[at], at + 1
        if form == 0:
            number, at = leb(body, at)
            found.append(number)
        words, at = leb(body, at)
        for _ in range(words):
            _, at = name(body, at)
            _, at = leb(body, at + 1)  # behind the sort: of an instance, or of what is put together
    return found


def _names_module(body: bytes) -> bool:
    """Whether a section of aliases gives a number to a core module, which shifts the numbers of the next."""
    count, at = leb(body, 0)
    for _ in range(count):
        sort, at = body[at], at + 1
        if sort == _CORE_SORT:
            kind, at = body[at], at + 1
            if kind == _MODULE_KIND:
                return True
        target, at = body[at], at + 1
        _, at = leb(body, at)
        _, at = name(body, at) if target != 2 else leb(body, at)
    return False
