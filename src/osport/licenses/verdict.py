"""What a check answers with: an outcome, the clauses that made it, what to do, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import Any

from attrs import asdict, field, frozen

__all__ = ["DISCLAIMER", "Assumption", "Evidence", "Obligation", "Outcome", "Reason", "Verdict"]

DISCLAIMER = "This is a reading of licence terms by a program. It is not legal advice."


class Outcome(StrEnum):
    """What a licence says to a use, from mildest to strictest.

    ``unknown`` stands between permission and refusal: it never passes for permission,
    and a clause that surely refuses is not hidden by one that nobody has read.

    >>> Outcome.strictest([Outcome.ALLOWED, Outcome.UNKNOWN]).value
    'unknown'
    """

    ALLOWED = "allowed"
    ALLOWED_WITH_OBLIGATIONS = "allowed_with_obligations"
    UNKNOWN = "unknown"
    NEEDS_GRANT = "needs_grant"
    FORBIDDEN = "forbidden"

    @property
    def severity(self) -> int:
        """0 for ``allowed`` up to 4 for ``forbidden``."""
        return _ORDER.index(self)

    @property
    def denied(self) -> bool:
        """The licence, as it stands, does not let the use happen."""
        return self.severity >= Outcome.NEEDS_GRANT.severity

    @classmethod
    def strictest(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """The strictest of them; ``allowed`` when there are none."""
        return max(outcomes, key=lambda outcome: outcome.severity, default=cls.ALLOWED)


_ORDER = (
    Outcome.ALLOWED,
    Outcome.ALLOWED_WITH_OBLIGATIONS,
    Outcome.UNKNOWN,
    Outcome.NEEDS_GRANT,
    Outcome.FORBIDDEN,
)


@frozen
class Reason:
    """One clause and what it does to this use.

    ``clause`` names the kind of term (``commercial``, ``outputs``, ``territory`` ...), ``section`` its place in
    the text, ``verified`` how the claim was checked (``text``, ``text-copy``, ``registry``, ``unverified``).
    ``via`` is the ancestor through which the licence applies, empty for the model itself.
    """

    outcome: Outcome
    clause: str
    text: str
    licence: str = ""
    section: str = ""
    source: str = ""
    verified: str = ""
    via: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.licence, self.section) if part)
        suffix = "; ".join(part for part in (where, self.verified, f"via {self.via}" if self.via else "") if part)
        return f"[{self.outcome}] {self.clause}: {self.text}" + (f" ({suffix})" if suffix else "")


@frozen
class Obligation:
    """Something to do. ``exact`` is the string to ship or display, word for word, empty when there is none.

    ``kind``: ``notice``, ``copy``, ``display``, ``name``, ``mark_changes``, ``flow_down``, ``policy``, ``purpose``,
    ``register``, ``notify``, ``royalty``, ``cite``, ``update``, ``attribution``, ``confirm`` (a claim that nobody
    has read in a licence text: read it before relying on it).
    """

    kind: str
    what: str
    trigger: str
    exact: str = ""
    licence: str = ""
    section: str = ""
    source: str = ""
    verified: str = ""
    via: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.licence, self.section) if part)
        exact = f": “{self.exact}”" if self.exact else ""
        return f"{self.what}{exact} (when: {self.trigger}; {where}" + (f"; via {self.via})" if self.via else ")")


@frozen
class Assumption:
    """A field that the use left open, how it was read, and what would change if it were otherwise."""

    field: str
    read_as: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.field} was left open: read as {self.read_as}" + (f" ({self.why})" if self.why else "")


@frozen
class Evidence:
    """One thing that says which licence applies: a text, a link, a name, a tag, or the catalogue."""

    kind: str
    value: str
    licences: tuple[str, ...]
    verified: str = ""
    source: str = ""
    note: str = ""

    def __str__(self) -> str:
        found = ", ".join(self.licences) or "nothing known"
        return f"{self.kind} {self.value!r} -> {found}" + (f" ({self.note})" if self.note else "")


@frozen
class Verdict:
    """The answer of :meth:`LicensePolicy.check`. ``reasons`` stand strictest first.

    ``evidence`` holds what led to the licences; ``licences`` the keys that were applied, ancestors included.
    """

    subject: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    licences: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    facts_date: str = ""
    disclaimer: str = field(default=DISCLAIMER)

    @property
    def allowed(self) -> bool:
        """True for ``allowed`` and ``allowed_with_obligations``."""
        return self.outcome.severity <= Outcome.ALLOWED_WITH_OBLIGATIONS.severity

    @property
    def deciding(self) -> tuple[Reason, ...]:
        """The reasons whose outcome is the outcome of the whole."""
        return tuple(reason for reason in self.reasons if reason.outcome is self.outcome)

    @property
    def exit_code(self) -> int:
        """0 allowed, 1 denied, 2 unknown."""
        return 0 if self.allowed else 1 if self.outcome.denied else 2

    def to_dict(self) -> dict[str, Any]:
        """The verdict in plain JSON types."""

        def plain(_owner: Any, _field: Any, value: Any) -> Any:
            return value.value if isinstance(value, Enum) else value

        return asdict(self, value_serializer=plain)

    def to_json(self) -> str:
        """The verdict as JSON text."""
        from osport.licenses.report import as_json

        return as_json(self)

    def notice(self) -> str:
        """The text of a NOTICE file: every exact string to ship or display. See :mod:`osport.licenses.notice`."""
        from osport.licenses.notice import notice_text

        return notice_text([self])

    def __str__(self) -> str:
        from osport.licenses.report import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from osport.licenses.report import as_html

        return as_html(self)
