"""Forms compiled in a process of its own, for engines that have no limits of their own; the result is kept on disk.

outlines-core fills the memory over ``^(a{1,500}){1,500}$``; xgrammar takes 13 s for a hundred ``[a-z]?`` in a row, and
neither can be interrupted. No property of a form that is cheap to see foretells it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

from osport.confined import Confined, Unanswered, serve
from osport.constrained.protocol import Engine
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.errors import UnsupportedFeature
from osport.file_cache import FileCache
from osport.store import cache_dir

__all__ = ["NotTaken", "compiled_elsewhere", "serve_compiler"]

SECONDS = 10.0  # of one form; those of the corpus stay under 0.2 s
MEMORY_BYTES = 2**30
# Half a megabyte a form at the median, for outlines and a vocabulary of 49 thousand.
KEPT_BYTES = 256 * 2**20
KEPT_FILES = 1000
FOLDER = "compiled"
VOCABULARIES = 2  # that a child remembers

Loaded = TypeVar("Loaded")


class NotTaken(Exception):
    """In the child: the engine does not take the form, and says why."""


def compiled_elsewhere(
    engine: Engine, how: str, text: str, vocabulary: Vocabulary, load: Callable[[bytes], Loaded]
) -> Loaded:
    """A form compiled for a vocabulary, from the disk where it is kept there.

    ``engine``: of a class in whose module ``main`` calls :func:`serve_compiler`. ``how``: the kind of the constraint.
    ``load``: makes the form of its bytes, and raises ValueError or RuntimeError for bytes that are none.

    Raises :class:`~osport.errors.UnsupportedFeature` for a form that the engine does not take, or not within
    :data:`SECONDS` and :data:`MEMORY_BYTES`.
    """
    files = FileCache(cache_dir() / FOLDER, entries=KEPT_FILES, size=KEPT_BYTES)
    written = json.dumps([version("osport"), engine.version(), how, text, vocabulary.prepared("digest", digest_of)])
    key = hashlib.sha256(written.encode()).hexdigest()
    kept = files.get(key)
    if kept is not None:
        try:
            return load(kept)
        except (ValueError, RuntimeError):
            files.drop(key)
    try:
        answer = ask(type(engine).__module__, how, text, vocabulary)
    except Unanswered as error:
        reason = f"not compiled: {error}; lower its counts, or give engine='llguidance', which bounds itself"
        raise UnsupportedFeature(f"this {how}", engine.name, reason=reason) from None
    if "refused" in answer:
        raise UnsupportedFeature(f"this {how}", engine.name, reason=answer["refused"])
    made = base64.b64decode(answer["compiled"])
    loaded = load(made)
    files.put(key, made)
    return loaded


def ask(maker: str, how: str, text: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """The answer of a child, which is told the vocabulary when it does not know it."""
    child = child_for(maker)
    question = {"how": how, "text": text, "vocabulary": vocabulary.prepared("digest", digest_of)}
    answer = child.ask(question)
    if "unknown" in answer:
        pieces = [piece.decode("latin-1") for piece in vocabulary.pieces]
        answer = child.ask({**question, "pieces": pieces, "ends": vocabulary.ends})
    return answer


@functools.cache
def child_for(maker: str) -> Confined:
    """The children of one engine."""
    return Confined(maker, seconds=SECONDS, memory=MEMORY_BYTES)


def digest_of(vocabulary: Vocabulary) -> str:
    """SHA-256 of the tokens and of which of them end an answer."""
    digest = hashlib.sha256(json.dumps([vocabulary.ends, [len(piece) for piece in vocabulary.pieces]]).encode())
    digest.update(b"".join(vocabulary.pieces))
    return digest.hexdigest()


def serve_compiler(compiled_bytes: Callable[[str, str, Vocabulary], bytes]) -> None:
    """The child: compile what is asked for. ``compiled_bytes`` raises :class:`NotTaken`."""
    known: dict[str, Vocabulary] = {}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        name = question["vocabulary"]
        if "pieces" in question:
            while len(known) >= VOCABULARIES:
                del known[next(iter(known))]
            known[name] = Vocabulary((piece.encode("latin-1") for piece in question["pieces"]), question["ends"])
        elif name not in known:
            return {"unknown": name}
        try:
            made = compiled_bytes(question["how"], question["text"], known[name])
        except NotTaken as error:
            return {"refused": str(error)}
        return {"compiled": base64.b64encode(made).decode("ascii")}

    def prepare() -> Callable[[dict[str, Any]], dict[str, Any]]:
        compiled_bytes("regex", "a", BYTES)  # all that compiles is loaded before the limits
        return answer

    serve(prepare, seconds=SECONDS, memory=MEMORY_BYTES)
