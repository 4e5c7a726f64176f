"""``osport-license.toml``: what a team means to do with models, and what it has decided about licences.

::

    [use]                      # the fields of Use
    commercial = true
    seat = "DE"

    [policy]                   # licence keys, or patterns of model names
    deny = ["llama-2", "*/codestral*"]     # never, whatever the licence says
    ask = ["gemma-terms"]                  # a person decides: counts as unknown
    allow = ["llama-3.3"]                  # reviewed, or a grant is held: passes unless the licence forbids the use

    [[model]]                  # models of one's own, in front of the shipped catalogue
    pattern = "acme/*"
    licence = "apache-2.0"
    bases = ["Qwen/Qwen3-8B"]
"""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path
from typing import Any

from attrs import field, frozen

from osport.errors import StorageError, UsageError
from osport.licenses.catalogue import Entry, entry_from
from osport.licenses.policy import LicensePolicy
from osport.licenses.terms import licences
from osport.licenses.use import Use
from osport.licenses.verdict import Outcome, Verdict

__all__ = ["Decision", "ProjectPolicy"]

_LISTS = ("allow", "deny", "ask")


@frozen
class Decision:
    """What a team's policy makes of a verdict. ``exit_code``: 0 allowed, 1 denied, 2 unknown or to be asked."""

    exit_code: int
    why: str

    @property
    def word(self) -> str:
        """``allowed``, ``denied`` or ``unknown``."""
        return ("allowed", "denied", "unknown")[self.exit_code]


@frozen(kw_only=True)
class ProjectPolicy:
    """A read policy file."""

    use: Use = field(factory=Use)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    models: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> ProjectPolicy:
        """Read a file. Raises StorageError when it cannot be read, UsageError for what it gets wrong."""
        path = Path(path)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: no TOML: {error}") from error
        try:
            return cls.from_dict(data)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ProjectPolicy:
        """A policy from parsed TOML. Raises UsageError for unknown tables, words or licences."""
        _only(data, ("use", "policy", "model"), "a policy file")
        policy = data.get("policy", {})
        _only(policy, _LISTS, "[policy]")
        lists = {name: _entries(name, policy.get(name, [])) for name in _LISTS}
        models = tuple(entry_from(row) for row in data.get("model", ()))
        return cls(use=Use.from_dict(dict(data.get("use", {}))), models=models, **lists)

    def policy(self) -> LicensePolicy:
        """The ``LicensePolicy`` for the project's use and models."""
        return LicensePolicy(self.use, models=self.models)

    def decide(self, verdict: Verdict) -> Decision:
        """Deny before ask before allow before the verdict; a licence that forbids the use is never overruled."""
        for name, code in (("deny", 1), ("ask", 2)):
            hit = _hit(getattr(self, name), verdict)
            if hit:
                if code == 2 and verdict.outcome.denied:
                    break
                return Decision(code, f"{name} = {hit!r} in the policy file")
        hit = _hit(self.allow, verdict)
        if hit and verdict.outcome is not Outcome.FORBIDDEN:
            return Decision(0, f"allow = {hit!r} in the policy file; the verdict alone is {verdict.outcome}")
        return Decision(verdict.exit_code, f"the verdict is {verdict.outcome}")


def _only(data: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(data, dict):
        raise UsageError(f"{where} must be a table")
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise UsageError(f"{where} knows {', '.join(known)}, not {', '.join(unknown)}")


def _entries(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise UsageError(f"{name} must be a list of licence keys or patterns of model names")
    for item in value:
        if item not in licences() and not set(item) & set("*/?"):
            raise UsageError(f"{name}: {item!r} is neither a licence key nor a pattern (a name with / or *)")
    return tuple(value)


def _hit(entries: tuple[str, ...], verdict: Verdict) -> str:
    for entry in entries:
        if entry in verdict.licences or fnmatch.fnmatch(verdict.subject.lower(), entry.lower()):
            return entry
    return ""
