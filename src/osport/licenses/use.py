"""The intended use: what one means to do with a model, who one is, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from attrs import define, evolve, field, fields, frozen

from osport.errors import UsageError
from osport.licenses.regions import WORLD, region
from osport.licenses.verdict import Assumption

__all__ = ["Reading", "Use"]

Role = Literal["deployer", "end_user", "redistributor"]
Received = Literal["weights", "inside_product"]
Serving = Literal["internal", "product", "hosted_api", "model_as_a_service"]
Modality = Literal["text", "multimodal", "image", "audio", "video"]
Outputs = Literal["use", "sell", "train_same_family", "train_other_llm", "train_other_model"]


def _one_of(literal: Any) -> Callable[[Any, Any, Any], None]:
    allowed = get_args(literal)

    def check(_use: object, attribute: Any, value: object) -> None:
        if value is not None and value not in allowed:
            raise UsageError(f"{attribute.name}={value!r}: must be one of {', '.join(allowed)}")

    return check


def _amount(_use: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < 0:
        raise UsageError(f"{attribute.name}={value!r}: must be a number of at least 0")


def _flag(_use: Any, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{attribute.name}={value!r}: must be True, False or None (left open)")


def _place(value: str | None) -> str | None:
    return None if value is None else region(value)


def _places(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    places = [value] if isinstance(value, str) else list(value)
    if not places:
        raise UsageError("a list of places is empty: name at least one, or leave it out")
    return tuple(dict.fromkeys(region(place) for place in places))


@frozen(kw_only=True)
class Use:
    """An intended use. Every field may be left out.

    A circumstance that is left out (who you are, how large, where, how the model is served) is read as the licence
    would like it least. An act that is left out (training on the outputs, passing the weights on, fine-tuning,
    removing guardrails, a sensitive application) is read as not done. Both are listed in ``verdict.assumptions``.

    ``role``: ``deployer``, ``end_user`` or ``redistributor``. ``received``: the ``weights`` themselves, or a model
    ``inside_product`` of somebody else. ``serving``: ``internal`` (nobody outside sees model or outputs),
    ``product`` (a feature of something that others use), ``hosted_api`` (others call it), ``model_as_a_service``
    (the model is what is sold). ``on_premises``: it is installed at customers.
    ``monthly_active_users`` counts the group with its affiliates; ``monthly_active_users_at_release`` on the day
    when the model version came out (left out: read as today's number). Revenue in US$, of the group, for an
    individual that of the employer. ``seat``: where you are domiciled. Places are ISO 3166 codes, ``EU``, ``EEA``
    or ``WORLD``. ``outputs``: what the model's outputs are for. ``application``: a field such as ``medical``.

    Raises UsageError for what cannot be: negative users, unknown words, a distributed student without a name.
    """

    commercial: bool | None = field(default=None, validator=_flag)
    nonprofit: bool | None = field(default=None, validator=_flag)
    personal: bool | None = field(default=None, validator=_flag)
    proof_of_concept: bool | None = field(default=None, validator=_flag)
    role: Role | None = field(default=None, validator=_one_of(Role))
    received: Received | None = field(default=None, validator=_one_of(Received))
    serving: Serving | None = field(default=None, validator=_one_of(Serving))
    on_premises: bool | None = field(default=None, validator=_flag)
    modality: Modality | None = field(default=None, validator=_one_of(Modality))
    monthly_active_users: float | None = field(default=None, validator=_amount)
    monthly_active_users_at_release: float | None = field(default=None, validator=_amount)
    annual_revenue: float | None = field(default=None, validator=_amount)
    monthly_revenue: float | None = field(default=None, validator=_amount)
    seat: str | None = field(default=None, converter=_place)
    places_of_use: tuple[str, ...] | None = field(default=None, converter=_places)
    places_of_output_use: tuple[str, ...] | None = field(default=None, converter=_places)
    outputs: Outputs | None = field(default=None, validator=_one_of(Outputs))
    student_name: str | None = None
    student_distributed: bool | None = field(default=None, validator=_flag)
    fine_tune: bool | None = field(default=None, validator=_flag)
    redistribute_weights: bool | None = field(default=None, validator=_flag)
    competing_service: bool | None = field(default=None, validator=_flag)
    remove_guardrails: bool | None = field(default=None, validator=_flag)
    application: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("student_name", "application"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise UsageError(f"{name}={value!r}: must be a non-empty string, or left out")
        if self.student_distributed and self.student_name is None:
            raise UsageError("student_distributed=True needs student_name: some licences bind the name")
        annual, monthly = self.annual_revenue, self.monthly_revenue
        if annual is not None and monthly is not None and monthly > annual:
            raise UsageError(
                f"monthly_revenue={monthly!r} is above annual_revenue={annual!r}: a month is part of its year"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Use:
        """A use from a mapping such as a TOML table. Raises UsageError for a field that does not exist."""
        unknown = sorted(set(values) - {attribute.name for attribute in fields(cls)})
        if unknown:
            raise UsageError(
                f"a use has no field {', '.join(unknown)}; it has {', '.join(a.name for a in fields(cls))}"
            )
        return cls(**values)

    def with_(self, **changes: Any) -> Use:
        """The same use with some fields changed."""
        return evolve(self, **changes)


@define
class Reading:
    """A use as the evaluator reads it: nothing left open, and a note of every field that was looked at and open."""

    use: Use
    noted: dict[str, Assumption] = field(factory=dict)

    def _note(self, name: str, read_as: str, why: str = "") -> None:
        if name not in self.noted:
            self.noted[name] = Assumption(name, read_as, why)

    def flag(self, name: str, when_open: bool, why: str = "") -> bool:
        """A yes or no; open fields are read as ``when_open``."""
        value: bool | None = getattr(self.use, name)
        if value is None:
            self._note(name, "yes" if when_open else "no", why)
            return when_open
        return value

    @property
    def noncommercial_person(self) -> bool:
        """An individual outside any trade."""
        return self.personal and not self.commercial

    @property
    def personal(self) -> bool:
        """Whether an individual uses it for themselves; open: no."""
        return self.flag("personal", False)

    @property
    def commercial(self) -> bool:
        """Whether the use is commercial; open: yes, unless it is said to be personal."""
        if self.use.commercial is None and self.use.personal:
            self._note("commercial", "no", "the use is personal")
            return False
        return self.flag("commercial", True)

    @property
    def serving(self) -> Serving:
        """How the model is served; open: as a service to others, for a person: internally."""
        if self.use.serving is not None:
            return self.use.serving
        read: Serving = "internal" if self.noncommercial_person else "model_as_a_service"
        self._note("serving", read)
        return read

    @property
    def serves_others(self) -> bool:
        """Whether anybody outside gets at the model or its outputs through a product or service."""
        return self.serving != "internal"

    @property
    def hosts(self) -> bool:
        """Whether others call the model over a network."""
        return self.serving in ("hosted_api", "model_as_a_service")

    @property
    def inside_product(self) -> bool:
        """Whether the model came inside somebody else's product; open: no."""
        if self.use.received is None:
            self._note("received", "weights")
        return self.use.received == "inside_product"

    @property
    def outputs(self) -> Outputs:
        """What the outputs are for; open: sold when commercial, used otherwise, and no model trained on them."""
        if self.use.outputs is not None:
            return self.use.outputs
        read: Outputs = "sell" if self.commercial else "use"
        self._note("outputs", read, "training a model on them was not said and is not covered by this verdict")
        return read

    @property
    def trains(self) -> bool:
        """Whether a model is trained on the outputs."""
        return self.outputs.startswith("train")

    @property
    def fine_tunes(self) -> bool:
        """Whether the weights are modified; open: no."""
        return self.flag("fine_tune", False)

    @property
    def student_distributed(self) -> bool:
        """Whether the student leaves the house; open: yes, when there is one."""
        return self.trains and self.flag("student_distributed", True)

    @property
    def distributes(self) -> bool:
        """Whether weights reach others: passed on, or installed at customers."""
        if self.use.role == "redistributor" or self.flag("redistribute_weights", False):
            return True
        return self.serves_others and self.flag("on_premises", False)

    @property
    def derivative_distributed(self) -> bool:
        """Whether a modified copy of the weights reaches others."""
        return self.fine_tunes and (self.distributes or bool(self.use.student_distributed))

    def amount(self, metric: str, limit: float, *, employer: bool = False) -> float:
        """Users or US$ for a threshold at ``limit``; what is open is read as above it, unless a bound is known."""
        use = self.use
        if metric in ("monthly_active_users", "monthly_active_users_at_release", "daily_active_users"):
            return self._users(metric, limit)
        if self.noncommercial_person and not employer:
            self._note(metric, "0", "a person outside any trade has no revenue from it")
            return 0.0
        annual, monthly = use.annual_revenue, use.monthly_revenue
        if metric == "monthly_revenue":
            if monthly is not None:
                return monthly
            if annual is not None and annual <= limit:
                self._note(metric, f"at most {annual:,.0f}", "a month cannot bring more than its year")
                return annual
        elif annual is not None:
            return annual
        why = "the employer's counts for an individual" if employer and self.personal else ""
        self._note("monthly_revenue" if metric == "monthly_revenue" else "annual_revenue", f"above {limit:,.0f}", why)
        return math.inf

    def _users(self, metric: str, limit: float) -> float:
        use = self.use
        now, then = use.monthly_active_users, use.monthly_active_users_at_release
        if metric == "monthly_active_users_at_release":
            if then is not None:
                return then
            if now is not None:
                self._note(metric, f"{now:,.0f}", "today's number, for want of that of the release date")
                return now
        elif now is not None:
            return now
        if self.noncommercial_person:
            self._note("monthly_active_users", "0", "a person outside any trade serves no users")
            return 0.0
        self._note("monthly_active_users", f"above {limit:,.0f}")
        return math.inf

    def seat(self) -> str:
        """Where the licensee is domiciled; open: anywhere."""
        if self.use.seat is None:
            self._note("seat", "a place that the licence excludes")
            return WORLD
        return self.use.seat

    def places(self, name: str) -> Iterable[str]:
        """``places_of_use`` or ``places_of_output_use``; open: everywhere."""
        value: tuple[str, ...] | None = getattr(self.use, name)
        if value is None:
            self._note(name, "everywhere, the excluded places included")
            return (WORLD,)
        return value
