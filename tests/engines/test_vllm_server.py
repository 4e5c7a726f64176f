"""vLLM's own server: the contract by URL, through its OpenAI routes and through its Messages route."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from vllm_server import NAME, serving

from osport import ConstrainedOutput, Model
from osport.backends.anthropic import AnthropicBackend
from osport.errors import AuthFailed, ContextOverflow, ModelNotFound
from osport.plugin import Message, Request, Sampling
from osport.testing import BackendConformance

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed: make test-vllm installs and tests it"),
]

KEY = "k-of-the-server"
TOO_LONG = "word " * 600
SHORT = Request((Message.user("Say hi"),), sampling=Sampling(max_tokens=2))


@pytest.fixture(scope="module")
def url(hf_model):
    with serving(hf_model, key=KEY, context=512) as at:
        yield at


class AtVllm(BackendConformance):
    # On a CPU a sentence takes two seconds, and the story that the kit would get takes half a minute.
    prompt = "Describe the sea in one sentence."
    overflow = TOO_LONG


class TestVllmByUrl(AtVllm):
    exceptions = {
        **dict.fromkeys(
            ("test_a_required_tool_is_called_or_refused", "test_a_streamed_call_is_whole"),
            "vLLM leaves the arguments of a required call free, and this small model goes on writing them until the "
            "limit cuts it off, which the finish reason says",
        ),
        **dict.fromkeys(
            ("test_only_a_tool_that_was_offered_is_called", "test_arguments_are_those_that_the_schema_allows"),
            "vLLM writes the form of these calls for xgrammar alone; with the engine for forms it answers HTTP 400",
        ),
    }

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def somebody_elses(cls, url):
        cls.reference = f"vllm:{NAME}@{url}/v1"
        cls.options = {"api_key": lambda: KEY}


class TestAnthropicAtVllm(AtVllm):
    """This route takes no sampling parameter but two, so the server's own defaults draw the tokens."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def vllm_speaks_it(cls, url):
        cls.reference = f"anthropic:{NAME}@{url}"
        cls.options = {"api_key": lambda: KEY}


def test_the_messages_route_says_what_is_wrong(url):
    with AnthropicBackend(f"other@{url}", api_key=lambda: KEY) as other, pytest.raises(ModelNotFound, match="other"):
        other.generate(SHORT)
    with AnthropicBackend(f"{NAME}@{url}", api_key=lambda: "k-wrong") as wrong, pytest.raises(AuthFailed) as caught:
        wrong.generate(SHORT)
    assert "k-wrong" not in str(caught.value)


def test_the_openai_backend_finds_what_it_knows_here(url):
    form = ConstrainedOutput.json_schema(
        {"type": "object", "properties": {"wet": {"enum": ["yes", "no"]}}, "required": ["wet"]}
    )
    with Model(f"openai:{NAME}@{url}/v1", api_key=lambda: KEY) as model:
        assert model.facts["context_length"] == 512
        whole = model.generate("Say hi", max_tokens=4)
        *pieces, last = model.stream("Say hi", max_tokens=4)
        assert "".join(piece.text for piece in pieces) == last.completion.text == whole.text
        assert last.completion.usage.completion_tokens == whole.usage.completion_tokens == 4
        assert model.generate("Is the sea wet?", output=form).parsed["wet"] in ("yes", "no")
        with pytest.raises(ContextOverflow):
            model.generate(TOO_LONG)
