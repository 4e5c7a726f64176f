"""A port from its file to its decision, on functions, echo and scripted backends."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from osport.core.types import Completion, Message, Usage
from osport.errors import StorageError, TemplateError, UsageError
from osport.evals import RunRecord
from osport.plugin import Backend, BackendSpec, Capabilities, register
from osport.plugin.registry import registry
from osport.port import Port

LABELS = ("pos", "neg", "neutral")
SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"enum": list(LABELS)}},
    "required": ["sentiment"],
    "additionalProperties": False,
}
REQUEST = {
    "model": "claude-haiku-4-5",
    "max_tokens": 30,
    "temperature": 0.5,
    "system": "You rate reviews.",
    "messages": [
        {"role": "user", "content": "<review>{{input}}</review>"},
        {"role": "assistant", "content": '{"sentiment": "'},
    ],
}
HEAD = """
[port]
name = "Reviews"
golden = "golden.jsonl"
few_shot = "few.jsonl"
scorer = "json:sentiment"
form = "schema.json"
margin = 0.05
candidate = "ported"
"""
PORTED = '[arms.ported]\nfunction = "arms.py:ported"\n'
FUNCTIONS = """
def label(text):
    return text.split()[-1]

def ported(text):
    return {"sentiment": label(text)}

def incumbent(text):
    return {"sentiment": "pos" if "3" in text else label(text)}

def constant(text):
    return {"sentiment": "pos"}

def broken(text):
    if "example" in text:
        return None
    if text.startswith("text 1 "):
        raise KeyError("lexicon")
    return {"sentiment": "great"} if text.startswith("text 2 ") else {"sentiment": label(text)}
"""


def write_items(path, stem, count):
    rows = [
        {"id": f"{stem}{n}", "input": f"{stem} {n} {LABELS[n % 3]}", "expected": {"sentiment": LABELS[n % 3]}}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def port(tmp_path):
    write_items(tmp_path / "golden.jsonl", "text", 12)
    write_items(tmp_path / "few.jsonl", "example", 3)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    (tmp_path / "arms.py").write_text(FUNCTIONS)

    def make(arms, head=HEAD):
        (tmp_path / "port.toml").write_text(head + arms)
        return Port.from_file(tmp_path / "port.toml")

    return make


@pytest.fixture
def scripted():
    """A backend that answers from a function and remembers what it was asked."""
    asked = []

    class Scripted(Backend):
        reply = staticmethod(lambda request: '{"sentiment":"pos"}')

        def generate(self, request):
            asked.append(request)
            answer = self.reply(request)
            return answer if isinstance(answer, Completion) else Completion(answer, "stop")

        def capabilities(self):
            return Capabilities(raw_prompt=True, prefill=True, constraints={"json_schema"}, constraint_engine="own")

    register(BackendSpec("scripted", Scripted))
    Scripted.asked = asked
    yield Scripted
    registry.cache_clear()


def arm(result, name):
    return next(a for a in result.arms if a.name == name)


def test_without_an_incumbent_the_decision_is_withheld_and_says_so(port, tmp_path):
    result = port(PORTED + '[arms.floor]\nfunction = "arms.py:constant"\n').run(tmp_path / "out")
    assert result.decision.verdict == "WITHHELD"
    assert "no incumbent" in result.decision.reason
    ported = arm(result, "ported")
    assert (ported.items, ported.valid, ported.right) == (12, 12, 12)
    assert arm(result, "floor").right == 4
    assert [(c.candidate, c.reference) for c in result.comparisons] == [("ported", "floor"), ("floor", "ported")]
    assert result.best_constant == pytest.approx(1 / 3)


def test_with_an_incumbent_the_rule_decides(port, tmp_path):
    arms = PORTED + '[arms.old]\nfunction = "arms.py:incumbent"\n'
    head = HEAD + 'incumbent = "old"\n'
    few = port(arms, head).run(tmp_path / "few")
    assert few.decision.verdict == "INCONCLUSIVE"
    assert "more items" in few.decision.reason
    write_items(tmp_path / "golden.jsonl", "text", 300)
    result = port(arms, head).run(tmp_path / "many")
    assert result.decision.verdict == "PASS"
    assert result.comparisons[0].better
    assert not result.comparisons[0].worse
    swapped = port('[arms.ported]\nfunction = "arms.py:incumbent"\n[arms.old]\nfunction = "arms.py:ported"\n', head)
    assert swapped.run(tmp_path / "swapped").decision.verdict == "FAIL"


def test_invalid_answers_and_errors_are_counted_apart(port, tmp_path):
    broken = arm(port('[arms.ported]\nfunction = "arms.py:broken"\n').run(tmp_path / "out"), "ported")
    assert broken.invalid == {"ConstraintViolated": 1}
    assert broken.errors == {"KeyError": 1}
    assert (broken.valid, broken.right) == (10, 10)
    assert broken.latency.p95.value == float("inf")


def test_pasted_sends_the_request_as_one_raw_prompt_and_reads_the_prefill_with_the_answer(port, tmp_path, scripted):
    scripted.reply = staticmethod(lambda request: 'neg"}' if " neg<" in request.prompt else 'pos" and so on')
    arms = '[arms.ported]\nmodel = "scripted:m"\nprompt = "pasted"\nrequest = "request.json"\n'
    arms += "sampling = {max_tokens = 9}\n"
    ported = arm(port(arms).run(tmp_path / "out"), "ported")
    prompts = {request.prompt for request in scripted.asked}
    assert 'You rate reviews.\n\nHuman: <review>text 1 neg</review>\n\nAssistant: {"sentiment": "' in prompts
    request = scripted.asked[-1]
    assert not request.messages
    assert (request.sampling.max_tokens, request.sampling.temperature) == (9, 0.5)
    assert request.constraint is None
    assert request.timeout == 300
    assert (ported.valid, ported.right, ported.invalid) == (4, 4, {"ConstraintViolated": 8})
    sampling = ported.settings["arm"]["sampling"]
    assert (sampling["max_tokens"], sampling["temperature"], sampling["top_k"]) == (9, 0.5, 0)


def test_chat_sends_few_shot_turns_and_the_constraint(port, tmp_path, scripted):
    arms = (
        '[arms.ported]\nmodel = "scripted:m"\nsystem = "Rate."\nuser = "Review: {{input}}"\nfew_shot = 2\n'
        'output = "schema.json"\n'
    )
    ported = arm(port(arms).run(tmp_path / "out"), "ported")
    request = next(r for r in scripted.asked if "text 1" in r.messages[-1].content)
    assert request.messages == (
        Message.system("Rate."),
        Message.user("Review: example 0 pos"),
        Message.assistant('{"sentiment": "pos"}'),
        Message.user("Review: example 1 neg"),
        Message.assistant('{"sentiment": "neg"}'),
        Message.user("Review: text 1 neg"),
    )
    assert request.constraint.value == SCHEMA
    assert (ported.valid, ported.right) == (12, 4)


def test_the_first_call_warms_up_and_is_not_counted(port, tmp_path, scripted):
    port('[arms.ported]\nmodel = "scripted:m"\n').run(tmp_path / "out")
    assert len(scripted.asked) == 13
    assert scripted.asked[0].messages[-1].content == "example 0 pos"


def test_a_run_that_is_complete_asks_nothing_again(port, tmp_path, scripted):
    ported = port('[arms.ported]\nmodel = "scripted:m"\n')
    first = ported.run(tmp_path / "out")
    asked = len(scripted.asked)
    second = ported.run(tmp_path / "out")
    assert len(scripted.asked) == asked
    assert second.arms == first.arms
    ported.run(tmp_path / "out", resume=False)
    assert len(scripted.asked) == 2 * asked


def test_the_seed_orders_the_items_alike_for_all_arms(port, tmp_path, scripted):
    arms = '[arms.ported]\nmodel = "scripted:m"\n[arms.other]\nmodel = "scripted:n"\n'
    port(arms, HEAD + "seed = 4\n").run(tmp_path / "out")
    order = [request.messages[-1].content for request in scripted.asked]
    one, other = order[1:13], order[14:]
    assert one == other
    assert one != sorted(one, key=lambda text: int(text.split()[1]))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [("margin = 0.05", "margin = 0.1", "rule.margin"), ("json:sentiment", "json", "rule.scorer")],
)
def test_the_rule_cannot_be_changed_once_answers_are_in(port, tmp_path, old, new, named):
    port(PORTED).run(tmp_path / "out")
    with pytest.raises(UsageError, match=named):
        port(PORTED, HEAD.replace(old, new)).run(tmp_path / "out")


def test_a_changed_function_or_golden_set_is_noticed(port, tmp_path):
    port(PORTED).run(tmp_path / "out")
    (tmp_path / "arms.py").write_text(FUNCTIONS + "\n")
    with pytest.raises(UsageError, match=r"arm\.function_sha256"):
        port(PORTED).run(tmp_path / "out")


def test_an_incumbent_given_at_run_time_is_asked_the_request_that_the_file_holds(port, tmp_path, scripted):
    scripted.reply = staticmethod(
        lambda r: Completion('pos"}', "stop", model="claude-haiku-4-5", usage=Usage(1000, 100), latency=0.8)
    )
    arms = PORTED + '[arms.pasted]\nmodel = "scripted:m"\nprompt = "pasted"\nrequest = "request.json"\n'
    result = port(arms).run(tmp_path / "out", incumbent="scripted:claude")
    old = arm(result, "incumbent")
    assert (old.kind, old.valid, old.right) == ("request", 12, 4)
    request = scripted.asked[-1]
    assert [message.role for message in request.messages] == ["system", "user", "assistant"]
    assert result.decision.verdict in ("PASS", "INCONCLUSIVE")
    assert (result.comparisons[0].candidate, result.comparisons[0].reference) == ("ported", "incumbent")


def test_an_incumbent_without_a_request_to_ask_is_refused(port, tmp_path):
    with pytest.raises(UsageError, match=r"add \[arms\.incumbent\]"):
        port(PORTED).run(tmp_path / "out", incumbent="echo:")


def test_an_incumbent_that_gave_no_answer_withholds_the_decision(port, tmp_path):
    (tmp_path / "arms.py").write_text(FUNCTIONS + "\ndef silent(text):\n    raise OSError('gone')\n")
    arms = PORTED + '[arms.old]\nfunction = "arms.py:silent"\n'
    result = port(arms, HEAD + 'incumbent = "old"\n').run(tmp_path / "out")
    assert result.decision.verdict == "WITHHELD"
    assert "old gave no usable answer" in result.decision.reason


def test_a_function_that_does_as_well_is_reported_as_making_the_model_superfluous(port, tmp_path, scripted):
    write_items(tmp_path / "golden.jsonl", "text", 120)
    scripted.reply = staticmethod(lambda r: json.dumps({"sentiment": r.messages[-1].content.split()[-1]}))
    result = port('[arms.ported]\nmodel = "scripted:m"\n[arms.floor]\nfunction = "arms.py:ported"\n').run(
        tmp_path / "out"
    )
    assert any("No model may be needed: floor" in finding for finding in result.decision.findings)


def test_findings_on_the_service_level_the_constant_and_the_form(port, tmp_path):
    arms = '[arms.ported]\nfunction = "arms.py:constant"\n[limits]\np95_seconds = 5\n'
    few = port(arms).run(tmp_path / "few").decision.findings
    assert any("not shown to keep the p95 limit of 5 s: 12 items" in finding for finding in few)
    assert any("not shown to beat a constant" in finding for finding in few)
    write_items(tmp_path / "golden.jsonl", "text", 90)
    many = port(arms).run(tmp_path / "many").decision.findings
    assert any("keeps the p95 limit of 5 s" in finding for finding in many)
    (tmp_path / "schema.json").write_text('{"type": "array"}')
    invalid = port(arms).run(tmp_path / "invalid").decision.findings
    assert any("Only 0 of 90 answers of ported have a valid form" in finding for finding in invalid)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ('[arms.ported]\nfunction = "arms.py"\n', "file.py:name"),
        ('[arms.ported]\nfunction = "arms.py:nothing"\n', "no callable 'nothing'"),
        ('[arms.ported]\nmodel = "scripted:m"\nprompt = "pasted"\nrequest = "bare.json"\n', "{{input}} is missing"),
        ('[arms.ported]\nmodel = "scripted:m"\noutput = "bad.json"\n', "bad.json is not valid JSON"),
        ('[arms.ported]\nmodel = "scripted:m"\nfew_shot = 4\n', "only 3 examples"),
    ],
)
def test_what_an_arm_cannot_be_opened_with_is_a_usage_error(port, tmp_path, scripted, arms, words):
    (tmp_path / "bare.json").write_text(json.dumps({**REQUEST, "messages": [{"role": "user", "content": "Rate it"}]}))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        port(arms).run(tmp_path / "out")
    assert words in str(caught.value)


def test_a_missing_function_file_is_a_storage_error_and_a_raising_one_is_named(port, tmp_path):
    with pytest.raises(StorageError, match=r"none\.py"):
        port('[arms.ported]\nfunction = "none.py:f"\n').run(tmp_path / "out")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=r"raises\.py raised ZeroDivisionError"):
        port('[arms.ported]\nfunction = "raises.py:f"\n').run(tmp_path / "out")


def test_the_official_template_needs_the_models_file(port, tmp_path, scripted):
    with pytest.raises(TemplateError, match="template = 'server'"):
        port('[arms.ported]\nmodel = "scripted:m"\ntemplate = "official"\n').run(tmp_path / "out")


def test_examples_that_are_golden_items_are_refused(port, tmp_path):
    rows = (tmp_path / "golden.jsonl").read_text().splitlines()
    (tmp_path / "few.jsonl").write_text(rows[3].replace('"text3"', '"other"') + "\n")
    with pytest.raises(UsageError, match="'other' is also in the golden set"):
        port(PORTED)


def test_kill_minus_nine_in_the_middle_loses_no_finished_item_and_runs_none_twice(port, tmp_path):
    write_items(tmp_path / "golden.jsonl", "text", 40)
    (tmp_path / "arms.py").write_text(
        textwrap.dedent(f"""
        import time
        def slow(text):
            with open({str(tmp_path / "asked")!r}, "a") as log:
                log.write(text + "\\n")
            time.sleep(0.02)
            return {{"sentiment": text.split()[-1]}}
        """)
    )
    slow = port('[arms.ported]\nfunction = "arms.py:slow"\n', HEAD + "concurrency = 2\n")
    command = f"from osport import Port; Port.from_file({str(tmp_path / 'port.toml')!r}).run({str(tmp_path / 'out')!r})"
    process = subprocess.Popen([sys.executable, "-c", command])
    record, asked = tmp_path / "out" / "ported.jsonl", tmp_path / "asked"
    deadline = time.monotonic() + 60
    while not record.exists() or record.read_bytes().count(b"\n") < 8:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [json.loads(line)["id"] for line in record.read_bytes().split(b"\n")[1:-1]]
    before = len(asked.read_text().splitlines())
    assert 7 <= len(finished) < 40

    result = slow.run(tmp_path / "out")

    again = {text.rsplit(" ", 1)[0].replace(" ", "") for text in asked.read_text().splitlines()[before + 1 :]}
    assert not again & set(finished)
    ids = [json.loads(line)["id"] for line in record.read_text().splitlines()[1:]]
    assert ids[: len(finished)] == finished
    assert sorted(ids) == sorted(f"text{n}" for n in range(40))
    assert arm(result, "ported").right == 40


def test_a_record_that_another_process_writes_is_refused(port, tmp_path):
    ported = port(PORTED)
    ported.run(tmp_path / "out")
    head = json.loads((tmp_path / "out" / "ported.jsonl").read_text().splitlines()[0])
    with (
        RunRecord.open(tmp_path / "out" / "ported.jsonl", head["settings"]),
        pytest.raises(UsageError, match="in use by another process"),
    ):
        ported.run(tmp_path / "out")


@pytest.mark.parametrize("prefill", ["", '{"sentiment": "'])
def test_recorded_answers_of_the_incumbent_are_found_by_id_and_a_missing_one_is_named(port, tmp_path, prefill):
    answers = [
        {
            "id": f"text{n}",
            "text": f'{prefill}{LABELS[n % 3]}"}}',
            "latency": 0.9,
            "usage": {"input_tokens": 400, "output_tokens": 20},
            "model": "claude-haiku-4-5",
        }
        for n in range(11)
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    arms = PORTED + '[arms.claude]\nprompt = "request"\nrequest = "request.json"\n'
    claude = port(arms, HEAD + 'incumbent = "claude"\n')
    assert claude.run(tmp_path / "without").decision.verdict == "WITHHELD"
    result = claude.run(tmp_path / "out", incumbent=f"replay:{tmp_path / 'answers.jsonl'}")
    old = arm(result, "claude")
    assert any(loss.startswith("model: ") for loss in old.facts["not carried over"].value)
    assert "not carried over" in result.report.with_suffix(".md").read_text()
    assert (old.valid, old.right, old.errors) == (11, 11, {"ModelNotFound": 1})
    assert old.latency.p50.value == 0.9
    assert old.cost.usd_per_1000 == pytest.approx(1000 * (400 * 1e-6 + 20 * 5e-6))
    assert result.comparisons[0].missing_reference == ("text11",)
    assert result.comparisons[0].pairs == 11
    assert any("text11" in finding for finding in result.decision.findings)
