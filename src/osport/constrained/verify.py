"""The last word on an answer: does the text have the form that was asked for?"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from osport.constrained.dialects import byte_tokenizer
from osport.constrained.patterns import TooSlow, matches
from osport.constrained.schema import json_path, shortened
from osport.errors import ConstraintViolated, UsageError
from osport.formats.strict_json import STRICT, RepeatedName

__all__ = ["REPEATED_NAME", "in_choice", "in_grammar", "in_pattern", "in_schema"]


REPEATED_NAME = "repeated name"
"""No mask keeps an open object from that."""


def in_schema(text: str, validator: Validator) -> Any:
    """The value of a JSON text that the schema allows."""
    value = parsed(whole(text))
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except RecursionError:
        raise ConstraintViolated("the value is nested too deeply to be verified", keyword="json") from None
    except TooSlow as slow:
        raise ConstraintViolated(f"not verified: {slow}", keyword="pattern") from None
    if error is not None:
        path = json_path(tuple(error.absolute_path))
        keyword = str(error.validator or "false")
        raise ConstraintViolated(f"{path}: {shortened(error.message)} ({keyword})", path=path, keyword=keyword)
    return value


def in_choice(text: str, labels: tuple[str, ...]) -> str:
    """The text, when it is one of the labels to the letter."""
    if whole(text) not in labels:
        raise ConstraintViolated(f"{shortened(text)!r} is none of the labels {', '.join(labels)}", keyword="choice")
    return text


def in_pattern(text: str, pattern: str) -> str:
    """The text, when the whole of it matches."""
    try:
        found = matches(pattern, whole(text), whole=True)
    except TooSlow as slow:
        raise ConstraintViolated(f"not verified: {slow}", keyword="regex") from None
    if not found:
        raise ConstraintViolated(f"{shortened(text)!r} does not match {pattern!r}", keyword="regex")
    return text


def in_grammar(text: str, lark: str) -> str:
    """The text, when llguidance's parser takes all of it and could end there."""
    import llguidance

    tokenizer = byte_tokenizer()
    matcher = llguidance.LLMatcher(tokenizer, lark, log_level=0)
    tokens = tokenizer.tokenize_bytes(whole(text).encode())
    taken = matcher.try_consume_tokens(tokens)
    if taken < len(tokens) or not matcher.is_accepting():
        raise ConstraintViolated(f"the grammar does not take the text beyond byte {taken}", keyword="grammar")
    return text


def whole(text: str) -> str:
    """The text, when it is one: half a surrogate pair is no character, and no engine can write it."""
    if not isinstance(text, str):
        raise UsageError(f"an answer is a text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintViolated(f"no text: {error.reason} at {error.start}", keyword="text") from error
    return text


def parsed(text: str) -> Any:
    """The value of a JSON text; NaN, infinities and a name given twice are no JSON here, nor is half a character."""
    try:
        value = STRICT.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RepeatedName as error:
        raise ConstraintViolated(f"not JSON: {error}", keyword=REPEATED_NAME) from error
    except (ValueError, RecursionError) as error:
        raise ConstraintViolated(f"not JSON: {error}: {shortened(text)!r}", keyword="json") from error
