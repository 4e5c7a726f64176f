"""The same request, greedy, on llama_cpp and on llama_server: equal answers, or what the difference comes from.

Both run llama.cpp, but of different builds, with other instructions of the processor. For quantised weights
llama.cpp rounds the activations to 8 bits, and what is rounded depends on the order of the sums before it: the same
build already differs from itself when it reads a text at once instead of token by token. That difference is
measured here, on the very answers: the largest one of a token's log-probability. Where two answers part, the
winner's lead over the rival (natural logarithms of both probabilities) is printed; as either may be off by that
difference, a lead of up to twice as much is explained by it. With float32 weights nothing is rounded, and the
answers should part at ties only.

    python benchmarks/greedy_parity.py [model] [--tokens 48] [--threads 2]
"""

from __future__ import annotations

import argparse
import sys
from itertools import product, takewhile

from attrs import frozen

from osport import Message, Request, Sampling
from osport.backends.llama_cpp import LlamaCppBackend
from osport.backends.llama_server import LlamaServerBackend
from osport.plugin import Backend

SUBJECTS = (
    *("the sea", "a lighthouse", "bread", "the moon", "an old clock"),
    *("winter", "a railway", "honey", "chess", "a map"),
)
TASKS = (
    "Write a short story about {}.",
    "Explain {} to a child.",
    "List five facts about {}.",
    "Write a Python function that has to do with {}.",
    "Is it true that everybody likes {}? Answer and give a reason.",
)
PROMPTS = tuple(task.format(subject) for subject, task in product(SUBJECTS, TASKS))
ALTERNATIVES = 20


@frozen
class Outcome:
    """One pair of answers. ``token``: where they part, None where they are equal; ``lead``: of its log-probability
    over that of ``rival``; ``noise``: how far llama_cpp differs from itself on its answer."""

    token: str | None
    place: int
    rival: str
    lead: float
    noise: float


def compare(llama_cpp: Backend, llama_server: Backend, prompt: str, tokens: int) -> Outcome:
    """Ask both backends, neither of them with anything left in its prompt cache."""
    sampling = Sampling(max_tokens=tokens, temperature=0.0)
    request = Request((Message.user(prompt),), sampling=sampling, logprobs=ALTERNATIVES)
    ours = llama_cpp.generate(request)
    theirs = llama_server.generate(Request(request.messages, sampling=sampling))
    told = ours.logprobs or ()
    (at_once,) = llama_cpp.score(request, [ours.text])
    # Read at once, the text may fall into other tokens; what follows these is another matter.
    alike = takewhile(lambda pair: pair[0].token == pair[1].token, zip(told, at_once.tokens, strict=False))
    noise = max((abs(one.logprob - other.logprob) for one, other in alike), default=0.0)
    text = ""
    longer: Outcome | None = None
    for place, token in enumerate(told):
        ended = theirs.text == text
        rivals = [
            (value, other)
            for other, value in token.top.items()
            if other != token.token and (other.startswith("<|") if ended else theirs.text.startswith(text + other))
        ]
        value, rival = max(rivals, default=(float("-inf"), ""))
        here = Outcome(token.token, place, rival, token.logprob - value, noise)
        if not theirs.text.startswith(text + token.token):
            return here if rival or longer is None else longer
        # The other may have written the same letters as the beginning of a longer token.
        longer = here if rival.startswith(token.token) else longer
        text += token.token
    counts = ours.usage.completion_tokens, theirs.usage.completion_tokens
    same = ours.text == theirs.text and counts[0] == counts[1]
    return Outcome(None if same else "", len(told), "", 0.0 if same else float("inf"), noise)


def main() -> int:
    parser = argparse.ArgumentParser(description="Greedy answers of both llama.cpp backends, compared.")
    parser.add_argument("model", nargs="?", default="smollm2-135m", help="a catalogue name or the path of a .gguf file")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    options = {"context": 1024, "threads": asked.threads, "prompt_cache": False}
    with LlamaCppBackend(asked.model, **options) as one, LlamaServerBackend(asked.model, **options) as other:
        outcomes = [compare(one, other, prompt, asked.tokens) for prompt in PROMPTS]
        engines = f"{one.facts()['engine']} and {other.facts()['engine']}, {one.facts()['quantization']}"
    noise = max(outcome.noise for outcome in outcomes)
    parted = [(prompt, outcome) for prompt, outcome in zip(PROMPTS, outcomes, strict=True) if outcome.token is not None]
    for prompt, outcome in parted:
        explained = "explained" if outcome.lead <= 2 * noise else "NOT EXPLAINED"
        where = f"token {outcome.place}, {outcome.token!r} {outcome.lead:.3f} ahead of {outcome.rival!r}"
        print(f"different from {where}, {explained}: {prompt}")
    unexplained = sum(outcome.lead > 2 * noise for _, outcome in parted)
    print(
        f"{engines}: {len(PROMPTS) - len(parted)} of {len(PROMPTS)} answers equal; llama_cpp differs from itself by "
        f"up to {noise:.3f}; {unexplained} of the others not explained by that"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
