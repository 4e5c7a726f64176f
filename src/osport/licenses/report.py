"""Verdicts as text, JSON and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator

from attrs import frozen

from osport.licenses.verdict import Outcome, Reason, Verdict

__all__ = ["Comparison", "as_html", "as_json", "as_text"]

# Terms that change no outcome; a report shows them behind the clauses that do.
_REMARKS = frozenset({"termination", "patent", "indemnity", "amendable", "ownership", "law", "history", "candidate"})
_COLOURS = {
    Outcome.ALLOWED: "#1a7f37",
    Outcome.ALLOWED_WITH_OBLIGATIONS: "#4d7c0f",
    Outcome.UNKNOWN: "#9a6700",
    Outcome.NEEDS_GRANT: "#bc4c00",
    Outcome.FORBIDDEN: "#cf222e",
}


def as_json(verdict: Verdict) -> str:
    """The verdict as indented JSON."""
    return json.dumps(verdict.to_dict(), indent=2, ensure_ascii=False)


def _split(verdict: Verdict) -> tuple[list[Reason], list[Reason]]:
    clauses = [reason for reason in verdict.reasons if reason.clause not in _REMARKS]
    return clauses, [reason for reason in verdict.reasons if reason.clause in _REMARKS]


def as_text(verdict: Verdict) -> str:
    """The verdict for a terminal: outcome, clauses, obligations, assumptions, evidence."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.subject}: {verdict.outcome}"
    yield f"  licences: {', '.join(verdict.licences) or 'none that is known'}"
    clauses, remarks = _split(verdict)
    for title, items in (
        ("clauses", clauses),
        ("obligations", verdict.obligations),
        ("assumptions", verdict.assumptions),
        ("how the licence was found", verdict.evidence),
        ("worth knowing", remarks),
    ):
        if items:
            yield f"  {title}:"
            yield from (f"    - {item}" for item in items)
    yield f"  facts of {verdict.facts_date}. {verdict.disclaimer}"


def as_html(verdict: Verdict) -> str:
    """The verdict as a table for a notebook; everything in it is escaped."""
    clauses, remarks = _split(verdict)
    rows = [_row(str(reason.outcome), reason.clause, reason.text, _place(reason)) for reason in (*clauses, *remarks)]
    duties = [
        _row(
            "to do",
            item.kind,
            item.what + (f": “{item.exact}”" if item.exact else ""),
            f"{item.licence} {item.section} when: {item.trigger}",
        )
        for item in verdict.obligations
    ]
    assumed = [_row("assumed", item.field, f"read as {item.read_as}", item.why) for item in verdict.assumptions]
    colour = _COLOURS[verdict.outcome]
    return (
        f'<div><strong>{html.escape(verdict.subject)}</strong>: <span style="color:{colour}">{verdict.outcome}</span>'
        f"<table><thead><tr><th>outcome</th><th>clause</th><th>what it says here</th><th>where</th></tr></thead>"
        f"<tbody>{''.join((*rows, *duties, *assumed))}</tbody></table>"
        f"<small>Facts of {html.escape(verdict.facts_date)}. {html.escape(verdict.disclaimer)}</small></div>"
    )


def _place(reason: Reason) -> str:
    parts = (reason.licence, reason.section, reason.verified, f"via {reason.via}" if reason.via else "", reason.source)
    return " · ".join(part for part in parts if part)


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


@frozen
class Comparison:
    """Verdicts on one use, best first."""

    verdicts: tuple[Verdict, ...]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, index: int) -> Verdict:
        return self.verdicts[index]

    @property
    def rows(self) -> tuple[tuple[str, str, str, str], ...]:
        """Model, outcome, licences, and the clause that decides (or how many obligations there are)."""
        return tuple(
            (verdict.subject, str(verdict.outcome), ", ".join(verdict.licences) or "unknown", _decides(verdict))
            for verdict in self.verdicts
        )

    def to_json(self) -> str:
        """All verdicts as a JSON list."""
        return json.dumps([verdict.to_dict() for verdict in self.verdicts], indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        rows = (("model", "outcome", "licences", "because"), *self.rows)
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("model", "outcome", "licences", "because"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_row(*row) for row in self.rows)}</tbody></table>"


def _decides(verdict: Verdict) -> str:
    if verdict.outcome is Outcome.ALLOWED_WITH_OBLIGATIONS:
        kinds = ", ".join(dict.fromkeys(obligation.kind for obligation in verdict.obligations))
        return f"{len(verdict.obligations)} obligations ({kinds})"
    clauses = [reason for reason in verdict.deciding if reason.clause not in _REMARKS]
    return f"{clauses[0].clause} {clauses[0].section}: {clauses[0].text}" if clauses else ""
