"""What calibration of the label probabilities brings: accuracy raw, contextual and batch, on the same scores.

    python benchmarks/calibration.py DATA MODEL.gguf [MODEL.gguf ...] [--items 300] [--shots 9]

DATA is a folder with ``dev.jsonl`` and ``fewshot.jsonl``, a line each ``{"input": text, "expected": label}``. The
examples and the items are drawn with a fixed seed. Prints, for each model, accuracy with Wilson's 95 % interval,
and the exact McNemar test of each calibration against raw, and what share of the answers had the labels' mass.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

from osport import Model, Request
from osport.constrained import calibrate
from osport.evals.statistics import mcnemar_exact, wilson

SEED = 0


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prompt_of(shots: list[dict], text: str) -> Request:
    examples = "".join(f"Review: {shot['input']}\nSentiment: {shot['expected']}\n\n" for shot in shots)
    return Request(prompt=f"{examples}Review: {text}\nSentiment:")


def measure(gguf: Path, shots: list[dict], items: list[dict], labels: list[str]) -> None:
    texts = {label: f" {label}" for label in labels}
    expected = [item["expected"] for item in items]
    start = time.perf_counter()
    with Model(gguf, context=2048, threads=2) as model:
        raw = model.classify([prompt_of(shots, item["input"]) for item in items], texts)
        free = [
            calibrate.LabelScores(model.classify(prompt_of(shots, text), texts).logprobs)
            for text in calibrate.CONTENT_FREE
        ]
    seconds = time.perf_counter() - start
    # The calibrations change no score: the three arms are three readings of one run.
    scores = [calibrate.LabelScores(one.logprobs) for one in raw]
    arms = {
        "raw": [one.probabilities for one in raw],
        "contextual": [calibrate.contextual(one, free) for one in scores],
        "batch": calibrate.batch(scores),
    }
    print(f"\n{gguf.name}: {len(items)} items, {len(shots)} shots, {seconds:.0f} s, load {os.getloadavg()[0]:.1f}")
    print(f"median mass of the labels {statistics.median(one.mass for one in raw):.3f}")
    right = {
        name: [max(one, key=one.get) == truth for one, truth in zip(arm, expected, strict=True)]
        for name, arm in arms.items()
    }
    for name, hits in right.items():
        low_high = wilson(sum(hits), len(hits))
        line = f"{name:<11} {sum(hits) / len(hits):6.1%}  [{low_high.low:.1%}, {low_high.high:.1%}]"
        if name != "raw":
            better = sum(now and not before for now, before in zip(hits, right["raw"], strict=True))
            worse = sum(before and not now for now, before in zip(hits, right["raw"], strict=True))
            line += f"  against raw: {better} better, {worse} worse, McNemar p = {mcnemar_exact(worse, better):.2g}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--shots", type=int, default=9)
    given = parser.parse_args()
    draw = random.Random(SEED)
    shots = draw.sample(rows(given.data / "fewshot.jsonl"), given.shots)
    items = rows(given.data / "dev.jsonl")
    items = draw.sample(items, min(given.items, len(items)))
    labels = sorted({item["expected"] for item in items})
    print(f"shots: {', '.join(shot['expected'] for shot in shots)}")
    for gguf in given.models:
        measure(gguf, shots, items, labels)


if __name__ == "__main__":
    main()
