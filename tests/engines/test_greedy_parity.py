"""The same greedy request on both llama.cpp backends gives the same answer, or a tie explains the difference."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from osport.backends.llama_cpp import LlamaCppBackend
from osport.backends.llama_server import LlamaServerBackend

pytestmark = pytest.mark.engine

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "greedy_parity.py"))


def test_greedy_answers_are_equal_or_part_at_a_tie(model_path, server):
    options = {"context": 256, "threads": 1, "prompt_cache": False}
    endpoint = server.endpoint
    theirs = LlamaServerBackend(endpoint.url, prompt_cache=False, api_key=lambda: endpoint.api_key)
    with LlamaCppBackend(str(model_path), **options) as ours:
        outcomes = [PROGRAM["compare"](ours, theirs, prompt, 8) for prompt in PROGRAM["PROMPTS"][:8]]
    noise = max(outcome.noise for outcome in outcomes)
    # Quantised weights: llama.cpp rounds the activations to 8 bits, and differs from itself by this much.
    assert 0 < noise < 0.5
    assert all(outcome.lead <= 2 * noise for outcome in outcomes), outcomes
    assert any(outcome.token is None for outcome in outcomes)
