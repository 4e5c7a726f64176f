"""llama.cpp's own server: embedded in a child process, or one that runs already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import ClassVar, TypeVar

from osport.backends._answer_checks import object_in
from osport.backends._embedded_server import EmbeddedServer, engine_name
from osport.backends._gguf_model import GgufModel
from osport.backends._http_client import Endpoint
from osport.backends._llama_constraints import GBNF
from osport.backends._llama_dialogue import Dialogue, takes_tools
from osport.backends._llama_http import Asking, LlamaHttp, Route
from osport.backends._llama_server_options import remote_endpoint, settings_of
from osport.backends._options import check_seconds, check_switch, refuse_unknown
from osport.core.deadline import Deadline
from osport.core.secrets import without_key
from osport.core.types import ContinuationScore
from osport.errors import BadResponse, ServerFault, Unreachable, UsageError
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

T = TypeVar("T")
NAME = "llama_server"
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
    For a URL: ``api_key``, a callable that returns the key; without one the key in ``LLAMA_API_KEY`` goes to the
    server in ``LLAMA_BASE_URL``, and nowhere else.
    For both: ``timeout`` of one call (600 s); ``prompt_cache``, whether the part of a prompt that equals
    the one before it is not computed again (True; changes speed, and in rare cases the last bits of logits).

    Raises :class:`~osport.errors.UsageError` (options), :class:`~osport.errors.ModelNotFound`,
    :class:`~osport.errors.FormatError` (not GGUF, cut off),
    :class:`~osport.errors.MissingDependency`.
    """

    features: ClassVar[frozenset[str]] = (
        ALL_SAMPLING
        | EMBEDDED_KINDS
        | {"chat", "raw_prompt", "prefill", "tools", "thinking", "stream", "count_tokens", "logprobs", "score"}
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
        cache = check_switch(NAME, "prompt_cache", prompt_cache)
        self._closed = False
        self._gguf: GgufModel | None = None
        self._embedded: EmbeddedServer | None = None
        self._remote: Endpoint | None = None
        if model.startswith(("http://", "https://")):
            given = [name for name, value in for_embedded.items() if value is not None]
            if given:
                raise UsageError(f"{NAME}: {given[0]} is set where the server at {model} was started, not here")
            self._remote = remote_endpoint(model, api_key)
        else:
            if api_key is not None:
                raise UsageError(f"{NAME}: api_key is for a server by URL; the embedded one makes its own")
            self._gguf = GgufModel.find(model, backend=NAME)
            self._embedded = EmbeddedServer(settings_of(self._gguf, for_embedded))
        self._dialogue = Dialogue(
            self.model,
            gguf=self._gguf,
            settings=self._embedded.settings if self._embedded is not None else None,
            prompt_cache=cache,
        )
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
        self._run(self._dialogue.told("/health"))

    def capabilities(self) -> Capabilities:
        """By URL no regular expressions, and JSON Schema as GBNF can express it; tools where a template has them."""
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
            constrained_thinking=embedded,
            # A server by URL is asked about its template when there are tools to send.
            tools=self._gguf is None or takes_tools(self._gguf.chat_template),
            thinking=True,
            logprobs=True,
            score=True,
        )

    def facts(self) -> ModelFacts:
        """From the GGUF header, nothing loaded; by URL from the server's ``/props``."""
        if self._gguf is not None:
            return self._gguf.facts(engine_name())
        endpoint = self.endpoint
        props = self._run(self._dialogue.told("/props"))
        if not isinstance(props, Mapping):
            raise BadResponse(f"{NAME}: {endpoint.url}/props is not that of a llama.cpp server")
        settings = object_in(props, "default_generation_settings")
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
        return self._answered(self._run(self._dialogue.answer(request), request.timeout))

    async def agenerate(self, request: Request) -> Completion:
        """Answer one request on the event loop; cancelling closes the connection, which frees the slot."""
        return self._answered(await self._arun(self._dialogue.answer(request), request.timeout))

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer piece by piece; closing the iterator closes the connection, which frees the slot."""
        with self._watching(request.timeout) as where:
            call = self._http.run(self._dialogue.prepared(request), where)
            for payload in self._http.pieces(where(), call.ask):
                if delta := call.take(payload):
                    yield delta
            completion = self._http.run(self._dialogue.completed(call), where)
        yield Delta("", self._answered(completion))

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """:meth:`stream` on the event loop; leaving it, or cancelling, closes the connection."""
        with self._watching(request.timeout) as where:
            call = await self._http.arun(self._dialogue.prepared(request), where)
            route = await asyncio.to_thread(where)
            async with contextlib.aclosing(self._http.apieces(route, call.ask)) as payloads:
                async for payload in payloads:
                    if delta := call.take(payload):
                        yield delta
            completion = await self._http.arun(self._dialogue.completed(call), where)
        yield Delta("", self._answered(completion))

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """The log-probability of each continuation, of all its tokens, as the model itself gives it."""
        return self._answered(self._run(self._dialogue.scores(request, continuations), request.timeout))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages, rendered and counted by the server itself."""
        return len(self._run(self._dialogue.prompt_tokens(Request(tuple(messages)))))

    def close(self) -> None:
        """Stop the embedded server, close the connections."""
        self._closed = True
        self._http.close()
        if self._embedded is not None:
            self._embedded.close()

    def _answered(self, answer: T) -> T:
        if self._embedded is not None:
            self._embedded.answered()
        return answer

    def _run(self, asking: Asking[T], timeout: float | None = None) -> T:
        with self._watching(timeout) as where:
            return self._http.run(asking, where)

    async def _arun(self, asking: Asking[T], timeout: float | None = None) -> T:
        with self._watching(timeout) as where:
            return await self._http.arun(asking, where)

    @contextlib.contextmanager
    def _watching(self, timeout: float | None) -> Iterator[Callable[[], Route]]:
        """Hand out the route of one call, and tell the death of the embedded server from a broken connection.

        The clock starts when the server is there: the embedded one has a limit of its own for that.
        """
        used: list[Route] = []

        def where() -> Route:
            if not used:
                used.append(Route(self.endpoint, Deadline.after(timeout or self._timeout)))
            return used[0]

        with without_key(self._remote.api_key if self._remote is not None else None):
            try:
                yield where
            except (ServerFault, Unreachable) as error:
                if not used or self._embedded is None or self._closed:
                    raise
                death = self._embedded.death(used[0].endpoint)
                if death is None:
                    raise
                raise death from error
