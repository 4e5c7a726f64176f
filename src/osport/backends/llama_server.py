"""llama.cpp's own server: embedded in a child process, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from attrs import frozen

from osport.backends._embedded_server import EmbeddedServer, Endpoint, Settings, engine_name
from osport.backends._gguf_model import GgufModel
from osport.backends._llama_constraints import GBNF, constraint_fields, enforcement_of, refuse_stop_strings
from osport.backends._llama_http import Answer, LlamaHttp, sampling_fields, wire_messages
from osport.backends._options import check_number, check_seconds, check_switch, default_threads, refuse_unknown
from osport.errors import BadResponse, ServerFault, TemplateError, Unreachable, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    Delta,
    Message,
    ModelFacts,
    Request,
)

__all__ = ["LlamaServerBackend"]

NAME = "llama_server"
KEY_VARIABLE = "LLAMA_API_KEY"
# Of the embedded engine's options; context and threads depend on the model and the machine.
DEFAULTS: dict[str, object] = {"slots": 1, "port": 0, "startup_timeout": 120.0}
EMBEDDED_KINDS: frozenset[str] = frozenset({"json_schema", "choice", "regex", "grammar", "tools"})
REMOTE_KINDS: frozenset[str] = frozenset({"json_schema", "choice", "grammar"})


class LlamaServerBackend(Backend):
    """llama.cpp through its HTTP server.

    ``model``: the path of a ``.gguf`` file or a name of the catalogue, served by an embedded engine
    (package ``xllamacpp``) that the first call starts on a loopback port in a child process; or the
    ``http(s)://host:port`` of a server that runs already.

    For the embedded engine: ``context``, tokens a sequence may have (default: what the model was
    trained with, at most 8192); ``slots``, sequences at the same time (1); ``threads`` (llama.cpp's own
    rule: all cores up to four, half of them above); ``gpu_layers`` (None: as many as fit); ``port``
    (None: any free one); ``startup_timeout`` (120 s).
    For a URL: ``api_key``, a callable that returns the key (default: the environment variable
    ``LLAMA_API_KEY``).
    For both: ``timeout`` of one call (600 s); ``prompt_cache``, whether the part of a prompt that equals
    the one before it is not computed again (True; changes speed, and in rare cases the last bits of logits).

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not GGUF, cut off),
    :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING | EMBEDDED_KINDS | {"chat", "raw_prompt", "prefill", "stream", "count_tokens"}
    )

    def __init__(
        self,
        model: str,
        *,
        context: int | None = None,
        slots: int | None = None,
        threads: int | None = None,
        gpu_layers: int | None = None,
        port: int | None = None,
        startup_timeout: float | None = None,
        timeout: float = 600.0,
        prompt_cache: bool = True,
        api_key: Callable[[], str] | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(model)
        for_embedded = {
            "context": context,
            "slots": slots,
            "threads": threads,
            "gpu_layers": gpu_layers,
            "port": port,
            "startup_timeout": startup_timeout,
        }
        refuse_unknown(NAME, unknown, {*for_embedded, "timeout", "prompt_cache", "api_key"})
        self._timeout = check_seconds(NAME, "timeout", timeout)
        self._prompt_cache = check_switch(NAME, "prompt_cache", prompt_cache)
        self._closed = False
        self._gguf: GgufModel | None = None
        self._embedded: EmbeddedServer | None = None
        self._remote: Endpoint | None = None
        if model.startswith(("http://", "https://")):
            given = [name for name, value in for_embedded.items() if value is not None]
            if given:
                raise UsageError(f"{NAME}: {given[0]} is set where the server at {model} was started, not here")
            self._remote = Endpoint(_checked_url(model), _key(api_key))
        else:
            if api_key is not None:
                raise UsageError(f"{NAME}: api_key is for a server by URL; the embedded one makes its own")
            self._gguf = GgufModel.find(model, backend=NAME)
            self._embedded = EmbeddedServer(_settings(self._gguf, for_embedded))
        # A proxy of the environment must not stand between this process and its own child.
        self._http = LlamaHttp(self.model, through_proxy=self._remote is not None)

    @property
    def endpoint(self) -> Endpoint:
        """Where the server listens, with its key; starts the embedded one if it is not running."""
        if self._closed:
            raise UsageError("this llama_server model is closed; make a new Model")
        if self._remote is not None:
            return self._remote
        assert self._embedded is not None  # noqa: S101 - one of the two is set in the constructor
        return self._embedded.endpoint()

    def load(self) -> None:
        """Start the embedded server; ask one by URL whether it is there."""
        self._http.get(self.endpoint, "/health", timeout=self._timeout)

    def capabilities(self) -> Capabilities:
        """Everything but tools; by URL no regular expressions, and JSON Schema as GBNF can express it."""
        embedded = self._embedded is not None
        return Capabilities(
            chat=True,
            raw_prompt=True,
            prefill=True,
            stream=True,
            count_tokens=True,
            constraints=EMBEDDED_KINDS if embedded else REMOTE_KINDS,
            constraint_engine="llguidance" if embedded else GBNF,
            constraint_engines=frozenset({"llguidance", GBNF} if embedded else {GBNF}),
            enforced_by="sampling" if embedded else "server",
        )

    def facts(self) -> ModelFacts:
        """From the GGUF header, nothing loaded; by URL from the server's ``/props``."""
        if self._gguf is not None:
            return self._gguf.facts(engine_name())
        endpoint = self.endpoint
        props = self._http.get(endpoint, "/props", timeout=self._timeout)
        if not isinstance(props, Mapping):
            raise BadResponse(f"{NAME}: {endpoint.url}/props is not that of a llama.cpp server")
        settings = props.get("default_generation_settings") or {}
        return ModelFacts.of(
            f"{endpoint.url}/props",
            context_length=settings.get("n_ctx"),
            chat_template=props.get("chat_template") or None,
            quantization=props.get("model_ftype"),
            name=props.get("model_alias"),
            engine=f"llama.cpp server {props.get('build_info', '')}".strip(),
        )

    def generate(self, request: Request) -> Completion:
        """Answer one request."""
        call = self._prepared(request)
        started = time.perf_counter()
        answer = Answer()
        with self._watching(call.endpoint):
            path, body = self._rendered(call)
            answer.take(self._http.post(call.endpoint, path, body, timeout=call.timeout))
        return self._completion(call, path, body, answer, time.perf_counter() - started)

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; closing the iterator closes the connection, which frees the slot."""
        call = self._prepared(request)
        started = time.perf_counter()
        first_text: float | None = None
        answer = Answer()
        with self._watching(call.endpoint):
            path, body = self._rendered(call)
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
            for payload in self._http.events(call.endpoint, path, body, timeout=call.timeout):
                text = answer.take(payload)
                if text:
                    first_text = first_text or time.perf_counter() - started
                    yield Delta(text)
        yield Delta("", self._completion(call, path, body, answer, time.perf_counter() - started, first_text))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages, rendered and counted by the server itself."""
        endpoint = self.endpoint
        self._need_template()
        with self._watching(endpoint):
            conversation = {"messages": wire_messages(messages)}
            rendered = self._http.post(endpoint, "/apply-template", conversation, timeout=self._timeout)
            text = {"content": self._field(rendered, "prompt"), "add_special": True, "parse_special": True}
            return len(self._field(self._http.post(endpoint, "/tokenize", text, timeout=self._timeout), "tokens"))

    def close(self) -> None:
        """Stop the embedded server, close the connections."""
        self._closed = True
        self._http.close()
        if self._embedded is not None:
            self._embedded.close()

    def _prepared(self, request: Request) -> _Call:
        refuse_stop_strings(request)
        if request.messages:
            self._need_template()
        ends = self._gguf.ends if self._gguf is not None else ()
        fields = constraint_fields(request.constraint, embedded=self._embedded is not None, ends=ends)
        body = {**sampling_fields(request, prompt_cache=self._prompt_cache), **fields}
        return _Call(request, self.endpoint, body, request.timeout or self._timeout)

    def _rendered(self, call: _Call) -> tuple[str, dict[str, Any]]:
        """Route and body. The chat route repeats a prefill in its answer, some builds do not: so such
        a conversation is rendered by the server and sent back as a prompt, which is never repeated."""
        request = call.request
        if request.prompt is not None:
            return "/v1/completions", {**call.body, "prompt": request.prompt}
        messages = {"messages": wire_messages(request.messages)}
        if request.messages[-1].role != "assistant":
            return "/v1/chat/completions", {**call.body, **messages}
        rendered = self._http.post(call.endpoint, "/apply-template", messages, timeout=call.timeout)
        return "/v1/completions", {**call.body, "prompt": self._field(rendered, "prompt")}

    def _completion(
        self, call: _Call, path: str, body: Mapping[str, Any], answer: Answer, latency: float, ttft: float | None = None
    ) -> Completion:
        if answer.finish is None:
            raise BadResponse(f"{NAME}: the answer ended without a finish reason", backend=NAME, model=self.model)
        effective = {name: value for name, value in body.items() if name not in ("prompt", "messages")}
        return Completion(
            text=answer.text,
            finish_reason=answer.finish,
            model=answer.model or self.model,
            backend=NAME,
            usage=answer.usage,
            reasoning=answer.reasoning,
            enforcement=enforcement_of(call.request.constraint, engine=engine_name() if self._embedded else ""),
            effective={"route": path, **self._started_with(), **effective},
            latency=latency,
            ttft=ttft,
            request_id=answer.request_id,
        )

    def _started_with(self) -> dict[str, Any]:
        if self._embedded is None:
            return {}
        settings = self._embedded.settings
        return {
            "context": settings.context,
            "slots": settings.slots,
            "threads": settings.threads,
            "gpu_layers": settings.gpu_layers,
        }

    def _need_template(self) -> None:
        # The server would fall back to ChatML for a model without a template, and answer 200.
        if self._gguf is not None and self._gguf.chat_template is None:
            raise TemplateError(
                f"{self._gguf.path} holds no chat template; send a raw prompt, or give Model a ChatTemplate"
            )

    @contextlib.contextmanager
    def _watching(self, endpoint: Endpoint) -> Iterator[None]:
        """Tell the death of the embedded server from a broken connection."""
        try:
            yield
        except (ServerFault, Unreachable) as error:
            death = self._embedded.death(endpoint) if self._embedded is not None and not self._closed else None
            if death is None:
                raise
            raise death from error

    def _field(self, payload: Any, name: str) -> Any:
        try:
            return payload[name]
        except (KeyError, TypeError) as error:
            raise BadResponse(f"{NAME}: no {name!r} in {str(payload)[:200]}", backend=NAME, model=self.model) from error


@frozen
class _Call:
    request: Request
    endpoint: Endpoint
    body: Mapping[str, Any]
    timeout: float


def _settings(gguf: GgufModel, options: Mapping[str, Any]) -> Settings:
    """The embedded engine's settings, checked, with osport's defaults for what is None."""
    value = {name: DEFAULTS.get(name) if given is None else given for name, given in options.items()}
    layers = value["gpu_layers"]
    return Settings(
        path=gguf.path,
        alias=gguf.name,
        context=gguf.checked_context(value["context"], backend=NAME),
        slots=check_number(NAME, "slots", value["slots"], at_least=1),
        threads=check_number(
            NAME, "threads", default_threads() if value["threads"] is None else value["threads"], at_least=1
        ),
        gpu_layers=None if layers is None else check_number(NAME, "gpu_layers", layers, at_least=-1),
        port=check_number(NAME, "port", value["port"], at_least=0, at_most=65535),
        startup_timeout=check_seconds(NAME, "startup_timeout", value["startup_timeout"]),
    )


def _checked_url(url: str) -> str:
    """The base of all routes. The key never stands in a URL, for URLs stand in messages and records."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise UsageError(f"{NAME}: no credentials in the URL; put the key into {KEY_VARIABLE} or give api_key")
    try:
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{NAME}: {url!r} is not the URL of a server; write http://host:port")
    return url.rstrip("/").removesuffix("/v1")


def _key(api_key: Callable[[], str] | None) -> str | None:
    if api_key is None:
        return os.environ.get(KEY_VARIABLE) or None
    if not callable(api_key):
        raise UsageError(f"{NAME}: api_key must be a callable that returns the key, so that no key stands in code")
    return api_key()
