"""For every check of the conformance kit a backend that breaks just that part of the contract.

They fake no engine: each is one fault that a real one would not show when it is wanted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time

from attrs import evolve
from whole_backend import CONTEXT, Whole

from osport.core.types import DEFAULT_SAMPLING, ContinuationScore, TokenLogprob
from osport.errors import BadRequest, OsportError, TimedOut
from osport.plugin import Delta, Enforcement, Fact, ModelFacts, ToolCall, Usage

BROKEN = []  # of a check and a backend that it must catch; some checks have several


class EngineBroke(Exception):
    """What an engine may raise that is no error of osport's."""


def caught_by(check):
    """Class decorator: this backend must fail that check."""

    def listed(backend):
        BROKEN.append((check, backend))
        return backend

    return listed


def giving(check, **changes):
    """A backend whose every completion is changed like this; a callable gets completion and request."""

    class Giving(Whole):
        def finished(self, completion, request):
            new = {name: value(completion, request) if callable(value) else value for name, value in changes.items()}
            return evolve(completion, **new)

    caught_by(check)(Giving)


class Streaming(Whole):
    """The completion that ends a stream, changed; the whole answer is right."""

    def stream(self, request):
        for piece in super().stream(request):
            yield piece if piece.completion is None else evolve(piece, completion=self.ended(piece.completion))


class Jamming(Whole):
    """An engine that may be left jammed by something."""

    jammed = False

    def answer(self, request):
        if self.jammed:
            raise BadRequest("the engine is still at work on something else")
        yield from super().answer(request)


# chat

giving("test_it_answers_chat", finish_reason="eos")
giving("test_a_prefill_is_continued_or_refused", text=lambda completion, request: request.messages[-1].content)


@caught_by("test_it_answers_raw_prompts_or_refuses_them")
class TemplateAroundARawPrompt(Whole):
    def prompt_tokens(self, request):
        return super().prompt_tokens(request) + (50 if request.prompt is not None else 0)


@caught_by("test_text_of_any_script_passes")
class AsciiOnly(Whole):
    def text(self, request):
        for message in request.messages:
            message.content.encode("ascii")
        return super().text(request)


@caught_by("test_no_turn_of_a_conversation_is_lost")
class LastTurnOnly(Whole):
    def answer(self, request):
        return super().answer(evolve(request, messages=request.messages[-1:]))


@caught_by("test_images_are_taken_or_refused")
class Blind(Whole):
    def count_tokens(self, messages):
        return super().count_tokens([evolve(message, images=()) for message in messages])


# stream


@caught_by("test_a_stream_adds_up_or_is_refused")
class FirstPieceLost(Whole):
    def stream(self, request):
        yield from itertools.islice(super().stream(request), 1, None)


@caught_by("test_only_the_last_piece_carries_the_completion")
class CompletionTwice(Whole):
    def stream(self, request):
        pieces = list(super().stream(request))
        yield from (*pieces[:-2], evolve(pieces[-2], completion=pieces[-1].completion), pieces[-1])


@caught_by("test_a_stream_comes_piece_by_piece")
class AllAtOnce(Whole):
    def stream(self, request):
        whole = self.generate(request)
        yield from (Delta(whole.text), Delta("", whole))


@caught_by("test_a_streamed_answer_equals_the_whole_one")
class OtherTextInAStream(Whole):
    def stream(self, request):
        *pieces, last = super().stream(request)
        yield from (*pieces, Delta(" Well."))
        yield Delta("", evolve(last.completion, text=last.completion.text + " Well."))


@caught_by("test_a_streamed_answer_records_what_was_sent")
class NothingOnRecordInAStream(Streaming):
    def ended(self, completion):
        return evolve(completion, effective={})


@caught_by("test_the_first_token_comes_before_the_last")
class FirstTokenAfterTheLast(Streaming):
    def ended(self, completion):
        return evolve(completion, ttft=completion.latency + 1)


# async


@caught_by("test_agenerate_answers_as_generate_does")
class OtherTextInAsync(Whole):
    async def agenerate(self, request):
        return evolve(await super().agenerate(request), text="Well.")


@caught_by("test_astream_answers_as_stream_does")
class LastWordLostInAsync(Whole):
    async def astream(self, request):
        *pieces, _lost, last = self.stream(request)
        for piece in (*pieces, last):
            yield piece


@caught_by("test_the_loop_is_not_held_up")
class BlockingAsync(Whole):
    pace = 0.001

    async def agenerate(self, request):
        return self.generate(request)


@caught_by("test_an_async_stream_that_is_left_leaves_the_model_usable")
class JammedByALeftAsyncStream(Jamming):
    async def astream(self, request):
        pieces = list(self.stream(request))
        self.jammed = True
        for piece in pieces:
            yield piece
        self.jammed = False


# batch


@caught_by("test_a_batch_keeps_its_order")
class BatchBackwards(Whole):
    def batch(self, requests):
        return super().batch(requests)[::-1]


@caught_by("test_a_batch_isolates_an_item_that_fails")
class OneBadItemLosesTheBatch(Whole):
    def generate_or_error(self, request):
        return self.generate(request)


@caught_by("test_threads_may_share_a_model")
class OneThreadOnly(Whole):
    pace = 0.002

    def answer(self, request):
        if self.engine.locked():
            raise BadRequest("two threads at once")
        yield from super().answer(request)


# cancel


@caught_by("test_a_stream_that_is_left_leaves_the_model_usable")
class JammedByALeftStream(Jamming):
    def stream(self, request):
        pieces = list(super().stream(request))
        self.jammed = True
        yield from pieces
        self.jammed = False


@caught_by("test_leaving_a_stream_frees_the_engine")
class FinishesWhatNobodyReads(Whole):
    pace = 0.003
    owed = 0

    def stream(self, request):
        unread = request.sampling.max_tokens
        pieces = super().stream(request)
        try:
            for piece in pieces:
                unread -= 1
                yield piece
        except GeneratorExit:
            self.owed = unread
            raise
        finally:
            pieces.close()

    def answer(self, request):
        # One by one, as they were read: on a busy machine many short naps take longer than one long one.
        owed, self.owed = self.owed, 0
        for _ in range(owed):
            time.sleep(self.pace)
        yield from super().answer(request)


@caught_by("test_a_cancelled_task_leaves_the_model_usable")
class JammedByACancelledTask(Jamming):
    pace = 0.001

    async def agenerate(self, request):
        try:
            return await super().agenerate(request)
        except asyncio.CancelledError:
            self.jammed = True
            raise


@caught_by("test_cancelling_a_task_frees_the_engine")
class FinishesWhatNobodyAwaits(Whole):
    """Its answer goes on on a thread, which the next call waits for."""

    pace = 0.003


@caught_by("test_cancelling_a_task_frees_the_engine")
class HoldsUpTheCancelling(Whole):
    pace = 0.003

    async def agenerate(self, request):
        working = asyncio.create_task(asyncio.to_thread(self.generate, request))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await working
            raise


@caught_by("test_a_timeout_ends_a_call")
class TakesItsTime(Whole):
    pace = 0.005

    def answer(self, request):
        return super().answer(evolve(request, timeout=None))


@caught_by("test_a_timeout_ends_a_call")
class NoticesItsTimeoutLate(Whole):
    pace = 0.005

    def answer(self, request):
        yield from super().answer(evolve(request, timeout=None))
        if request.timeout is not None:
            raise TimedOut("it was over long ago")


# errors


@caught_by("test_an_unknown_option_is_refused")
class SwallowsOptions(Whole):
    def __init__(self, model="", **options):
        super().__init__(model)


@caught_by("test_a_prompt_that_does_not_fit_is_refused")
class TrimsThePrompt(Whole):
    def prompt_tokens(self, request):
        return min(CONTEXT, super().prompt_tokens(request))


@caught_by("test_after_an_error_the_model_still_answers")
class JammedByAnError(Jamming):
    def answer(self, request):
        try:
            yield from super().answer(request)
        except OsportError:
            self.jammed = True
            raise


@caught_by("test_a_malformed_form_is_an_error_and_no_more")
class AnswersFreelyInsteadOfFailing(Whole):
    def text(self, request):
        try:
            return super().text(request)
        except OsportError:
            return super().text(evolve(request, constraint=None))


@caught_by("test_a_key_is_never_shown")
class ShowsItsKey(Whole):
    kit_options = {"api_key": lambda: "sk-very-secret"}

    def __init__(self, model="", *, api_key):
        super().__init__(model)
        self.headers = {"Authorization": f"Bearer {api_key()}"}


# constraints

giving("test_an_answer_says_who_enforced_its_form", enforcement=Enforcement())
giving("test_a_form_cut_short_is_truncated", finish_reason="stop")


@caught_by("test_a_form_is_kept_or_refused")
class DropsTheForm(Whole):
    def text(self, request):
        return super().text(evolve(request, constraint=None))


@caught_by("test_a_form_that_is_enforced_cannot_be_talked_out_of")
class GuessesTheForm(Whole):
    """Right for what anybody would have answered."""

    def text(self, request):
        if request.constraint is not None and "neg" not in str(request.constraint.value):
            return "blue"
        return super().text(request)


@caught_by("test_a_streamed_form_is_kept")
class DropsTheFormInAStream(Whole):
    def stream(self, request):
        yield from super().stream(evolve(request, constraint=None))


giving("test_a_form_holds_behind_a_thought_or_that_is_refused", reasoning=None)


@caught_by("test_a_form_does_not_outlive_its_call")
class KeepsTheForm(Whole):
    kept = None

    def text(self, request):
        self.kept = request.constraint or self.kept
        return super().text(evolve(request, constraint=self.kept))


# tools

giving("test_a_required_tool_is_called_or_refused", tool_calls=(), finish_reason="stop", text="The tide is high.")
giving("test_only_a_tool_that_was_offered_is_called", tool_calls=(ToolCall("1", "moon_at", {}),))
giving("test_arguments_are_those_that_the_schema_allows", tool_calls=(ToolCall("1", "tide_at", {"harbour": "Rome"}),))
giving(
    "test_no_tool_is_called_when_none_may_be",
    tool_calls=lambda completion, request: (ToolCall("1", "tide_at", {}),) if request.tools else (),
)


@caught_by("test_the_result_of_a_tool_reaches_the_model")
class LosesToolTurns(Whole):
    def count_tokens(self, messages):
        return super().count_tokens([m for m in messages if m.role != "tool" and not m.tool_calls])


@caught_by("test_a_streamed_call_is_whole")
class LosesCallsInAStream(Streaming):
    def ended(self, completion):
        return evolve(completion, tool_calls=())


# thinking

giving("test_thinking_off_is_kept_or_refused", reasoning="Let me see.")
giving("test_reasoning_is_kept_apart_from_the_answer", text="<think>Let me see.</think>Blue.")


@caught_by("test_every_way_of_thinking_is_taken_or_refused")
class SwitchOnly(Whole):
    def answer(self, request):
        if isinstance(request.thinking, str):
            raise TypeError("thinking must be a bool")
        yield from super().answer(request)


# logprobs

giving("test_logprobs_are_given_or_refused", logprobs=lambda completion, request: completion.logprobs[:-1])
giving(
    "test_as_many_alternatives_as_asked",
    logprobs=lambda completion, request: tuple(
        evolve(t, top={"a": -1.0, "b": -2.0, "c": -3.0, "d": -4.0}) for t in completion.logprobs
    ),
)
giving(
    "test_a_greedy_answer_takes_the_likeliest",
    logprobs=lambda completion, request: tuple(
        evolve(one, logprob=-4.0, top=other.top)
        for one, other in zip(completion.logprobs, completion.logprobs[1:] + completion.logprobs[:1], strict=True)
    ),
)


@caught_by("test_continuations_are_scored_or_that_is_refused")
class ScoresTheFirstToken(Whole):
    def score(self, request, continuations):
        return tuple(evolve(score, tokens=score.tokens[:1]) for score in super().score(request, continuations))


@caught_by("test_what_is_likely_scores_above_nonsense")
class ScoresAlike(Whole):
    def score(self, request, continuations):
        return tuple(ContinuationScore(t, (TokenLogprob(t, -1.0),)) for t in continuations)


@caught_by("test_a_score_is_the_models_own")
class ScoresWithTheTemperature(Whole):
    def score(self, request, continuations):
        divisor = request.sampling.temperature or 1.0
        return tuple(
            evolve(score, tokens=tuple(evolve(t, logprob=t.logprob / divisor) for t in score.tokens))
            for score in super().score(request, continuations)
        )


# sampling

giving("test_effective_records_every_parameter", effective={})
giving("test_a_sampling_parameter_is_sent_or_refused", effective=DEFAULT_SAMPLING.given)


@caught_by("test_max_tokens_is_kept")
class TalksOn(Whole):
    def answer(self, request):
        return super().answer(evolve(request, sampling=evolve(request.sampling, max_tokens=20)))


@caught_by("test_stop_strings_are_kept")
class NeverStops(Whole):
    def answer(self, request):
        return super().answer(evolve(request, sampling=evolve(request.sampling, stop=())))


@caught_by("test_temperature_and_seed_reach_the_engine")
class AlwaysGreedy(Whole):
    def draw(self, request):
        return "greedy"


# determinism

giving("test_every_answer_has_a_label", determinism="surely")


@caught_by("test_greedy_answers_repeat")
class NeverTheSame(Whole):
    def draw(self, request):
        return os.urandom(8)


@caught_by("test_what_is_labelled_repeatable_repeats")
class ForgetsTheSeed(Whole):
    def draw(self, request):
        return os.urandom(8) if request.sampling.temperature else "greedy"


# usage

giving("test_counts_make_sense", usage=Usage(5, 5, cached_tokens=6))


@caught_by("test_a_streamed_answer_is_counted_alike")
class NotCountedInAStream(Streaming):
    def ended(self, completion):
        return evolve(completion, usage=Usage())


@caught_by("test_tokens_are_counted_or_that_is_refused")
class CountsWithoutTheTemplate(Whole):
    def prompt_tokens(self, request):
        return super().prompt_tokens(request) + 1


# lifecycle


@caught_by("test_it_is_found_through_its_entry_point")
class NotInstalled(Whole):
    kit_reference = "nobody:x"


@caught_by("test_features_name_all_that_it_can_do")
class ModestFeatures(Whole):
    features = Whole.features - {"tools"}


@caught_by("test_facts_name_their_sources")
class FactsFromNowhere(Whole):
    def facts(self):
        return ModelFacts({**super().facts().known, "license": Fact("mit", "")})


@caught_by("test_it_is_quiet")
class Chatty(Whole):
    def text(self, request):
        os.write(2, b"llama_model_loader: loaded meta data\n")
        return super().text(request)


@caught_by("test_it_can_be_loaded_before_it_is_asked")
class LoadsOnce(Whole):
    loaded = False

    def load(self):
        if self.loaded:
            raise BadRequest("the weights are there already")
        self.loaded = True


@caught_by("test_closing_twice_is_harmless")
class ClosesOnce(Whole):
    def close(self):
        if self.closed:
            raise EngineBroke("closed already")
        super().close()


@caught_by("test_a_call_after_closing_is_an_error")
class AnswersFromTheGrave(Whole):
    def close(self):
        pass


@caught_by("test_it_can_be_opened_again")
class LeavesItsLockBehind(Whole):
    taken = False

    def text(self, request):
        if self.closed is False and type(self).taken:
            raise BadRequest("the port is in use")
        return super().text(request)

    def close(self):
        super().close()
        type(self).taken = True
