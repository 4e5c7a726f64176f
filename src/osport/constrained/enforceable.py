"""How much of a form an engine is asked to enforce, and what is left to be verified."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from attrs import evolve, field, frozen

from osport.constrained.choose import refuse_kind
from osport.constrained.dialects import to_llguidance
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.tables import TABLES
from osport.constrained.weaken import weakened
from osport.core.types import Constraint

__all__ = ["Enforceable", "OnUnsupported"]

OnUnsupported = Literal["refuse", "check"]
Share = tuple[Constraint, tuple[str, ...]]
"""What is enforced, and the keywords with their places that only a verification ensures."""


@frozen(slots=False, eq=False)
class Enforceable:
    """A constraint as each engine is to enforce it; under ``check`` without what the engine would not."""

    constraint: Constraint
    on_unsupported: OnUnsupported
    _weaker: dict[str, Share] = field(init=False, factory=dict)

    def share_of(self, engine: str) -> Share:
        """What the engine is asked to enforce, and what is left.

        Raises :class:`~osport.errors.UnsupportedFeature` for what it would not enforce and may not be left.
        """
        kind = self.constraint.kind
        if kind != "json_schema":
            refuse_kind(kind, engine)
            if kind == "tools" and self.on_unsupported == "check":
                return self._weaker_tools(engine)
            if engine == "llguidance":
                self.lark  # noqa: B018 - compiles, or refuses by name
            return self.constraint, ()
        if engine != "llguidance" and engine not in TABLES:
            return self.constraint, ()  # an engine of the backend's own is taken at its word, and verified
        if self.on_unsupported == "refuse":
            refuse_unless_enforced(self.constraint.value, engine)
            return self.constraint, ()
        if engine not in self._weaker:
            weaker, left = weakened(self.constraint.value, lambda schema: refuse_unless_enforced(schema, engine))
            self._weaker[engine] = evolve(self.constraint, value=weaker), left
        return self._weaker[engine]

    def left_by(self, engine: str) -> tuple[str, ...]:
        """What the engine of an answer, named with its version, was not asked to enforce."""
        return next((left for name, (_, left) in self._weaker.items() if name in engine), ())

    @cached_property
    def lark(self) -> str:
        """llguidance's text of the constraint. Raises :class:`~osport.errors.UnsupportedFeature`."""
        return to_llguidance(self.constraint)

    def _weaker_tools(self, engine: str) -> Share:
        if engine not in self._weaker:
            tools, left = [], []
            for tool in self.constraint.value["tools"]:
                form, dropped = weakened(tool["parameters"], lambda schema: refuse_unless_enforced(schema, engine))
                tools.append({**tool, "parameters": form})
                left += [f"{tool['name']}: {keyword}" for keyword in dropped]
            weaker = evolve(self.constraint, value={**self.constraint.value, "tools": tools})
            self._weaker[engine] = weaker, tuple(left)
        return self._weaker[engine]
