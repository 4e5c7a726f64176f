import json

import pytest
from click.testing import CliRunner

from osport.cli.template import template
from osport.errors import UsageError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def jinja(tmp_path):
    def write(text, name="template.jinja"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def run(*arguments):
    return CliRunner().invoke(template, arguments)


def test_audit_exits_by_what_it_finds(jinja):
    assert run("audit", jinja(CHATML)).exit_code == 0
    result = run("audit", jinja("{{ messages[-1].content }}"))
    assert result.exit_code == 1
    assert "drops the system prompt" in result.output


@pytest.mark.parametrize(("form", "key"), [("json", "findings"), ("sarif", "runs")])
def test_audit_for_programs(jinja, form, key):
    assert key in json.loads(run("audit", jinja(CHATML), "--format", form).output)


def test_render_a_claude_request(jinja):
    request = jinja(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}), "request.json")
    result = run("render", jinja(CHATML), "--request", request, "--json")
    told = json.loads(result.output)
    assert told["text"] == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert told["spans"][0]["part"] == "messages[0].content"


def test_render_adapts(jinja):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    result = run("render", jinja(refuses), "--adapt")
    assert result.exit_code == 0
    assert "You are a helpful assistant.\n\nHello!" in result.output


def test_what_a_claude_request_loses_is_told(jinja):
    asked = {"metadata": {"user_id": "u"}, "messages": [{"role": "user", "content": "Hi"}]}
    request = jinja(json.dumps(asked), "request.json")
    assert "not carried over: metadata" in run("render", jinja(CHATML), "--request", request).stderr
    assert json.loads(run("render", jinja(CHATML), "--request", request, "--json").stdout)["losses"][0]["field"] == (
        "metadata"
    )
    audit = run("audit", jinja(CHATML), "--request", request, "--format", "sarif")
    assert "not-carried" in {result["ruleId"] for result in json.loads(audit.stdout)["runs"][0]["results"]}


def test_one_of_several_templates_by_name(tmp_path, jinja):
    named = [{"name": "default", "template": "{{ messages[0].content }}"}, {"name": "rag", "template": CHATML}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert "<|im_start|>" in run("render", str(tmp_path), "--name", "rag").output
    assert "<|im_start|>" not in run("render", str(tmp_path)).output
    assert isinstance(run("render", jinja(CHATML), "--name", "rag").exception, UsageError)


def test_a_model_that_is_not_pulled_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path))
    assert "osport models pull smollm2-135m" in str(run("audit", "smollm2-135m").exception)


def test_diff(jinja):
    one, two = jinja(CHATML), jinja(CHATML.replace("assistant", "model"), "other.jinja")
    assert run("diff", one, one).exit_code == 0
    result = run("diff", one, two)
    assert result.exit_code == 1
    assert "+<|im_start|>model" in result.output


def test_a_request_that_is_no_json(jinja):
    result = run("audit", jinja(CHATML), "--request", jinja("{", "request.json"))
    assert isinstance(result.exception, UsageError)
