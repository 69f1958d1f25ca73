"""Lazy import of a package: its submodules without the rest of it.

`import segment_anything` imports torchvision, and with it torch's compiler, for its predictor and
its mask generator: half of the import time of a prediction, which uses the model alone. A lazy
package runs its `__init__` when a name that is none of its imported submodules is first used.
"""

import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.RLock()


class _LazyPackage(ModuleType):
    """A package whose `__init__` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        """Run the package's `__init__`, and return one of its names."""
        with _lock:
            if type(self) is _LazyPackage:
                # First, so that what `__init__` imports finds an ordinary package.
                self.__class__ = ModuleType  # type: ignore[assignment]
                spec = self.__spec__
                assert spec is not None
                assert spec.loader is not None
                try:
                    spec.loader.exec_module(self)
                except BaseException:
                    self.__class__ = _LazyPackage
                    raise
        return ModuleType.__getattribute__(self, name)


def import_lazily(package: str) -> None:
    """Make a package lazy, unless it is imported already or is not installed."""
    with _lock:
        if package in sys.modules:
            return
        spec = importlib.util.find_spec(package)
        if spec is None or spec.loader is None:
            return
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _LazyPackage
        sys.modules[package] = module
