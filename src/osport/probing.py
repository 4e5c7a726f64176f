"""The nonce probe: does this engine really enforce a form, or does it answer 200 and drop it?"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import cattrs
from attrs import evolve, field, frozen, validators

from osport.constrained import ConstrainedOutput
from osport.core.prompt import to_request
from osport.core.types import ConstraintKind, Request, Sampling
from osport.errors import BadRequest, ConstraintViolated, UnsupportedFeature, UsageError
from osport.model import Model
from osport.store import cache_dir, storage_errors

__all__ = ["ConstraintProbe", "KindProbe", "probe_constraints", "probe_kind", "recalled_probe"]

ProbeResult = Literal["enforced", "dropped", "refused"]

WORDS = ("blue", "seven", "harbour", "yes", "bread", "north", "piano")
ROOM = 128
"""Tokens that a try may take: many times what the longest nonce needs, should an engine indent its JSON."""
NONCE_LENGTH = 10
PROBED: tuple[ConstraintKind, ...] = ("json_schema", "choice", "regex", "grammar")
"""Tool calls are written with the same masks as a grammar, and are not probed apart."""


@frozen
class KindProbe:
    """What one kind of constraint came to in ``tries`` tries: ``enforced`` in every one, ``dropped`` in at
    least one (``detail`` says what came instead), or ``refused`` by name."""

    kind: ConstraintKind
    result: ProbeResult = field(validator=validators.in_(get_args(ProbeResult)))
    tries: int
    detail: str = ""


@frozen
class ConstraintProbe:
    """Which constraints a backend really enforces with one model; ``date`` is when that was found out (ISO)."""

    backend: str
    model: str
    engine: str
    date: str
    kinds: tuple[KindProbe, ...]

    @property
    def dropped(self) -> tuple[KindProbe, ...]:
        """The kinds that were taken and not enforced."""
        return tuple(kind for kind in self.kinds if kind.result == "dropped")

    def __str__(self) -> str:
        lines = [f"{self.backend}:{self.model} ({self.engine or 'an engine that does not tell its version'})"]
        for kind in self.kinds:
            what = kind.detail or f"in {kind.tries} of {kind.tries} tries"
            lines.append(f"  {kind.kind:<12} {kind.result:<9} {what}")
        return "\n".join(lines)


def probe_constraints(model: Model, *, tries: int = 3, fresh: bool = False) -> ConstraintProbe:
    """Find out which constraints the backend of ``model`` really enforces.

    A plain word is asked for while the constraint allows only a fresh random string, ``tries`` times for each
    kind: who obeys the prompt has dropped the constraint. The result is kept in the cache folder by backend,
    model and the engine's version, and given again unless ``fresh``; where the engine does not tell its
    version, nothing is kept, for it may be another one tomorrow.

    Raises :class:`~osport.errors.UsageError` for fewer than one try, and
    :class:`~osport.errors.BackendError` when the engine cannot be asked at all.

    >>> from osport import Model
    >>> found = probe_constraints(Model("echo:", script=lambda request: "blue"))
    >>> all(kind.result == "dropped" for kind in found.kinds)
    True
    """
    if tries < 1:
        raise UsageError(f"tries={tries!r}: at least 1")
    if not fresh and (known := recalled_probe(model)) is not None:
        return known
    kinds = tuple(probe_kind(model, kind, tries=tries) for kind in PROBED)
    engine = str(model.facts.get("engine", ""))
    found = ConstraintProbe(
        model.ref.backend, model.ref.model, engine, datetime.now(UTC).isoformat(timespec="seconds"), kinds
    )
    if _tells_version(engine):
        file = _file(model)
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(cattrs.unstructure(found), indent=1), encoding="utf-8")
    return found


def recalled_probe(model: Model) -> ConstraintProbe | None:
    """What an earlier probe of this backend, model and version found; None when there was none."""
    file = _file(model)
    if not _tells_version(str(model.facts.get("engine", ""))) or not file.is_file():
        return None
    try:
        return cattrs.structure(json.loads(file.read_text(encoding="utf-8")), ConstraintProbe)
    except Exception:  # noqa: BLE001 - whatever is wrong with a cache file, the cure is to probe again
        return None


def probe_kind(
    model: Model, kind: ConstraintKind | str, *, tries: int, ask: Callable[[Request], Request] = lambda request: request
) -> KindProbe:
    """Probe one kind of constraint; ``ask`` may complete each request, such as with an item id."""
    sampling = Sampling(max_tokens=ROOM if "max_tokens" in model.capabilities.sampling else None)
    for number in range(1, tries + 1):
        word, output = WORDS[number % len(WORDS)], _form(kind)
        prompt = f"Answer with the single word {word!r}, in lower case, and with nothing else."
        request = to_request(prompt) if model.capabilities.chat else Request(prompt=prompt)
        request = evolve(request, constraint=output.constraint, sampling=sampling)
        try:
            answer = model.generate(ask(request))
        except (UnsupportedFeature, BadRequest) as error:
            return KindProbe(output.constraint.kind, "refused", number, str(error))
        try:
            output.verify(answer.text)
        except ConstraintViolated:
            allowed = json.dumps(output.constraint.value)
            detail = f"try {number}: allowed was {allowed}, the answer was {answer.text[:80]!r}"
            return KindProbe(output.constraint.kind, "dropped", number, detail)
    return KindProbe(output.constraint.kind, "enforced", tries)


def _form(kind: str) -> ConstrainedOutput:
    """A form that allows one string, or two, made up just now."""
    nonce = _nonce()
    forms: Mapping[str, Callable[[], ConstrainedOutput]] = {
        "choice": lambda: ConstrainedOutput.choice([nonce, _nonce()]),
        "regex": lambda: ConstrainedOutput.regex(f"{nonce}[0-9]{{2}}"),
        "grammar": lambda: ConstrainedOutput.grammar(f'root ::= "{nonce}"'),
        "json_schema": lambda: ConstrainedOutput.json_schema(
            {
                "type": "object",
                "properties": {nonce: {"enum": [_nonce()]}},
                "required": [nonce],
                "additionalProperties": False,
            }
        ),
    }
    return forms[kind]()


def _nonce() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(NONCE_LENGTH))


def _tells_version(engine: str) -> bool:
    # llama.cpp's server calls itself b0-unknown where its build was not told.
    return re.search(r"\d", engine) is not None and "unknown" not in engine


def _file(model: Model) -> Path:
    key = json.dumps([model.ref.backend, model.ref.model, str(model.facts.get("engine", ""))])
    return cache_dir() / "probes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
