"""llama-cpp-python, in its child process and in this one; here the guards keep the test run alive."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import pytest
from asking import SCHEMA, ask

from osport.backends.llama_cpp import LlamaCppBackend
from osport.constrained.masks import TokenMask
from osport.errors import (
    BackendError,
    BadRequest,
    ContextOverflow,
    FormatError,
    ModelNotFound,
    TemplateError,
    TimedOut,
    UnsupportedFeature,
    UsageError,
)
from osport.plugin import Constraint, Message, Request, Sampling

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def backend(model_path):
    with LlamaCppBackend(str(model_path), context=512, threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def inside(model_path):
    with LlamaCppBackend(str(model_path), context=512, threads=1, in_process=True) as made:
        made.load()
        yield made


@pytest.fixture(scope="module", params=["child", "in-process"])
def each(request):
    return request.getfixturevalue("backend" if request.param == "child" else "inside")


@pytest.fixture(params=[False, True], ids=["child", "in-process"])
def fresh(request, model_path):
    with LlamaCppBackend(str(model_path), context=512, threads=1, in_process=request.param) as made:
        yield made


# What would end this process.


@pytest.mark.parametrize(
    "gbnf", ["root ::= undefined-rule", "root ::= (", "# nothing", 'other ::= "a"', 'root ::= root "a"']
)
def test_a_grammar_that_does_not_parse_is_an_error(each, gbnf):
    for call in (each.generate, lambda request: list(each.stream(request))):
        with pytest.raises(BadRequest, match="GBNF"):
            call(ask(constraint=Constraint("grammar", gbnf)))
    assert each.generate(ask()).text


def test_a_call_after_close_is_an_error(fresh):
    fresh.generate(ask())
    fresh.close()
    fresh.close()
    for call in (fresh.generate, lambda request: list(fresh.stream(request))):
        with pytest.raises(UsageError, match="closed"):
            call(ask())
    with pytest.raises(UsageError, match="closed"):
        fresh.count_tokens([Message.user("hi")])


def test_a_stream_read_on_after_close_is_an_error(fresh):
    pieces = fresh.stream(ask(max_tokens=50))
    assert next(pieces).text
    fresh.close()
    with pytest.raises(UsageError, match="closed"):
        list(pieces)


def test_close_while_another_thread_generates_is_an_error_there(fresh):
    outcome: list[object] = []
    begun = threading.Event()

    def read() -> None:
        try:
            for _ in fresh.stream(ask("Write a long story.", max_tokens=400)):
                begun.set()
        except UsageError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    fresh.close()
    reader.join(60)
    assert len(outcome) == 1


def test_threads_on_one_model_wait_for_one_another(each):
    alone = {text: each.generate(ask(text)).text for text in ("Say hi", "Count to five", "Name a colour")}
    together: dict[str, list[object]] = {text: [] for text in alone}

    def call(text: str) -> None:
        together[text].append(each.generate(ask(text)).text)
        together[text].append(list(each.stream(ask(text)))[-1].completion.text)

    threads = [threading.Thread(target=call, args=(text,)) for text in alone for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert together == {text: [answer] * 4 for text, answer in alone.items()}


def test_an_empty_grammar_is_not_taken_for_none(backend, server):
    for engine in (backend, server):
        with pytest.raises(UsageError, match="empty"):
            engine.generate(ask(constraint=Constraint("grammar", " ")))


# What would never come back.


def test_a_thread_that_would_wait_for_itself_is_told(each):
    pieces = each.stream(ask(max_tokens=50))
    next(pieces)
    with pytest.raises(UsageError, match="still reading a stream"):
        each.generate(ask())
    pieces.close()
    assert each.generate(ask()).text


def test_waiting_for_a_stream_that_nobody_reads_has_an_end(each):
    pieces = each.stream(ask(max_tokens=50))
    next(pieces)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            each.generate(Request((Message.user("hi"),), timeout=0.2))
        except TimedOut as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(30)
    pieces.close()
    assert len(raised) == 1


def test_an_answer_that_takes_too_long_is_stopped(each):
    late = Request((Message.user("Write a long story."),), sampling=Sampling(max_tokens=400), timeout=0.2)
    with pytest.raises(TimedOut, match=r"0\.2 s"):
        each.generate(late)
    assert each.generate(ask()).text


# Answers.


def test_both_llama_cpp_backends_read_the_same_prompt_and_count_alike(backend, server):
    conversation = (Message.system("Be brief."), Message.user("What is 2 + 2?"))
    request = Request(conversation, sampling=Sampling(max_tokens=4))
    ours, theirs = backend.generate(request), server.generate(request)
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens == backend.count_tokens(conversation)
    assert ours.usage.completion_tokens == theirs.usage.completion_tokens == 4
    assert ours.text == theirs.text


def test_a_stream_adds_up_to_the_answer(each):
    *pieces, last = each.stream(ask())
    assert last.completion.text == "".join(piece.text for piece in pieces) == each.generate(ask()).text
    assert len(pieces) > 2
    assert last.completion.finish_reason == "length"
    assert 0 < last.completion.ttft < last.completion.latency


def test_a_prefill_is_continued_and_not_repeated(backend, server):
    request = Request(
        (Message.user("Give me JSON."), Message.assistant('{"label": "')), sampling=Sampling(max_tokens=4)
    )
    assert backend.generate(request).text == server.generate(request).text


def test_characters_of_several_tokens_come_whole(each):
    prompt = "Repeat: 😀 日本語 é 😀 日本語 é 😀 日本語 é 😀 日本語"
    pieces = list(each.stream(Request(prompt=prompt, sampling=Sampling(max_tokens=24))))
    assert "\ufffd" not in "".join(piece.text for piece in pieces[:-2])
    assert any(ord(character) > 127 for piece in pieces for character in piece.text)


def test_stop_strings_end_the_answer_before_they_are_shown(backend):
    whole = backend.generate(ask("Count from one to ten.", max_tokens=24))
    stop = whole.text[9:14]
    pieces = list(backend.stream(ask("Count from one to ten.", max_tokens=24, stop=(stop,))))
    assert pieces[-1].completion.text == "".join(piece.text for piece in pieces) == whole.text.partition(stop)[0]
    assert pieces[-1].completion.finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(model_path):
    # With the prompt cache, the logits of a prompt seen before differ in their last bits.
    with LlamaCppBackend(str(model_path), context=256, threads=1, prompt_cache=False) as backend:
        first, again, other = (backend.generate(ask(temperature=1.5, seed=seed)).text for seed in (0, 0, 1))
    assert first == again != other


def test_the_prompt_cache_is_counted_and_can_be_switched_off(backend, model_path):
    backend.generate(ask("What is the capital of France?"))
    again = backend.generate(ask("What is the capital of France?"))
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    with LlamaCppBackend(str(model_path), context=256, threads=1, prompt_cache=False) as fresh:
        counts = [fresh.generate(ask()).usage.cached_tokens for _ in range(2)]
    assert counts == [0, 0]


def test_every_parameter_is_handed_on(inside, monkeypatch):
    handed: dict[str, object] = {}
    engine = inside._calls.engine
    generate = engine._llama.generate

    def spy(tokens, **parameters):
        handed.update(parameters, seed=engine._llama._seed)
        return generate(tokens, **parameters)

    monkeypatch.setattr(engine._llama, "generate", spy)
    sampling = {
        "temperature": 0.75,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.25,
        "repeat_penalty": 1.25,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.125,
        "seed": 11,
    }
    effective = inside.generate(ask(**sampling)).effective
    assert {name: effective[name] for name in sampling} == sampling
    handed["temperature"] = handed["temp"]
    assert {name: handed[name] for name in sampling} == sampling
    assert effective["max_tokens"] == 8
    assert json.loads(json.dumps(effective)) == effective


def test_an_answer_that_the_context_cuts_short_says_so(backend):
    endless = Constraint("regex", "[a-z ]{400,}")
    completion = backend.generate(ask("word " * 475, constraint=endless, max_tokens=400))
    assert completion.finish_reason == "length"
    assert completion.usage.prompt_tokens + completion.usage.completion_tokens == 512
    assert completion.effective["max_tokens"] == completion.usage.completion_tokens
    assert completion.effective["max_tokens_asked"] == 400


def test_a_prompt_beyond_the_context_is_refused_not_trimmed(each):
    with pytest.raises(ContextOverflow, match="the context 512"):
        each.generate(ask("word " * 600))


def test_an_empty_prompt_is_refused(backend):
    with pytest.raises(UsageError, match="empty"):
        backend.generate(Request(prompt=""))


# Constraints.


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (Constraint("json_schema", SCHEMA), r'\{"label":"(pos|neg)","note":".{0,4}"\}'),
        (Constraint("choice", ("yes", "no", "may be")), r"yes|no|may be"),
        (Constraint("regex", r"[A-C]{2}-[0-9]{3}"), r"[A-C]{2}-[0-9]{3}"),
        (Constraint("grammar", 'root ::= "left" | "right"'), r"left|right"),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
def test_forms_are_enforced_while_sampling(each, constraint, pattern, temperature):
    completion = each.generate(ask("Is it good?", constraint=constraint, max_tokens=60, temperature=temperature))
    assert re.fullmatch(pattern, completion.text)
    assert completion.finish_reason == "stop"
    assert completion.enforcement.by == "sampling"


def test_a_form_cut_by_max_tokens_is_not_called_finished(backend):
    completion = backend.generate(ask(constraint=Constraint("json_schema", SCHEMA), max_tokens=3))
    assert completion.finish_reason == "length"


def test_a_schema_that_the_engine_would_ignore_is_refused(backend):
    schema = {"type": "array", "uniqueItems": True}
    with pytest.raises(UnsupportedFeature, match="uniqueItems"):
        backend.generate(ask(constraint=Constraint("json_schema", schema)))


def test_stop_strings_cannot_cut_a_constrained_answer(backend, server):
    for engine in (backend, server):
        with pytest.raises(UsageError, match="constrained"):
            engine.generate(ask(constraint=Constraint("choice", ("a", "b")), stop=("b",)))


def test_a_fault_inside_the_engine_callback_is_raised_not_swallowed(inside, monkeypatch):
    def broken(self, scores):
        raise BackendError("the mask broke")

    monkeypatch.setattr(TokenMask, "apply", broken)
    with pytest.raises(BackendError, match="the mask broke"):
        inside.generate(ask(constraint=Constraint("choice", ("yes", "no"))))


def test_a_mask_that_is_never_asked_is_noticed(inside, monkeypatch):
    engine = inside._calls.engine
    generate = engine._llama.generate
    monkeypatch.setattr(
        engine._llama, "generate", lambda tokens, **given: generate(tokens, **{**given, "logits_processor": None})
    )
    with pytest.raises(BackendError, match="asked 0 times"):
        inside.generate(ask(constraint=Constraint("choice", ("yes", "no"))))


# The file, the options, the process.


def test_bad_files_and_options_are_found_at_once(model_path, tmp_path):
    with pytest.raises(ModelNotFound, match="does not exist"):
        LlamaCppBackend(str(tmp_path / "absent.gguf"))
    (tmp_path / "prose.gguf").write_text("This is not a model.")
    with pytest.raises(FormatError, match="not a GGUF"):
        LlamaCppBackend(str(tmp_path / "prose.gguf"))
    with pytest.raises(UsageError, match="did you mean 'threads'"):
        LlamaCppBackend(str(model_path), thread=2)
    with pytest.raises(UsageError, match="context=-1"):
        LlamaCppBackend(str(model_path), context=-1)


def test_a_model_that_the_engine_cannot_load_is_an_error_with_its_log(model_path, tmp_path):
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(model_path.read_bytes().replace(b"llama", b"lamma", 1))
    with LlamaCppBackend(str(odd)) as backend, pytest.raises(BackendError, match=r"does not load[\s\S]*lamma"):
        backend.generate(Request(prompt="hi"))


def test_a_model_without_a_template_answers_raw_prompts_only(model_path, tmp_path):
    bare = tmp_path / "bare.gguf"
    head, _, rest = model_path.read_bytes().partition(b"tokenizer.chat_template")
    bare.write_bytes(head + b"tokenizer.chat_templaXX" + rest)
    with LlamaCppBackend(str(bare), context=256, threads=1) as backend:
        with pytest.raises(TemplateError, match="no chat template"):
            backend.generate(ask())
        assert backend.generate(Request(prompt="Once", sampling=Sampling(max_tokens=2))).text


@pytest.mark.parametrize("where", ["child", "in-process"])
def test_loading_and_answering_print_nothing_and_leave_the_descriptors_alone(model_path, where):
    program = (
        "import sys, os, threading\n"
        "from osport.backends.llama_cpp import LlamaCppBackend\n"
        "from osport.plugin import Request, Sampling\n"
        "done = threading.Event()\n"
        "lines = 0\n"
        "def talk():\n"
        "    global lines\n"
        "    while not done.is_set():\n"
        "        os.write(1, b'x\\n'); lines += 1; done.wait(0.001)\n"
        "talker = threading.Thread(target=talk); talker.start()\n"
        "backend = LlamaCppBackend(sys.argv[1], context=256, threads=1, in_process=sys.argv[2] == 'in-process')\n"
        "backend.generate(Request(prompt='Once', sampling=Sampling(max_tokens=2)))\n"
        "done.set(); talker.join(); os.write(1, str(lines).encode())\n"
    )
    command = [sys.executable, "-c", program, str(model_path), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    *said, count = done.stdout.split("\n")
    assert said == ["x"] * int(count)


def test_facts_load_nothing(model_path):
    backend = LlamaCppBackend(str(model_path))
    assert backend.facts()["architecture"] == "llama"
    assert backend.facts()["engine"].startswith("llama-cpp-python 0.3")
    assert backend._calls.pid is None


def test_both_backends_describe_the_file_alike(backend, server):
    ours, theirs = backend.facts(), server.facts()
    assert {name: ours[name] for name in ours if name not in ("engine", "sha256")} == {
        name: theirs[name] for name in theirs if name not in ("engine", "sha256")
    }
