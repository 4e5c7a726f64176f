"""One licence held against one use. The rules are the same for all licences; what differs is their data."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

from attrs import define, field, frozen

from osport.licenses import application
from osport.licenses.events import WHEN, events
from osport.licenses.regions import overlaps
from osport.licenses.terms import Claim, Condition, Duty, Terms
from osport.licenses.use import Reading, Use
from osport.licenses.verdict import Assumption, Obligation, Outcome, Reason

__all__ = ["Finding", "Subject", "evaluate"]

_GATES = {"grant": Outcome.NEEDS_GRANT, "terminates": Outcome.NEEDS_GRANT, "ineligible": Outcome.FORBIDDEN}
_UNFOUNDED = ("recollection", "none")
_UNITS = {"monthly_active_users": "monthly active users", "daily_active_users": "daily active users"}


@frozen
class Subject:
    """The model that a licence is read for: its name, its modality as far as known, the ancestor it stands for."""

    name: str = ""
    modality: str = ""
    via: str = ""


@frozen
class Finding:
    """What one licence says to one use."""

    outcome: Outcome
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    assumptions: tuple[Assumption, ...]


def evaluate(terms: Terms, use: Use, subject: Subject | None = None) -> Finding:
    """Hold ``terms`` against ``use``. Never raises: what cannot be decided is ``unknown``."""
    return _Evaluation(terms, Reading(use), subject or Subject()).run()


@define
class _Evaluation:
    terms: Terms
    reading: Reading
    subject: Subject
    reasons: list[Reason] = field(factory=list)
    obligations: list[Obligation] = field(factory=list)
    relied: list[tuple[str, Claim]] = field(factory=list)

    def run(self) -> Finding:
        rules: tuple[Callable[[], None], ...] = (
            self._grant, self._conditions, self._territory, self._outputs, self._distribution, self._duties,
            self._policy, self._confidence, self._remarks,
        )  # fmt: skip
        for rule in rules:
            rule()
        owed = [Outcome.ALLOWED_WITH_OBLIGATIONS] if self.obligations else []
        outcome = Outcome.strictest([*(reason.outcome for reason in self.reasons), *owed])
        ordered = sorted(self.reasons, key=lambda reason: -reason.outcome.severity)
        return Finding(outcome, tuple(ordered), tuple(self.obligations), tuple(self.reading.noted.values()))

    def _say(self, outcome: Outcome, clause: str, text: str, claim: Claim) -> None:
        extra = f" {claim.note}" if claim.note else ""
        self.reasons.append(
            Reason(
                outcome, clause, text + extra, self.terms.key, claim.section, self.terms.source_of(claim),
                claim.verified, self.subject.via,
            )  # fmt: skip
        )

    def _owe(self, kind: str, what: str, trigger: str, claim: Claim, exact: str = "") -> None:
        self.obligations.append(
            Obligation(
                kind, what, trigger, exact, self.terms.key, claim.section, self.terms.source_of(claim),
                claim.verified, self.subject.via,
            )  # fmt: skip
        )

    def _rely(self, name: str, claim: Claim) -> None:
        self.relied.append((name, claim))

    @property
    def _commercial(self) -> bool:
        """Selling outputs is commerce, unless the licence frees outputs from its limits."""
        sells = self.reading.outputs == "sell" and self.terms.outputs.sell != "allowed"
        return self.reading.commercial or sells

    def _grant(self) -> None:
        claim, rule = self.terms.commercial, self.terms.commercial.rule
        self._rely("commercial use", claim)
        if rule == "unknown" or (not self._commercial and claim.noncommercial == "unknown"):
            self._say(Outcome.UNKNOWN, "commercial", "What the text grants is not known.", claim)
        elif not self._commercial:
            self._say(Outcome.ALLOWED, "commercial", "Non-commercial use is granted.", claim)
            if claim.purposes:
                self._purpose(claim)
        elif rule == "allowed":
            self._say(Outcome.ALLOWED, "commercial", "Commercial use is granted.", claim)
        elif rule == "own_use":
            outward = self.reading.serves_others or self.reading.distributes
            self._say(
                Outcome.NEEDS_GRANT if outward else Outcome.ALLOWED,
                "commercial",
                "Serving or handing it to others for money needs a separate agreement."
                if outward
                else "Commercial use of one's own is granted.",
                claim,
            )
        elif rule == "forbidden":
            self._say(Outcome.FORBIDDEN, "commercial", "Commercial use is ruled out.", claim)
        elif claim.proof_of_concept and self.reading.flag("proof_of_concept", False) and not self._outward:
            self._say(Outcome.ALLOWED, "commercial", "Evaluation outside production is granted.", claim)
            self._purpose(claim)
        else:
            self._say(Outcome.NEEDS_GRANT, "commercial", "Commercial use needs a separate grant.", claim)

    @property
    def _outward(self) -> bool:
        return self.reading.serves_others or self.reading.distributes

    def _purpose(self, claim: Claim) -> None:
        purposes = " or ".join(self.terms.commercial.purposes) or "non-commercial ends"
        self._owe("purpose", f"Keep the use to {purposes}, outside production and any trade", WHEN["any_use"], claim)

    def _conditions(self) -> None:
        for condition in self.terms.conditions:
            if condition.applies_to == "commercial" and not self._commercial:
                continue
            if self._exempt(condition):
                self._say(Outcome.ALLOWED, "condition", f"{_condition_text(condition)} Not met: the use is exempt.", condition)
                continue
            self._rely("a condition", condition)
            if self._trips(condition):
                self._apply(condition)
            elif condition.metric:
                self._say(Outcome.ALLOWED, "condition", f"{_condition_text(condition)} This use stays below.", condition)

    def _exempt(self, condition: Condition) -> bool:
        free = {
            "inside_product": lambda: self.reading.inside_product,
            "internal": lambda: not self._outward,
            "nonprofit": lambda: self.reading.flag("nonprofit", False),
        }
        return any(free[kind]() for kind in condition.exempt)

    def _trips(self, condition: Condition) -> bool:
        reading = self.reading
        if condition.licensee == "natural_person" and not reading.personal:
            return False
        if condition.competing and not reading.flag("competing_service", False):
            return False
        if condition.businesses and not any(self._runs(business) for business in condition.businesses):
            return False
        if not condition.metric:
            return True
        metric = condition.metric
        if metric == "monthly_active_users" and condition.frozen:
            metric = "monthly_active_users_at_release"
        amount = reading.amount(metric, condition.amount, employer="employer" in condition.scope)
        return amount > condition.amount or (condition.op == ">=" and amount == condition.amount)

    def _runs(self, business: str) -> bool:
        # Whoever competes with the licensor's own service is taken to run the kind of business that it runs.
        if business in ("model_as_a_service", "ai_work_assistant") and self.reading.flag("competing_service", False):
            return True
        if business == "ai_work_assistant":
            named = self.reading.use.application
            return named is not None and "ai_work_assistant" in application.categories(named)
        return self.reading.hosts

    def _apply(self, condition: Condition) -> None:
        text = _condition_text(condition)
        if condition.basis in _UNFOUNDED:
            self._say(Outcome.UNKNOWN, "condition", f"{text} This use would meet it, if it is in the text.", condition)
        elif condition.effect in _GATES:
            self._say(_GATES[condition.effect], "condition", f"{text} This use meets it.", condition)
        else:
            self._say(Outcome.ALLOWED_WITH_OBLIGATIONS, "condition", f"{text} This use meets it.", condition)
            what = condition.what or "Display prominently on the user interface"
            exact = condition.display
            if condition.effect == "display" and not exact:
                what = "Display the model's name prominently on the user interface"
            self._owe(condition.effect, what, WHEN["commercial_product"], condition, exact)

    def _territory(self) -> None:
        territory = self.terms.territory
        self._rely("territory", territory)
        if not territory.excluded:
            return
        if territory.end_users_free and self.reading.inside_product:
            self._say(Outcome.ALLOWED, "territory", "End users of a product are not met by the exclusion.", territory)
            return
        if (territory.only_models or territory.modalities) and not self._modality_meets():
            self._say(Outcome.ALLOWED, "territory", "The exclusion is about other kinds of models.", territory)
            return
        names = ", ".join(territory.excluded)
        hit = False
        if "seat" in territory.test and self._reaches([self.reading.seat()]):
            hit = True
            self._say(Outcome.FORBIDDEN, "territory", f"No rights for whoever is domiciled in: {names}.", territory)
        if "place" in territory.test and self._reaches(self.reading.places("places_of_use")):
            hit = True
            self._say(Outcome.FORBIDDEN, "territory", f"The model may not be used in: {names}.", territory)
        if territory.reaches_outputs and self._reaches(self.reading.places("places_of_output_use")):
            hit = True
            self._say(Outcome.FORBIDDEN, "territory", f"Outputs may not be used in: {names}.", territory)
        if not hit:
            self._say(Outcome.ALLOWED, "territory", f"Excluded places ({names}) are not touched.", territory)

    def _reaches(self, places: object) -> bool:
        return any(overlaps(place, gone) for place in list(places) for gone in self.terms.territory.excluded)  # type: ignore[call-overload]

    def _modality_meets(self) -> bool:
        territory, said = self.terms.territory, self.reading.use.modality
        if territory.only_models:
            named = any(fnmatch.fnmatch(self.subject.name.lower(), pattern) for pattern in territory.only_models)
            return named or said in territory.modalities
        known = self.subject.modality or (territory.models if said in (None, "text") else "")
        if not known:
            if said is None:
                self.reading.noted.setdefault(
                    "modality", Assumption("modality", " or ".join(territory.modalities), "the model's own is not known")
                )
                return True
            known = said
        return known in territory.modalities or ("multimodal" in territory.modalities and known != "text")

    def _outputs(self) -> None:
        terms, reading = self.terms.outputs, self.reading
        kind = reading.outputs
        if kind == "use":
            return
        self._rely("use of outputs", terms)
        if kind == "sell":
            effect = terms.sell
            if effect == "forbidden" or (effect == "purpose" and self.terms.commercial.rule != "allowed"):
                outcome = Outcome.FORBIDDEN if effect == "forbidden" else Outcome.NEEDS_GRANT
                self._say(outcome, "outputs", "Outputs may not be sold under this licence.", terms)
            elif effect == "allowed":
                self._say(Outcome.ALLOWED, "outputs", f"Outputs may be sold. {terms.belief}".strip(), terms)
            return
        effect = {
            "train_same_family": terms.train_same_family,
            "train_other_llm": terms.train_other_llm,
            "train_other_model": terms.train_other_model,
        }[kind]
        self._train(effect, f" {terms.belief}" if terms.belief else "")

    def _train(self, effect: str, belief: str) -> None:
        terms, reading = self.terms.outputs, self.reading
        what = {
            "train_same_family": "a model of its own family",
            "train_other_llm": "another language model",
            "train_other_model": "another model that is no language model",
        }[reading.outputs]
        when = WHEN["student_trained"]
        if effect == "forbidden":
            self._say(Outcome.FORBIDDEN, "outputs", f"Outputs may not train {what}.{belief}", terms)
        elif effect == "silent":
            self._say(Outcome.UNKNOWN, "outputs", f"The text is silent on training {what}; silence is no permission.{belief}", terms)
        elif effect == "unknown":
            self._say(Outcome.UNKNOWN, "outputs", f"Whether outputs may train {what} is not known.{belief}", terms)
        elif effect == "not_if_competing":
            competes = reading.flag("competing_service", reading.outputs == "train_other_llm")
            if competes:
                self._say(Outcome.FORBIDDEN, "outputs", f"Outputs may not train a model that competes with the licensor's.{belief}", terms)
            else:
                self._say(Outcome.ALLOWED_WITH_OBLIGATIONS, "outputs", f"Outputs may train {what} that does not compete.{belief}", terms)
                self._owe("purpose", "See to it that the student does not compete with the licensor's models", when, terms)
        elif effect == "not_foundation":
            self._say(Outcome.ALLOWED_WITH_OBLIGATIONS, "outputs", f"Outputs may train {what}, but no foundation model.{belief}", terms)
            self._owe("purpose", "See to it that the student is no foundation or general-purpose model", when, terms)
        elif effect == "purpose":
            outcome = Outcome.NEEDS_GRANT if self._commercial and self.terms.commercial.rule != "allowed" else Outcome.ALLOWED
            self._say(outcome, "outputs", f"Outputs may train {what} within the purposes of the licence only.{belief}", terms)
            if outcome is Outcome.ALLOWED:
                self._purpose(terms)
        elif effect == "flow_down":
            self._say(Outcome.ALLOWED_WITH_OBLIGATIONS, "outputs", f"Outputs may train {what}; the licence goes with the student.{belief}", terms)
            self._owe("flow_down", "Treat the student as a derivative: the terms and use restrictions apply to it", when, terms)
        else:
            self._say(Outcome.ALLOWED, "outputs", f"Outputs may train {what}.{belief}", terms)

    def _distribution(self) -> None:
        claim = self.terms.distribution
        if "distribute" not in events(self.reading, claim):
            return
        self._rely("redistribution", claim)
        if not claim.known:
            self._say(Outcome.UNKNOWN, "distribution", "What handing it on requires was not read.", claim)

    def _duties(self) -> None:
        happening = events(self.reading, self.terms.distribution)
        for duty in self.terms.duties:
            met = [trigger for trigger in duty.triggers if trigger in happening]
            if not met or not self._concerns(duty):
                continue
            self._rely("a duty", duty)
            when = "; ".join(WHEN[trigger] for trigger in met)
            what = duty.what + (f" (on a {duty.where})" if duty.where else "")
            self._owe(duty.kind, what, when, duty, duty.exact)
            if duty.prefix:
                self._name(duty, when)

    def _concerns(self, duty: Duty) -> bool:
        if not duty.only_models or not self.subject.name:
            return True
        return any(fnmatch.fnmatch(self.subject.name.lower(), pattern.lower()) for pattern in duty.only_models)

    def _name(self, duty: Duty, when: str) -> None:
        name = self.reading.use.student_name
        if name is None:
            self.reading.noted.setdefault("student_name", Assumption("student_name", "one that the licence accepts"))
            return
        begins = _letters(name.rsplit("/", 1)[-1]).startswith(_letters(duty.prefix))
        self._say(
            Outcome.ALLOWED if begins else Outcome.FORBIDDEN,
            "name",
            f"“{name}” begins with “{duty.prefix}”, as it must."
            if begins
            else f"Under the name “{name}” it may not be distributed: the name must begin with “{duty.prefix}” when {when}.",
            duty,
        )

    def _policy(self) -> None:
        policy, named = self.terms.policy, self.reading.use.application
        self._rely("use policy", policy)
        where = f" ({policy.url})" if policy.url else ""
        unread = policy.kind == "unknown" or (policy.kind in ("incorporated", "separate") and not policy.prohibits)
        if policy.kind == "law":
            self._owe("policy", "Comply with the law that applies, export control included", WHEN["any_use"], policy)
        elif policy.kind in ("inline", "incorporated", "separate"):
            moving = "; it may change, so watch it" if policy.changes else ""
            self._owe("policy", f"Keep to the acceptable use policy{where}{moving}", WHEN["any_use"], policy)
        if self.reading.flag("remove_guardrails", False):
            self._held("remove_guardrails", "Removing guardrails", unread)
        if named is None:
            return
        touched = application.categories(named)
        for category in sorted(touched - application.HARMLESS):
            self._held(category, f"The application “{named}” ({category.replace('_', ' ')})", unread)

    def _held(self, category: str, what: str, unread: bool) -> None:
        policy = self.terms.policy
        if category in policy.prohibits:
            self._say(Outcome.FORBIDDEN, "policy", f"{what} is ruled out by the use policy.", policy)
        elif category in policy.restricts:
            self._say(Outcome.ALLOWED_WITH_OBLIGATIONS, "policy", f"{what} is allowed to those who may practise it.", policy)
            self._owe("policy", "Hold the authority or licence that the profession asks for", "the application is used", policy)
        elif unread:
            self._say(Outcome.UNKNOWN, "policy", f"{what} may be ruled out: the lines of the use policy were not read.", policy)

    def _confidence(self) -> None:
        unread = {name: claim for name, claim in self.relied if claim.verified == "unverified"}
        if not unread:
            return
        unfounded = [name for name, claim in unread.items() if claim.basis in _UNFOUNDED]
        decisive = [name for name in unfounded if name in ("commercial use", "use of outputs")]
        if decisive:
            claim = unread[decisive[0]]
            self._say(Outcome.UNKNOWN, "confidence", f"Nobody has read the text on: {', '.join(decisive)}.", claim)
        first = next(iter(unread.values()))
        names = ", ".join(dict.fromkeys(unread))
        self._owe("confirm", f"Read the licence text itself; known from others' words only: {names}", WHEN["any_use"], first)

    def _remarks(self) -> None:
        for remark in self.terms.remarks:
            self._say(Outcome.ALLOWED, remark.kind, remark.text[:1].upper() + remark.text[1:] + ".", remark)


def _letters(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _condition_text(condition: Condition) -> str:
    parts = []
    if condition.metric:
        amount = f"{condition.amount:,.0f} {_UNITS.get(condition.metric, 'US$ ' + condition.metric.replace('_', ' '))}"
        sign = "at or above" if condition.op == ">=" else "above"
        frozen = {"": "at any time", "unknown": "on the release date of the version"}.get(
            condition.frozen, f"on the release date {condition.frozen} only"
        )
        parts.append(f"{sign} {amount}, {frozen}, counted over {' + '.join(condition.scope)}")
    if condition.businesses:
        parts.append("for the business of " + " or ".join(business.replace("_", " ") for business in condition.businesses))
    head = "Holds " + ", ".join(parts) if parts else ""
    return ". ".join(part for part in (condition.what, head) if part).rstrip(".") + "." if (condition.what or head) else "A condition."
