"""Ollama, through its own API: the OpenAI-like one cannot set the context, and trims a long prompt in silence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from osport.backends import _ollama_wire as wire
from osport.backends._answer_checks import object_in
from osport.backends._chat_wire import ChatAnswer
from osport.backends._http_chat import Call, HttpChatBackend
from osport.backends._http_client import HttpClient
from osport.backends._options import check_number, check_seconds, refuse_unknown
from osport.backends._servers import ApiKey, endpoint_of, server_url, split_reference
from osport.constrained.servers import dialect_of, numbers
from osport.core.deadline import Deadline
from osport.errors import BadResponse, ModelNotFound, OsportError, UnsupportedFeature, UsageError
from osport.plugin import ALL_SAMPLING, Capabilities, ModelFacts, Request

__all__ = ["OllamaBackend"]

NAME = "ollama"
LOCAL = "http://127.0.0.1:11434"
VENDOR = "https://ollama.com"
# The first that takes truncate, shift and logprobs; an older one drops them without a word.
OLDEST = (0, 12, 11)
DIALECT = dialect_of("ollama")
MOST_CONTEXT = 8192


class OllamaBackend(HttpChatBackend):
    """``ollama:MODEL``, or ``ollama:MODEL@http://host:11434``; without an URL the server in ``OLLAMA_HOST``, or this
    machine's.

    ``context``: tokens that prompt and answer may have together (default: what the model was trained with, at most
    8192); the server's own default depends on its memory, and another value loads the model again. ``keep_alive``:
    how long the model stays loaded after a call, in Ollama's words (``"5m"``; ``"-1"`` for ever, ``"0"`` not at all).
    ``api_key``: a callable that returns the key; without one the key in ``OLLAMA_API_KEY`` goes to ollama.com and to
    the server in ``OLLAMA_HOST``, and nowhere else. ``timeout`` of one call (600 s).

    Needs Ollama 0.12.11 or newer.
    """

    name = NAME
    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING | DIALECT.kinds | {"chat", "raw_prompt", "stream", "tools", "thinking", "images", "logprobs"}
    )

    def __init__(
        self,
        model: str,
        *,
        context: int | None = None,
        keep_alive: str = "5m",
        api_key: ApiKey | None = None,
        timeout: float = 600.0,
        **unknown: object,
    ) -> None:
        refuse_unknown(NAME, unknown, ("context", "keep_alive", "api_key", "timeout"))
        name, inside = split_reference(model)
        if not name:
            raise UsageError(f"{NAME}: name a model, e.g. ollama:qwen3:8b")
        super().__init__(name)
        if context is not None:
            check_number(NAME, "context", context, at_least=1)
        if not isinstance(keep_alive, str):
            raise UsageError(f"{NAME}: keep_alive={keep_alive!r}: a string in Ollama's words, such as '5m' or '-1'")
        self._asked_context = context
        self._keep_alive = int(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
        self._timeout = check_seconds(NAME, "timeout", timeout)
        named = _host_of_environment()
        url = server_url(NAME, inside or named or LOCAL, said_by="OLLAMA_HOST" if named and not inside else "")
        self._endpoint = endpoint_of(
            NAME,
            url,
            api_key=api_key,
            key_variable="OLLAMA_API_KEY",
            url_variable="OLLAMA_HOST",
            named=named,
            vendor=VENDOR,
        )
        self._http = HttpClient(NAME, f"{name} at {url}", extra="ollama")

    def capabilities(self) -> Capabilities:
        """What ``/api/show`` says of this model; asks the server once, loads nothing."""
        able = self._shown.get("capabilities")
        able = able if isinstance(able, list) else ()
        return Capabilities(
            chat=True,
            raw_prompt=True,
            stream=True,
            constraints=DIALECT.kinds,
            constraint_engine=DIALECT.engine,
            enforced_by="server",
            tools="tools" in able,
            thinking="thinking" in able,
            images="vision" in able,
            logprobs=True,
        )

    def facts(self) -> ModelFacts:
        """What ``/api/show`` says; the template there is Ollama's own, not the model's chat template."""
        shown, info = self._shown, self._info
        details = object_in(shown, "details")
        return ModelFacts.of(
            f"{self._endpoint.url}/api/show",
            name=self.model,
            architecture=info.get("general.architecture"),
            context_length=self._trained_context,
            parameters=info.get("general.parameter_count"),
            quantization=details.get("quantization_level") or None,
            license=info.get("general.license") or shown.get("license") or None,
            ollama_template=shown.get("template") or None,
            engine=f"Ollama {self._version}",
        )

    def load(self) -> None:
        """Have the server load the model, with the context that the calls will ask for."""
        options = {"num_ctx": self._context}
        body = {"model": self.model, "options": options, "keep_alive": self._keep_alive, "stream": False}
        deadline = Deadline.after(self._timeout)
        with self._explained(deadline):
            self._http.post(self._endpoint, "/api/generate", body, deadline=deadline)

    def unload(self) -> None:
        """Make the server free the memory of this model now, for all its users."""
        body = {"model": self.model, "keep_alive": 0, "stream": False}
        self._http.post(self._endpoint, "/api/generate", body, deadline=Deadline.after(self._timeout))

    def _asked(self, request: Request, *, stream: bool) -> Call:
        options = wire.sampling_options(request, context=self._context)
        family = str(object_in(self._shown, "details").get("family", ""))
        beside = {
            **DIALECT.fields(request.constraint),
            **wire.thinking_field(request.thinking, family),
            **wire.tool_fields(request),
            "keep_alive": self._keep_alive,
            "truncate": False,
            "shift": False,
        }
        if request.logprobs is not None:
            beside |= {"logprobs": True, "top_logprobs": request.logprobs}
        path, prompt = (
            ("/api/generate", {"prompt": request.prompt, "raw": True})
            if request.prompt is not None
            else ("/api/chat", {"messages": wire.wire_messages(request.messages)})
        )
        body = {"model": self.model, **prompt, "stream": stream, "options": options, **beside}
        sampling = request.sampling.filled()
        effective: dict[str, Any] = {
            "route": path,
            "model": self.model,
            **{name: getattr(sampling, name) for name in ALL_SAMPLING - {"stop"}},
            **options,
            **beside,
        }
        if request.constraint is not None and not DIALECT.keeps_order:
            effective["property_order"] = "alphabetical"
        if dropped := wire.dropped_keywords(request.tools):
            effective["tool_keywords_left_out"] = dropped
        answer = ChatAnswer(NAME, alternatives=request.logprobs or 0)
        return Call(request, path, body, effective, answer)

    def _take(self, answer: ChatAnswer, payload: Any) -> str:
        return wire.take(answer, payload)

    def _pieces(self, call: Call, deadline: Deadline) -> Generator[Any]:
        return self._http.lines(self._endpoint, call.path, call.body, deadline=deadline)

    def _apieces(self, call: Call, deadline: Deadline) -> AsyncGenerator[Any]:
        return self._http.alines(self._endpoint, call.path, call.body, deadline=deadline)

    def _same_models(self) -> tuple[str, ...]:
        return (f"{self.model}:latest",)

    def _enforced_by(self) -> str:
        return f"{DIALECT.engine} {self._version}"

    @cached_property
    def _shown(self) -> Mapping[str, Any]:
        deadline = Deadline.after(self._timeout)
        with deadline.applied(), self._explained(deadline):
            self._version  # noqa: B018 - an old server drops what is sent, so it is asked nothing
            shown = self._http.post(self._endpoint, "/api/show", {"model": self.model}, deadline=deadline)
        return self._object(shown, "/api/show", "details")

    @cached_property
    def _version(self) -> str:
        answer = self._http.get(self._endpoint, "/api/version", deadline=Deadline.after(self._timeout))
        version = str(self._object(answer, "/api/version", "version")["version"])
        # A server built from source calls itself 0.0.0.
        if (0, 0, 0) < numbers(version) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            reason = f"it ignores that a prompt must not be cut; {wanted} is the oldest that does not"
            raise UnsupportedFeature(f"Ollama {version}", NAME, reason=reason)
        return version

    @property
    def _info(self) -> Mapping[str, Any]:
        return object_in(self._shown, "model_info")

    @property
    def _trained_context(self) -> int | None:
        length = self._info.get(f"{self._info.get('general.architecture')}.context_length")
        return length if isinstance(length, int) else None

    @property
    def _context(self) -> int:
        trained = self._trained_context
        if self._asked_context is None:
            return min(trained or MOST_CONTEXT, MOST_CONTEXT)
        if trained is not None and self._asked_context > trained:
            raise UsageError(f"{NAME}: context={self._asked_context}: {self.model} was trained with {trained} tokens")
        return self._asked_context

    def _explain(self, error: ModelNotFound) -> None:
        """Tell what models there are when this one is not."""
        with contextlib.suppress(OsportError, KeyError, TypeError):
            listed = self._http.get(self._endpoint, "/api/tags", deadline=Deadline.after(self._timeout))
            there = ", ".join(sorted(entry["name"] for entry in listed["models"])[:10]) or "none"
            error.args = (f"{error}; there are: {there}. Fetch it with: ollama pull {self.model}",)

    def _object(self, answer: Any, path: str, name: str) -> Mapping[str, Any]:
        if not isinstance(answer, Mapping) or name not in answer:
            raise BadResponse(f"{NAME}: {self._endpoint.url}{path} is not that of an Ollama server", backend=NAME)
        return answer


def _host_of_environment() -> str | None:
    """``OLLAMA_HOST`` as Ollama reads it: host, host:port, :port or URL; the address that means any is this machine."""
    named = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not named:
        return None
    url = named if "://" in named else f"http://{named}"
    scheme, _, host = url.partition("://")
    host = host.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - compared with, not bound to
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    elif host.startswith(":"):
        host = f"127.0.0.1{host}"
    with_port = ":" in host.rpartition("]")[2] or scheme == "https"
    return f"{scheme}://{host}" if with_port else f"{scheme}://{host}:11434"
