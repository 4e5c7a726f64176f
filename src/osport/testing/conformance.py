"""The contract of a backend, as tests that a third party inherits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, get_args

import pytest

from osport.constrained import ConstrainedOutput
from osport.core.capabilities import ALL_SAMPLING
from osport.core.types import Completion, FinishReason, Message, Request
from osport.errors import ContextOverflow, OsportError, UnsupportedFeature, UsageError
from osport.model import Model
from osport.plugin.registry import parse_reference, registry

__all__ = ["BackendConformance"]

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}
FORMS = {
    "json_schema": ConstrainedOutput.json_schema(SCHEMA),
    "choice": ConstrainedOutput.choice(["pos", "neg"]),
    "regex": ConstrainedOutput.regex("[a-c]{3}"),
    "grammar": ConstrainedOutput.grammar('root ::= "pos" | "neg"'),
}
A_VALUE_OTHER_THAN_THE_DEFAULT: Mapping[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 11,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "seed": 5,
    "stop": ("\n\n",),
}


class BackendConformance:
    """Inherit, set ``reference`` (and ``options``), and pytest runs the contract.

    What the backend's ``capabilities`` promise must work; what they do not promise must be refused.
    ``overflow``: a prompt that cannot fit the context, where there is such a thing.
    """

    reference: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    prompt: ClassVar[str] = "Tell me about the sea."
    overflow: ClassVar[str | None] = None

    @classmethod
    def make_model(cls) -> Model:
        """A fresh model; override it where a reference and options do not suffice."""
        return Model(cls.reference, **cls.options)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Iterator[Model]:
        """One model for the whole class."""
        with cls.make_model() as model:
            yield model

    def test_it_is_found_through_its_entry_point(self) -> None:
        """The registry knows the name."""
        assert parse_reference(self.reference).backend in {info.name for info in registry().backends()}

    def test_an_unknown_option_is_refused(self) -> None:
        """Options are not swallowed."""
        with pytest.raises(UsageError, match="no_such_option"):
            Model(self.reference, **self.options, no_such_option=1)

    def test_it_answers_chat(self, model: Model) -> None:
        """A completion is whole: text, finish reason, names, latency."""
        self._needs(model, chat=True)
        answer = model.generate(self.prompt, max_tokens=16) if self._takes(model, "max_tokens") else self._ask(model)
        assert isinstance(answer, Completion)
        assert isinstance(answer.text, str)
        assert answer.finish_reason in get_args(FinishReason)
        assert answer.backend
        assert answer.latency > 0
        for count in (answer.usage.prompt_tokens, answer.usage.completion_tokens):
            assert count is None or count >= 0

    def test_it_answers_raw_prompts_or_refuses_them(self, model: Model) -> None:
        """A raw prompt reaches the model as it is."""
        request = Request(prompt=self.prompt)
        if model.capabilities.raw_prompt:
            assert isinstance(self._ask(model, request).text, str)
        else:
            with pytest.raises(UnsupportedFeature):
                model.generate(request)

    def test_text_of_any_script_passes(self, model: Model) -> None:
        """Nothing chokes on umlauts, emoji, quotes, backslashes, line breaks."""
        assert isinstance(self._ask(model, 'Zürich 東京 \U0001f40b "\\n"\n\tend').text, str)

    def test_effective_records_every_parameter(self, model: Model) -> None:
        """What was sent can be read back, osport's defaults included."""
        answer = self._ask(model)
        assert not set(model.capabilities.sampling) - set(answer.effective)

    @pytest.mark.parametrize("name", sorted(ALL_SAMPLING))
    def test_a_sampling_parameter_is_sent_or_refused(self, model: Model, name: str) -> None:
        """No parameter is dropped."""
        value = A_VALUE_OTHER_THAN_THE_DEFAULT[name]
        if name in model.capabilities.sampling:
            answer = self._ask(model, **{name: value})
            assert answer.effective[name] == value or list(answer.effective[name]) == list(value)
        else:
            with pytest.raises(UnsupportedFeature, match=name):
                model.generate(self.prompt, **{name: value})

    def test_max_tokens_is_kept(self, model: Model) -> None:
        """The answer stops where it was told to, and says so."""
        self._needs(model, "max_tokens")
        answer = model.generate(self.prompt, max_tokens=2)
        assert answer.usage.completion_tokens in (None, 1, 2)
        assert answer.finish_reason == "length"

    def test_stop_strings_are_kept(self, model: Model) -> None:
        """The answer ends before the stop string."""
        self._needs(model, "stop")
        self._needs(model, "temperature")  # without it no answer repeats, so none can be stopped at a known word
        words = self._ask(model).text.split()
        if len(words) < 2:
            pytest.skip("the answer is too short to be stopped")
        answer = self._ask(model, stop=(words[1],))
        assert words[1] not in answer.text
        assert answer.finish_reason == "stop"

    def test_greedy_answers_repeat(self, model: Model) -> None:
        """Temperature 0 twice gives the same text."""
        self._needs(model, "temperature")
        assert self._ask(model).text == self._ask(model).text

    def test_streaming_gives_the_same_answer_or_is_refused(self, model: Model) -> None:
        """The deltas add up to the completion that ends the stream."""
        if not model.capabilities.stream:
            with pytest.raises(UnsupportedFeature):
                list(model.stream(self.prompt))
            return
        deltas = list(model.stream(self.prompt, **self._short(model)))
        assert all(delta.completion is None for delta in deltas[:-1])
        last = deltas[-1].completion
        assert last is not None
        assert "".join(delta.text for delta in deltas) == last.text
        assert not set(model.capabilities.sampling) - set(last.effective)
        if self._takes(model, "temperature"):
            whole = self._ask(model)
            assert (last.text, last.finish_reason, last.usage.completion_tokens) == (
                whole.text,
                whole.finish_reason,
                whole.usage.completion_tokens,
            )

    def test_a_stream_that_is_left_leaves_the_model_usable(self, model: Model) -> None:
        """Closing a stream half way frees the engine."""
        self._needs(model, stream=True)
        pieces = model.stream(self.prompt)
        assert next(pieces) is not None
        assert inspect.isgenerator(pieces)
        pieces.close()
        assert isinstance(self._ask(model).text, str)

    def test_async_answers(self, model: Model) -> None:
        """``agenerate`` and ``astream`` answer as their plain sisters do."""

        async def both() -> tuple[Completion, str]:
            whole = await model.agenerate(self.prompt, **self._short(model))
            if not model.capabilities.stream:
                return whole, whole.text
            pieces = [delta.text async for delta in model.astream(self.prompt, **self._short(model))]
            return whole, "".join(pieces)

        whole, streamed = asyncio.run(both())
        assert isinstance(whole, Completion)
        if self._takes(model, "temperature"):
            assert whole.text == streamed

    def test_a_batch_keeps_its_order_and_isolates_errors(self, model: Model) -> None:
        """One completion or one error for each item, in order."""
        prompts: list[Any] = [self.prompt, [Message.tool("x", tool_call_id="1")], self.prompt]
        if model.capabilities.tools:
            prompts.pop(1)
        answers = model.batch(prompts, concurrency=2, **self._short(model))
        assert len(answers) == len(prompts)
        assert isinstance(answers[0], Completion)
        assert isinstance(answers[-1], Completion)
        if len(prompts) == 3:
            assert isinstance(answers[1], OsportError)

    def test_threads_may_share_a_model(self, model: Model) -> None:
        """Calls from several threads at once all answer."""
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: self._ask(model), range(3)))
        assert all(isinstance(answer, Completion) for answer in answers)

    @pytest.mark.parametrize("kind", sorted(FORMS))
    def test_a_form_is_enforced_or_refused(self, model: Model, kind: str) -> None:
        """A constrained answer conforms, is verified, and says who enforced it."""
        if kind not in model.capabilities.constraints:
            with pytest.raises(UnsupportedFeature):
                model.generate(self.prompt, output=FORMS[kind])
            return
        answer = model.generate(self.prompt, output=FORMS[kind])
        FORMS[kind].verify(answer.text)
        assert answer.enforcement.by == model.capabilities.enforced_by
        assert answer.enforcement.engine
        if kind != "grammar":
            assert answer.parsed is not None
            assert answer.enforcement.verified

    def test_a_prefill_is_continued_or_refused(self, model: Model) -> None:
        """A trailing assistant message is no turn of its own."""
        request = [Message.user(self.prompt), Message.assistant("The sea is")]
        if model.capabilities.prefill:
            assert isinstance(self._ask(model, request).text, str)
        else:
            with pytest.raises(UnsupportedFeature):
                model.generate(request)

    def test_tokens_are_counted_or_that_is_refused(self, model: Model) -> None:
        """The count is the one that the engine reports."""
        if not model.capabilities.count_tokens:
            with pytest.raises(UnsupportedFeature):
                model.count_tokens(self.prompt)
            return
        assert model.count_tokens(self.prompt) == self._ask(model).usage.prompt_tokens

    def test_a_prompt_that_does_not_fit_is_refused(self, model: Model) -> None:
        """A long prompt is never trimmed."""
        if self.overflow is None:
            pytest.skip("no prompt is too long here")
        with pytest.raises(ContextOverflow):
            model.generate(self.overflow)
        assert isinstance(self._ask(model).text, str)

    def test_facts_name_their_sources(self, model: Model) -> None:
        """Every fact says where it comes from."""
        assert all(model.facts.fact(name).source for name in model.facts)

    def test_closing_twice_is_harmless_and_a_call_afterwards_is_an_error(self) -> None:
        """The process survives both."""
        model = self.make_model()
        self._ask(model)
        model.close()
        model.close()
        model.backend.close()
        with pytest.raises(OsportError):
            model.generate(self.prompt)
        with pytest.raises(OsportError):
            model.backend.generate(Request([Message.user(self.prompt)]))

    def _takes(self, model: Model, name: str) -> bool:
        return name in model.capabilities.sampling

    def _short(self, model: Model) -> dict[str, Any]:
        return {"max_tokens": 16} if self._takes(model, "max_tokens") else {}

    def _ask(self, model: Model, prompt: Any = None, **sampling: Any) -> Completion:
        return model.generate(prompt if prompt is not None else self.prompt, **{**self._short(model), **sampling})

    def _needs(self, model: Model, parameter: str = "", *, stream: bool = False, chat: bool = False) -> None:
        if parameter and not self._takes(model, parameter):
            pytest.skip(f"the backend declares no {parameter}")
        if stream and not model.capabilities.stream:
            pytest.skip("the backend declares no streaming")
        if chat and not model.capabilities.chat:
            pytest.skip("the backend declares no chat")
