"""Chat: whole answers, raw prompts, prefills, and no turn of a conversation lost."""

from __future__ import annotations

from typing import get_args

import pytest

from osport.core.types import Completion, FinishReason, Message, Request
from osport.errors import BadRequest, ServerFault, UnsupportedFeature
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["ChatChecks"]

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
RULES = "You are the keeper of a lighthouse. Speak of ships, of fog, of gulls and of the long nights in winter."


class ChatChecks(Area):
    """What one question and one answer must be."""

    def test_it_answers_chat(self, model: Model) -> None:
        """A completion is whole: text, finish reason, names, latency."""
        self._needs(model, "chat")
        answer = self._ask(model)
        assert isinstance(answer, Completion)
        assert isinstance(answer.text, str)
        assert answer.finish_reason in get_args(FinishReason)
        assert answer.backend == model.ref.backend
        assert isinstance(answer.model, str)
        assert answer.latency > 0

    def test_it_answers_raw_prompts_or_refuses_them(self, model: Model) -> None:
        """A raw prompt reaches the model as it is, without a template around it."""
        request = self.asking(Request(prompt=self.prompt))
        if not model.capabilities.raw_prompt:
            with pytest.raises(UnsupportedFeature):
                model.generate(request)
            return
        raw = self._ask(model, request)
        assert isinstance(raw.text, str)
        if model.capabilities.chat:
            chat = self._ask(model)
            if raw.usage.prompt_tokens is not None and chat.usage.prompt_tokens is not None:
                assert raw.usage.prompt_tokens <= chat.usage.prompt_tokens

    def test_text_of_any_script_passes(self, model: Model) -> None:
        """Nothing chokes on umlauts, emoji, quotes, backslashes, line breaks; what comes back is text."""
        answer = self._ask(model, 'Zürich 東京 \U0001f40b "\\n"\n\tend')
        answer.text.encode("utf-8")

    def test_no_turn_of_a_conversation_is_lost(self, model: Model) -> None:
        """A system prompt and earlier turns make the prompt longer, by the engine's own count."""
        self._needs(model, "chat")
        short = self._ask(model).usage.prompt_tokens
        ruled = self._ask(model, [Message.system(RULES), Message.user(self.prompt)])
        earlier = [Message.user(RULES), Message.assistant("Aye."), Message.user(self.prompt)]
        longer = self._ask(model, earlier)
        if short is None:
            assert ruled.usage.prompt_tokens is None
            return
        for answer, what in ((ruled, "the system prompt"), (longer, "the earlier turns")):
            assert answer.usage.prompt_tokens is not None
            assert answer.usage.prompt_tokens > short, f"{what} did not reach the engine"

    def test_a_prefill_is_continued_or_refused(self, model: Model) -> None:
        """A trailing assistant message is no turn of its own, and the answer does not repeat it."""
        begun = "The sea is"
        request = self._request(model, [Message.user(self.prompt), Message.assistant(begun)])
        if not model.capabilities.prefill:
            with pytest.raises(UnsupportedFeature):
                model.generate(request)
            return
        assert not self._ask(model, request).text.startswith(begun)

    def test_images_are_taken_or_refused(self, model: Model) -> None:
        """An image is looked at, or refused; never dropped."""
        request = self._request(model, [Message("user", "What is this?", images=(PIXEL,))])
        if not model.capabilities.images:
            with pytest.raises(UnsupportedFeature):
                model.generate(request)
            return
        try:
            seen = self._ask(model, request)
        except (BadRequest, ServerFault):
            return  # the server knows that its model has no eyes, where the backend cannot; llama.cpp's says it by 500
        unseen = self._ask(model, "What is this?")
        if seen.usage.prompt_tokens is not None and unseen.usage.prompt_tokens is not None:
            assert seen.usage.prompt_tokens > unseen.usage.prompt_tokens
