"""Real answers under real schemas: does each conform, or raise, and does none of them hang or drown in white space?

    python benchmarks/constrained_generation.py FILE.jsonl.gz MODEL.gguf [SCHEMAS] [BACKEND]

FILE has one schema a line, as for ``constrained_coverage.py``; SCHEMAS (300) of them are drawn with a fixed seed and
asked for at temperature 1, with ``on_unsupported="check"``. BACKEND: ``llama_server`` (embedded) or ``llama_cpp``.
Every answer that came back is verified once more, by the jsonschema package without osport's part in it.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import jsonschema

from osport import ConstrainedOutput, Model
from osport.errors import OsportError, OutputError, UnsupportedFeature

TOKENS = 128
STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)


def question(schema):
    words = (
        str(schema.get("description") or schema.get("title") or "a record") if isinstance(schema, dict) else "a value"
    )
    return f"Write one JSON value that describes: {words[:300]}"


def white(completion):
    """White space as a share of the tokens: outside strings every character, inside them every run of two or more."""
    outside = sum(map(str.isspace, STRING.sub("", completion.text)))
    runs = sum(
        len(run) for text in STRING.findall(completion.text) for run in re.findall(r"\s{2,}|(?:\\[nrt]){2,}", text)
    )
    return outside / max(completion.usage.completion_tokens, 1), runs / max(len(completion.text), 1)


def kept_to(output, completion):
    """Whether what there is of an answer is the beginning of one in the form."""
    try:
        kept = output.matcher().advance(completion.text.encode())
    except UnsupportedFeature:  # another engine than llguidance enforced it
        return f", enforced by {completion.enforcement.engine}"
    return " and keeps to the form" if kept else ", NOT IN THE FORM"


def main():
    with gzip.open(Path(sys.argv[1]), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    many = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    backend = sys.argv[4] if len(sys.argv) > 4 else "llama_server"
    random.Random(7).shuffle(rows)
    fates, outside, inside, seconds, wrong = Counter(), [], [], [], []
    with Model(f"{backend}:{sys.argv[2]}", context=1024, threads=2) as model:
        for row in rows[:many]:
            started = time.perf_counter()
            completion = None
            try:
                output = ConstrainedOutput.json_schema(row["schema"], on_unsupported="check")
                completion = model.generate(
                    question(row["schema"]), output=output, max_tokens=TOKENS, temperature=1.0, seed=1, timeout=120.0
                )
                jsonschema.validate(json.loads(completion.text), output.constraint.value)
                fates[f"conforms ({'checked' if completion.enforcement.checked else 'exact'})"] += 1
            except OutputError as error:
                completion = error.completion
                fates[f"{type(error).__name__}{kept_to(output, completion)}"] += 1
            except OsportError as error:
                fates[f"before or beside the answer: {type(error).__name__}"] += 1
            except jsonschema.ValidationError as error:
                wrong.append((row["id"], error.message[:200]))
            seconds.append(time.perf_counter() - started)
            if completion is not None:
                shares = white(completion)
                outside.append(shares[0])
                inside.append(shares[1])
    print(f"{many} schemas, {backend}, temperature 1, at most {TOKENS} tokens:")
    for fate, count in fates.most_common():
        print(f"  {fate}: {count}")
    print(f"  returned and not valid: {len(wrong)} {wrong}")
    print(f"  seconds a call: median {statistics.median(seconds):.1f}, longest {max(seconds):.1f}")
    print(f"  white space outside strings, share of the tokens: largest {max(outside):.1%}")
    print(f"  runs of white space inside strings, share of the text: median {statistics.median(inside):.1%}, "
          f"over 10 % in {sum(share > 0.1 for share in inside)} of {len(inside)}")  # fmt: skip


if __name__ == "__main__":
    main()
