"""Against a fake of Ollama's ``/api/show``: no registry ships the server."""

import http.server
import json
import threading

import pytest

from osport.chat_template import ChatTemplate
from osport.errors import TemplateError, Unreachable

OWN = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
SAME = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}{{ .Tools }}<|im_end|>\n{{ end }}"
    "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ if not .Think }}<think></think>{{ end }}"
)


class FakeOllama(http.server.BaseHTTPRequestHandler):
    shown: dict = {}

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/api/show" and asked["model"] == "m"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(self.shown if known else {"error": "no such model"}).encode())

    def log_message(self, *ignored):
        pass


@pytest.fixture
def ollama():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeOllama)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def told(url, **shown):
    FakeOllama.shown = shown
    return [finding.message for finding in ChatTemplate.from_text(OWN).against_ollama("m", url=url)]


def test_the_same_template_is_no_finding(ollama):
    assert told(ollama, template=SAME) == []


def test_parts_without_a_place(ollama):
    bare = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
    assert [message.partition("place for ")[2][:6] for message in told(ollama, template=bare)] == [
        "system",
        "tools;",
        "thinki",
    ]


def test_a_template_of_another_family(ollama):
    other = SAME.replace("<|im_start|>", "<|start_header_id|>").replace("<|im_end|>", "<|eot_id|>")
    assert told(ollama, template=other) == [
        "Ollama's template is another family's: it writes <|eot_id|>, <|start_header_id|>"
    ]


@pytest.mark.parametrize("template", ["", "{{ .Prompt }}"])
def test_no_template_at_all(ollama, template):
    assert "has no template" in told(ollama, template=template)[0]


def test_a_renderer_in_code(ollama):
    assert "qwen3-coder" in told(ollama, template="{{ .Prompt }}", renderer="qwen3-coder")[0]


def test_a_model_that_is_not_there(ollama):
    with pytest.raises(TemplateError, match="does not show 'other'"):
        ChatTemplate.from_text(OWN).against_ollama("other", url=ollama)


def test_no_server():
    with pytest.raises(Unreachable, match="does not answer"):
        ChatTemplate.from_text(OWN).against_ollama("m", url="http://127.0.0.1:9", timeout=1.0)
