"""The ledger as text and as HTML with a stacked bar."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from osport.vram.estimate import gib
from osport.vram.ledger import LedgerRow

__all__ = ["budget_html", "ledger_text"]

_COLOURS = (
    "#4c72b0",
    "#dd8452",
    "#55a868",
    "#c44e52",
    "#8172b3",
    "#937860",
    "#da8bc3",
    "#8c8c8c",
    "#ccb974",
    "#64b5cd",
)


def ledger_text(rows: Sequence[LedgerRow]) -> str:
    """One line a row; memory that is reserved, not needed, is in brackets."""
    lines = []
    for row in rows:
        size = str(row.bytes) if row.need else f"[{row.bytes}]"
        lines.append(f"  {row.device:20} {row.term:26} {size:44} {row.rule}")
    return "\n".join(lines)


def budget_html(title: str, rows: Sequence[LedgerRow], missing: Sequence[str]) -> str:
    """A table with a bar of the needed terms."""
    needed = [row for row in rows if row.need]
    whole = sum(row.bytes.likely for row in needed) or 1
    terms = list(dict.fromkeys(row.term for row in rows))
    colour = {term: _COLOURS[index % len(_COLOURS)] for index, term in enumerate(terms)}
    bar = "".join(
        f'<div title="{escape(row.term)}: {row.bytes}" style="width:{100 * row.bytes.likely / whole:.2f}%;'
        f'background:{colour[row.term]};height:16px"></div>'
        for row in needed
    )
    body = "".join(
        f'<tr><td>{escape(row.device)}</td><td style="border-left:6px solid {colour[row.term]}">{escape(row.term)}</td>'
        f"<td>{gib(row.bytes.likely)}</td><td>{gib(row.bytes.low)} to {gib(row.bytes.high)}</td>"
        f"<td>{'' if row.need else 'reserved, not needed'}</td><td>{escape(row.rule)}</td>"
        f"<td>{escape(row.source)}</td></tr>"
        for row in rows
    )
    gap = f"<p><b>unknown:</b> {escape('; '.join(missing))}</p>" if missing else ""
    head = "<tr><th>device</th><th>term</th><th>likely</th><th>interval</th><th></th><th>rule</th><th>source</th></tr>"
    return (
        f"<div><b>{escape(title)}</b> {gib(whole) if needed else ''}{gap}"
        f'<div style="display:flex;width:100%">{bar}</div><table>{head}{body}</table></div>'
    )
