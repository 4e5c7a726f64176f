"""A fake server for the tests of those who write a backend over HTTP: truthful, or lying in a way with a name.

It speaks as OpenAI, vLLM, llama.cpp, Ollama and Anthropic do, by route, in a thread of this process. There is no
model in it: a fake shows that faults are caught, never that an engine works.

>>> from osport import Model
>>> from osport.testing.fake_server import FakeServer
>>> with FakeServer(lies=["other_model"]) as server, Model(f"openai:{server.model}@{server.url}/v1") as model:
...     model.generate("Hello")
Traceback (most recent call last):
osport.errors.BadResponse: openai: asked for the model 'fake-model', answered by 'another-model'; ...
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, get_args

from attrs import evolve, frozen

from osport.errors import UsageError
from osport.testing._fake_dialects import DIALECTS, Dialect
from osport.testing._fake_engine import LOGPROB, SPEECH, Asked, Engine, Refusal, Spoken

__all__ = ["FakeRequest", "FakeServer", "Lie"]

Lie = Literal[
    "drops_constraint",
    "truncates_prompt",
    "other_model",
    "dies_midway",
    "error_after_200",
    "malformed",
    "slow_drip",
    "drips_headers",
    "no_usage",
    "no_end",
    "wrong_content_type",
    "ignores_logprobs",
    "ignores_tool_choice",
    "echoes_key",
    "key_in_answer",
    "redirects",
]
"""
``drops_constraint``: answers in free text. ``truncates_prompt``: reads the last third of a prompt.
``other_model``: answers with another model. ``dies_midway``: breaks the connection inside the answer.
``error_after_200``: reports an error inside a good answer. ``malformed``: sends half a JSON object.
``slow_drip``: sends one byte now and then, for ever. ``drips_headers``: sends one header now and then, for ever,
and never the answer. ``no_usage``: counts no tokens. ``no_end``: ends a stream
without a finish reason. ``wrong_content_type``: calls its answer HTML. ``ignores_logprobs``, ``ignores_tool_choice``.
``echoes_key``: refuses the key and prints it. ``key_in_answer``: prints it where the answer should be, behind a 200.
``redirects``: sends the client to ``redirect_to``.
"""

DRIP_SECONDS = 0.02


@frozen
class FakeRequest:
    """What arrived: the path, the headers by their names in small letters, the JSON body."""

    path: str
    headers: Mapping[str, str]
    body: Any


class FakeServer:
    """A fake, from ``with`` to its end on a free loopback port.

    ``lies``: how it lies about every answer (none: it is truthful). ``model``: the one name that it serves.
    ``speech``: what it says where no form is asked for. ``context``: tokens, which are words here, of prompt and
    answer together. ``api_key``: the one that it demands. ``redirect_to``: where ``redirects`` sends clients.
    ``requests`` holds what arrived, oldest first.

    Of constraints it enforces simple JSON Schemas, labels, and grammars of literals; others are a 400.
    """

    def __init__(
        self,
        *,
        lies: Iterable[Lie] = (),
        model: str = "fake-model",
        speech: str = SPEECH,
        context: int = 512,
        api_key: str | None = None,
        redirect_to: str = "",
    ) -> None:
        self.lies = frozenset(lies)
        unknown = sorted(self.lies - set(get_args(Lie)))
        if unknown:
            raise UsageError(f"unknown lie {unknown[0]!r}; there are: {', '.join(get_args(Lie))}")
        self.model = model
        self.api_key = api_key
        self.redirect_to = redirect_to
        self.requests: list[FakeRequest] = []
        self.engine = Engine(context, speech)
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def about(self, path: str, body: Any) -> Any:
        """The answer of a route that asks nothing of the model; None for a route that is not there."""
        context = self.engine.context
        if path == "/v1/models":
            meta = {"n_ctx": context, "n_ctx_train": context}
            listed = {"id": self.model, "owned_by": "fake", "max_model_len": context, "meta": meta}
            return {"object": "list", "data": [listed]}
        if path == "/version":
            return {"version": "0.32.0"}
        if path == "/props":
            settings = {"n_ctx": context}
            return {"default_generation_settings": settings, "model_alias": self.model, "build_info": "fake"}
        if path == "/apply-template":
            rendered = self.engine.rendered((m["role"], m["content"]) for m in body["messages"])
            return {"prompt": " ".join(token.strip() for token in rendered)}
        if path == "/tokenize":
            tokens = self.engine.ids(self._prompt(body))
            return {"tokens": tokens, "count": len(tokens), "max_model_len": context}
        if path == "/v1/messages/count_tokens":
            return {"input_tokens": len(DIALECTS["/v1/messages"].asked(path, body, self.engine).prompt)}
        if path == "/api/version":
            return {"version": "0.12.11"}
        if path == "/api/tags":
            return {"models": [{"name": self.model, "model": self.model}]}
        if path == "/api/show":
            info = {"general.architecture": "fake", "fake.context_length": context, "general.license": "apache-2.0"}
            details = {"family": "fake", "quantization_level": "Q0"}
            able = ["completion", "tools"]
            return {"details": details, "model_info": info, "capabilities": able, "template": "{{ .Prompt }}"}
        return None

    def _prompt(self, body: Any) -> list[str]:
        if "messages" in body:
            going_on = bool(body.get("continue_final_message"))
            return self.engine.rendered(((m["role"], m["content"]) for m in body["messages"]), going_on=going_on)
        return self.engine.tokenize(body.get("content", body.get("prompt", "")))


def _handler_of(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.requests.append(FakeRequest(self.path, headers, body))
            with contextlib.suppress(OSError):
                _Reply(fake, self, headers, body).send()

        do_GET = do_POST  # noqa: N815 - http.server's own naming

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Reply:
    """One answer on its way through the lies."""

    def __init__(self, fake: FakeServer, handler: Any, headers: Mapping[str, str], body: Any) -> None:
        self.fake = fake
        self.lies = fake.lies
        self.handler = handler
        self.headers = headers
        self.body = body
        self.path = handler.path
        self.dialect: Dialect = DIALECTS.get(self.path) or (
            DIALECTS["/api/chat"] if self.path.startswith("/api/") else DIALECTS["/v1/chat/completions"]
        )

    def send(self) -> None:
        try:
            self._send()
        except Refusal as refusal:
            self._json(self.dialect.error(refusal.status, refusal.kind, str(refusal)), refusal.status)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            self._json(self.dialect.error(400, "invalid_request_error", f"the fake understands no {error!r}"), 400)

    def _send(self) -> None:
        if "redirects" in self.lies:
            self.handler.send_response(307)
            self.handler.send_header("Location", self.fake.redirect_to + self.path)
            self.handler.send_header("Content-Length", "0")
            self.handler.end_headers()
            return
        self._check_key()
        if self.path not in DIALECTS:
            self._about()
            return
        if self.path == "/api/generate" and "prompt" not in self.body:
            self._check_model(self.body["model"])
            self._plain_json({"model": self.fake.model, "response": "", "done": True, "done_reason": "load"})
            return
        asked = self.dialect.asked(self.path, self.body, self.fake.engine)
        self._check_model(asked.model)
        if "drips_headers" in self.lies:
            self._drip_headers()
            return
        if "key_in_answer" in self.lies:
            self._answer_with_the_key(stream=asked.stream)
            return
        asked, spoken = self._lied(asked)
        model = "another-model" if "other_model" in self.lies else self.fake.model
        usage = "no_usage" not in self.lies
        if asked.stream:
            self._stream(list(self.dialect.pieces(self.path, asked, spoken, model, usage=usage)))
            return
        answer = self.dialect.whole(self.path, asked, spoken, model, usage=usage)
        if "error_after_200" in self.lies:
            answer = self.dialect.error(500, "api_error", "out of memory")
        for place, choice in enumerate(answer.get("choices", ())):
            if self.body.get("prompt_logprobs") is not None:
                answer["choices"][place] = {**choice, "prompt_logprobs": self._prompt_logprobs(asked)}
        self._json(answer)

    def _check_key(self) -> None:
        given = self._given_key()
        if "echoes_key" in self.lies or (self.fake.api_key is not None and given != self.fake.api_key):
            shown = given if "echoes_key" in self.lies else "given"
            raise Refusal(401, "authentication_error", f"the key {shown} is not valid")

    def _given_key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or self.headers.get("x-api-key", "")

    def _answer_with_the_key(self, *, stream: bool) -> None:
        answer = {"detail": f"the key {self._given_key()} has no credit left"}
        if stream:
            self._stream([self.dialect.event(answer)])
        else:
            self._plain_json(answer)

    def _drip_headers(self) -> None:
        self.handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.fake.closing.is_set():
            self.handler.wfile.write(b"X-Drop: 1\r\n")
            time.sleep(DRIP_SECONDS)

    def _check_model(self, name: str | None) -> None:
        # llama.cpp serves what it has, whatever it is asked for, and is mostly asked for nothing.
        if name is not None and name != self.fake.model:
            raise Refusal(404, "not_found_error", f"the model {name!r} does not exist")

    def _about(self) -> None:
        if self.path == "/api/show":
            self._check_model((self.body or {}).get("model"))
        answer = self.fake.about(self.path, self.body)
        if answer is None:
            raise Refusal(404, "not_found_error", f"no route {self.path}")
        self._plain_json(answer)

    def _lied(self, asked: Asked) -> tuple[Asked, Spoken]:
        if "drops_constraint" in self.lies:
            asked = evolve(asked, form=None)
        if "ignores_tool_choice" in self.lies:
            asked = evolve(asked, tool_choice="auto")
        if "truncates_prompt" in self.lies:
            asked = evolve(asked, prompt=asked.prompt[-max(1, len(asked.prompt) // 3) :])
        if "ignores_logprobs" in self.lies:
            asked = evolve(asked, logprobs=None)
        return asked, self.fake.engine.answer(asked)

    def _prompt_logprobs(self, asked: Asked) -> list[Any]:
        ids = self.fake.engine.ids(asked.prompt)
        rows = [
            {str(number): {"logprob": LOGPROB, "rank": 1, "decoded_token": token}}
            for number, token in zip(ids, asked.prompt, strict=True)
        ]
        return [None, *rows[1:]]

    def _json(self, payload: Any, status: int = 200) -> None:
        text = json.dumps(payload).encode()
        if status == 200:
            if "malformed" in self.lies:
                text = text[: len(text) // 2]
            if "slow_drip" in self.lies:
                self._begin(200, "application/json", chunked=True)
                self._drip(b" ")
                return
            if "dies_midway" in self.lies:
                self._begin(200, "application/json", length=len(text))
                self.handler.wfile.write(text[: len(text) // 2])
                self.handler.close_connection = True
                return
        self._plain_json(text, status)

    def _plain_json(self, payload: Any, status: int = 200) -> None:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        lying = "wrong_content_type" in self.lies and status == 200 and self.path in DIALECTS
        self._begin(status, "text/html" if lying else "application/json", length=len(text))
        self.handler.wfile.write(text)

    def _stream(self, pieces: list[bytes]) -> None:
        kind = "text/html" if "wrong_content_type" in self.lies else self.dialect.stream_type
        self._begin(200, kind, chunked=True)
        half = len(pieces) // 2
        for piece in self._told(pieces, half):
            self._chunk(piece)
        if "slow_drip" in self.lies:
            self._drip(b"\n" if kind.endswith("ndjson") else b": still here\n\n")
        if "dies_midway" in self.lies:
            self.handler.close_connection = True
            return
        self.handler.wfile.write(b"0\r\n\r\n")

    def _told(self, pieces: list[bytes], half: int) -> Iterator[bytes]:
        """The pieces up to where the lie begins."""
        cut = self.lies & {"dies_midway", "error_after_200", "malformed", "slow_drip", "no_end"}
        yield from pieces[:half] if cut else pieces
        if "error_after_200" in self.lies:
            yield self.dialect.event(self.dialect.error(500, "api_error", "out of memory"), "error")
        if "malformed" in self.lies:
            whole = pieces[half].rstrip()
            yield whole[: len(whole) // 2] + b"\n\n"

    def _drip(self, drop: bytes) -> None:
        while not self.fake.closing.is_set():
            self._chunk(drop)
            time.sleep(DRIP_SECONDS)

    def _chunk(self, piece: bytes) -> None:
        self.handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.handler.wfile.flush()

    def _begin(self, status: int, kind: str, *, length: int | None = None, chunked: bool = False) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", kind)
        if length is not None:
            self.handler.send_header("Content-Length", str(length))
        if chunked:
            self.handler.send_header("Transfer-Encoding", "chunked")
        self.handler.end_headers()
