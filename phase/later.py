"""Modules that are loaded when something of them is first used.

Libraries import at their start what only some of their functions need. Where a program runs for a second on
an emulated machine, or on a slow board, loading that is a good part of the second. Nothing is replaced: who
asks for anything of such a module gets the whole module.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader


class _Later:
    """Finds modules of the standard library, and has them loaded when they are used."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        spec = PathFinder.find_spec(name) if name in self._names else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_later(*names: str) -> None:
    """Put off what `import NAME` does until the module is used; what is loaded already stays so.

    Args:
        names: of modules of the standard library, without a dot. What is imported from such a module by name
            (`from NAME import …`) is used at once.
    """
    sys.meta_path.insert(0, _Later(frozenset(names)))
