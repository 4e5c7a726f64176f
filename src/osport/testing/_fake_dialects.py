"""What the fake server reads and writes: the routes of OpenAI, vLLM, llama.cpp, Ollama and Anthropic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from osport.testing._fake_engine import LOGPROB, Asked, Engine, Refusal, Spoken

__all__ = ["DIALECTS", "Anthropic", "Dialect", "Ollama", "OpenAI"]

Json = dict[str, Any]


class Dialect:
    """One way to ask and to answer. ``usage``: whether answers tell their token counts."""

    stream_type = "text/event-stream"

    def asked(self, path: str, body: Json, engine: Engine) -> Asked:
        """The question in a request."""
        raise NotImplementedError

    def whole(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Json:
        """The answer in one piece."""
        raise NotImplementedError

    def pieces(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Iterator[bytes]:
        """The answer as a stream."""
        raise NotImplementedError

    def error(self, status: int, kind: str, message: str) -> Json:
        """The body of an error."""
        return {"error": {"code": status, "type": kind, "message": message}}

    def event(self, payload: Json, kind: str = "") -> bytes:
        """One object of a stream."""
        return (f"event: {kind}\n" if kind else "").encode() + b"data: " + json.dumps(payload).encode() + b"\n\n"


class OpenAI(Dialect):
    """``/v1/chat/completions`` and ``/v1/completions``, with the extra fields of vLLM and llama.cpp."""

    def asked(self, path: str, body: Json, engine: Engine) -> Asked:
        """The question in a request."""
        chat = path.endswith("/chat/completions")
        if chat:
            going_on = bool(body.get("continue_final_message"))
            prompt = engine.rendered(
                ((m["role"], _text(m.get("content"))) for m in body["messages"]), going_on=going_on
            )
        else:
            given = body["prompt"]
            prompt = engine.words(given) if isinstance(given, list) else engine.tokenize(given)
        choice = body.get("tool_choice", "auto")
        logprobs = body.get("top_logprobs", 0) if body.get("logprobs") is True else body.get("logprobs")
        logprobs = body.get("n_probs") or logprobs
        return Asked(
            prompt=prompt,
            model=body.get("model"),
            most=body.get("max_tokens", body.get("max_completion_tokens")),
            stop=body.get("stop") or (),
            form=_form(body),
            tools=[tool["function"] for tool in body.get("tools") or ()],
            tool_choice=choice["function"]["name"] if isinstance(choice, dict) else choice,
            logprobs=None if logprobs is False else logprobs,
            stream=bool(body.get("stream")),
        )

    def whole(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Json:
        """The answer in one piece."""
        choice: Json = {"index": 0, "finish_reason": spoken.finish}
        if path.endswith("/chat/completions"):
            choice["message"] = {"role": "assistant", "content": spoken.text, **self._calls(spoken)}
        else:
            choice["text"] = spoken.text
        if asked.logprobs is not None:
            choice["logprobs"] = {"content": [_logprob(token, asked.logprobs) for token in spoken.tokens]}
        return {"id": "fake-1", "model": model, "choices": [choice], **(_usage(spoken) if usage else {})}

    def pieces(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Iterator[bytes]:
        """The answer as a stream."""
        chat = path.endswith("/chat/completions")
        about = {"id": "fake-1", "model": model}
        for token in spoken.tokens:
            choice: Json = {"index": 0, "finish_reason": None}
            choice |= {"delta": {"content": token}} if chat else {"text": token}
            if asked.logprobs is not None:
                choice["logprobs"] = {"content": [_logprob(token, asked.logprobs)]}
            yield self.event({**about, "choices": [choice]})
        end = {"delta": self._calls(spoken)} if chat else {"text": ""}
        yield self.event({**about, "choices": [{"index": 0, "finish_reason": spoken.finish, **end}]})
        if usage:
            yield self.event({**about, "choices": [], **_usage(spoken)})
        yield b"data: [DONE]\n\n"

    def _calls(self, spoken: Spoken) -> Json:
        if spoken.call is None:
            return {}
        name, arguments = spoken.call
        function = {"name": name, "arguments": json.dumps(arguments)}
        return {"tool_calls": [{"index": 0, "id": "call-1", "type": "function", "function": function}]}


class Ollama(Dialect):
    """``/api/chat`` and ``/api/generate``."""

    stream_type = "application/x-ndjson"

    def asked(self, path: str, body: Json, engine: Engine) -> Asked:
        """The question in a request; a prompt that does not fit is refused only when ``truncate`` is false."""
        options = body.get("options") or {}
        engine = Engine(min(engine.context, options.get("num_ctx", 4096)))
        prompt = (
            engine.rendered((m["role"], m.get("content", "")) for m in body["messages"])
            if path.endswith("/chat")
            else engine.tokenize(body["prompt"])
        )
        if len(prompt) >= engine.context:
            if body.get("truncate", True):
                prompt = prompt[-engine.context // 2 :]
            else:
                raise Refusal(400, "", "the input length exceeds the context length")
        form = body.get("format")
        return Asked(
            prompt=prompt,
            model=body.get("model"),
            most=options.get("num_predict"),
            stop=options.get("stop") or (),
            form=("json_schema", form) if form else None,
            tools=[tool["function"] for tool in body.get("tools") or ()],
            logprobs=body.get("top_logprobs", 0) if body.get("logprobs") else None,
            stream=bool(body.get("stream", True)),
        )

    def whole(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Json:
        """The answer in one piece."""
        end = self._end(spoken, usage=usage)
        return {"model": model, **self._part(path, asked, spoken.text, spoken.tokens), **end}

    def pieces(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Iterator[bytes]:
        """The answer as a stream."""
        for token in spoken.tokens:
            yield self.event({"model": model, **self._part(path, asked, token, [token]), "done": False})
        yield self.event({"model": model, **self._part(path, asked, "", []), **self._end(spoken, usage=usage)})

    def error(self, status: int, kind: str, message: str) -> Json:
        """The body of an error."""
        return {"error": message}

    def event(self, payload: Json, kind: str = "") -> bytes:
        """One object of a stream."""
        return json.dumps(payload).encode() + b"\n"

    def _part(self, path: str, asked: Asked, text: str, tokens: Any) -> Json:
        chat = path.endswith("/chat")
        part: Json = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        if asked.logprobs is not None:
            part["logprobs"] = [_logprob(token, asked.logprobs) for token in tokens]
        return part

    def _end(self, spoken: Spoken, *, usage: bool) -> Json:
        counts = {"prompt_eval_count": spoken.prompt_tokens, "eval_count": len(spoken.tokens)} if usage else {}
        return {"done": True, "done_reason": spoken.finish, **counts}


class Anthropic(Dialect):
    """``/v1/messages``."""

    def asked(self, path: str, body: Json, engine: Engine) -> Asked:
        """The question in a request."""
        system = [("system", _text(body["system"]))] if body.get("system") else []
        turns = [(m["role"], _text(m.get("content"))) for m in body["messages"]]
        form = ((body.get("output_config") or {}).get("format") or {}).get("schema")
        return Asked(
            prompt=engine.rendered([*system, *turns], going_on=turns[-1][0] == "assistant"),
            model=body.get("model"),
            most=body.get("max_tokens"),
            stop=body.get("stop_sequences") or (),
            form=("json_schema", form) if form else None,
            stream=bool(body.get("stream")),
        )

    def whole(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Json:
        """The answer in one piece."""
        return self._message(spoken, model, [{"type": "text", "text": spoken.text}], usage=usage)

    def pieces(self, path: str, asked: Asked, spoken: Spoken, model: str, *, usage: bool) -> Iterator[bytes]:
        """The answer as a stream."""
        begun = {**self._message(spoken, model, [], usage=usage), "stop_reason": None}
        yield self.event({"type": "message_start", "message": begun}, "message_start")
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield self.event(block, "content_block_start")
        for token in spoken.tokens:
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}}
            yield self.event(delta, "content_block_delta")
        yield self.event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        end = {"stop_reason": STOPS[spoken.finish], "stop_sequence": None}
        counts = {"usage": {"output_tokens": len(spoken.tokens)}} if usage else {}
        yield self.event({"type": "message_delta", "delta": end, **counts}, "message_delta")
        yield self.event({"type": "message_stop"}, "message_stop")

    def error(self, status: int, kind: str, message: str) -> Json:
        """The body of an error."""
        kind = "invalid_request_error" if status == 400 else kind
        message = f"prompt is too long: {message}" if "exceeds the context" in message else message
        return {"type": "error", "error": {"type": kind, "message": message}}

    def event(self, payload: Json, kind: str = "") -> bytes:
        """One object of a stream."""
        return super().event(payload, kind or str(payload.get("type", "message")))

    def _message(self, spoken: Spoken, model: str, content: list[Json], *, usage: bool) -> Json:
        counts = {"input_tokens": spoken.prompt_tokens, "output_tokens": len(spoken.tokens)}
        return {
            "id": "fake-1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": STOPS[spoken.finish],
            "stop_sequence": None,
            **({"usage": counts} if usage else {}),
        }


STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": OpenAI(),
    "/v1/completions": OpenAI(),
    "/v1/messages": Anthropic(),
    "/api/chat": Ollama(),
    "/api/generate": Ollama(),
}


def _form(body: Json) -> tuple[str, Any] | None:
    if body.get("response_format"):
        return "json_schema", body["response_format"]["json_schema"]["schema"]
    if body.get("json_schema"):
        return "json_schema", body["json_schema"]
    if body.get("grammar"):
        return "grammar", body["grammar"]
    for name, value in (body.get("structured_outputs") or {}).items():
        return ("json_schema" if name == "json" else name), value
    return None


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(block.get("text", "") for block in content)
    return content or ""


def _usage(spoken: Spoken) -> Json:
    prompt, answer = spoken.prompt_tokens, len(spoken.tokens)
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}}


def _logprob(token: str, alternatives: int) -> Json:
    tops = [{"token": token, "logprob": LOGPROB}, {"token": " another", "logprob": LOGPROB - 1}][:alternatives]
    return {"token": token, "logprob": LOGPROB, "bytes": list(token.encode()), "top_logprobs": tops}
