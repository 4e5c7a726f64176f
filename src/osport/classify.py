"""Classification by the probabilities of the labels: which one, how sure, and how forced the answer is.

Nothing is sampled. Each label is scored as a whole, token by token, behind the prompt; what the model gives to
all other answers is the removed mass. The preference that the prompt itself has for a label can be taken out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack, cast, get_args, overload

from attrs import evolve, frozen

from osport.constrained import calibrate
from osport.core.prompt import CallOptions, Prompt, to_request
from osport.core.types import ContinuationScore, Message, Request
from osport.errors import BackendError, OsportError, TemplateError, UsageError

__all__ = ["Calibration", "Classification", "Classifies", "choice_in_json"]

Calibration = Literal["none", "contextual", "batch"]
Score = Callable[[Request, Sequence[str]], Sequence[ContinuationScore]]
Labels = Sequence[str] | Mapping[str, str]


@frozen
class Classification:
    """What a model makes of one item.

    ``label`` is the likeliest one. ``probabilities`` are those of the labels among themselves, after the
    calibration, and sum to 1. ``logprobs`` are natural log-probabilities of the whole labels as the model itself
    gives them, ``mass`` is their sum as a probability: what the model would have given to any label at all. A
    small one marks a forced answer.
    """

    label: str
    probabilities: Mapping[str, float]
    logprobs: Mapping[str, float]
    mass: float
    calibration: Calibration = "none"

    @property
    def confidence(self) -> float:
        """The probability of the chosen label among the labels."""
        return self.probabilities[self.label]

    @property
    def removed_mass(self) -> float:
        """The probability of all answers that are no label."""
        return 1.0 - self.mass


class Classifies:
    """What scores texts also classifies; ``Model`` is one."""

    def score(
        self, prompt: Prompt, continuations: Sequence[str], **options: Unpack[CallOptions]
    ) -> tuple[ContinuationScore, ...]:
        """The log-probability of each continuation of the prompt."""
        raise NotImplementedError

    # A text is a list of texts to mypy, and a conversation one of prompts; not here.
    @overload
    def classify(  # type: ignore[overload-overlap]
        self,
        prompts: Prompt,
        labels: Labels,
        *,
        calibration: Calibration = "none",
        content_free: Sequence[Prompt] | None = None,
        **options: Unpack[CallOptions],
    ) -> Classification: ...

    @overload
    def classify(
        self,
        prompts: Sequence[Prompt],
        labels: Labels,
        *,
        calibration: Calibration = "none",
        content_free: Sequence[Prompt] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[Classification | OsportError]: ...

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        labels: Labels,
        *,
        calibration: Calibration = "none",
        content_free: Sequence[Prompt] | None = None,
        **options: Unpack[CallOptions],
    ) -> Classification | list[Classification | OsportError]:
        """Which label the model finds likeliest behind a prompt, with the probability of each.

        ``prompts``: one prompt, or a list of prompts for a list with one :class:`~osport.Classification` or one
        error each. ``labels``: the texts that the model would write, or a mapping from labels to these texts.
        ``calibration`` takes the prompt's own preference out: ``contextual`` measures it on inputs without
        content (``content_free``; default: the last user turn replaced by ``N/A``, ``[MASK]`` and nothing),
        ``batch`` on the items themselves, of which there must be several.

        Raises :class:`~osport.errors.UnsupportedFeature` where the engine gives no log-probabilities of given
        texts, :class:`~osport.errors.UsageError` for labels that cannot be told apart.
        """
        one = _is_one(prompts)
        items = cast(Sequence[Prompt], [prompts] if one else prompts)
        requests = [to_request(prompt, options) for prompt in items]
        found = _classified(requests, labels, self.score, calibration, content_free)
        if not one:
            return found
        if isinstance(found[0], OsportError):
            raise found[0]
        return found[0]


def _is_one(prompts: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is one prompt (a text, a message, a conversation, a request) and no list of prompts."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        return True
    return bool(prompts) and all(isinstance(part, Message) for part in prompts)


def _classified(
    requests: Sequence[Request],
    labels: Labels,
    score: Score,
    calibration: Calibration,
    content_free: Sequence[Prompt] | None,
) -> list[Classification | OsportError]:
    """One classification for each request, or the error that is this item's; what is everybody's is raised."""
    texts = _texts_of(labels)
    if calibration not in get_args(Calibration):
        raise UsageError(f"calibration={calibration!r}: one of {', '.join(get_args(Calibration))}")
    if content_free is not None and calibration != "contextual":
        raise UsageError("content_free is for calibration='contextual'")

    def scores_of(request: Request) -> calibrate.LabelScores:
        found = score(request, list(texts.values()))
        return calibrate.LabelScores({label: one.logprob for label, one in zip(texts, found, strict=True)})

    scores: list[calibrate.LabelScores | OsportError] = []
    for request in requests:
        try:
            scores.append(scores_of(request))
        except (BackendError, TemplateError) as error:
            scores.append(error)
    good = [one for one in scores if isinstance(one, calibrate.LabelScores)]
    if calibration == "batch":
        probabilities = iter(calibrate.batch(good) if good else ())
    elif calibration == "contextual":
        bias = _Bias(scores_of, content_free)
        asked = [
            request for request, one in zip(requests, scores, strict=True) if isinstance(one, calibrate.LabelScores)
        ]
        probabilities = iter(
            [calibrate.contextual(one, bias.of(request)) for request, one in zip(asked, good, strict=True)]
        )
    else:
        probabilities = iter([calibrate.normalised(one) for one in good])
    return [
        one if isinstance(one, OsportError) else _classification(one, next(probabilities), calibration)
        for one in scores
    ]


def choice_in_json(text: str, field: str, members: Sequence[Any]) -> tuple[str, dict[str, str]]:
    """A field of a JSON object as a choice: the beginning of ``text`` up to the field's value, and the members as
    labels behind it.

    ``text`` is an answer, ``field`` a property of its outermost object; with both, a
    :class:`~osport.Message` ``assistant`` of the beginning as prefill and the labels go to ``Model.classify``,
    and the field is decided anew, calibrated, given what the model wrote before it.

    >>> choice_in_json('{"why":"good","sentiment":"pos"}', "sentiment", ["pos", "neg"])
    ('{"why":"good","sentiment":"', {'pos': 'pos"', 'neg': 'neg"'})

    Raises :class:`~osport.errors.UsageError` when the text is no such object, or members are not distinct scalars.
    """
    start = _start_of(text, field)
    written = [json.dumps(member, ensure_ascii=False) for member in members]
    opening = '"' if all(one.startswith('"') for one in written) else ""
    names = [member if isinstance(member, str) else one for member, one in zip(members, written, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError(f"members that cannot be told apart: {names}")
    # A number may go on where a member ends; what follows the value ends it.
    closing = "" if opening else text[_end_of(text, start)]
    return text[:start] + opening, {
        name: one.removeprefix(opening) + closing for name, one in zip(names, written, strict=True)
    }


def _start_of(text: str, field: str) -> int:
    """Where the value of a property of the outermost object begins."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise UsageError(f"not a JSON object: {text[:80]!r}")
    at += 1
    try:
        while True:
            at = _skip(text, at)
            name, at = _DECODER.raw_decode(text, at)
            at = _skip(text, text.index(":", at) + 1)
            if name == field:
                return at
            _, at = _DECODER.raw_decode(text, at)
            at = text.index(",", at) + 1
    except ValueError as error:
        raise UsageError(f"no field {field!r} in {text[:80]!r}") from error


_DECODER = json.JSONDecoder()


def _end_of(text: str, start: int) -> int:
    return _skip(text, _DECODER.raw_decode(text, start)[1])


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\r", "\t"):
        at += 1
    return at


class _Bias:
    """The scores of content-free inputs, measured once for all items that have the same."""

    def __init__(
        self, scores_of: Callable[[Request], calibrate.LabelScores], content_free: Sequence[Prompt] | None
    ) -> None:
        self._scores_of = scores_of
        self._given = None if content_free is None else [to_request(prompt) for prompt in content_free]
        self._known: list[tuple[Sequence[Request], list[calibrate.LabelScores]]] = []

    def of(self, request: Request) -> list[calibrate.LabelScores]:
        """For the item of this request."""
        free = self._given if self._given is not None else _without_content(request)
        for known, scores in self._known:
            if known == free:
                return scores
        scores = [self._scores_of(one) for one in free]
        self._known.append((free, scores))
        return scores


def _without_content(request: Request) -> list[Request]:
    """The request with its last user turn replaced by each input without content."""
    users = [place for place, message in enumerate(request.messages) if message.role == "user"]
    if not users:
        raise UsageError(
            "contextual calibration replaces the last user turn, and this prompt has none; give content_free, the "
            "prompts as they would be for 'N/A', '[MASK]' and an empty input"
        )
    messages = list(request.messages)
    free = []
    for text in calibrate.CONTENT_FREE:
        messages[users[-1]] = evolve(request.messages[users[-1]], content=text)
        free.append(evolve(request, messages=messages))
    return free


def _classification(
    scores: calibrate.LabelScores, probabilities: Mapping[str, float], calibration: Calibration
) -> Classification:
    label = max(probabilities, key=lambda name: probabilities[name])
    return Classification(label, probabilities, scores.logs, scores.mass, calibration)


def _texts_of(labels: Labels) -> dict[str, str]:
    """What the model would write for each label, checked."""
    if isinstance(labels, str):
        raise UsageError(f"labels={labels!r}: give a list of labels")
    texts = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
    if len(texts) < 2 or len(texts) < len(labels):
        raise UsageError(f"labels={list(labels)!r}: at least two different ones")
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise UsageError(f"labels={labels!r}: each must be a text that is not empty")
    for label, text in texts.items():
        for other, longer in texts.items():
            if label != other and longer.startswith(text):
                raise UsageError(
                    f"the label {label!r} is the beginning of {other!r}, so that its probability would hold the "
                    "other's; end both with what follows them, or rename one"
                )
    return texts
