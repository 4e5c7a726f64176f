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


def test_diff(jinja):
    one, two = jinja(CHATML), jinja(CHATML.replace("assistant", "model"), "other.jinja")
    assert run("diff", one, one).exit_code == 0
    result = run("diff", one, two)
    assert result.exit_code == 1
    assert "+<|im_start|>model" in result.output


def test_a_request_that_is_no_json(jinja):
    result = run("audit", jinja(CHATML), "--request", jinja("{", "request.json"))
    assert isinstance(result.exception, UsageError)
