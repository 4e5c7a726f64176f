"""The prompt that osport renders, against the prompt that the llama.cpp server would build itself."""

import pytest
from keyless_server import Server

from osport.chat_template import ChatTemplate
from osport.core.capabilities import Capabilities
from osport.core.types import Message, Request

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine

CONVERSATIONS = {
    "one turn": [Message.user("Hi")],
    "system": [Message.system("Be brief."), Message.user('Größe?\n\n<b>&amp;</b> "quoted" 日本')],
    "several turns": [
        Message.system("Sort the review."),
        Message.user("good"),
        Message.assistant('{"sentiment": "pos"}'),
        Message.user("  bad  "),
    ],
    "prefill": [Message.user("Sort: bad"), Message.assistant('{"sentiment": "')],
}


@pytest.fixture(scope="module")
def gguf():
    from osport.store import pull_model

    return pull_model("smollm2-135m")


@pytest.fixture(scope="module")
def server(gguf):
    running = Server(gguf)
    yield running
    running.close()


def ours_and_theirs(server, template, messages):
    prompt = template.prepare(Request(messages=tuple(messages)), Capabilities(raw_prompt=True)).prompt
    theirs = server.post("/apply-template", messages=[{"role": m.role, "content": m.content} for m in messages])[
        "prompt"
    ]
    return prompt, theirs


def ids(server, text):
    """Token ids as /completion makes them: control tokens parsed, BOS added where the vocabulary says so."""
    return server.post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_same_prompt_as_the_server(server, gguf, name):
    ours, theirs = ours_and_theirs(server, ChatTemplate.from_gguf(gguf), CONVERSATIONS[name])
    assert ours == theirs
    assert ids(server, ours) == ids(server, theirs)
    assert ours.count("<|im_start|>") >= 2


def test_the_server_evaluates_as_many_tokens_as_the_prompt_has(server, gguf):
    prompt, _ = ours_and_theirs(server, ChatTemplate.from_gguf(gguf), CONVERSATIONS["several turns"])
    answer = server.post("/completion", prompt=prompt, n_predict=1, cache_prompt=False)
    assert answer["tokens_evaluated"] == len(ids(server, prompt))


@pytest.fixture(scope="module")
def bos_gguf(gguf, tmp_path_factory):
    """The same model with a vocabulary that adds BOS: one byte of the header turned."""
    raw = bytearray(gguf.read_bytes())
    key = b"tokenizer.ggml.add_bos_token"
    value = raw.index(key) + len(key) + 4
    assert raw[value] == 0
    raw[value] = 1
    path = tmp_path_factory.mktemp("bos") / "adds-bos.gguf"
    path.write_bytes(raw)
    return path


def test_bos_is_not_doubled_where_the_vocabulary_adds_it(bos_gguf):
    text = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    read = ChatTemplate.from_gguf(bos_gguf)
    template = ChatTemplate.from_text(text, tokens=read.tokens, adds_bos=read.adds_bos)
    assert read.adds_bos
    assert template.render([Message.user("Hi")]).text.startswith("<|im_start|>[user]")
    server = Server(bos_gguf, text)
    try:
        ours, theirs = ours_and_theirs(server, template, [Message.user("Hi")])
        bos = ids(server, "")
        assert ids(server, ours) == ids(server, theirs)
        assert ids(server, ours)[:1] == bos
        assert ids(server, ours)[1:2] != bos
        answer = server.post("/completion", prompt=ours, n_predict=1, cache_prompt=False)
        assert answer["tokens_evaluated"] == len(ids(server, ours))
    finally:
        server.close()
