import threading
import time

import pytest

from osport import Model
from osport.errors import BackendNotFound, ContractViolation, PluginConflict, UsageError
from osport.plugin import Backend, BackendSpec, Completion, register
from osport.plugin.registry import Registry, parse_reference, registry


@pytest.fixture(autouse=True)
def _fresh_registry():
    registry.cache_clear()
    yield
    registry.cache_clear()


class Fixed(Backend):
    def generate(self, request):
        return Completion("fixed", "stop")


@pytest.mark.parametrize(
    ("reference", "backend", "model"),
    [
        ("llama_cpp:/models/x.gguf", "llama_cpp", "/models/x.gguf"),
        ("ollama:qwen3:8b", "ollama", "qwen3:8b"),
        ("openai:gpt-oss-20b@http://host/v1", "openai", "gpt-oss-20b@http://host/v1"),
        ("echo:", "echo", ""),
        ("models/x.gguf", "llama_server", "models/x.gguf"),
        ("http://127.0.0.1:8080", "llama_server", "http://127.0.0.1:8080"),
        (r"C:\models\x.gguf", "llama_server", r"C:\models\x.gguf"),
    ],
)
def test_a_reference_splits_at_the_first_colon(reference, backend, model):
    ref = parse_reference(reference)
    assert (ref.backend, ref.model) == (backend, model)


@pytest.mark.parametrize("reference", ["smollm2-135m", "", "Not A Name:x"])
def test_what_is_no_reference_is_refused_with_an_example(reference):
    with pytest.raises(UsageError, match="backend:model"):
        parse_reference(reference)


def test_an_unknown_backend_names_what_is_installed_and_the_extra():
    with pytest.raises(BackendNotFound) as caught:
        Model("llama_serv:x")
    message = str(caught.value)
    assert "echo" in message
    assert "Did you mean 'llama_server'?" in message
    assert "pip install 'osport[llama-server]'" in message


def test_an_unknown_backend_that_resembles_none_points_to_the_extras():
    with pytest.raises(BackendNotFound, match=r"osport\[all\]"):
        Model("quux:x")


def test_a_notebook_registers_a_backend_and_may_do_so_again():
    register(BackendSpec("fixed", Fixed))
    assert Model("fixed:").generate("x").text == "fixed"
    register(BackendSpec("fixed", Fixed))


def test_a_notebook_may_not_take_an_installed_name():
    with pytest.raises(PluginConflict, match="already offered by osport"):
        register(BackendSpec("echo", Fixed))


@pytest.mark.parametrize(
    "fields",
    [("a", Fixed), ("my-engine", Fixed), (7, Fixed), ("ok", "Fixed"), ("ok", Fixed, "chat"), ("ok", Fixed, {1})],
)
def test_a_spec_that_could_not_be_used_is_refused(fields):
    with pytest.raises(UsageError, match=r"backend"):
        BackendSpec(*fields)


def test_threads_that_come_first_together_share_one_registry(monkeypatch):
    found = Registry.discover

    def slowly():
        time.sleep(0.1)
        return found()

    monkeypatch.setattr(Registry, "discover", slowly)
    names = [f"fixed_{number}" for number in range(3)]
    threads = [threading.Thread(target=register, args=[BackendSpec(name, Fixed)]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.name for info in registry().backends()} > set(names)


def test_an_entry_point_that_is_no_backend_is_named():
    class Entry:
        name, value, dist = "odd", "somewhere:thing", None

        def load(self):
            return 42

    with pytest.raises(Exception, match="neither a Backend class nor a BackendSpec"):
        Registry({"odd": [Entry()]}).spec("odd")


def test_a_factory_that_makes_no_backend_breaks_the_contract():
    register(BackendSpec("odd", lambda model: 42))
    with pytest.raises(ContractViolation, match="42"):
        Model("odd:")


def test_backends_lists_each_with_its_features():
    rows = {info.name: info for info in registry().backends()}
    assert rows["echo"].package == "osport"
    assert "stream" in rows["echo"].features
