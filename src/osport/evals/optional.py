"""Late import of the packages behind the extra ``port``."""

from __future__ import annotations

import importlib
from typing import Any

from osport.errors import MissingDependency

__all__ = ["optional"]


def optional(module: str) -> Any:
    """The module, imported now. Raises :class:`~osport.errors.MissingDependency` when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(module.partition(".")[0].replace("_", "-"), "port") from error
