"""Where keys come from, where they go, and where they are never seen."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import threading

import pytest

from osport import Model
from osport.backends._http_client import Endpoint
from osport.backends._vllm_server import VllmServer
from osport.backends.anthropic import AnthropicBackend
from osport.backends.llama_server import LlamaServerBackend
from osport.backends.ollama import OllamaBackend
from osport.backends.openai import OpenAIBackend
from osport.errors import AuthFailed, OsportError, Unreachable, UsageError
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
def test_credentials_in_a_url_are_refused_without_printing_them(name):
    backend, reference, _, _ = BACKENDS[name]
    with pytest.raises(UsageError, match="credentials") as caught:
        backend(reference.format(f"http://me:{KEY}@127.0.0.1:9"))
    assert KEY not in str(caught.value)


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
