"""Decoding rate under a constraint against the rate without one, in one process, interleaved.

    python benchmarks/constrained_speed.py MODEL.gguf [ROUNDS]

Both calls make the same number of tokens from the same prompt; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys

from osport import ConstrainedOutput, Model
from osport.errors import Truncated

TOKENS = 96
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


def rate(model, output, seed):
    """Tokens a second of the answer alone."""
    try:
        answer = model.generate("List things.", output=output, max_tokens=TOKENS, temperature=1.0, seed=seed)
    except Truncated as cut:
        answer = cut.completion
    return (answer.usage.completion_tokens - 1) / (answer.latency - answer.ttft), answer.usage.completion_tokens


def main():
    path, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
    output = ConstrainedOutput.json_schema(RECORD)
    ratios = []
    with Model(f"llama_cpp:{path}", threads=1) as model:
        rate(model, output, 0)
        rate(model, None, 0)
        for seed in range(1, rounds + 1):
            masked, made = rate(model, output, seed)
            # An unconstrained answer may end early; its rate counts only when it is long enough to time.
            free, length = rate(model, None, seed)
            if made == TOKENS and length >= TOKENS // 2:
                ratios.append(masked / free)
                print(f"constrained {masked:.1f} tokens/s, free {free:.1f} tokens/s, ratio {masked / free:.3f}")
    print(f"median ratio of {len(ratios)} rounds: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
