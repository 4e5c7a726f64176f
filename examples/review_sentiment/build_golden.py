"""Build the golden set and the few-shot examples from the ratings that come with VADER.

Source: the sdist of vaderSentiment 3.3.2 (MIT) holds 3,708 snippets of Amazon reviews, each rated by at
least 20 people from -4 (very negative) to 4 (very positive); the snippets are those of Hu & Liu (2004).

The rule: a mean rating of at least 0.5 is ``pos``, of at most -0.5 is ``neg``, anything between is
``neutral``; ``score`` is the mean rating itself. 200 items are drawn, each class with its share of the
whole, and three few-shot examples, one a class, from reviews that no item was drawn from.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
from pathlib import Path

from osport.errors import FormatError
from osport.store import download_package

REQUIREMENT = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_TAR = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
RATINGS_SHA256 = "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"

ITEMS = 200
SEED = 20141
LABELS = ("pos", "neg", "neutral")


def label_of(mean_rating: float) -> str:
    """The rule of this example."""
    if mean_rating >= 0.5:
        return "pos"
    return "neg" if mean_rating <= -0.5 else "neutral"


def build(folder: Path, items_in_all: int = ITEMS) -> None:
    """Write ``golden.jsonl`` and ``fewshot.jsonl`` into the folder; what is there already is kept."""
    golden, few_shot = folder / "golden.jsonl", folder / "fewshot.jsonl"
    if golden.exists() and few_shot.exists():
        return
    by_label: dict[str, list[dict]] = {label: [] for label in LABELS}
    for row in _rows(_ratings()):
        by_label[row["expected"]["sentiment"]].append(row)
    rows_in_all = sum(len(rows) for rows in by_label.values())
    draw = random.Random(SEED)
    items: list[dict] = []
    rest: list[dict] = []
    for rows in by_label.values():
        draw.shuffle(rows)
        share = round(items_in_all * len(rows) / rows_in_all)
        items += rows[:share]
        rest += rows[share:]
    draw.shuffle(items)
    used = {item["meta"]["cluster"] for item in items}
    unseen = [row for row in rest if row["meta"]["cluster"] not in used]
    examples = [next(row for row in unseen if row["expected"]["sentiment"] == label) for label in LABELS]
    folder.mkdir(parents=True, exist_ok=True)
    _write(few_shot, examples)
    _write(golden, items)


def _ratings() -> str:
    with tempfile.TemporaryDirectory() as scratch:
        sdist = download_package(REQUIREMENT, Path(scratch), source=True)
        outer = _checked(sdist.read_bytes(), SDIST_SHA256, sdist.name)
    inner = _member(outer, INNER_TAR)
    return _checked(_member(inner, RATINGS), RATINGS_SHA256, RATINGS).decode()


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.extractfile(name).read()


def _checked(content: bytes, sha256: str, name: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FormatError(f"{name} has SHA-256 {found}, expected {sha256}")
    return content


def _rows(ratings: str) -> list[dict]:
    rows: list[dict] = []
    seen: set[str] = set()
    for line in ratings.splitlines():
        snippet_id, mean, text = line.split("\t")
        if text in seen:  # a handful of snippets stand there twice
            continue
        seen.add(text)
        rows.append(
            {
                "id": f"amazon-{snippet_id}",
                "input": text,
                "expected": {"sentiment": label_of(float(mean)), "score": float(mean)},
                "meta": {"cluster": f"review-{snippet_id.partition('_')[0]}"},
            }
        )
    return rows


def _write(path: Path, rows: list[dict]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    build(Path(__file__).parent / "out" / "data")
