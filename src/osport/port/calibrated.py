"""One field of an answer, decided by the calibrated probabilities of its members; the model writes the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from osport.classify import choice_in_json
from osport.constrained import ConstrainedOutput
from osport.constrained.calibrate import CONTENT_FREE, LabelScores, contextual, normalised
from osport.core.types import Completion, Message, Request
from osport.errors import UnsupportedFeature, UsageError
from osport.model import Model

__all__ = ["CalibratedField"]


class CalibratedField:
    """Asks a model in two steps: which member of ``field`` (nothing is sampled), then the whole answer with it.

    ``schema`` is that of the answer, an object with the enum ``field`` as its first property, so that nothing of
    the answer stands before the choice. ``request`` makes the request for an input; with ``calibration``
    ``contextual`` the preference that it has for a member without any content is measured once and taken out
    (arXiv 2102.09690). ``Completion.removed_mass`` is the probability of everything but the members.

    Raises :class:`~osport.errors.UsageError` for another schema, :class:`~osport.errors.UnsupportedFeature` for a
    model that scores no texts.
    """

    def __init__(
        self,
        model: Model,
        schema: Mapping[str, Any],
        field: str,
        *,
        request: Callable[[str], Request],
        calibration: str,
    ) -> None:
        members = _members(schema, field)
        if not model.capabilities.score:
            raise UnsupportedFeature("score", model.ref.backend, reason=f"classify = {field!r} needs it")
        self._model = model
        self._request = request
        self._calibration = calibration
        self._bias: tuple[LabelScores, ...] | None = None
        # As the examples of the prompt are written: with a space behind the colon.
        self._opening, texts = choice_in_json(json.dumps({field: members[0]}), field, members)
        self._texts = texts
        self._outputs = {
            name: ConstrainedOutput.json_schema(_fixed(schema, field, member))
            for name, member in zip(texts, members, strict=True)
        }

    def ask(self, request: Request) -> Completion:
        """The answer to one request; ``latency`` is that of both steps."""
        started = time.perf_counter()
        scores, removed = self._scores(request)
        if self._calibration == "contextual":
            if self._bias is None:
                self._bias = tuple(self._scores(self._request(text))[0] for text in CONTENT_FREE)
                started = time.perf_counter()  # measured once for all items, not for this one
            probabilities = contextual(scores, self._bias)
        else:
            probabilities = normalised(scores)
        name = max(probabilities, key=lambda label: probabilities[label])
        answer = self._model.generate(request, output=self._outputs[name])
        return evolve(
            answer,
            latency=time.perf_counter() - started,
            removed_mass=removed,
            effective={**answer.effective, "probabilities": probabilities},
        )

    def _scores(self, request: Request) -> tuple[LabelScores, float]:
        opened = evolve(request, messages=(*request.messages, Message.assistant(self._opening)))
        found = self._model.classify(opened, self._texts)
        return LabelScores(found.logprobs), found.removed_mass


def _members(schema: Mapping[str, Any], field: str) -> list[Any]:
    """The members of the enum, if it is what the answer begins with."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or next(iter(properties), None) != field:
        raise UsageError(f"classify = {field!r}: the schema of the answer must have it as its first property")
    part = properties[field]
    members = part.get("enum") if isinstance(part, Mapping) else None
    if not isinstance(members, list) or len(members) < 2:
        raise UsageError(f"classify = {field!r}: it must be an enum with at least two members")
    return members


def _fixed(schema: Mapping[str, Any], field: str, member: Any) -> dict[str, Any]:
    return {**schema, "properties": {**schema["properties"], field: {"enum": [member]}}}
