"""The base of every backend that speaks to an OpenAI-like server; not a backend itself.

>>> from osport.backends.openai_compat import OpenAICompatBackend
>>> class Lab(OpenAICompatBackend):
...     name = "lab"
...     key_variable, url_variable = "LAB_API_KEY", "LAB_BASE_URL"
...     sampling = {**OpenAICompatBackend.sampling, "top_k": "top_k"}
...     thinking_by = "chat_template_kwargs"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from osport.backends._answer_checks import object_in
from osport.backends._chat_wire import ChatAnswer, tool_fields, wire_messages
from osport.backends._http_chat import Call, HttpChatBackend
from osport.backends._http_client import HttpClient
from osport.backends._options import check_seconds, refuse_unknown
from osport.backends._servers import ApiKey, endpoint_of, server_url, split_reference
from osport.chat_template.thinking import LEVELS
from osport.constrained.servers import dialect_of
from osport.core.deadline import Deadline
from osport.core.types import Determinism, Thinking
from osport.errors import BadResponse, ModelNotFound, UnsupportedFeature, UsageError
from osport.plugin import ALL_SAMPLING, Backend, Capabilities, ModelFacts, Request

__all__ = ["OpenAICompatBackend"]

COUNT = "count_tokens"
ThinkingBy = Literal["", "reasoning_effort", "chat_template_kwargs"]


class OpenAICompatBackend(HttpChatBackend):
    """One model of a server with OpenAI's routes.

    ``model``: ``NAME@http://host:port/v1``; without an URL the one in the environment variable ``url_variable``,
    or ``default_url``. ``api_key``: a callable that returns the key; without one the key in ``key_variable`` is
    used where the server is ``default_url`` or the one in ``url_variable``, and nowhere else. ``timeout`` of one
    call (600 s). Certificates are verified, redirects not followed, nothing is tried twice.

    A subclass sets class attributes, and declares nothing that its server ignores: what is not declared is
    refused before it is sent. What can be seen in an answer is checked: the model, the size of the prompt, that
    token counts, log-probabilities, tool calls and the end are there.

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.MissingDependency`.
    """

    name: ClassVar[str]
    """The backend's name, in errors and in completions."""
    extra: ClassVar[str] = "openai"
    """The extra of osport that installs httpx and httpx-sse."""
    default_url: ClassVar[str | None] = None
    """The server of a reference without URL: that of the vendor, whose key goes there."""
    key_variable: ClassVar[str] = ""
    url_variable: ClassVar[str] = ""
    """Environment variables: the key, and the server that it is for."""
    # An instance may narrow what follows, for its model or its server.
    dialect: str = "openai-compatible"
    """How constraints are written, a name of ``osport.constrained.servers.DIALECTS``; empty: the server takes none."""
    sampling: Mapping[str, str] = {
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "seed": "seed",
        "stop": "stop",
    }
    """Sampling parameters that the server knows, and how it calls them. Each is sent with every call."""
    always: Mapping[str, Any] = {}
    """Fields that every call sends besides, such as samplers of the server's own, switched off."""
    text_route: bool = True
    """Whether there is ``/v1/completions`` for raw prompts."""
    prefill: Mapping[str, Any] | None = None
    """The fields that make the server continue a trailing assistant message; None: it does not."""
    tools: bool = True
    images: bool = True
    logprobs: bool = True
    thinking_by: ThinkingBy = ""
    """How thinking is switched; levels are ``reasoning_effort`` either way. Reasoning is read under all its names."""
    budget_field: str = ""
    """The field for a thinking budget in tokens, where there is one."""
    reasoning_as: str = ""
    """The field of a message for the reasoning of an earlier turn; empty: such a turn is refused."""
    reports_usage: bool = True
    """Whether every answer brings token counts; then one without them is refused."""
    determinism: Determinism = "best_effort"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.thinking_by not in get_args(ThinkingBy):
            raise UsageError(f"{cls.__name__}.thinking_by={cls.thinking_by!r}: one of {get_args(ThinkingBy)}")
        if unknown := set(cls.sampling) - ALL_SAMPLING:
            raise UsageError(f"{cls.__name__}.sampling: {sorted(unknown)}: the names are {sorted(ALL_SAMPLING)}")
        if "features" not in vars(cls):
            cls.features = cls._features()

    def __init__(self, model: str, *, api_key: ApiKey | None = None, timeout: float = 600.0, **unknown: object) -> None:
        if not getattr(self, "name", ""):
            raise UsageError(f"{type(self).__name__} has no name; give the class one: name = 'lab'")
        refuse_unknown(self.name, unknown, ("api_key", "timeout"))
        name, inside = split_reference(model)
        named = self._server_of_environment()
        url = inside or named or self.default_url
        if not name or not url:
            raise UsageError(f"{self.name}: name a model and its server, e.g. {self.name}:some-model@http://host/v1")
        super().__init__(name)
        self._timeout = check_seconds(self.name, "timeout", timeout)
        root = server_url(self.name, url, said_by=self.url_variable if url is named else "")
        # A path of another kind is the vendor's own, and its routes have no /v1.
        self._routes = "/v1" if root != url.rstrip("/") or not urlsplit(root).path else ""
        self._endpoint = endpoint_of(
            self.name,
            root,
            api_key=api_key,
            key_variable=self.key_variable,
            url_variable=self.url_variable,
            named=named,
            vendor=self.default_url,
        )
        self._http = HttpClient(self.name, f"{name} at {root}", extra=self.extra)

    def capabilities(self) -> Capabilities:
        """What the class attributes declare."""
        dialect = dialect_of(self.dialect) if self.dialect else None
        return Capabilities(
            chat=True,
            raw_prompt=self.text_route,
            prefill=self.prefill is not None,
            stream=True,
            count_tokens=COUNT in self.features,
            sampling=frozenset(self.sampling),
            constraints=dialect.kinds if dialect else frozenset(),
            constraint_engine=dialect.engine if dialect else "",
            enforced_by="server" if dialect else "none",
            tools=self.tools,
            thinking=bool(self.thinking_by),
            images=self.images,
            logprobs=self.logprobs,
            score="score" in self.features,
        )

    def facts(self) -> ModelFacts:
        """What ``/v1/models`` says. Raises :class:`~osport.errors.ModelNotFound` for a model not listed there."""
        entry = self._listed()
        meta = object_in(entry, "meta")
        context = entry.get("max_model_len") or meta.get("n_ctx") or entry.get("context_length")
        return ModelFacts.of(
            f"{self._endpoint.url}{self._routes}/models",
            name=entry["id"],
            context_length=context or meta.get("n_ctx_train"),
            parameters=meta.get("n_params"),
            engine=self._engine(entry),
        )

    def thinking_fields(self, thinking: Thinking) -> dict[str, Any]:
        """The fields that bring a thinking switch about; empty when nobody asked.

        Raises :class:`~osport.errors.UnsupportedFeature` for a budget that the server has no field for.
        """
        if thinking is None:
            return {}
        if isinstance(thinking, str):
            if thinking not in LEVELS:
                raise UsageError(f"thinking={thinking!r}: a level is one of {', '.join(LEVELS)}")
            return {"reasoning_effort": thinking}
        budget = {}
        if not isinstance(thinking, bool) and thinking:
            if not self.budget_field:
                what = f"a thinking budget of {thinking} tokens"
                raise UnsupportedFeature(what, self.name, reason="the server has levels only, such as 'low'")
            budget = {self.budget_field: thinking}
        if self.thinking_by == "reasoning_effort":
            return {"reasoning_effort": "medium" if thinking else "none", **budget}
        # Two names are in use, and a template reads the one that it knows.
        switch = {"enable_thinking": bool(thinking), "thinking": bool(thinking)}
        return {"chat_template_kwargs": switch, **budget}

    def constraint_fields(self, request: Request) -> dict[str, Any]:
        """The fields that ask the server for the form of the answer."""
        return dialect_of(self.dialect).fields(request.constraint) if request.constraint is not None else {}

    def exact_prompt_tokens(self, request: Request, reported: int) -> int | None:
        """How many tokens the prompt has, or at least has, where the server can count and it is worth a request."""
        return None

    def _asked(self, request: Request, *, stream: bool) -> Call:
        filled = request.sampling.filled()
        ours = {name: getattr(filled, name) for name in self.sampling}
        ours = {name: list(value) if name == "stop" else value for name, value in ours.items()}
        chat = request.prompt is None
        beside = {
            **self.always,
            **self.constraint_fields(request),
            **self.thinking_fields(request.thinking),
            **tool_fields(request),
        }
        if request.logprobs is not None:
            # 0 alternatives would mean no log-probabilities at all to some servers.
            most = max(1, request.logprobs)
            beside |= {"logprobs": True, "top_logprobs": most} if chat else {"logprobs": most}
        if chat and request.messages[-1].role == "assistant":
            beside |= self.prefill or {}
        prompt = (
            {"messages": wire_messages(self.name, request.messages, reasoning_as=self.reasoning_as)}
            if chat
            else {"prompt": request.prompt}
        )
        sent = {self.sampling[name]: value for name, value in ours.items()}
        body = {"model": self.model, **prompt, **sent, **beside}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        path = f"{self._routes}/chat/completions" if chat else f"{self._routes}/completions"
        effective = {"route": path, "model": self.model, **ours, **beside}
        answer = ChatAnswer(self.name, alternatives=request.logprobs or 0)
        return Call(request, path, body, effective, answer)

    @classmethod
    def _server_of_environment(cls) -> str | None:
        return (os.environ.get(cls.url_variable) or None) if cls.url_variable else None

    def _prompt_size(self, call: Call) -> int | None:
        reported = call.answer.usage.prompt_tokens
        return None if reported is None else self.exact_prompt_tokens(call.request, reported)

    def _enforced_by(self) -> str:
        return f"{dialect_of(self.dialect).engine} at {self._endpoint.url}"

    def _engine(self, entry: Mapping[str, Any]) -> str:
        owner = entry.get("owned_by")
        return f"{owner}, by an OpenAI-like server" if owner else "an OpenAI-like server"

    def _listed(self) -> Mapping[str, Any]:
        """The model's entry in the server's list."""
        path = f"{self._routes}/models"
        with self._endpoint.key_hidden():
            listed = self._http.get(self._endpoint, path, deadline=Deadline.after(self._timeout))
            try:
                entries: dict[str, Mapping[str, Any]] = {str(entry["id"]): entry for entry in listed["data"]}
            except (KeyError, TypeError) as error:
                raise BadResponse(
                    f"{self.name}: {self._endpoint.url}{path} is no list of models: {str(listed)[:200]}"
                ) from error
            if self.model not in entries:
                there = ", ".join(sorted(entries)[:10]) or "none"
                raise ModelNotFound(f"{self.name}: no model {self.model!r} at {self._endpoint.url}; there are: {there}")
            return entries[self.model]

    @classmethod
    def _features(cls) -> frozenset[str]:
        able = {
            "chat": True,
            "stream": True,
            "raw_prompt": cls.text_route,
            "prefill": cls.prefill is not None,
            "tools": cls.tools,
            "thinking": bool(cls.thinking_by),
            "images": cls.images,
            "logprobs": cls.logprobs,
            COUNT: cls.count_tokens is not Backend.count_tokens,
            "score": cls.score is not Backend.score,
        }
        kinds = dialect_of(cls.dialect).kinds if cls.dialect else frozenset()
        return frozenset(name for name, there in able.items() if there) | frozenset(cls.sampling) | kinds
