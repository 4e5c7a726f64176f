"""The NOTICE file: the exact strings that a licence wants shipped or displayed, for all models of a product."""

from __future__ import annotations

from collections.abc import Iterable

from osport.licenses.terms import licences
from osport.licenses.verdict import Obligation, Verdict

__all__ = ["notice_text"]

_SHIPPED = ("notice", "attribution")
_SHOWN = ("display", "name")


def notice_text(verdicts: Iterable[Verdict]) -> str:
    """The text of a NOTICE file. Strings stand word for word on lines of their own; duties without a string follow.

    Raises nothing; models without duties are named all the same.
    """
    verdicts = tuple(verdicts)
    lines = ["NOTICE", ""]
    for verdict in verdicts:
        names = [f"{licences()[key].title} ({key})" for key in verdict.licences if key in licences()]
        lines += [
            f"This product uses {verdict.subject}, licensed under: {'; '.join(names) or 'a licence that is not known'}."
        ]
    shipped = _exact(verdicts, _SHIPPED)
    shown = _exact(verdicts, _SHOWN)
    if shipped:
        lines += ["", *(obligation.exact for obligation in shipped)]
    if shown:
        lines += ["", "To be displayed, not only shipped:"]
        lines += [f"- {obligation.what}:\n{obligation.exact}" for obligation in shown]
    rest = [obligation for verdict in verdicts for obligation in verdict.obligations if not obligation.exact]
    if rest:
        lines += ["", "Besides:"]
        lines += list(
            dict.fromkeys(
                f"- {obligation.what} ({obligation.licence} {obligation.section})".replace("( )", "").rstrip()
                for obligation in rest
            )
        )
    return "\n".join(lines) + "\n"


def _exact(verdicts: Iterable[Verdict], kinds: tuple[str, ...]) -> list[Obligation]:
    found: dict[str, Obligation] = {}
    for verdict in verdicts:
        for obligation in verdict.obligations:
            wanted = obligation.kind in kinds or (kinds is _SHOWN and obligation.kind == "notify")
            if obligation.exact and wanted:
                found.setdefault(obligation.exact, obligation)
    return list(found.values())
