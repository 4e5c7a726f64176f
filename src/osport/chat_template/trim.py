"""Shorten a system prompt by whole blocks, and say what went."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import evolve, frozen

from osport.chat_template.conversation import Conversation
from osport.errors import UsageError

__all__ = ["Trimmed", "trim_system"]

LIST_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")
TAG = re.compile(r"<(/?)([A-Za-z_][\w.-]*)(?:\s[^<>]*)?>")


@frozen
class Trimmed:
    """The shortened ``conversation``, the ``removed`` blocks in their order, and the ``tokens`` that are left."""

    conversation: Conversation
    removed: tuple[str, ...]
    tokens: int


def trim_system(conversation: Conversation, max_tokens: int, count: Callable[[str], int]) -> Trimmed:
    """Remove blocks from the end of the system prompt until it has at most ``max_tokens`` tokens.

    A block is a paragraph; an XML pair, a list of rules with the line that introduces it, and fenced code are one
    block each and never cut. The first block, which says who the model is, stays. ``count`` gives the number of
    tokens of a text with the target's tokenizer.

    Raises :class:`~osport.errors.UsageError` when there is no system prompt, or when the first block alone is
    too long.
    """
    if not conversation.messages or conversation.messages[0].role != "system":
        raise UsageError("there is no system prompt to trim")
    kept = _blocks(conversation.messages[0].content)
    removed: list[str] = []
    while (tokens := count("\n\n".join(kept))) > max_tokens:
        if len(kept) == 1:
            raise UsageError(f"the first block of the system prompt alone has {tokens} tokens, more than {max_tokens}")
        removed.insert(0, kept.pop())
    first = evolve(conversation.messages[0], content="\n\n".join(kept))
    return Trimmed(evolve(conversation, messages=(first, *conversation.messages[1:])), tuple(removed), tokens)


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    paragraphs = re.split(r"\n\s*\n", text)
    for index, paragraph in enumerate(paragraphs):
        if blocks and (_open(blocks[-1], paragraphs[index:]) or _continues_list(blocks[-1], paragraph)):
            blocks[-1] += f"\n\n{paragraph}"
        else:
            blocks.append(paragraph)
    return blocks


def _open(block: str, rest: list[str]) -> bool:
    """Whether a tag or a code fence of this block is closed only in the paragraphs behind it."""
    if block.count("```") % 2:
        return True
    depth: dict[str, int] = {}
    for closing, name in TAG.findall(block):
        depth[name] = depth.get(name, 0) + (-1 if closing else 1)
    return any(count > 0 and any(f"</{name}>" in later for later in rest) for name, count in depth.items())


def _continues_list(block: str, paragraph: str) -> bool:
    return bool(LIST_ITEM.match(paragraph)) and (
        block.rstrip().endswith(":") or bool(LIST_ITEM.match(block.splitlines()[-1]))
    )
