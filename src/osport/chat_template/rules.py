"""Rules in a prompt that belong into a schema: what the answer must look like, not what it should say."""

from __future__ import annotations

import difflib
import re
from typing import Any

from attrs import evolve, frozen

from osport.chat_template.conversation import Conversation
from osport.core.types import Constraint
from osport.errors import UsageError

__all__ = ["Deverbalised", "deverbalise"]

ONLY_JSON = re.compile(
    r"(?i)\b(?:only|just|nothing but|solely)\b[^.\n]{0,40}\bjson\b"
    r"|\bjson\b[^.\n]{0,40}\b(?:only|nothing else|no other text)\b"
    r"|\b(?:no|without|(?:do not|don't) (?:write|add|include))\b[^.\n]{0,40}"
    r"\b(?:explanations?|markdown|code fences?|preamble|prose)\b"
)
ONE_OF = re.compile(
    r"(?im)[`\"']?(?P<field>[A-Za-z_]\w*)[`\"']?\s*(?:must be|is|should be|:)\s*(?:exactly )?"
    r"(?:one of|either)(?: the following(?: \w+)?(?=\s*:))?\s*:?\s*(?P<values>[^.\n]+)"
)
REQUIRED = re.compile(
    r"(?i)(?:required (?:fields|keys)(?: are)?|(?:fields|keys) (?:required|must be present))\s*:?\s*(?P<fields>[^.\n]+)"
)
WORD = re.compile(r"[`\"']([^`\"'\n]+)[`\"']|([A-Za-z_][\w-]*)")
QUOTED = re.compile(r"[`\"']([^`\"'\n]+)[`\"']")
# An article or a possessive begins a clause: "one of the most important fields".
VALUE = re.compile(r"(?i)(?!(?:the|an?|our|your|his|her|its|their|these|those)\s)[\w+#/-]+(?: [\w+#/-]+){0,3}")
JOINING = frozenset({"or", "and", "either", "the", "one", "of"})


@frozen
class Deverbalised:
    """A proposal for a person to accept: the ``conversation`` without these sentences, the ``constraint`` instead.

    ``diff`` shows what would go; nothing has changed in the caller's own conversation.
    """

    conversation: Conversation
    constraint: Constraint | None
    removed: tuple[str, ...]
    diff: str


def deverbalise(conversation: Conversation) -> Deverbalised:
    """Find enums, required fields and "only JSON" in the system prompt and propose them as a JSON Schema.

    Only sentences that say nothing else are taken out, and "only JSON" only where a constraint takes its place.
    Values are told apart by commas, "or", and quotes. Raises :class:`~osport.errors.UsageError` without a
    system prompt.
    """
    if not conversation.messages or conversation.messages[0].role != "system":
        raise UsageError("there is no system prompt to look at")
    before = conversation.messages[0].content
    properties: dict[str, Any] = {}
    required: list[str] = []
    removed: list[str] = []
    about_json: list[str] = []
    for sentence in re.findall(r"[^.\n]+\.?", before):
        if found := ONE_OF.search(sentence):
            values = _values(found["values"])
            if len(values) > 1:
                properties[found["field"]] = {"enum": values}
                removed.append(sentence)
        elif found := REQUIRED.search(sentence):
            required += [name for name in _words(found["fields"]) if name not in required]
            removed.append(sentence)
        elif ONLY_JSON.search(sentence) and "json" in sentence.lower():
            about_json.append(sentence)
    constraint = None
    if properties or required:
        for name in required:
            properties.setdefault(name, {})
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required or list(properties)}
        constraint = Constraint("json_schema", schema)
    if constraint is not None or conversation.constraint is not None:
        removed += about_json  # without a constraint nothing else would ask for JSON
    lines = []
    for line in before.splitlines():
        left = line
        for sentence in removed:
            left = left.replace(sentence, "", 1)
        if left.strip() or not line.strip():
            lines.append(left.strip() if left != line else line)
    after = "\n".join(lines).strip()
    first = evolve(conversation.messages[0], content=after)
    changed = evolve(
        conversation, messages=(first, *conversation.messages[1:]), constraint=constraint or conversation.constraint
    )
    diff = "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "as it is", "proposed", lineterm=""))
    return Deverbalised(changed, constraint, tuple(sentence.strip() for sentence in removed), diff)


def _values(text: str) -> list[str]:
    """The members of a list of values; none where the words are prose."""
    if found := QUOTED.findall(text):
        rest = set(re.findall(r"\w+", QUOTED.sub(" ", text).lower()))
        return list(dict.fromkeys(found)) if rest <= JOINING else []
    joint = r"\s*,\s*(?:or\s+|and\s+)?|\s+or\s+" + ("" if re.search(r"\bor\b", text) else r"|\s+and\s+")
    values = [value.strip() for value in re.split(joint, text)]
    prose = any(not VALUE.fullmatch(value) for value in values)
    return [] if prose else list(dict.fromkeys(values))


def _words(text: str) -> list[str]:
    found = [quoted or bare for quoted, bare in WORD.findall(text)]
    return list(dict.fromkeys(word for word in found if word.lower() not in JOINING))
