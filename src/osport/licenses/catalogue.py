"""Which licence a checkpoint is under, by its name: the catalogue that ships with osport, and one's own."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

from osport.data import load
from osport.errors import UsageError

__all__ = ["Catalogue", "Entry", "Match", "shipped"]

# Words that a conversion adds to a name, and words that tell siblings of one release apart.
_CONVERSION = re.compile(
    r"^(gguf|ggml|awq|gptq|int[48]|fp[48]|bf16|f(p)?16|f32|nf4|nvfp4|mxfp4|w\d+a\d+|bnb|\dbit|\d\.\d+bpw|exl[23]|mlx|onnx|i1|"
    r"imatrix|unsloth|dynamic|qat|ud|dwq|ov|openvino|q\d|q\d_\w+|iq\d\w*|k|[sml]|xl|xs|xxs|quantized|dynamic|hqq|eetq|"
    r"autoround|g\d+|gs\d+|sym|marlin|\d+bits?|bits?|[a-f0-9]{8})$"
)
_SIBLING = re.compile(
    r"^(\d+(\.\d+)?[bmt]|\d+x\d+(\.\d+)?[bm]|a\d+(\.\d+)?b|e\d+b?|\d+e|v\d+(\.\d+)*|instruct|chat|it|base|pt|hf|thinking|"
    r"non|reasoning|preview|vision|mini|small|medium|large|tiny|micro|\d{2,6}|h|nano|super|plus|pro|flash|next|coder|vl|omni|"
    r"code|math|\d+k|long|turbo|exp|alpha|beta|audio|embedding|reranker|guard|air|fp8|multimodal|\d+(\.\d+)?|sft|dpo)$"
)
_TELLING = 3
_LAST_WORD = re.compile(r"^(.+)[-.]([a-z0-9_]+|\d\.\d+bpw)$")
_WEIGHT_FILE = re.compile(r"\.(gguf|safetensors|bin|onnx)$", re.IGNORECASE)


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@frozen(kw_only=True)
class Entry:
    """One line of the catalogue. ``licence`` is a key (one that has no terms is simply unknown)."""

    patterns: tuple[str, ...] = field(converter=_strings)
    licence: str
    also: tuple[str, ...] = field(default=(), converter=_strings)
    bases: tuple[str, ...] = field(default=(), converter=_strings)
    modality: str = ""
    verified: str = "unverified"
    basis: str = ""
    source: str = ""
    note: str = ""


@frozen
class Match:
    """An entry that fits a name. ``how``: ``name`` (publisher and name, or a name without publisher), ``mirror``
    (somebody else's copy or conversion under the same name), ``derivative`` (a name that begins like it),
    ``hint`` (the name only speaks of the ancestor)."""

    entry: Entry
    how: str
    name: str


@frozen
class _Pattern:
    publisher: re.Pattern[str]
    name: re.Pattern[str]
    begins: str
    weight: int
    entry: Entry


class Catalogue:
    """Entries in order of precedence: own ones before those that ship with osport.

    >>> Catalogue.with_own([]).find("deepseek-ai/DeepSeek-R1-Distill-Llama-8B").entry.licence
    'mit'
    """

    def __init__(
        self, entries: Iterable[Entry], hints: Iterable[tuple[str, str]] = (), *, rest: Catalogue | None = None
    ) -> None:
        patterns = [pattern for entry in entries for pattern in _compiled(entry)]
        self._patterns = sorted(patterns, key=lambda pattern: -pattern.weight)
        self._hints = [
            (
                _regex(pattern),
                Entry(patterns=(pattern,), licence=key, basis="name", source="the name of the checkpoint"),
                len(pattern),
            )
            for pattern, key in hints
        ]
        self._hints.sort(key=lambda hint: -hint[2])
        self._rest = rest
        self._seen: dict[str, Match | None] = {}

    @classmethod
    def with_own(cls, entries: Iterable[Entry]) -> Catalogue:
        """One's own entries in front of the shipped ones."""
        own = list(entries)
        return cls(own, rest=shipped()) if own else shipped()

    def find(self, name: str) -> Match | None:
        """The best match for ``publisher/name`` or a bare name; None when nothing fits."""
        if name not in self._seen:
            if len(self._seen) > 10_000:
                self._seen.clear()
            self._seen[name] = self._find(name) or (self._rest.find(name) if self._rest else None)
        return self._seen[name]

    def _find(self, name: str) -> Match | None:
        publisher, bare = _parts(name)
        stripped = _strip(bare)
        for candidate in (bare, stripped):
            for pattern in self._patterns:
                if pattern.name.fullmatch(candidate) and pattern.publisher.fullmatch(publisher):
                    # The Ollama library converts other people's models.
                    own = candidate == bare and publisher != "ollama"
                    return Match(pattern.entry, "name" if own else "mirror", name)
        for pattern in self._patterns:
            # A pattern such as acme/* says nothing of other publishers' models.
            if len(pattern.begins) >= _TELLING and pattern.name.fullmatch(stripped):
                plain = all(_SIBLING.match(word) for word in _words(stripped[len(pattern.begins) :]))
                how = "derivative" if not plain else "mirror" if publisher or stripped != bare else "name"
                return Match(pattern.entry, how, name)
        plain_name = _canonical(stripped)
        for regex, entry, _ in self._hints:
            if regex.fullmatch(plain_name):
                return Match(entry, "hint", name)
        return None

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries, own ones first."""
        seen = dict.fromkeys(id(pattern.entry) for pattern in self._patterns)
        by_id = {id(pattern.entry): pattern.entry for pattern in self._patterns}
        yield from (by_id[key] for key in seen)
        if self._rest:
            yield from self._rest.entries


@functools.cache
def shipped() -> Catalogue:
    """The catalogue of ``data/checkpoints.toml``."""
    data = load("checkpoints.toml")
    return Catalogue(
        [Entry(**row) for row in data["model"]], [(row["pattern"], row["licence"]) for row in data["hint"]]
    )


def entry_from(row: Mapping[str, Any]) -> Entry:
    """An entry of one's own from a TOML table. Raises UsageError for one that cannot be used."""
    row = dict(row)
    if "pattern" in row:
        row["patterns"] = [row.pop("pattern")]
    try:
        entry = Entry(**row)
    except TypeError as error:
        raise UsageError(f"a [[model]] entry needs pattern(s) and licence: {error}") from error
    return evolve(entry, source=entry.source or "the project's own policy file", basis=entry.basis or "own entry")


def _compiled(entry: Entry) -> Iterator[_Pattern]:
    for written in entry.patterns:
        for pattern in _expanded(written):
            publisher, _, name = pattern.rpartition("/")
            yield _Pattern(
                _regex(publisher or "*"),
                _regex(name),
                name.split("*", 1)[0].lower(),
                len(pattern.replace("*", "")),
                entry,
            )


def _expanded(pattern: str) -> Iterator[str]:
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [piece.split(",") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    for combination in itertools.product(*choices):
        yield "".join(combination)


def _regex(pattern: str) -> re.Pattern[str]:
    found = "|".join(".*".join(re.escape(piece) for piece in plain.lower().split("*")) for plain in _expanded(pattern))
    return re.compile(found)


def _parts(name: str) -> tuple[str, str]:
    """Publisher and bare name, in lower case. ``llama3.1:8b`` is a name of the Ollama library."""
    name = name.strip().removeprefix("https://huggingface.co/").removeprefix("hf.co/").removeprefix("huggingface.co/")
    publisher, _, bare = name.rpartition("/")
    publisher = publisher.rsplit("/", 1)[-1]
    bare = _WEIGHT_FILE.sub("", bare.replace(" ", "-"))
    if ":" in bare and not publisher:
        publisher = "ollama"
    elif ":" in bare:
        bare = bare.split(":", 1)[0]
    elif "@" in bare:
        bare = bare.split("@", 1)[0]
    return publisher.lower(), bare.lower()


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-_ ]+", name) if word]


def _strip(bare: str) -> str:
    """The name without what a conversion appends: ``llama-3.3-70b-instruct-q4_k_m`` -> ``llama-3.3-70b-instruct``."""
    while match := _LAST_WORD.match(bare):
        word = match[2]
        if not _CONVERSION.match(word) and not all(_CONVERSION.match(part) for part in word.split("_")):
            break
        bare = match[1]
    return bare


def _canonical(bare: str) -> str:
    plain = bare.replace("_", "-")
    plain = re.sub(r"(llama|gemma|phi)(?=\d)", r"\1-", plain)
    return re.sub(r"qwen-(?=\d\.)", "qwen", plain)
