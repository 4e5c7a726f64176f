"""Tools: called by name with the arguments that their schema allows, and not when they may not be."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from osport.core.types import Completion, Message, Request, Tool, ToolCall
from osport.errors import UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["ToolChecks"]

TIDE = Tool(
    "tide_at",
    "The height of the tide at a harbour.",
    {
        "type": "object",
        "properties": {"harbour": {"enum": ["Brest", "Dover"]}, "hour": {"type": "integer"}},
        "required": ["harbour", "hour"],
        "additionalProperties": False,
    },
)
QUESTION = "How high is the tide at Dover at 6?"


class ToolChecks(Area):
    """What offering a tool must come to."""

    def test_a_required_tool_is_called_or_refused(self, model: Model) -> None:
        """``tool_choice="required"`` gives calls, and says so, or is refused by name."""
        if not model.capabilities.tools:
            with pytest.raises(UnsupportedFeature):
                model.generate(self._request(model, QUESTION, tools=[TIDE]))
            return
        answer, required = self._called(model)
        if required:
            assert answer.tool_calls
            assert answer.finish_reason == "tool_calls"

    def test_only_a_tool_that_was_offered_is_called(self, model: Model) -> None:
        """Known names, and an id of its own for each call."""
        self._needs(model, "tools")
        calls = self._called(model)[0].tool_calls
        assert {call.name for call in calls} <= {TIDE.name}
        assert len({call.id for call in calls}) == len(calls)
        assert all(call.id for call in calls)

    def test_arguments_are_those_that_the_schema_allows(self, model: Model) -> None:
        """Parsed, and valid."""
        self._needs(model, "tools")
        for call in self._called(model)[0].tool_calls:
            Draft202012Validator(dict(TIDE.parameters)).validate(dict(call.arguments))

    def test_no_tool_is_called_when_none_may_be(self, model: Model) -> None:
        """``tool_choice="none"`` gives text."""
        self._needs(model, "tools")
        answer = self._ask(model, QUESTION, tools=[TIDE], tool_choice="none")
        assert not answer.tool_calls
        assert answer.finish_reason != "tool_calls"

    def test_the_result_of_a_tool_reaches_the_model(self, model: Model) -> None:
        """A conversation with a call and its result is answered, and longer than one without."""
        self._needs(model, "tools")
        call = ToolCall("call_0001", TIDE.name, {"harbour": "Dover", "hour": 6})
        turns = [Message.user(QUESTION), Message.assistant("", tool_calls=[call])]
        turns.append(Message.tool("At Dover at 6 the tide stands at 4.2 metres and falls.", tool_call_id=call.id))
        answer = self._ask(model, turns, tools=[TIDE])
        bare = self._ask(model, QUESTION, tools=[TIDE])
        if answer.usage.prompt_tokens is not None and bare.usage.prompt_tokens is not None:
            assert answer.usage.prompt_tokens > bare.usage.prompt_tokens

    def test_a_streamed_call_is_whole(self, model: Model) -> None:
        """The completion that ends a stream holds the same calls."""
        self._needs(model, "tools", "stream")
        whole, required = self._called(model)
        choice = "required" if required else "auto"
        last = list(model.stream(self._offering(model, choice)))[-1].completion
        assert last is not None
        assert last.finish_reason == whole.finish_reason
        assert [call.name for call in last.tool_calls] == [call.name for call in whole.tool_calls]

    def _called(self, model: Model) -> tuple[Completion, bool]:
        """An answer to a question with a tool, and whether it had to be a call: not every engine can force one."""
        try:
            return model.generate(self._offering(model, "required")), True
        except UnsupportedFeature as error:
            assert "tool_choice" in error.feature, f"tools are declared, and {error.feature} is refused"  # noqa: PT017
            return model.generate(self._offering(model, "auto")), False

    def _offering(self, model: Model, choice: str) -> Request:
        room = {"max_tokens": 200} if self._takes(model, "max_tokens") else {}
        return self._request(model, QUESTION, tools=[TIDE], tool_choice=choice, parallel_tools=False, **room)
