"""The whole contract on the real engines: the kit that third parties run on theirs."""

import os
from pathlib import Path

import pytest

from osport import Model, store
from osport.backends.llama_server import LlamaServerBackend
from osport.testing import BackendConformance

pytestmark = pytest.mark.engine

MODEL = os.environ.get("OSPORT_TEST_MODEL") or store.catalogue()["smollm2-135m"].path
SMALL = {"context": 512, "threads": 1}
TOO_LONG = "word " * 600
NO_TOOLS = "the model's template writes no tools; a server by URL is asked about that only when there are some to send"
ABOUT_TOOLS = (
    "test_a_required_tool_is_called_or_refused",
    "test_only_a_tool_that_was_offered_is_called",
    "test_arguments_are_those_that_the_schema_allows",
    "test_the_result_of_a_tool_reaches_the_model",
    "test_a_streamed_call_is_whole",
)


class TestLlamaServer(BackendConformance):
    reference = f"llama_server:{MODEL}"
    options = SMALL
    overflow = TOO_LONG


class TestLlamaServerByUrl(BackendConformance):
    """A server that somebody else started: here the embedded one of another model object."""

    exceptions = dict.fromkeys(ABOUT_TOOLS, NO_TOOLS)
    overflow = TOO_LONG

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def somebody_elses(cls):
        with LlamaServerBackend(str(MODEL), **SMALL) as owner:
            endpoint = owner.endpoint
            cls.reference = endpoint.url
            cls.options = {"api_key": lambda: endpoint.api_key}
            yield


class TestLlamaCpp(BackendConformance):
    reference = f"llama_cpp:{MODEL}"
    options = SMALL
    overflow = TOO_LONG


class TestLlamaCppInProcess(BackendConformance):
    reference = f"llama_cpp:{MODEL}"
    options = {**SMALL, "in_process": True}
    overflow = TOO_LONG


class TestAnthropic(BackendConformance):
    """The vendor's protocol, spoken to llama.cpp's own ``/v1/messages``."""

    overflow = TOO_LONG

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def llama_speaks_it(cls):
        with LlamaServerBackend(str(MODEL), **SMALL) as owner:
            endpoint = owner.endpoint
            cls.reference = f"anthropic:{Path(MODEL).stem}"
            cls.options = {"base_url": endpoint.url, "api_key": lambda: endpoint.api_key}
            yield


def test_the_kit_opens_a_model_by_its_reference():
    assert isinstance(TestLlamaCpp.make_model(), Model)
