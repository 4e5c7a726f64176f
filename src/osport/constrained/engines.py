"""The mask engines by name: llguidance, xgrammar and outlines-core."""

from __future__ import annotations

from osport.constrained.engine_llguidance import LlguidanceEngine
from osport.constrained.engine_outlines import OutlinesEngine
from osport.constrained.engine_xgrammar import XgrammarEngine
from osport.constrained.protocol import Engine
from osport.errors import UsageError

__all__ = ["DEFAULT_ENGINE", "ENGINES", "engine_named"]

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (LlguidanceEngine(), XgrammarEngine(), OutlinesEngine())
}
DEFAULT_ENGINE = LlguidanceEngine.name


def engine_named(name: str) -> Engine:
    """The engine under a name. Raises :class:`~osport.errors.UsageError` with the names there are."""
    if name not in ENGINES:
        raise UsageError(f"engine={name!r}: one of {', '.join(sorted(ENGINES))}")
    return ENGINES[name]
