"""vLLM without osport, in a worker process: two engines in one process would share its threads and its loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from direct_calls import Direct, Told, conversation, gathered

from osport import Model
from osport.backends._vllm_child import loaded
from osport.backends.vllm import ENVIRONMENT

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}


@contextlib.contextmanager
def apart(model: Model, kind: str) -> Iterator[ProcessPoolExecutor]:
    """A worker that holds an engine with the model's own settings: ``LLM`` (whole batches) or ``AsyncLLM``."""
    backend = model.backend
    model.load()
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(backend._threads), "VLLM_LOGGING_LEVEL": "ERROR"}
    spawn = multiprocessing.get_context("spawn")
    before = dict(os.environ)
    # OpenMP reads its settings when the process begins.
    os.environ.update(environment)
    pool = ProcessPoolExecutor(1, spawn, initializer=_open, initargs=(kind, backend._settings))
    try:
        pool.submit(len, "").result()
        os.environ.clear()
        os.environ.update(before)
        yield pool
        pool.submit(_close).result()
    finally:
        pool.shutdown()


def direct(pool: ProcessPoolExecutor, limit: int) -> Direct:
    """``AsyncLLM``, for one question and for several."""

    def asking(kind: str) -> Any:
        return lambda questions: pool.submit(_ask, questions, limit, kind).result()

    return Direct(asking("FINAL_ONLY"), asking("DELTA"), asking("DELTA"))


def batch(pool: ProcessPoolExecutor, questions: list[str], limit: int) -> Told:
    """``LLM.chat``: all questions, as many at a time as the engine likes."""
    return pool.submit(_batch, questions, limit).result()


_engine: Any = None
_loop = asyncio.Runner()
_numbers = itertools.count()


def _open(kind: str, settings: Mapping[str, Any]) -> None:
    global _engine
    if kind == "AsyncLLM":

        async def opened() -> Any:
            return loaded(dict(settings))

        _engine = _loop.run(opened())
        return
    from vllm import LLM

    own = {name: value for name, value in settings.items() if name != "kv_cache_on_cpu"}
    own["enforce_eager"] = own["enforce_eager"] is not False
    own["kv_cache_memory_bytes"] = own["kv_cache_memory_bytes"] or settings["kv_cache_on_cpu"]
    _engine = LLM(**own, generation_config="vllm", disable_log_stats=True)


def _close() -> None:
    """What vLLM started ends with its engine."""
    global _engine
    shutdown = getattr(_engine, "shutdown", None) or _engine.llm_engine.engine_core.shutdown
    shutdown()
    _engine = None


def _params(limit: int, kind: str) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**GREEDY, max_tokens=limit, output_kind=RequestOutputKind[kind])


def _ask(questions: list[str], limit: int, kind: str) -> Told:
    async def pieces(question: str) -> AsyncIterator[tuple[bool, int]]:
        ids = _engine.get_tokenizer().apply_chat_template(
            conversation(question), add_generation_prompt=True, return_dict=False
        )
        name = f"direct-{next(_numbers)}"
        async for output in _engine.generate({"prompt_token_ids": ids}, _params(limit, kind), name):
            [new] = output.outputs
            yield bool(new.text) and kind == "DELTA", len(new.token_ids)

    return _loop.run(gathered(pieces, questions))


def _batch(questions: list[str], limit: int) -> Told:
    started = time.perf_counter()
    params = _params(limit, "FINAL_ONLY")
    answers = _engine.chat([conversation(question) for question in questions], params, use_tqdm=False)
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    return Told(tokens, time.perf_counter() - started)
