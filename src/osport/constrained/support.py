"""What of a JSON Schema each engine enforces, and the refusal of the rest.

An engine that drops a keyword does so without a word, and which keywords it reads depends on the
type of the node and on what stands beside them. A table lists what was seen to be enforced, by a
probe of each keyword with an instance that breaks only it; whatever is not listed is refused.
llguidance needs no table: it refuses by itself what it does not enforce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from osport.constrained.dialects import taken
from osport.constrained.keywords import EVER_CONSTRAINING
from osport.constrained.refusal import KeywordRefused
from osport.constrained.schema import Schema, json_path, walk
from osport.constrained.tables import TABLES
from osport.constrained.weaken import weakened
from osport.errors import UsageError

__all__ = ["Support", "refuse_unless_enforced", "support_of"]


@frozen
class Support:
    """How one keyword of a schema fares at one engine: ``exact``, ``checked`` (verified only) or ``refused``."""

    keyword: str
    path: str
    status: str
    why: str = ""


def support_of(schema: Schema, engine: str, *, check: bool) -> list[Support]:
    """Each constraining keyword of a schema with its place and its fate at an engine.

    Raises :class:`~osport.errors.UsageError` for an engine that osport has no knowledge of.
    """
    lost: dict[str, str] = {}

    def enforce(weaker: Any) -> None:
        try:
            refuse_unless_enforced(weaker, engine)
        except KeywordRefused as refusal:
            lost.setdefault(json_path(refusal.path), refusal.reason)
            raise

    missing: KeywordRefused | None = None
    dropped: tuple[str, ...] = ()
    try:
        _, dropped = weakened(schema, enforce)
    except KeywordRefused as refusal:
        missing = refusal  # what the engine takes only with a keyword that the schema leaves out
    for text in dropped:
        keyword, _, place = text.partition(" at ")
        lost.setdefault(place, f"not enforced together with {keyword}")
    rows = []
    for path, node in walk(schema):
        for keyword in node if isinstance(node, Mapping) else ():
            if keyword in EVER_CONSTRAINING:
                place = json_path((*path, keyword))
                status = "exact" if place not in lost else "checked" if check and missing is None else "refused"
                rows.append(Support(keyword, place, status, lost.get(place, "")))
    if missing is not None and json_path(missing.path) not in {row.path for row in rows}:
        rows.append(Support(missing.keyword, json_path(missing.path), "refused", missing.reason))
    return rows


def refuse_unless_enforced(schema: Schema, engine: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for the first keyword that the engine would not enforce."""
    if engine == "llguidance":
        taken(json.dumps(schema))
        return
    table = TABLES.get(engine)
    if table is None:
        raise UsageError(f"unknown engine {engine!r}; known: llguidance, {', '.join(sorted(TABLES))}")
    if isinstance(schema, Mapping):
        for keyword, reason in table.refused_as_a_whole(schema):
            at_root = (keyword,) if keyword else ()
            raise KeywordRefused(keyword, at_root, engine, reason=reason, alternatives=table.alternatives)
    for path, node in walk(schema):
        if isinstance(node, Mapping):
            for keyword, reason in table.dropped(node):
                raise KeywordRefused(keyword, (*path, keyword), engine, reason=reason, alternatives=table.alternatives)
        elif path and path[-1] not in ("additionalProperties", "additionalItems"):
            raise KeywordRefused("", path, engine, reason="a boolean schema", alternatives=table.alternatives)
