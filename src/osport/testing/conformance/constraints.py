"""Constraints: enforced, labelled, not leaking into the next call, and never only pretended."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from osport.constrained import ConstrainedOutput
from osport.core.thought import Thought
from osport.errors import Truncated, UnsupportedFeature
from osport.model import Model
from osport.probing import probe_kind
from osport.testing.conformance.area import Area

__all__ = ["FORMS", "ConstraintChecks"]

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}
FORMS = {
    "json_schema": ConstrainedOutput.json_schema(SCHEMA),
    "choice": ConstrainedOutput.choice(["pos", "neg"]),
    "regex": ConstrainedOutput.regex("[a-c]{3}"),
    "grammar": ConstrainedOutput.grammar('root ::= "pos" | "neg"'),
}


# Its shortest value has 61 bytes: more tokens than the dozen that the check gives, and not so many that
# the form is refused before the call.
LONG = ConstrainedOutput.json_schema(
    {
        "type": "object",
        "properties": {name: {"enum": ["pos", "neg"]} for name in "abcdef"},
        "required": [*"abcdef"],
        "additionalProperties": False,
    }
)


class ConstraintChecks(Area):
    """What a form that was asked for must come to."""

    @pytest.mark.parametrize("kind", sorted(FORMS))
    def test_a_form_is_kept_or_refused(self, model: Model, kind: str) -> None:
        """A constrained answer conforms, and is verified."""
        if kind not in model.capabilities.constraints:
            with pytest.raises(UnsupportedFeature):
                self._ask(model, output=FORMS[kind])
            return
        answer = self._ask(model, output=FORMS[kind], **self._room(model))
        FORMS[kind].verify(answer.text)
        assert answer.parsed is not None
        assert answer.enforcement.verified

    @pytest.mark.parametrize("kind", sorted(FORMS))
    def test_an_answer_says_who_enforced_its_form(self, model: Model, kind: str) -> None:
        """The label that the capabilities declare, and the engine's name."""
        self._needs_kind(model, kind)
        answer = self._ask(model, output=FORMS[kind], **self._room(model))
        assert answer.enforcement.by == model.capabilities.enforced_by
        assert answer.enforcement.engine

    @pytest.mark.parametrize("kind", sorted(FORMS))
    def test_a_form_that_is_enforced_cannot_be_talked_out_of(self, model: Model, kind: str) -> None:
        """A plain word is asked for while the form allows only a random string, twice."""
        self._needs_kind(model, kind)
        self._needs_enforcement(model)
        found = probe_kind(model, kind, tries=2, ask=self.asking)
        assert found.result == "enforced", found.detail

    @pytest.mark.parametrize("kind", sorted(FORMS))
    def test_a_streamed_form_is_kept(self, model: Model, kind: str) -> None:
        """Streaming takes another way through many engines; the form holds there, too."""
        self._needs_kind(model, kind)
        self._needs(model, "stream")
        last = list(model.stream(self._request(model, **self._room(model)), output=FORMS[kind]))[-1].completion
        assert last is not None
        FORMS[kind].verify(last.text)
        assert last.enforcement.by == model.capabilities.enforced_by

    def test_a_form_cut_short_is_truncated(self, model: Model) -> None:
        """Half a JSON value is a Truncated, not an answer and not a broken form."""
        self._needs_kind(model, "json_schema")
        self._needs(model, "max_tokens")
        with pytest.raises(Truncated):
            self._ask(model, output=LONG, max_tokens=12)

    def test_a_form_holds_behind_a_thought_or_that_is_refused(self, model: Model) -> None:
        """Free text to the closing mark and within its budget, then the form; each in a field of its own."""
        self._needs_kind(model, "choice")
        self._needs(model, "raw_prompt")
        thought = Thought("</think>", budget=6)
        request = evolve(self._request(model, **self._room(model)), messages=(), prompt=self.prompt, thought=thought)
        if not model.capabilities.constrained_thinking:
            with pytest.raises(UnsupportedFeature):
                model.generate(request, output=FORMS["choice"])
            return
        answer = model.generate(request, output=FORMS["choice"])
        FORMS["choice"].verify(answer.text)
        assert answer.reasoning is not None
        assert thought.closing not in answer.reasoning

    def test_a_form_does_not_outlive_its_call(self, model: Model) -> None:
        """The next answer is free again."""
        self._needs(model, "temperature")
        before = self._ask(model).text
        for kind in sorted(FORMS):
            if kind in model.capabilities.constraints:
                self._ask(model, output=FORMS[kind], **self._room(model))
                assert self._ask(model).text == before, f"a {kind} still holds after its call"

    def _needs_kind(self, model: Model, kind: str) -> None:
        if kind not in model.capabilities.constraints:
            pytest.skip(f"the backend declares no constraint of kind {kind}")

    def _room(self, model: Model) -> dict[str, Any]:
        return {"max_tokens": 64} if self._takes(model, "max_tokens") else {}
