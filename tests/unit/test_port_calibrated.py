"""A field of an answer decided by calibrated probabilities, on a fake engine whose preferences are known."""

import json
import math

import pytest

from osport.core.types import Completion, ContinuationScore, Message, Request, TokenLogprob
from osport.errors import UnsupportedFeature, UsageError
from osport.model import Model
from osport.plugin import Backend, Capabilities
from osport.port.calibrated import CalibratedField

SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["pos", "neg"]}, "score": {"type": "integer"}},
    "required": ["sentiment", "score"],
    "additionalProperties": False,
}
PREFERS_POS = {"good": (0.6, 0.1), "bad": (0.4, 0.2)}
WITHOUT_CONTENT = (0.4, 0.1)


class Biased(Backend):
    """A fake that finds ``pos`` four times as likely before it has read anything."""

    def __init__(self, *, score=True):
        super().__init__("biased")
        self.scored = []
        self.able = score

    def capabilities(self):
        return Capabilities(
            prefill=True, constraints=frozenset({"json_schema"}), constraint_engine="own", score=self.able
        )

    def score(self, request, continuations):
        *_, user, opening = request.messages
        assert opening == Message.assistant('{"sentiment": "')
        self.scored.append(user.content)
        chances = dict(zip(('pos"', 'neg"'), PREFERS_POS.get(user.content, WITHOUT_CONTENT), strict=True))
        return tuple(ContinuationScore(t, (TokenLogprob(t, math.log(chances[t])),)) for t in continuations)

    def generate(self, request):
        (label,) = request.constraint.value["properties"]["sentiment"]["enum"]
        return Completion(json.dumps({"sentiment": label, "score": 1}), "stop")


def asking(text):
    return Request([Message.system("Sort."), Message.user(text)])


def made(model, schema=SCHEMA, **options):
    return CalibratedField(model, schema, "sentiment", **{"request": asking, "calibration": "contextual", **options})


def test_the_preference_is_measured_once_and_taken_out():
    backend = Biased()
    field = made(Model(backend))
    answers = [field.ask(asking(text)) for text in ("good", "bad", "good")]
    assert [answer.parsed["sentiment"] for answer in answers] == ["pos", "neg", "pos"]
    assert backend.scored == ["good", "N/A", "[MASK]", "", "bad", "good"]


def test_without_calibration_the_preference_stays():
    field = made(Model(Biased()), calibration="none")
    assert field.ask(asking("bad")).parsed["sentiment"] == "pos"


def test_the_answer_says_how_forced_it_is_and_what_both_steps_took():
    answer = made(Model(Biased())).ask(asking("bad"))
    assert answer.removed_mass == pytest.approx(0.4)
    assert sum(answer.effective["probabilities"].values()) == pytest.approx(1)
    assert answer.latency > 0


def test_what_cannot_be_decided_so_is_refused():
    later = {**SCHEMA, "properties": {"score": {}, "sentiment": SCHEMA["properties"]["sentiment"]}}
    with pytest.raises(UsageError, match="first property"):
        made(Model(Biased()), later)
    with pytest.raises(UsageError, match="enum"):
        made(Model(Biased()), {**SCHEMA, "properties": {"sentiment": {"type": "string"}}})
    with pytest.raises(UnsupportedFeature, match="classify"):
        made(Model(Biased(score=False)))
