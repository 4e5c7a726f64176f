"""One switch for thinking, and what it becomes in each template: a variable, a word in the text, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeGuard

from attrs import field, frozen

from osport.chat_template import renderer
from osport.chat_template.families import Family, family_of
from osport.core.thought import Thought
from osport.core.types import Request, Thinking
from osport.data import load
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["LEVELS", "ThinkingSwitch", "asked_of_template", "find_switch", "place_of_word", "thought_before"]

LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")

Try = Callable[..., str | None]


@frozen
class ThinkingSwitch:
    """How thinking is switched.

    ``variables``: template variables that change the prompt. ``words``: for on and off, a word in the text.
    ``levels``: the levels that it tells apart. ``budget``: the variable that takes a number of tokens.
    ``default``: what happens when nobody asks; ``unknown`` when on and off look alike.
    """

    variables: dict[str, dict[str, Any]] = field(factory=dict)
    words: tuple[str, str] | None = None
    levels: tuple[str, ...] = ()
    budget: str = ""
    default: Literal["on", "off", "unknown"] = "unknown"
    always: bool = False

    @property
    def kind(self) -> Literal["variable", "word", "level", "always", "none"]:
        """How the model is told."""
        if any("on" in row for row in self.variables.values()):
            return "variable"
        if self.words:
            return "word"
        if self.variables:
            return "level"
        return "always" if self.always else "none"

    def settings(self, thinking: Thinking) -> tuple[dict[str, Any], str]:
        """Template variables, and a word for the text, that bring this about.

        Raises :class:`~osport.errors.UnsupportedFeature` for what the template cannot do.
        """
        if thinking is None:
            return {}, ""
        _check(thinking)
        if thinking is False or thinking == 0:
            return self._off()
        if isinstance(thinking, str):
            return self._level(thinking), ""
        if not isinstance(thinking, bool):
            if not self.budget:
                raise _cannot(f"a thinking budget of {thinking} tokens", "it has no variable for a number of tokens")
            return {**self._on_variables(), self.budget: thinking}, ""
        return self._on()

    def _on(self) -> tuple[dict[str, Any], str]:
        if variables := self._on_variables():
            return variables, ""
        if self.words:
            return {}, self.words[0]
        if self.levels:
            return self._level("medium" if "medium" in self.levels else self.levels[-1]), ""
        if self.always or self.budget:
            return {}, ""
        raise _cannot("thinking", "it has no switch and no reasoning of its own")

    def _off(self) -> tuple[dict[str, Any], str]:
        off = {name: row["off"] for name, row in self.variables.items() if "off" in row and "on" in row}
        if off:
            return off, ""
        if self.words:
            return {}, self.words[1]
        off = {name: row["off"] for name, row in self.variables.items() if "off" in row}
        if off:
            return off, ""
        if self.levels or self.always:
            raise _cannot("thinking switched off", "its models always think")
        return {}, ""

    def _on_variables(self) -> dict[str, Any]:
        return {name: row["on"] for name, row in self.variables.items() if "on" in row}

    def _level(self, level: str) -> dict[str, Any]:
        for name, row in self.variables.items():
            if level in row.get("levels", {}):
                return {**self._on_variables(), name: row["levels"][level]}
        known = f"it knows {', '.join(self.levels)}" if self.levels else "it knows only on and off"
        raise _cannot(f"the thinking level {level!r}", known)


def find_switch(source: str, render: Try) -> ThinkingSwitch:
    """Try the known switches; one counts when the prompt changes with it."""
    read = renderer.variables(source)
    family = family_of(source)
    plain = render()
    found: dict[str, dict[str, Any]] = {}
    levels: tuple[str, ...] = ()
    budget = ""
    default: Literal["on", "off", "unknown"] = "unknown"
    for row in load("thinking.toml")["variable"]:
        name = row["name"]
        if name not in read:
            continue
        kept: dict[str, Any] = {}
        if "on" in row:
            on, off = render(**{name: row["on"]}), render(**{name: row["off"]})
            if on is None or off is None or on == off:
                continue
            kept = {"on": row["on"], "off": row["off"]}
            default = "on" if plain == on else "off" if plain == off else default
        elif row.get("budget"):
            if render(**{name: 512}) not in (None, render(**{name: 1024})):
                budget = name
                kept = {"off": row["off"]} if "off" in row else {}
            else:
                continue
        else:
            trained = family.levels if family and family.levels else row["levels"]
            texts = {level: render(**{name: row["levels"][level]}) for level in trained if level in row["levels"]}
            apart = tuple(level for level, text in texts.items() if text is not None)
            if len({texts[level] for level in apart}) < 2:
                continue
            levels = apart
            kept = {"levels": {level: row["levels"][level] for level in apart}}
            off = render(**{name: row["off"]}) if "off" in row else None
            # A template that prints any value would print "none" as well; off is off only when it says something else.
            if off is not None and off not in texts.values() and row["off"] not in off:
                kept["off"] = row["off"]
        found[name] = kept
    words = None
    if not any("on" in row for row in found.values()):
        literals = renderer.literals(source)
        for row in load("thinking.toml")["text"]:
            if row["off"] in literals and (not row["on"] or row["on"] in literals):
                words = (row["on"], row["off"])
                break
    opened = (
        plain is not None
        and family is not None
        and bool(family.reasoning)
        and plain.rstrip().endswith(family.reasoning[0].rstrip())
    )
    always = not found and words is None and (opened or (family is not None and family.always_thinks))
    return ThinkingSwitch(found, words, levels, budget, default, always)


def is_budget(thinking: Thinking) -> TypeGuard[int]:
    """Whether it is a number of tokens to think for; 0 switches thinking off."""
    return isinstance(thinking, int) and not isinstance(thinking, bool) and thinking > 0


def asked_of_template(switch: ThinkingSwitch, request: Request) -> Thinking:
    """What the template is to bring about. Who masks a constrained answer keeps to a budget that the template, for want
    of a variable, cannot tell the model."""
    budget_is_ours = request.constraint is not None and is_budget(request.thinking) and not switch.budget
    return True if budget_is_ours else request.thinking


def thought_before(writing: Family, prompt: str, thinking: Thinking) -> Thought | None:
    """What the answer to a rendered prompt begins with: the reasoning asked for, or that the prompt has opened.

    None where neither is the case. The marks are the family's; ``closing`` is empty where it has no pair of them.
    """
    # gpt-oss writes channels, which are no pair of marks.
    opens, closes = map(str.strip, writing.reasoning) if writing.reasoning and writing.calls != "harmony" else ("", "")
    opened = bool(opens) and prompt.rstrip().endswith(opens)
    if not opened and thinking in (None, False):
        return None
    return Thought(closes, opens if opens and not opened else None, thinking if is_budget(thinking) else None)


def place_of_word(messages: Sequence[Mapping[str, Any]], word: str) -> int:
    """Which message a word such as /no_think goes behind: the system prompt, or else the last user turn."""
    roles = [message["role"] for message in messages]
    at = 0 if roles[0] == "system" else max((i for i, role in enumerate(roles) if role == "user"), default=-1)
    if at < 0 or not isinstance(messages[at].get("content"), str):
        raise UsageError(f"there is no text that could carry {word}")
    return at


def _check(thinking: Thinking) -> None:
    if isinstance(thinking, str) and thinking not in LEVELS:
        raise UsageError(f"thinking={thinking!r}: a level is one of {', '.join(LEVELS)}")
    if isinstance(thinking, int) and thinking < 0:
        raise UsageError(f"thinking={thinking!r}: a budget is a number of tokens, at least 0")


def _cannot(what: str, reason: str) -> UnsupportedFeature:
    return UnsupportedFeature(what, "this chat template", reason=reason)
