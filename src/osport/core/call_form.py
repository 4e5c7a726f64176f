"""How a model writes a tool call, as plain data that grammar and parser share."""

from __future__ import annotations

from attrs import frozen

from osport.errors import UsageError

__all__ = ["CallForm"]

NAME = "{name}"


@frozen
class CallForm:
    """The text around the calls of one model family.

    ``begin`` and ``end`` stand around each call. Where ``begin`` holds ``{name}``, the tool's name stands there and
    the JSON behind it is the arguments alone; else the JSON is an object with the keys ``name`` and ``arguments``,
    under the names given here. ``opening`` and ``closing`` stand around all calls of an answer, ``between`` between
    two of them. The marks are text: one that the model writes as a control token cannot be asked for.

    >>> CallForm(begin="<tool_call>", end="</tool_call>", between=" ").begin
    '<tool_call>'
    """

    begin: str = ""
    end: str = ""
    name: str = "name"
    arguments: str = "arguments"
    opening: str = ""
    closing: str = ""
    between: str = "\n"

    def __attrs_post_init__(self) -> None:
        if self.begin.count(NAME) > 1 or NAME in self.opening:
            raise UsageError(f"begin={self.begin!r}, opening={self.opening!r}: {NAME} once, in begin")
        if self.named_in_begin and not self.mark:
            raise UsageError(f"begin={self.begin!r}: something must stand before {NAME}, to tell a call from text")
        if not self.name or not self.arguments or self.name == self.arguments:
            raise UsageError(f"name={self.name!r}, arguments={self.arguments!r}: two different keys")

    @property
    def named_in_begin(self) -> bool:
        """Whether the name of the tool stands before the JSON and not in it."""
        return NAME in self.begin

    def before(self, tool: str) -> str:
        """What stands before the arguments of a call; ``tool`` as it stands in a JSON string, without the quotes."""
        if self.named_in_begin:
            return self.begin.replace(NAME, tool)
        return f'{self.begin}{{"{self.name}": "{tool}", "{self.arguments}": '

    def after(self) -> str:
        """What stands behind the arguments of a call."""
        return self.end if self.named_in_begin else "}" + self.end

    @property
    def mark(self) -> str:
        """What no free text holds, for a call begins with it; empty where a call begins with its JSON."""
        return (self.opening + self.begin.split(NAME)[0]).strip()
