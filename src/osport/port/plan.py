"""The port file: what is compared, on which items, and by which rule it is decided."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, fields, frozen, validators

from osport.core.types import Sampling
from osport.errors import UsageError
from osport.evals.golden import read_file
from osport.port.tables import nearest, read_table

__all__ = ["PLACEHOLDER", "Arm", "Cost", "Limits", "Plan", "digest", "read_plan", "sampling_of"]

PROMPTS = ("chat", "pasted", "request")
TEMPLATES = ("official", "server")
KEYS_OF = {
    "function": ("function",),
    "chat": (
        "model",
        "options",
        "prompt",
        "system",
        "user",
        "few_shot",
        "template",
        "output",
        "classify",
        "calibration",
        "sampling",
    ),
    "pasted": ("model", "options", "prompt", "request", "output", "sampling"),
    "request": ("model", "options", "prompt", "request", "template", "output", "sampling"),
}
PLACEHOLDER = "{{input}}"
CALIBRATIONS = ("none", "contextual")


@frozen
class Limits:
    """``p95_seconds``: the service level, an end-to-end latency that 95 of 100 answers must keep.
    ``timeout_seconds``: how long one call may take before it counts as failed.
    """

    p95_seconds: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    timeout_seconds: float = field(default=300.0, validator=validators.gt(0))


@frozen
class Cost:
    """What is known about money, in US dollars; what is left out stays unknown and never counts as zero.

    ``machine_usd_per_hour``: of the machine that runs the local arms. ``error_usd``: of one wrong answer.
    """

    machine_usd_per_hour: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    error_usd: float | None = field(default=None, validator=validators.optional(validators.ge(0)))


@frozen
class Arm:
    """One way to do the task: a ``model`` with a prompt, or a ``function`` without a model.

    ``function`` is ``file.py:name``, a callable that takes the input and returns the answer.
    Only the incumbent may leave both out, and be given when the port is run.

    ``prompt`` is ``chat`` (``system``, ``few_shot`` examples as turns, ``user``), ``request`` (the
    messages of the Anthropic request in the file ``request``, as they stand) or ``pasted`` (the
    same texts as one raw prompt in the Human/Assistant manner, without a chat template).
    ``template`` is ``official`` (rendered by osport from the model's own file) or ``server``
    (whoever serves the model applies it). ``output`` is a JSON Schema file that is enforced.
    ``classify`` names its first property, an enum, which is then decided by the probabilities of its members
    instead of being sampled; ``calibration`` (``contextual``, ``none``) takes the prompt's own preference out.
    ``options`` go to the backend, ``sampling`` to every call.
    """

    name: str
    model: str | None = None
    function: str | None = None
    options: dict[str, Any] = field(factory=dict)
    prompt: str = field(default="chat", validator=validators.in_(PROMPTS))
    request: str | None = None
    system: str | None = None
    user: str = PLACEHOLDER
    few_shot: int = field(default=0, validator=validators.ge(0))
    template: str = field(default="server", validator=validators.in_(TEMPLATES))
    output: str | None = None
    classify: str | None = None
    calibration: str = field(default="contextual", validator=validators.in_(CALIBRATIONS))
    sampling: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.model is not None and self.function is not None:
            raise UsageError("give one of model and function, not both")
        if self.function is None and self.prompt != "chat" and self.request is None:
            raise UsageError(f"prompt = {self.prompt!r} needs the key request, the file of an Anthropic request")
        if self.classify is not None and self.output is None:
            raise UsageError(f"classify = {self.classify!r} needs the key output, the schema that it is a property of")
        if PLACEHOLDER not in self.user:
            raise UsageError(f"user: the placeholder {PLACEHOLDER} is missing")
        sampling_of(self.sampling)

    @property
    def kind(self) -> str:
        """``function``, or the manner of the prompt."""
        return "function" if self.function is not None else self.prompt


@frozen
class Plan:
    """A port file. ``margin``: accuracy that may be given up (0.05 is 5 points); ``alpha`` is that of
    the two-sided interval; ``scorer`` is the metric. The three, with the golden set, are the rule.

    Paths in it are relative to ``folder``. ``form``: a JSON Schema file that every arm's answer is
    checked against, enforced or not. ``seed`` shuffles the order of the items, the same for all arms.
    """

    path: Path
    sha256: str
    arms: Mapping[str, Arm]
    limits: Limits
    cost: Cost
    name: str
    golden: str
    scorer: str
    candidate: str
    margin: float = field(validator=[validators.gt(0), validators.lt(1)])
    alpha: float = field(default=0.05, validator=[validators.gt(0), validators.lt(1)])
    incumbent: str | None = None
    few_shot: str | None = None
    form: str | None = None
    concurrency: int = field(default=1, validator=validators.ge(1))
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for role in ("candidate", "incumbent"):
            name = getattr(self, role)
            if name is not None and name not in self.arms:
                raise UsageError(f"{role} = {name!r} is no arm{nearest(name, self.arms)}")
        if self.candidate == self.incumbent:
            raise UsageError(f"candidate and incumbent are both {self.candidate!r}")
        for arm in self.arms.values():
            if arm.model is None and arm.function is None and arm.name != self.incumbent:
                raise UsageError(f"arm {arm.name!r} needs a model or a function; only the incumbent may leave it out")
            if arm.few_shot and self.few_shot is None:
                raise UsageError(f"arm {arm.name!r} wants few_shot examples, but the key few_shot names no file")

    @property
    def folder(self) -> Path:
        """Where the port file lies."""
        return self.path.parent

    def rule(self, golden_sha256: str) -> dict[str, Any]:
        """What is fixed before any answer is seen; it stands in every record, with its digest in the report."""
        return {
            "golden_sha256": golden_sha256,
            "scorer": self.scorer,
            "margin": self.margin,
            "alpha": self.alpha,
            "candidate": self.candidate,
        }


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_plan(path: str | Path) -> Plan:
    """Read a port file (TOML). Every mistake in it is a UsageError that names the table and the key."""
    path = Path(path)
    content = read_file(path, "port file")
    try:
        data = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"port file {path} is not TOML: {error}") from error
    tables = {"port": None, "limits": None, "cost": None, "arms": None}
    for key in data:
        if key not in tables:
            raise UsageError(f"port file {path}: unknown table [{key}]{nearest(key, tables)}")
    arms = data.get("arms", {})
    if not isinstance(arms, dict) or not arms:
        raise UsageError(f"port file {path}: no arms; write at least one table [arms.<name>]")
    for name in arms:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"port file {path}, [arms.{name}]: a name is letters, digits, - and _")
    return read_table(
        Plan,
        data.get("port", {}),
        f"port file {path}, [port]",
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        arms={name: read_arm(name, arm, f"port file {path}, [arms.{name}]") for name, arm in arms.items()},
        limits=read_table(Limits, data.get("limits", {}), f"port file {path}, [limits]"),
        cost=read_table(Cost, data.get("cost", {}), f"port file {path}, [cost]"),
    )


def read_arm(name: str, table: Any, where: str) -> Arm:
    arm = read_table(Arm, table, where, name=name)
    useless = [key for key in table if key not in KEYS_OF[arm.kind]]
    if useless:
        what = "a function" if arm.kind == "function" else f"prompt = {arm.kind!r}"
        raise UsageError(f"{where}: {', '.join(useless)} has no effect with {what}")
    return arm


def sampling_of(given: Mapping[str, Any], base: Sampling = Sampling()) -> Sampling:  # noqa: B008 - frozen
    """``base`` with the keys of a ``sampling`` table laid over it."""
    known = {f.name: f for f in fields(Sampling)}
    for key in given:
        if key not in known:
            raise UsageError(f"sampling: unknown key {key!r}{nearest(key, known)}")
    try:
        return evolve(base, **given)
    except TypeError as error:
        raise UsageError(f"sampling: a value has the wrong type ({error})") from error
