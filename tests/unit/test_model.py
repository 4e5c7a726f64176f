import asyncio
import logging
import pickle
import threading
import time

import pytest
from attrs import evolve

from osport import Completion, ConstrainedOutput, Conversation, Delta, Message, Model, Request, Retries, Sampling, Tool
from osport.core.deadline import Deadline
from osport.core.stage import Stage
from osport.errors import (
    BadRequest,
    BudgetExceeded,
    ConstraintViolated,
    ContractViolation,
    RateLimited,
    ServerFault,
    TimedOut,
    Truncated,
    UnsupportedFeature,
    UsageError,
)
from osport.plugin import Backend, BackendSpec, Capabilities, hookimpl, register
from osport.plugin.registry import registry


class Scripted(Backend):
    """A fake that does what the test says, for faults that no real engine produces on demand."""

    def __init__(self, act, **capabilities):
        super().__init__("scripted")
        self.act = act
        self.able = Capabilities(**capabilities)
        self.closed = 0

    def capabilities(self):
        return self.able

    def generate(self, request):
        return self.act(request)

    def stream(self, request):
        yield from self.act(request)

    def close(self):
        self.closed += 1


def test_the_call_lays_its_sampling_over_the_request():
    request = Request([Message.user("hi")], sampling=Sampling(top_k=3, seed=1))
    answer = Model("echo:").generate(request, seed=2)
    assert (answer.effective["top_k"], answer.effective["seed"]) == (3, 2)


@pytest.mark.parametrize("prompt", ["hi", Message.user("hi"), [Message.user("hi")], Request([Message.user("hi")])])
def test_a_prompt_may_be_text_a_message_a_conversation_or_a_request(prompt):
    assert Model("echo:").generate(prompt).text == "hi"


def test_a_conversation_becomes_its_request():
    conversation = Conversation.from_anthropic(
        {"max_tokens": 3, "messages": [{"role": "user", "content": "hi there you"}]}
    )
    answer = Model("echo:").generate(conversation)
    assert (answer.text, answer.finish_reason) == ("hi there", "length")


def test_a_conversation_of_something_else_is_refused():
    with pytest.raises(UsageError, match="osport.Message"):
        Model("echo:").generate([{"role": "user", "content": "hi"}])


def test_an_unknown_parameter_lists_the_known_ones():
    with pytest.raises(UsageError, match="temprature.*temperature"):
        Model("echo:").generate("hi", temprature=1)


def test_tools_thinking_and_logprobs_are_options_of_the_call_and_refused_where_they_would_be_dropped():
    for option in ({"tools": [Tool("look_up")]}, {"thinking": True}, {"logprobs": 2}):
        with pytest.raises(UnsupportedFeature) as caught:
            Model(Scripted(None)).generate("hi", **option)
        assert caught.value.feature == next(iter(option))
    with pytest.raises(UsageError, match="logprobs"):
        Model("echo:").generate("hi", logprobs=-1)


def test_an_instance_takes_no_options():
    with pytest.raises(UsageError, match="slots"):
        Model(Scripted(None), slots=2)


def test_gates_run_before_the_first_call_and_close_the_backend():
    class Gate(Stage):
        def gate(self, facts):
            raise BudgetExceeded("too large", needed=2, available=1)

    backend = Scripted(None)
    with pytest.raises(BudgetExceeded):
        Model(backend, stages=[Gate()])
    assert backend.closed == 1


def test_stages_prepare_downwards_and_finish_upwards():
    trail = []

    class Step(Stage):
        def __init__(self, name):
            self.name = name

        def prepare(self, request, capabilities):
            trail.append(f"prepare {self.name}")
            return request

        def finish(self, completion, request, sent):
            trail.append(f"finish {self.name}")
            return completion

    Model("echo:", stages=[Step("a"), Step("b")], template=Step("t")).generate("hi", output=Step("o"))
    assert trail == [f"prepare {name}" for name in "abot"] + [f"finish {name}" for name in "toba"]


def test_a_stage_finishes_with_the_request_it_was_given_and_the_one_that_was_sent():
    seen = []

    class Louder(Stage):
        def prepare(self, request, capabilities):
            return evolve(request, messages=[Message.user(request.messages[0].content + "!")])

        def finish(self, completion, request, sent):
            seen.append((request.messages[0].content, sent.messages[0].content, sent.sampling.top_k))
            return completion

    Model("echo:", stages=[Louder(), Louder()]).generate("hi")
    assert seen == [("hi!", "hi!!", 0), ("hi", "hi!!", 0)]


class AskAgain(Stage):
    """Takes only "yes" for an answer, and asks twice more."""

    def finish(self, completion, request, sent):
        if completion.text != "yes":
            raise ConstraintViolated("not yes", completion)
        return completion

    def again(self, request, error, attempt):
        return evolve(request, sampling=Sampling(seed=attempt)) if attempt < 3 else None


def test_an_answer_that_does_not_pass_is_asked_again_with_something_changed():
    seeds = []

    def answer(request):
        seeds.append(request.sampling.seed)
        return Completion("yes" if len(seeds) == 3 else "no", "stop")

    assert Model(Scripted(answer), stages=[AskAgain()]).generate("hi").text == "yes"
    assert seeds == [0, 1, 2]
    seeds.clear()
    assert asyncio.run(Model(Scripted(answer), stages=[AskAgain()]).agenerate("hi")).text == "yes"
    assert seeds == [0, 1, 2]


def test_asking_again_ends_when_no_stage_knows_what_else_to_ask():
    asked = []

    def no(request):
        asked.append(request)
        return Completion("no", "stop")

    with pytest.raises(ConstraintViolated, match="not yes"):
        Model(Scripted(no), stages=[AskAgain()]).generate("hi")
    assert len(asked) == 3


SOON = Retries(most=2, first_wait=0.01)


def failing(times, error, then="ok"):
    """A fake engine that fails a few times, and how often it was asked."""
    asked = []

    def act(request):
        asked.append(request)
        if len(asked) <= times:
            raise error
        return Completion(then, "stop")

    return act, asked


def test_a_failure_that_may_pass_is_tried_again():
    act, asked = failing(2, ServerFault("for a moment"))
    answer = Model(Scripted(act), retries=SOON).generate("hi")
    assert (answer.text, len(asked)) == ("ok", 3)
    act, asked = failing(2, ServerFault("for a moment"))
    assert asyncio.run(Model(Scripted(act), retries=SOON).agenerate("hi")).text == "ok"


@pytest.mark.parametrize(
    ("error", "times"),
    [(ServerFault("for good"), 3), (BadRequest("wrong"), 1), (TimedOut("too slow"), 1)],
)
def test_other_failures_are_raised(error, times):
    act, asked = failing(9, error)
    with pytest.raises(type(error)):
        Model(Scripted(act), retries=SOON).generate("hi")
    assert len(asked) == times


def test_no_retry_begins_that_the_timeout_does_not_leave_room_for():
    act, asked = failing(9, RateLimited("later", retry_after=5))
    with pytest.raises(RateLimited):
        Model(Scripted(act)).generate("hi", timeout=1)
    assert len(asked) == 1


def test_nobody_waits_longer_than_the_longest_wait():
    act, asked = failing(9, RateLimited("later", retry_after=2))
    with pytest.raises(RateLimited):
        Model(Scripted(act), retries=Retries(most=2, first_wait=0.01, longest_wait=1)).generate("hi")
    assert len(asked) == 1


def test_later_attempts_have_the_time_that_is_left():
    act, asked = failing(1, RateLimited("later", retry_after=0.1))
    Model(Scripted(act), retries=SOON).generate("hi", timeout=5)
    assert asked[0].timeout == 5
    assert 4 < asked[1].timeout <= 4.9
    asked.clear()

    def again(request):
        asked.append(request)
        time.sleep(0.1)
        return Completion("yes" if len(asked) == 2 else "no", "stop")

    Model(Scripted(again), stages=[AskAgain()]).generate("hi", timeout=5)
    assert 4 < asked[1].timeout <= 4.9
    asked.clear()
    with pytest.raises(ConstraintViolated):
        Model(Scripted(again), stages=[AskAgain()]).generate("hi", timeout=0.05)
    assert len(asked) == 1


class AsksFirst(Scripted):
    """A fake whose capabilities a server has to be asked for."""

    limit = None

    def capabilities(self):
        self.limit = Deadline.after(600).seconds
        time.sleep(0.3)
        return super().capabilities()


@pytest.mark.parametrize("way", ["generate", "stream", "agenerate", "astream"])
def test_asking_for_the_capabilities_is_part_of_the_call_and_does_not_hold_up_the_loop(way):
    asked = []

    def act(request):
        asked.append(request)
        answer = Completion("a", "stop")
        return iter([Delta("a"), Delta("", answer)]) if "stream" in way else answer

    async def alone():
        """How long the loop stood still at most."""
        worst, last, task = 0.0, time.perf_counter(), asyncio.create_task(run())
        while not task.done():
            await asyncio.sleep(0.01)
            worst, last = max(worst, time.perf_counter() - last), time.perf_counter()
        await task
        return worst

    async def run():
        if way == "agenerate":
            await model.agenerate("hi", timeout=5)
        else:
            assert [piece.text async for piece in model.astream("hi", timeout=5)] == ["a", ""]

    model = Model(AsksFirst(act, stream=True))
    if way.startswith("a"):
        assert asyncio.run(alone()) < 0.25
    elif way == "generate":
        model.generate("hi", timeout=5)
    else:
        list(model.stream("hi", timeout=5))
    assert model.backend.limit == 5
    assert asked[0].timeout <= 4.7


def test_a_retry_waits_as_long_as_the_server_says():
    act, _ = failing(1, RateLimited("later", retry_after=0.3))
    started = time.perf_counter()
    answer = Model(Scripted(act), retries=SOON).generate("hi")
    assert time.perf_counter() - started >= 0.3
    assert answer.latency < 0.2  # of the attempt that answered


def test_a_stream_is_tried_again_only_before_its_first_piece():
    asked = []

    def act(request):
        asked.append(request)
        if len(asked) == 1:
            raise ServerFault("at once")
        yield Delta("a")
        if len(asked) == 2:
            raise ServerFault("in the middle")
        yield Delta("", Completion("a", "stop"))

    model = Model(Scripted(act, stream=True), retries=SOON)
    with pytest.raises(ServerFault, match="in the middle"):
        list(model.stream("hi"))
    assert len(asked) == 2
    assert [delta.text for delta in model.stream("hi")] == ["a", ""]

    async def consume():
        return [delta.text async for delta in model.astream("hi")]

    asked.clear()
    with pytest.raises(ServerFault, match="in the middle"):
        asyncio.run(consume())
    assert len(asked) == 2


class OwnBatch(Backend):
    """A fake engine with a batch of its own, in which one item fails and one answer does not conform."""

    def __init__(self, answers):
        super().__init__("own")
        self.answers = answers

    def capabilities(self):
        return Capabilities(batch=True)

    def generate(self, request):
        return Completion("yes", "stop")

    def batch(self, requests):
        self.got = [request.messages[0].content for request in requests]
        return self.answers


def test_an_engines_own_batch_keeps_order_and_isolates_errors():
    backend = OwnBatch([Completion("yes", "stop"), BadRequest("no"), Completion("maybe", "stop")])
    prompts = ["a", [Message.assistant("cannot be continued")], "c", "d"]
    answers = Model(backend, stages=[AskAgain()]).batch(prompts)
    assert backend.got == ["a", "c", "d"]
    assert [getattr(answer, "text", type(answer).__name__) for answer in answers] == [
        "yes",
        "UnsupportedFeature",
        "BadRequest",
        "yes",  # asked again alone
    ]


@pytest.mark.parametrize("answers", [[Completion("yes", "stop")], None, "ab"])
def test_an_engines_own_batch_must_answer_every_item(answers):
    got = Model(OwnBatch(answers)).batch(["a", [Message.assistant("cannot be continued")], "b"])
    assert [type(one) for one in got] == [ContractViolation, UnsupportedFeature, ContractViolation]
    assert "for a batch of 2 requests" in str(got[0])


class Faltering(OwnBatch):
    """A fake engine whose batch fails, and which counts what it is asked alone."""

    def __init__(self, answers, alone):
        super().__init__(answers)
        self.act = alone

    def generate(self, request):
        return self.act(request)

    def batch(self, requests):
        if isinstance(self.answers, Exception):
            raise self.answers
        return super().batch(requests)


def test_what_may_pass_is_tried_again_when_it_failed_in_an_engines_own_batch():
    act, asked = failing(1, ServerFault("still"))
    backend = Faltering([ServerFault("a"), BadRequest("b"), Completion("c", "stop"), TimedOut("d")], act)
    got = Model(backend, retries=SOON).batch(["a", "b", "c", "d"], concurrency=1)
    assert [getattr(one, "text", type(one).__name__) for one in got] == ["ok", "BadRequest", "c", "TimedOut"]
    assert [request.messages[0].content for request in asked] == ["a", "a"]  # its third attempt in all
    act, asked = failing(9, ServerFault("for good"))
    got = Model(Faltering([ServerFault("a")], act), retries=SOON).batch(["a"])
    assert [str(one) for one in got] == ["for good"]
    assert len(asked) == 2


def test_an_engines_own_batch_that_fails_as_a_whole_is_an_error_of_each_item_or_tried_again():
    act, asked = failing(0, None)
    got = Model(Faltering(ServerFault("died"), act), retries=SOON).batch(["a", "b"])
    assert [one.text for one in got] == ["ok", "ok"]
    for error, kind in ((BadRequest("no"), BadRequest), (ZeroDivisionError("x"), ContractViolation)):
        got = Model(Faltering(error, act), retries=SOON).batch(["a", "b"])
        assert [type(one) for one in got] == [kind, kind]
    assert len(asked) == 2


def test_asking_again_for_an_item_of_a_batch_has_the_time_that_the_batch_left():
    asked = []

    def alone(request):
        asked.append(request)
        return Completion("yes", "stop")

    model = Model(Faltering([Completion("no", "stop", latency=2.0)], alone), stages=[AskAgain()])
    assert model.batch(["a"], timeout=5)[0].text == "yes"
    assert 2 < asked[0].timeout <= 3
    model = Model(Faltering([Completion("no", "stop", latency=6.0)], alone), stages=[AskAgain()])
    (late,) = model.batch(["a"], timeout=5)
    assert isinstance(late, ConstraintViolated)
    assert len(asked) == 1


def test_no_retry_of_a_batch_begins_that_the_timeout_does_not_leave_room_for():
    act, asked = failing(0, None)
    got = Model(Faltering([RateLimited("later", retry_after=5)], act)).batch(["a"], timeout=1)
    assert isinstance(got[0], RateLimited)
    assert not asked


def test_names_of_backend_and_model_are_filled_into_errors():
    def fail(request):
        raise ServerFault("gone")

    with pytest.raises(ServerFault) as caught:
        Model(Scripted(fail)).generate("hi")
    assert (caught.value.backend, caught.value.model) == ("Scripted", "scripted")
    assert caught.value.retryable


def test_a_feature_that_is_missing_names_the_backends_that_have_it():
    with pytest.raises(UnsupportedFeature) as caught:
        list(Model(Scripted(None)).stream("hi"))
    assert "echo" in caught.value.alternatives
    assert "echo" in str(caught.value)


@pytest.mark.parametrize("wrong", [lambda request: 42, lambda request: 1 / 0])
def test_a_backend_that_breaks_the_contract_is_named(wrong):
    with pytest.raises(ContractViolation, match="Scripted"):
        Model(Scripted(wrong)).generate("hi")


@pytest.mark.parametrize("pieces", [[Delta("a")], ["a"], []])
def test_a_stream_without_a_completion_breaks_the_contract(pieces):
    with pytest.raises(ContractViolation):
        list(Model(Scripted(lambda request: pieces, stream=True)).stream("hi"))


def test_the_clock_measures_what_the_backend_does_not():
    assert Model(Scripted(lambda request: Completion("x", "stop"))).generate("hi").latency > 0
    recorded = Model(Scripted(lambda request: Completion("x", "stop", latency=4.5))).generate("hi")
    assert recorded.latency == 4.5


def test_a_stream_measures_the_time_to_the_first_token():
    def slowly(request):
        yield Delta("")
        threading.Event().wait(0.05)
        yield Delta("a")
        yield Delta("", Completion("a", "stop"))

    last = list(Model(Scripted(slowly, stream=True)).stream("hi"))[-1].completion
    assert 0.05 <= last.ttft <= last.latency


def test_leaving_a_stream_closes_the_backends_iterator():
    closed = []

    def endless(request):
        try:
            while True:
                yield Delta("a")
        finally:
            closed.append(True)

    model = Model(Scripted(endless, stream=True))
    pieces = model.stream("hi")
    next(pieces)
    pieces.close()
    assert closed == [True]

    async def leave():
        pieces = model.astream("hi")
        async for _ in pieces:
            break
        await pieces.aclose()

    asyncio.run(leave())
    for _ in range(100):
        if len(closed) == 2:
            break
        threading.Event().wait(0.02)
    assert closed == [True, True]


def test_async_stream_raises_what_the_backend_raises():
    def fails(request):
        yield Delta("a")
        raise ServerFault("died")

    async def consume():
        return [delta.text async for delta in Model(Scripted(fails, stream=True)).astream("hi")]

    with pytest.raises(ServerFault, match="died"):
        asyncio.run(consume())


def test_a_batch_has_one_answer_or_one_error_an_item_in_order():
    model = Model("echo:", script=lambda request: ServerFault("no") if request.messages[0].content == "3" else "ok")
    answers = model.batch([str(n) for n in range(6)], concurrency=3)
    assert [type(answer).__name__ for answer in answers] == ["Completion"] * 3 + ["ServerFault"] + ["Completion"] * 2


def test_a_batch_really_runs_at_once():
    together = threading.Barrier(3, timeout=5)

    def meet(request):
        together.wait()
        return Completion("met", "stop")

    answers = Model(Scripted(meet)).batch(["a", "b", "c"], concurrency=3)
    assert [answer.text for answer in answers] == ["met"] * 3


def test_a_batch_needs_a_worker():
    with pytest.raises(UsageError, match="concurrency"):
        Model("echo:").batch(["a"], concurrency=0)


@pytest.mark.parametrize(
    ("options", "form"),
    [({"tools": [Tool("look_up")]}, ()), ({"logprobs": 2}, ()), ({}, (ConstrainedOutput.choice(["a", "b"]),))],
)
def test_a_score_refuses_what_it_would_drop(options, form):
    class Scores(Scripted):
        def score(self, request, continuations):
            raise AssertionError("dropped")

    able = Scores(None, score=True, tools=True, logprobs=True, constraints=frozenset({"choice"}))
    with pytest.raises(UnsupportedFeature, match="of a score"):
        Model(able, stages=form).score("hi", ["a"], **options)


def test_what_a_constructor_raises_names_the_backend():
    class Broken(Backend):
        def __init__(self, model):
            raise KeyError(model)

    register(BackendSpec("broken", Broken))
    with pytest.raises(ContractViolation, match="backend 'broken' raised KeyError: 'x'"):
        Model("broken:x")
    with pytest.raises(ContractViolation, match="unexpected keyword argument 'slots'"):
        Model("broken:x", slots=2)
    registry.cache_clear()


def test_what_close_raises_names_the_backend():
    class Broken(Scripted):
        def close(self):
            raise RuntimeError("stuck")

    model = Model(Broken(None))
    with pytest.raises(ContractViolation, match="backend 'Broken' raised RuntimeError: stuck"):
        model.close()


def test_a_model_crosses_to_no_other_process():
    with pytest.raises(UsageError, match="make it where it is used"):
        pickle.dumps(Model("echo:"))


def test_a_call_after_close_is_a_usage_error():
    with Model("echo:") as model:
        pass
    for call in (model.generate, model.count_tokens):
        with pytest.raises(UsageError, match=r"after close\(\)"):
            call("hi")
    assert repr(model) == "Model('echo:', closed)"


def test_a_model_is_loaded_before_its_first_call_where_that_is_asked_for():
    class Slow(Scripted):
        loaded = 0

        def load(self):
            self.loaded += 1

    with Model(Slow(None)) as model:
        model.load()
        assert model.backend.loaded == 1
    with pytest.raises(UsageError, match=r"after close\(\)"):
        model.load()


def test_output_is_parsed_and_verified():
    form = ConstrainedOutput.choice(["pos", "neg"])
    answer = Model("echo:").generate("hi", output=form)
    assert (answer.parsed, answer.enforcement.verified) == ("pos", True)


def test_a_broken_form_is_an_error_with_the_completion_in_it():
    with pytest.raises(ConstraintViolated) as caught:
        Model("echo:", script=["maybe"]).generate("hi", output=ConstrainedOutput.choice(["pos", "neg"]))
    assert caught.value.completion.text == "maybe"
    assert caught.value.enforcement.by == "none"


def test_a_stream_checks_its_form_at_the_end():
    pieces = Model("echo:", script=["maybe"]).stream("hi", output=ConstrainedOutput.choice(["pos", "neg"]))
    assert next(pieces).text == "maybe"
    with pytest.raises(ConstraintViolated):
        list(pieces)


def test_half_a_document_is_truncated_and_never_returned():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    with pytest.raises(Truncated) as caught:
        Model("echo:", script=['{"a": "long"}']).generate(
            "hi", output=ConstrainedOutput.json_schema(schema), max_tokens=3
        )
    assert caught.value.completion.finish_reason == "length"


@pytest.fixture
def observer(monkeypatch):
    class Observer:
        def __init__(self):
            self.records = []
            self.fail = False

        @hookimpl
        def osport_call_finished(self, record):
            self.records.append(record)
            if self.fail:
                raise RuntimeError("an observer that fails")

    seen = Observer()
    manager = registry()._hooks().manager
    manager.register(seen, name="observer")
    yield seen
    manager.unregister(seen)


def test_observers_hear_of_every_call(observer):
    model = Model("echo:", script=["a", BadRequest("no"), "b"])
    model.generate("one")
    with pytest.raises(BadRequest):
        model.generate("two")
    list(model.stream("three"))
    assert [(r.completion and r.completion.text, type(r.error).__name__) for r in observer.records] == [
        ("a", "NoneType"),
        (None, "BadRequest"),
        ("b", "NoneType"),
    ]
    assert all(record.seconds > 0 for record in observer.records)


def test_observers_hear_how_long_an_item_of_a_batch_took(observer):
    class Slow(OwnBatch):
        def batch(self, requests):
            time.sleep(0.2)
            return super().batch(requests)

    answers = [Completion("a", "stop", latency=0.05), Completion("b", "stop"), BadRequest("c")]
    got = Model(Slow(answers)).batch(["a", "b", "c"])
    assert got[0].latency == 0.05
    assert got[1].latency >= 0.2
    by_item = {record.request.messages[0].content: record.seconds for record in observer.records}
    assert 0.05 <= by_item["a"] < 0.2 <= by_item["b"]
    assert by_item["c"] >= 0.2


def test_observers_hear_of_calls_that_were_left(observer):
    def forever(request):
        while True:
            yield Delta("a")

    model = Model(Scripted(forever, stream=True))
    pieces = model.stream("left")
    next(pieces)
    pieces.close()

    async def leave():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Model(Scripted(lambda _: time.sleep(0.2))).agenerate("cancelled"), 0.05)

    asyncio.run(leave())
    left = [(r.request.messages[0].content, r.completion, r.error) for r in observer.records]
    assert left == [("left", None, None), ("cancelled", None, None)]


def test_observers_hear_nothing_of_a_score_that_succeeded(observer):
    class Scores(Scripted):
        def score(self, request, continuations):
            return ()

    Model(Scores(None, score=True)).score("hi", ["a"])
    assert observer.records == []


def test_what_an_observer_raises_is_logged_and_goes_no_further(observer, caplog):
    observer.fail = True
    with caplog.at_level(logging.ERROR, "osport.plugin"):
        assert Model("echo:").generate("hi").text == "hi"
    assert "an observer that fails" in caplog.text


def test_a_stream_that_is_cancelled_before_its_first_piece_leaves_no_thread_waiting():
    begun, free = threading.Event(), threading.Event()

    class Silent(Backend):
        def capabilities(self):
            return Capabilities(stream=True)

        def stream(self, request):
            begun.set()
            free.wait(60)
            yield Delta("late")

    async def read() -> None:
        async for _ in Silent("x").astream(Request([Message.user("hi")])):
            pass

    async def cancelled() -> None:
        task = asyncio.create_task(read())
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # asyncio.run waits for the threads that it lent.
    runner = threading.Thread(target=asyncio.run, args=(cancelled(),), daemon=True)
    runner.start()
    runner.join(10)
    stuck = runner.is_alive()
    free.set()
    assert not stuck
