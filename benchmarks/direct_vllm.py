"""vLLM without osport: ``AsyncLLM`` beside osport's calls in the same child, ``LLM`` in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from direct_calls import Direct, Round, Told, conversation
from direct_vllm_child import GREEDY

from osport import Model
from osport.backends import _vllm_engine
from osport.backends.vllm import ENVIRONMENT


def ask_the_same_child() -> None:
    """The children that are started from now on take direct calls, too."""
    here = Path(__file__).parent
    _vllm_engine.CHILD = here / "direct_vllm_child.py"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))


def direct(model: Model, limit: int) -> Direct:
    """``AsyncLLM``, for one question and for several."""

    def asking(kind: str) -> Round:
        def ask(questions: list[str]) -> Told:
            call = {"do": "direct", "questions": questions, "limit": limit, "kind": kind}
            [line] = model.backend._engine.lines(call, timeout=600)
            return Told(line["tokens"], line["seconds"], line["first"])

        return ask

    return Direct(asking("FINAL_ONLY"), asking("DELTA"), asking("DELTA"))


@contextlib.contextmanager
def apart(model: Model) -> Iterator[ProcessPoolExecutor]:
    """A worker that holds an ``LLM`` with the model's own settings."""
    backend = model.backend
    model.load()
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(backend._threads), "VLLM_LOGGING_LEVEL": "ERROR"}
    spawn = multiprocessing.get_context("spawn")
    before = dict(os.environ)
    # OpenMP reads its settings when the process begins.
    os.environ.update(environment)
    pool = ProcessPoolExecutor(1, spawn, initializer=_open, initargs=(backend._settings,))
    try:
        pool.submit(len, "").result()
        os.environ.clear()
        os.environ.update(before)
        yield pool
        pool.submit(_close).result()
    finally:
        pool.shutdown()


def batch(pool: ProcessPoolExecutor, questions: list[str], limit: int) -> Told:
    """``LLM.chat``: all questions, as many at a time as the engine likes."""
    return pool.submit(_batch, questions, limit).result()


_engine: Any = None


def _open(settings: Mapping[str, Any]) -> None:
    global _engine
    from vllm import LLM

    own = {name: value for name, value in settings.items() if name != "kv_cache_on_cpu"}
    own["enforce_eager"] = own["enforce_eager"] is not False
    own["kv_cache_memory_bytes"] = own["kv_cache_memory_bytes"] or settings["kv_cache_on_cpu"]
    _engine = LLM(**own, generation_config="vllm", disable_log_stats=True)


def _close() -> None:
    """What vLLM started ends with its engine."""
    global _engine
    _engine.llm_engine.engine_core.shutdown()
    _engine = None


def _batch(questions: list[str], limit: int) -> Told:
    from vllm import SamplingParams

    started = time.perf_counter()
    answers = _engine.chat(
        [conversation(question) for question in questions], SamplingParams(**GREEDY, max_tokens=limit), use_tqdm=False
    )
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    return Told(tokens, time.perf_counter() - started)
