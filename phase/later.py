"""Modules that are loaded when something of them is first used.

Libraries import at their start what only some of their functions need. Where a program runs for a second on
an emulated machine, or on a slow board, loading that is a good part of the second. Nothing is replaced: who
asks for anything of such a module gets the whole module.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    # At run time it would load one of the modules that come later.
    from importlib.abc import Loader


class _Later:
    """Finds modules of the standard library, and has them loaded when they are used."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        spec = PathFinder.find_spec(name) if name in self._names else None
        if spec is not None and spec.loader is not None:
            # Not a subclass of that: the import calls two methods, and it has both.
            spec.loader = cast("Loader", _Loader(spec.loader))
        return spec


class _State:
    """The state of a module: a lock for the thread that loads it, and whether that has begun."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.begun = False


class _Loader:
    """Puts off what another loader does, as `importlib.util.LazyLoader` does.

    Not that one: in Python 3.11.2, which Debian 12 has, it shows half a module to a second thread that asks
    while the first thread loads it. A seed asks several providers at once.
    """

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        spec = module.__spec__
        assert spec is not None  # noqa: S101  a module that is imported has one
        spec.loader = module.__loader__ = self._loader
        spec.loader_state = _State()
        module.__class__ = _Module


class _Module(ModuleType):
    """A module until something of it is used."""

    def __getattribute__(self, name: str) -> object:
        spec = object.__getattribute__(self, "__spec__")
        state = spec.loader_state
        with state.lock:
            # Another thread may have loaded it meanwhile.
            if object.__getattribute__(self, "__class__") is _Module:
                if state.begun:  # by this thread: the module's own code asks
                    return object.__getattribute__(self, name)
                state.begun = True
                try:
                    spec.loader.exec_module(self)
                finally:
                    state.begun = False
                object.__setattr__(self, "__class__", ModuleType)  # as it was made
        return getattr(self, name)


def load_later(*names: str) -> None:
    """Put off what `import NAME` does until the module is used; what is loaded already stays so.

    Args:
        names: of modules of the standard library, without a dot. What is imported from such a module by name
            (`from NAME import …`) is used at once.
    """
    sys.meta_path.insert(0, _Later(frozenset(names)))
