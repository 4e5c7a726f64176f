"""Examples as turns that really happened, which is the form that a chat template knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, islice, takewhile
from typing import Any

from attrs import evolve

from osport.chat_template.conversation import Conversation
from osport.core.types import Message
from osport.errors import UsageError

__all__ = ["few_shot_turns", "with_few_shot"]


def few_shot_turns(examples: Iterable[tuple[str, Any]], k: int) -> tuple[Message, ...]:
    """The first ``k`` (input, answer) pairs as user and assistant turns.

    An answer that is not a string is written as JSON, in one line. Raises
    :class:`~osport.errors.UsageError` when there are fewer than ``k`` examples.

    >>> [m.content for m in few_shot_turns([("good", {"sentiment": "pos"})], k=1)]
    ['good', '{"sentiment": "pos"}']
    """
    if k < 0:
        raise UsageError(f"k={k}: the number of examples cannot be negative")
    pairs = list(islice(examples, k))
    if len(pairs) < k:
        raise UsageError(f"k={k}: only {len(pairs)} examples were given")
    return tuple(
        chain.from_iterable((Message.user(text), Message.assistant(_as_text(answer))) for text, answer in pairs)
    )


def _as_text(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def with_few_shot(conversation: Conversation, examples: Iterable[tuple[str, Any]], k: int) -> Conversation:
    """The conversation with ``k`` examples as turns between the system prompt and the question.

    Examples begin with a user turn, which every template accepts.

    >>> talk = Conversation([Message.system("Sort."), Message.user("bad")])
    >>> [m.role for m in with_few_shot(talk, [("good", "pos")], k=1).messages]
    ['system', 'user', 'assistant', 'user']
    """
    leading = sum(1 for _ in takewhile(lambda message: message.role == "system", conversation.messages))
    turns = few_shot_turns(examples, k)
    messages = conversation.messages
    return evolve(conversation, messages=(*messages[:leading], *turns, *messages[leading:]))
