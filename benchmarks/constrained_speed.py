"""Decoding rate under a constraint against the rate without one, in one process, interleaved.

    python benchmarks/constrained_speed.py MODEL.gguf [ROUNDS]

In each round every arm makes the same number of tokens behind the same prompt, one arm after the other in another
order each time. A ratio is that of the mean times of a token, each without its slowest tenth. CPU time is that of the
one thread that computes; on a shared machine it is the steadier of the two. ``alone`` is llguidance or llama.cpp's
own grammar as their documentation puts them to llama-cpp-python, without osport.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from osport.backends._llama_cpp_engine import LlamaCppEngine, MaskedLogits
from osport.core.types import Constraint, Sampling

TOKENS = 96
SAMPLING = Sampling(temperature=1.0, seed=1).filled()
PACKAGES = {"llguidance": "llguidance", "xgrammar": "xgrammar", "outlines": "outlines_core"}
RECORD = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 40},
                    "kind": {"enum": ["tool", "food", "place"]},
                    "count": {"type": "integer", "minimum": 0, "maximum": 999},
                },
                "required": ["name", "kind", "count"],
                "additionalProperties": False,
            },
            "minItems": 200,
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}
# What every engine takes, small enough for those that unfold it.
SMALLER = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kind": {"enum": ["tool", "food"]}},
        "required": ["name", "kind"],
        "additionalProperties": False,
    },
    "minItems": 16,
}


class Alone:
    """llguidance as a logits processor the way its examples do it."""

    def __init__(self, llama, schema):
        import llguidance
        import numpy as np
        from llguidance.llamacpp import lltokenizer_from_vocab

        vocabulary = __import__("llama_cpp").llama_model_get_vocab(llama._model.model)
        self.tokenizer = lltokenizer_from_vocab(vocabulary)
        self.grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        self.bits = np.zeros((self.tokenizer.vocab_size + 31) // 32, dtype=np.int32)
        self.make = llguidance.LLMatcher

    def start(self):
        self.matcher = self.make(self.tokenizer, self.grammar, log_level=0)
        self.seen = None
        return self

    def __call__(self, token_ids, scores):
        import numpy as np

        self.matcher.unsafe_compute_mask_ptr(self.bits.ctypes.data, self.bits.nbytes)
        allowed = np.unpackbits(self.bits.view(np.uint8), bitorder="little")[: len(scores)]
        scores[allowed == 0] = -np.inf
        return scores


def timed(tokens, take):
    """CPU and wall seconds of each token, the first one left out: it reads the prompt."""
    next_token = iter(tokens)
    take(next(next_token), 1)
    spent = []
    cpu, wall = time.thread_time(), time.perf_counter()
    for produced in range(2, TOKENS + 1):
        take(next(next_token), produced)
        now = time.thread_time(), time.perf_counter()
        spent.append((now[0] - cpu, now[1] - wall))
        cpu, wall = now
    return spent


def a_token(measured, kind):
    """Mean seconds a token without the slowest tenth, which on a shared machine are the neighbours' doing."""
    seconds = sorted(spent[kind] for round_ in measured for spent in round_)
    return statistics.fmean(seconds[: len(seconds) * 9 // 10])


def main():
    path, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7
    engine = LlamaCppEngine(path, context=512, threads=1, gpu_layers=0)
    llama = engine._llama
    prompt = engine.tokenize("A list of things, as JSON: ")

    def free():
        return timed(engine.tokens(prompt, SAMPLING, masked=None, grammar=None), lambda token, produced: None)

    def masked(schema, name):
        def run():
            masks = engine.masks
            mask = MaskedLogits(masks.mask(Constraint("json_schema", schema, name)), masks.vocabulary.ends)
            return timed(
                engine.tokens(prompt, SAMPLING, masked=mask, grammar=None),
                lambda token, produced: mask.advance(token, produced, ended=False),
            )

        return run

    def alone(processor):
        def run():
            state = processor.start()
            processors = engine._package.LogitsProcessorList([state])
            given = {**engine.parameters(SAMPLING), "logits_processor": processors}
            return timed(llama.generate(prompt, **given), lambda token, produced: state.matcher.consume_token(token))

        return run

    def gbnf():
        import json

        grammar = engine._package.LlamaGrammar.from_json_schema(json.dumps(SMALLER), verbose=False)
        given = {**engine.parameters(SAMPLING), "grammar": grammar}
        return timed(llama.generate(prompt, **given), lambda token, produced: None)

    arms = {"free": free, "free, again": free}
    arms["osport, llguidance"] = masked(RECORD, "llguidance")
    for name in sorted(PACKAGES):
        if find_spec(PACKAGES[name]):
            arms[f"osport, {name}, smaller schema"] = masked(SMALLER, name)
    arms["llguidance alone"] = alone(Alone(llama, RECORD))
    arms["llama.cpp's grammar alone, smaller schema"] = gbnf
    for run in arms.values():
        run()
    times = {name: [] for name in arms}
    for number in range(rounds):
        for name in random.Random(number).sample(list(arms), len(arms)):
            times[name].append(arms[name]())
    print(f"{path.name}: {llama.n_vocab():,} tokens, {rounds} rounds of {TOKENS} tokens, load {os.getloadavg()[0]:.1f}")
    for name, measured in times.items():
        cpu, wall = (a_token(times["free"], kind) / a_token(measured, kind) for kind in (0, 1))
        own = 1000 * a_token(measured, 0)
        print(f"{name:45s} {own:6.2f} ms CPU a token; rate against free: CPU {cpu:.3f}, wall {wall:.3f}", flush=True)


if __name__ == "__main__":
    main()
