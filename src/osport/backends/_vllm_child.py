"""The child process that holds vLLM.

Started by :mod:`osport.backends._vllm_engine` as a script; it imports nothing of osport. It reads its settings
as one line of JSON from stdin and writes one line when the engine is loaded. From then on each line that it
reads is a call or the end of one, and each line that it writes a piece of an answer, under the number of its
call. It ends with its parent, and takes along the processes that vLLM starts. The engine's log goes to stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from typing import Any

PARENT_POLL_SECONDS = 0.5
LINE_LIMIT = 2**30
# vLLM's own processes want some seconds to end in order, and to be waited for by those that started them.
STOP_SECONDS = 8.0
DIED = 3


class Overflow(Exception):
    """A prompt that leaves no room for an answer."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


def loaded(settings: dict[str, Any]) -> Any:
    """The engine, everything that matters set explicitly."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    if settings["enforce_eager"] is None:
        settings["enforce_eager"] = on_cpu
    if settings["kv_cache_memory_bytes"] is None and on_cpu:
        settings["kv_cache_memory_bytes"] = settings["kv_cache_on_cpu"]
    settings.pop("kv_cache_on_cpu")
    arguments = AsyncEngineArgs(
        **settings,
        # The model's own sampling defaults would stand behind every parameter that is at its neutral value.
        generation_config="vllm",
        structured_outputs_config={"backend": "guidance"},
        logprobs_mode="raw_logprobs",
        disable_log_stats=True,
        trust_remote_code=False,
    )
    return AsyncLLM.from_engine_args(arguments)


class Calls:
    """The calls that run, by their numbers."""

    def __init__(self, engine: Any, answers: int) -> None:
        self.engine = engine
        self.tokenizer = engine.get_tokenizer()
        self.context: int = engine.model_config.max_model_len
        self.running: dict[int, asyncio.Task[None]] = {}
        self._answers = answers

    def send(self, **message: Any) -> None:
        """One line to the parent."""
        line = memoryview(json.dumps(message).encode() + b"\n")
        while line:
            line = line[os.write(self._answers, line) :]

    def take(self, message: dict[str, Any]) -> None:
        """Begin a call, or end one."""
        number = message.pop("call")
        if message["do"] == "abort":
            if task := self.running.get(number):
                task.cancel()
            return
        task = asyncio.get_running_loop().create_task(self.answer(number, message))
        self.running[number] = task
        task.add_done_callback(lambda _: self.running.pop(number, None))

    async def answer(self, number: int, message: dict[str, Any]) -> None:
        """One call from its beginning to its last line, which is an answer or an error."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        work: Any = {"generate": self.generate, "score": self.score, "count": self.count}[message.pop("do")]
        try:
            await work(number, **message)
        except Overflow as error:
            self.send(call=number, error="overflow", tokens=error.tokens, message="")
        except (VLLMClientError, ValueError) as error:
            self.send(call=number, error="request", message=str(error))
        except EngineDeadError as error:
            print(f"the engine died: {error}", file=sys.stderr, flush=True)
            end(DIED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent waits for a last line
            self.send(call=number, error="engine", message=f"{type(error).__name__}: {error.__cause__ or error}")

    def encoded(self, prompt: Any) -> list[int]:
        """Token ids; a text gets what the tokenizer puts before every prompt."""
        ids: list[int] = prompt if isinstance(prompt, list) else self.tokenizer.encode(prompt)
        return ids

    def room(self, ids: list[int]) -> int:
        """How many tokens may follow."""
        if len(ids) >= self.context:
            raise Overflow(len(ids))
        return self.context - len(ids)

    async def generate(
        self, number: int, prompt: Any, sampling: dict[str, Any], grammar: str | None, *, stream: bool
    ) -> None:
        """An answer, in one line or piece by piece."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        ids = self.encoded(prompt)
        limit = min(self.room(ids), sampling.pop("max_tokens"))
        params = SamplingParams(
            **sampling,
            max_tokens=limit,
            structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
        began = time.perf_counter()
        text, produced, logprobs = "", 0, []
        async for output in self.engine.generate({"prompt_token_ids": ids}, params, str(number)):
            [new] = output.outputs
            text += new.text
            produced += len(new.token_ids)
            logprobs += rows(new, sampling["logprobs"])
            if stream and new.text and not output.finished:
                self.send(call=number, text=new.text)
            if output.finished:
                self.send(
                    call=number,
                    # Of a stream only the last piece; else all of it.
                    text=new.text,
                    whole=text,
                    finish=new.finish_reason,
                    logprobs=logprobs if sampling["logprobs"] is not None else None,
                    prompt_tokens=len(output.prompt_token_ids),
                    cached_tokens=output.num_cached_tokens,
                    completion_tokens=produced,
                    max_tokens=limit,
                    seconds=time.perf_counter() - began,
                )

    async def score(self, number: int, prompt: Any, continuations: list[str]) -> None:
        """The log-probability of each token of each continuation, all of them at once."""
        ids = self.encoded(prompt)
        each = await asyncio.gather(*(self.scored(f"{number}-{n}", ids, c) for n, c in enumerate(continuations)))
        self.send(call=number, scores=each)

    async def scored(self, name: str, prompt: list[int], continuation: str) -> list[Any]:
        """One continuation, as a prompt that is only read; the token that must follow is thrown away."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        ids = self.tokenizer.encode(continuation, add_special_tokens=False)
        self.room(prompt + ids)
        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        async for output in self.engine.generate({"prompt_token_ids": prompt + ids}, params, name):
            places = output.prompt_logprobs[len(prompt) :]
        return [
            [place[token].decoded_token or "", place[token].logprob] for token, place in zip(ids, places, strict=True)
        ]

    async def count(self, number: int, prompt: Any) -> None:
        """How many tokens a prompt has."""
        self.send(call=number, tokens=len(self.encoded(prompt)))


def rows(output: Any, wanted: int | None) -> list[Any]:
    """The chosen token of each place, its log-probability, and the likeliest ones by theirs."""
    if wanted is None:
        return []
    found = []
    for token, place in zip(output.token_ids, output.logprobs, strict=True):
        chosen = place[token]
        top = sorted((each for each in place.values() if each.rank <= wanted), key=lambda each: each.rank)
        likeliest: dict[str, float] = {}
        for each in top:
            likeliest.setdefault(each.decoded_token or "", each.logprob)
        found.append([chosen.decoded_token or "", chosen.logprob, likeliest])
    return found


def end(status: int) -> None:
    """End this process and those that vLLM started, whatever state they are in."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.2)
    if status:
        os._exit(status)
    os.killpg(0, signal.SIGKILL)


def leave_with_parent(parent: int) -> None:
    """End once the parent is gone. A parent id of 1 is normal inside a container."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


async def serve(settings: dict[str, Any], answers: int) -> None:
    """Answer until the parent closes the pipe."""
    calls = Calls(loaded(settings), answers)
    calls.send(ready=True, settings=settings, context=calls.context)
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        calls.take(json.loads(line))
    calls.engine.shutdown(timeout=STOP_SECONDS)


def first_line() -> bytes:
    """The first line of stdin, read byte by byte so that nothing stays in a buffer."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def main() -> int:
    """Serve until the parent is gone; 1 when the engine does not start."""
    settings = json.loads(first_line() or b"null")
    if settings is None:
        return 0
    leave_with_parent(settings.pop("parent"))
    # What vLLM prints on stdout must not mix with the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        asyncio.run(serve(settings, answers))
    except Exception as error:  # noqa: BLE001 - reported where the parent looks for it
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        end(1)
    end(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
