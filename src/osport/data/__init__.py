"""Facts as data files, each row with its source and date."""

from __future__ import annotations

import functools
import tomllib
from importlib.resources import files
from typing import Any

__all__ = ["load"]


@functools.cache
def load(name: str) -> dict[str, Any]:
    """The parsed TOML file ``name`` of this package (e.g. ``models.toml``), read once a process."""
    return tomllib.loads(files(__name__).joinpath(name).read_text(encoding="utf-8"))
