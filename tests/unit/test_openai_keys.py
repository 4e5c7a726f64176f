"""Where keys come from, where they go, and where they are never seen."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import threading
import traceback

import pytest

from osport import Model
from osport.backends._http_client import Endpoint
from osport.backends._vllm_server import VllmServer
from osport.backends.anthropic import AnthropicBackend
from osport.backends.llama_server import LlamaServerBackend
from osport.backends.ollama import OllamaBackend
from osport.backends.openai import OpenAIBackend
from osport.core.secrets import without_key
from osport.errors import (
    AuthFailed,
    BadResponse,
    OsportError,
    Unreachable,
    UsageError,
)
from osport.plugin import Message, Request
from osport.testing.fake_server import FakeServer

KEY = "sk-very-secret"
ASK = Request((Message.user("How wide is the sea?"),))
BACKENDS = {
    "openai": (OpenAIBackend, "fake-model@{}/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "vllm": (VllmServer, "fake-model@{}/v1", "VLLM_API_KEY", "VLLM_BASE_URL"),
    "ollama": (OllamaBackend, "fake-model@{}", "OLLAMA_API_KEY", "OLLAMA_HOST"),
    "anthropic": (AnthropicBackend, "fake-model@{}", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "llama_server": (LlamaServerBackend, "{}", "LLAMA_API_KEY", "LLAMA_BASE_URL"),
}
each = pytest.mark.parametrize("name", sorted(BACKENDS))


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch):
    for _, _, key, url in BACKENDS.values():
        monkeypatch.delenv(key, raising=False)
        monkeypatch.delenv(url, raising=False)


def sent(server: FakeServer) -> str:
    return "".join(f"{name}: {value}\n" for request in server.requests for name, value in request.headers.items())


@each
def test_a_key_of_the_environment_goes_to_no_host_that_was_not_named_with_it(name, monkeypatch):
    backend, reference, key_variable, url_variable = BACKENDS[name]
    monkeypatch.setenv(key_variable, KEY)
    monkeypatch.setenv(url_variable, "https://somewhere.example")
    with FakeServer(api_key=KEY) as server:
        with pytest.raises(AuthFailed, match=url_variable) as caught:
            backend(reference.format(server.url)).generate(ASK)
        assert KEY not in sent(server)
        assert KEY not in f"{caught.value!r}"


@each
def test_a_key_of_the_environment_goes_to_the_host_that_the_environment_names(name, monkeypatch):
    backend, reference, key_variable, url_variable = BACKENDS[name]
    monkeypatch.setenv(key_variable, KEY)
    with FakeServer(api_key=KEY) as server:
        monkeypatch.setenv(url_variable, server.url)
        assert backend(reference.format(server.url)).generate(ASK).text
        assert KEY in sent(server)


@each
def test_the_port_is_part_of_the_host(name, monkeypatch):
    backend, reference, key_variable, url_variable = BACKENDS[name]
    monkeypatch.setenv(key_variable, KEY)
    with FakeServer() as named, FakeServer(api_key=KEY) as other:
        monkeypatch.setenv(url_variable, named.url)
        with pytest.raises(AuthFailed):
            backend(reference.format(other.url)).generate(ASK)
        assert KEY not in sent(other)


@each
def test_a_callable_names_the_key_together_with_the_host(name):
    backend, reference, _, _ = BACKENDS[name]
    with FakeServer(api_key=KEY) as server:
        assert backend(reference.format(server.url), api_key=lambda: KEY).generate(ASK).text


@each
@pytest.mark.parametrize("wrong", [KEY, lambda: "", lambda: None, lambda: f"{KEY}\n", lambda: "schlüssel"])
def test_what_is_no_callable_with_a_key_is_refused_without_printing_it(name, wrong):
    backend, reference, _, _ = BACKENDS[name]
    with pytest.raises(UsageError, match="api_key") as caught:
        backend(reference.format("http://127.0.0.1:9"), api_key=wrong)
    assert KEY not in str(caught.value)


@each
@pytest.mark.parametrize("url", [
    f"http://me:{KEY}@127.0.0.1:9", f"http://me:{KEY}@127.0.0.1:99999", f"http://me:{KEY}@[h", f"http://me:a/{KEY}@h",
    f"http://h?key={KEY}", f"http://h#{KEY}",
])  # fmt: skip
def test_credentials_in_a_url_are_refused_without_printing_them(name, url):
    backend, reference, _, _ = BACKENDS[name]
    with pytest.raises(UsageError, match=r"credentials|URL of a server") as caught:
        backend(reference.format(url), **({"api_key": lambda: "k"} if name == "anthropic" else {}))
    assert KEY not in "".join(traceback.format_exception(caught.value))


@each
def test_what_the_environment_says_wrong_is_named(name, monkeypatch):
    backend, reference, key_variable, url_variable = BACKENDS[name]
    monkeypatch.setenv(key_variable, f"{KEY}\n")
    monkeypatch.setenv(url_variable, "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=key_variable) as caught:
        backend(reference.format("http://127.0.0.1:9"))
    assert KEY not in str(caught.value)
    if name != "llama_server":  # has no reference without URL
        monkeypatch.setenv(key_variable, KEY)
        monkeypatch.setenv(url_variable, "htp://127.0.0.1:9")
        with pytest.raises(UsageError, match=url_variable):
            backend("fake-model")


@pytest.mark.parametrize(("name", "ask"), [
    ("openai", lambda engine: engine.facts()),
    ("vllm", lambda engine: engine.facts()),
    ("vllm", lambda engine: engine.count_tokens(ASK.messages)),
    ("vllm", lambda engine: engine.score(ASK, ["wide"])),
    ("llama_server", lambda engine: engine.count_tokens(ASK.messages)),
    ("llama_server", lambda engine: engine.score(ASK, ["wide"])),
    ("anthropic", lambda engine: engine.count_tokens(ASK.messages)),
])  # fmt: skip
def test_the_key_is_hidden_in_what_is_asked_beside_answers(name, ask, monkeypatch):
    backend, reference, _, _ = BACKENDS[name]
    monkeypatch.setattr(FakeServer, "about", lambda self, path, body: dict.fromkeys(("data", "tokens", "prompt"), KEY))
    with FakeServer() as server, backend(reference.format(server.url), api_key=lambda: KEY) as engine:
        with pytest.raises(BadResponse) as caught:
            ask(engine)
        assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_key_is_hidden_in_what_caused_an_error():
    def read():
        try:
            int(KEY)
        except ValueError as error:
            raise BadResponse(f"no number: {KEY}") from error

    with pytest.raises(BadResponse, match=r"\[the key\]") as caught, without_key(KEY):
        read()
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://ho st", "http://h\x01", "http://-ä.ä..x", "http://h/\n", "http://:80"])
@each
def test_what_is_no_url_of_a_server_is_refused_at_once(name, url):
    backend, reference, _, _ = BACKENDS[name]
    with pytest.raises(UsageError, match="not the URL of a server"):
        backend(reference.format(url), **({"api_key": lambda: "k"} if name == "anthropic" else {}))


def test_a_host_may_have_letters_of_all_kinds():
    assert OpenAIBackend("m@http://bücher.example/v1")._endpoint.url == "http://bücher.example"


@each
def test_no_key_in_log_record_or_repr(name, caplog):
    backend, reference, _, _ = BACKENDS[name]
    with FakeServer(api_key=KEY) as server, caplog.at_level(logging.DEBUG):
        engine = backend(reference.format(server.url), api_key=lambda: KEY)
        with Model(engine) as model:
            answer = model.generate("How wide is the sea?")
            assert KEY not in f"{answer!r} {model!r} {engine!r} {dict(model.facts.known)!r}"
    assert KEY not in caplog.text
    assert KEY not in repr(Endpoint("http://a", KEY))


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "ollama"])
def test_the_vendors_key_goes_to_the_vendor_over_tls_alone(vendor, monkeypatch):
    backend, _, key_variable, _ = BACKENDS[vendor]
    host = {"openai": "api.openai.com", "anthropic": "api.anthropic.com", "ollama": "ollama.com"}[vendor]
    monkeypatch.setenv(key_variable, KEY)
    assert backend(f"m@https://{host}")._endpoint.api_key == KEY
    for url in (f"http://{host}", f"https://{host}.example", f"https://{host}:8443"):
        if vendor == "anthropic":
            with pytest.raises(AuthFailed, match="nobody named it"):
                backend(f"m@{url}")
        else:
            assert backend(f"m@{url}")._endpoint.api_key is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate of this test")
@each
def test_a_certificate_that_nobody_vouches_for_is_refused(name, tmp_path):
    backend, reference, _, _ = BACKENDS[name]
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FakeServer() as server:
        # The listening socket is what the fake accepts from; a handshake that fails is the client's no.
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(Unreachable, match="(?i)certificate"):
            backend(reference.format(url), api_key=lambda: KEY).generate(ASK)
        assert server.requests == []


def test_errors_of_a_thread_do_not_carry_the_key():
    seen: list[BaseException] = []

    def ask():
        try:
            OpenAIBackend(f"fake-model@{server.url}/v1", api_key=lambda: KEY).generate(ASK)
        except OsportError as error:
            seen.append(error)

    with FakeServer(lies=["echoes_key"]) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert KEY not in f"{seen[0]!r}{seen[0].__cause__!r}{seen[0].__context__!r}"
