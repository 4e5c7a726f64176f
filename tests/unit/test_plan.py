"""The port file: what it may hold, and how a mistake in it is named."""

import pytest

from osport.errors import StorageError, UsageError
from osport.port.plan import read_plan, sampling_of

GOOD = """
[port]
name = "Triage"
golden = "golden.jsonl"
scorer = "label"
margin = 0.05
candidate = "ported"

[limits]
p95_seconds = 2

[cost]
machine_usd_per_hour = 0.34

[arms.ported]
model = "echo:"
system = "Answer in one word."
sampling = {max_tokens = 5}

[arms.floor]
function = "floor.py:classify"
"""


def plan_of(tmp_path, text):
    path = tmp_path / "port.toml"
    path.write_text(text)
    return read_plan(path)


def test_a_port_file_is_read_with_its_defaults(tmp_path):
    plan = plan_of(tmp_path, GOOD)
    assert (plan.name, plan.margin, plan.alpha, plan.incumbent, plan.folder) == ("Triage", 0.05, 0.05, None, tmp_path)
    assert plan.limits.p95_seconds == 2.0
    assert plan.cost.error_usd is None
    ported = plan.arms["ported"]
    assert (ported.kind, ported.template, ported.user, ported.sampling) == (
        "chat",
        "server",
        "{{input}}",
        {"max_tokens": 5},
    )
    assert plan.arms["floor"].kind == "function"


def edit(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (edit("margin = 0.05", "margin = 0.05\nmagin = 1"), ["[port]", "'magin'", "did you mean 'margin'"]),
        (edit("[limits]", "[limit]"), ["[limit]", "did you mean 'limits'"]),
        (edit("p95_seconds", "p95"), ["[limits]", "'p95'", "p95_seconds"]),
        (edit('system = "Answer', 'systen = "Answer'), ["[arms.ported]", "'systen'", "'system'"]),
        (edit("max_tokens", "max_token"), ["[arms.ported]", "sampling", "'max_token'", "'max_tokens'"]),
        (edit("max_tokens = 5", "max_tokens = 0"), ["[arms.ported]", "max_tokens=0"]),
        (edit("max_tokens = 5", 'max_tokens = 5, temperature = "hot"'), ["[arms.ported]", "temperature='hot'"]),
        (edit("margin = 0.05\n", ""), ["[port]", "missing key margin"]),
        (edit("margin = 0.05", 'margin = "5%"'), ["[port]", "margin must be a float", "'5%'"]),
        (edit("margin = 0.05", "margin = true"), ["margin must be a float"]),
        (edit("margin = 0.05", "margin = 5"), ["[port]", "margin"]),
        (edit('candidate = "ported"', 'candidate = "port"'), ["candidate = 'port' is no arm", "'ported'"]),
        (edit('candidate = "ported"', 'candidate = "ported"\nincumbent = "ported"'), ["both 'ported'"]),
        (edit('model = "echo:"', 'model = "echo:"\nfunction = "f.py:g"'), ["not both"]),
        (edit('model = "echo:"\n', ""), ["'ported' needs a model or a function"]),
        (edit('model = "echo:"', 'model = "echo:"\nprompt = "chatty"'), ["[arms.ported]", "prompt", "chatty"]),
        (edit('model = "echo:"', 'model = "echo:"\nuser = "Review:"'), ["[arms.ported]", "{{input}}"]),
        (edit('model = "echo:"', 'model = "echo:"\nfew_shot = 3'), ["'ported' wants few_shot"]),
        (edit('model = "echo:"', 'model = "echo:"\nclassify = "label"'), ["[arms.ported]", "classify", "key output"]),
        (edit('model = "echo:"', 'model = "echo:"\ncalibration = "all"'), ["[arms.ported]", "calibration", "'all'"]),
        (edit('model = "echo:"', 'model = "echo:"\nprompt = "pasted"'), ["[arms.ported]", "needs the key request"]),
        (
            edit('model = "echo:"', 'model = "echo:"\nprompt = "pasted"\nrequest = "r.json"'),
            ["system has no effect with prompt = 'pasted'"],
        ),
        (edit('function = "floor', 'output = "s.json"\nfunction = "floor'), ["[arms.floor]", "output has no effect"]),
        (edit("[arms.floor]", '[arms."a/b"]'), ["a/b", "letters"]),
        (GOOD[: GOOD.index("[arms")], ["no arms"]),
        ("[port\n", ["not TOML"]),
        ("port = 3\n[arms.a]\nfunction = 'f.py:g'\n", ["[port]", "must be a table"]),
    ],
)
def test_a_mistake_is_a_usage_error_that_names_file_table_and_key(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, text)
    for word in ["port.toml", *words]:
        assert word in str(caught.value)


def test_a_missing_port_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"none\.toml"):
        read_plan(tmp_path / "none.toml")


def test_the_incumbent_may_leave_its_model_to_the_run(tmp_path):
    text = edit('candidate = "ported"', 'candidate = "ported"\nincumbent = "claude"')
    text += '[arms.claude]\nprompt = "request"\nrequest = "r.json"\n'
    assert plan_of(tmp_path, text).arms["claude"].model is None


def test_sampling_is_laid_over_that_of_the_request():
    base = sampling_of({"max_tokens": 9, "temperature": 0.5})
    assert sampling_of({"max_tokens": 3}, base).given == {"max_tokens": 3, "temperature": 0.5}
