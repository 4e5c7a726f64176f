"""A backend without an engine that keeps the whole contract: the one that the broken ones are made from."""

from __future__ import annotations

import json
import random
import re
import threading
import time

from osport.constrained import ConstrainedOutput
from osport.core.types import Constraint, ContinuationScore, TokenLogprob
from osport.errors import ContextOverflow, OsportError, TimedOut, UsageError
from osport.plugin import (
    ALL_SAMPLING,
    Backend,
    Capabilities,
    Completion,
    Delta,
    Enforcement,
    ModelFacts,
    ToolCall,
    Usage,
)

KINDS = frozenset({"json_schema", "choice", "regex", "grammar"})
CAN = ("chat", "raw_prompt", "prefill", "stream", "count_tokens", "tools", "thinking", "images", "logprobs", "score")
CONTEXT = 2000
TOO_LONG = "word " * (CONTEXT + 1)
LEXICON = ("sea", "wind", "rain", "light", "keeper", "gull", "fog", "winter", "night", "ship", "sail", "rope", "tide")
LENGTH = 300  # words of an answer that nothing cuts short


class Whole(Backend):
    features = ALL_SAMPLING | KINDS | frozenset(CAN)
    pace = 0.0  # seconds that a token takes

    def __init__(self, model="", *, api_key=None, **unknown):
        super().__init__(model)
        if unknown:
            raise UsageError(f"there is no option {', '.join(unknown)}")
        self.closed = False
        self.engine = threading.Lock()

    def capabilities(self):
        return Capabilities(
            **dict.fromkeys(CAN, True),
            batch=True,
            constraints=KINDS,
            constraint_engine="whole",
            enforced_by="sampling",
            constrained_thinking=True,
        )

    def facts(self):
        return ModelFacts.of("whole_backend.py", context_length=CONTEXT, engine="whole 1.0")

    def generate(self, request):
        *_, last = self.answer(request)
        return last.completion

    def stream(self, request):
        yield from self.answer(request)

    def batch(self, requests):
        return [self.generate_or_error(request) for request in requests]

    def generate_or_error(self, request):
        try:
            return self.generate(request)
        except OsportError as error:
            return error

    def count_tokens(self, messages):
        return sum(3 + len(tokens(m.content)) + 9 * len(m.images) + 5 * len(m.tool_calls) for m in messages)

    def score(self, request, continuations):
        return tuple(
            ContinuationScore(
                text, tuple(TokenLogprob(t, -0.5 if set(t) & set("aeiou") else -9.0) for t in tokens(text))
            )
            for text in continuations
        )

    def close(self):
        self.closed = True

    def answer(self, request):
        """The pieces, and the completion last."""
        if self.closed:
            raise UsageError("closed")
        began = time.perf_counter()
        prompt_tokens = self.prompt_tokens(request)
        if prompt_tokens > CONTEXT:
            raise ContextOverflow(f"{prompt_tokens} tokens, and the context has {CONTEXT}")
        sampling = request.sampling.filled()
        calls = self.calls(request)
        text = "" if calls else self.text(request)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        planned = tokens(text)
        kept = planned[: sampling.max_tokens]
        first = None
        with self.engine:
            for token in kept:
                time.sleep(self.pace)
                took = time.perf_counter() - began
                if request.timeout is not None and took > request.timeout:
                    raise TimedOut(f"nothing whole in {request.timeout} s")
                first = first or took
                yield Delta(token)
        whole = Completion(
            "".join(kept),
            "tool_calls" if calls else "stop" if kept == planned else "length",
            model=self.model,
            usage=Usage(prompt_tokens, len(kept)),
            reasoning="Let me see." if request.thinking or request.thought else None,
            tool_calls=calls,
            enforcement=Enforcement("sampling", "whole") if request.constraint else Enforcement(),
            effective=sampling.given,
            latency=time.perf_counter() - began,
            ttft=first,
            logprobs=None if request.logprobs is None else tuple(scored(t, request.logprobs) for t in kept),
            logprobs_from=None if request.logprobs is None else "model",
            determinism="seeded",
        )
        yield Delta("", self.finished(whole, request))

    def finished(self, completion, request):
        """Where a broken backend changes what it gives."""
        return completion

    def prompt_tokens(self, request):
        if request.prompt is not None:
            return len(tokens(request.prompt))
        return self.count_tokens(request.messages)

    def text(self, request):
        if request.constraint is not None:
            return by_the_mask(request.constraint)
        said = request.prompt if request.prompt is not None else "\n".join(m.content for m in request.messages)
        drawn = random.Random(f"{said} {self.draw(request)}")
        return " ".join(drawn.choice(LEXICON) for _ in range(LENGTH))

    def draw(self, request):
        return request.sampling.seed if request.sampling.temperature else "greedy"

    def calls(self, request):
        if not request.tools or request.tool_choice in ("auto", "none"):
            return ()
        tool = request.tools[0]
        return (ToolCall("call_1", tool.name, json.loads(by_the_mask(Constraint("json_schema", tool.parameters)))),)


def tokens(text):
    return re.findall(r"\s*(?:\w+|[^\w\s])|\s+", text)


def likelihood(token):
    return -0.5 if set(token) & set("aeiou") else -9.0


def scored(token, alternatives):
    top = {token: -0.1} | {f"{token}{number}": -3.0 - number for number in range(1, alternatives)}
    return TokenLogprob(token, -0.1, dict(list(top.items())[:alternatives]))


def by_the_mask(constraint):
    """The first text that the form allows, byte by byte."""
    matcher = ConstrainedOutput(constraint).matcher("bytes")
    text = bytearray()
    while not matcher.is_accepting:
        text.append(min(matcher.allowed()))
        assert matcher.advance(bytes(text[-1:]))
    return text.decode()
