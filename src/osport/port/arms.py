"""Open one arm: its way of asking, and the settings that decide its answers."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from osport.chat_template import ChatTemplate
from osport.constrained import ConstrainedOutput
from osport.core.facts import Fact, ModelFacts
from osport.core.retries import Retries
from osport.core.types import Completion, Sampling
from osport.errors import TemplateError, UsageError
from osport.evals.golden import GoldenItem, GoldenSet, read_file
from osport.model import Model
from osport.port.calibrated import CalibratedField
from osport.port.plan import Arm, Plan
from osport.port.prompts import load_json, prompting, read_answer

__all__ = ["OpenArm", "open_arm"]

FACTS_THAT_DECIDE = ("architecture", "engine", "quantization", "sha256")


@frozen
class OpenArm:
    """An arm ready to be asked.

    ``settings`` is JSON and decides the answers; ``facts`` say where each value comes from.
    """

    ask: Callable[[GoldenItem], Completion]
    settings: Mapping[str, Any]
    facts: Mapping[str, Fact]


@contextlib.contextmanager
def open_arm(arm: Arm, plan: Plan, examples: GoldenSet | None) -> Iterator[OpenArm]:
    """Open the arm; its model is loaded at the first question and released at the end."""
    settings: dict[str, Any] = {key: value for key, value in arm_settings(arm).items() if value not in (None, {})}
    for key, file in (("request", arm.request), ("output", arm.output), ("form", plan.form)):
        if file is not None:
            settings[f"{key}_sha256"] = file_sha256(plan.folder / file, key)
    if arm.few_shot and examples is not None:
        settings["few_shot_sha256"] = examples.sha256
    form = form_of(plan)
    if arm.function is not None:
        function, sha256 = load_function(arm.function, plan.folder)
        settings["function_sha256"] = sha256
        facts = {"function": Fact(arm.function, str(plan.path)), "function_sha256": Fact(sha256, "the function's file")}
        yield OpenArm(lambda item: call(function, item, arm, form), settings, facts)
        return
    known = facts_of(arm)
    settings |= {name: known[name] for name in FACTS_THAT_DECIDE if name in known}
    template = official_template(arm, known) if arm.template == "official" else None
    facts = {name: known.fact(name) for name in known if name != "chat_template"}
    if template is not None:
        settings["template_sha256"] = template.hash
        facts["template_sha256"] = Fact(template.hash, template.source)
    way = prompting(arm, plan, examples.items if examples else ())
    if way.losses:
        facts["not carried over"] = Fact(list(way.losses), f"{arm.request}, read as a Claude request")
    output = schema_of(plan, arm.output)
    # The runner tries again, and counts it.
    with Model(str(arm.model), template=template, retries=Retries(most=0), **arm.options) as model:
        sampling = way.request("").sampling.filled().given
        settings["sampling"] = {name: sampling[name] for name in sorted(model.capabilities.sampling & sampling.keys())}

        classified = None
        if arm.classify is not None:
            schema = load_json(plan.folder / str(arm.output), "JSON Schema")
            classified = CalibratedField(model, schema, arm.classify, request=way.request, calibration=arm.calibration)

        def ask(item: GoldenItem) -> Completion:
            request = evolve(way.request(item.input), timeout=plan.limits.timeout_seconds, item_id=item.id)
            if not model.capabilities.sampling:
                # Recorded answers: there is nothing left to sample.
                request = evolve(request, sampling=Sampling())
            completion = classified.ask(request) if classified else model.generate(request, output=output)
            return read_answer(completion, form, way.prefill)

        yield OpenArm(ask, settings, facts)


def arm_settings(arm: Arm) -> dict[str, Any]:
    names = ("model", "function", "options")
    settings = {name: getattr(arm, name) for name in names}
    if arm.kind != "function":
        settings["prompt"] = arm.prompt
    if arm.kind in ("chat", "request"):
        settings["template"] = arm.template
    if arm.kind == "chat":
        settings |= {"system": arm.system, "user": arm.user, "few_shot": arm.few_shot}
    if arm.classify is not None:
        settings |= {"classify": arm.classify, "calibration": arm.calibration}
    return settings


def facts_of(arm: Arm) -> ModelFacts:
    # Facts load nothing, and the template must be known before the model that answers is made.
    with Model(str(arm.model), **arm.options) as probe:
        return probe.facts


def official_template(arm: Arm, facts: ModelFacts) -> ChatTemplate:
    path = facts.get("path")
    if path is None:
        raise TemplateError(
            f"arm {arm.name!r}: template = 'official' needs the model's file, and {arm.model} does not say where "
            "it lies; write template = 'server' to leave the template to the server"
        )
    return ChatTemplate.from_hf(path) if Path(path).is_dir() else ChatTemplate.from_gguf(path)


def schema_of(plan: Plan, file: str | None) -> ConstrainedOutput | None:
    return None if file is None else ConstrainedOutput.json_schema(load_json(plan.folder / file, "JSON Schema"))


def form_of(plan: Plan) -> ConstrainedOutput | None:
    """What every answer is verified against: the schema of the port file, else any JSON if that is scored."""
    if plan.form is None and plan.scorer.startswith("json"):
        return ConstrainedOutput.json_schema({})
    return schema_of(plan, plan.form)


def file_sha256(path: Path, what: str) -> str:
    return hashlib.sha256(read_file(path, what)).hexdigest()


def load_function(reference: str, folder: Path) -> tuple[Callable[[str], Any], str]:
    """The callable behind ``file.py:name``, and the SHA-256 of its file."""
    file, separator, name = reference.rpartition(":")
    if not separator or not name.isidentifier():
        raise UsageError(f"function = {reference!r}: write file.py:name")
    path = folder / file
    sha256 = file_sha256(path, "function file")
    spec = importlib.util.spec_from_file_location(f"osport_function_{sha256[:12]}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"function = {reference!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"function = {reference!r}: {path} raised {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"function = {reference!r}: {path} has no callable {name!r}")
    return function, sha256


def call(function: Callable[[str], Any], item: GoldenItem, arm: Arm, form: ConstrainedOutput | None) -> Completion:
    start = time.perf_counter()
    value = function(item.input)
    seconds = time.perf_counter() - start
    text = value if isinstance(value, str) and form is None else json.dumps(value, ensure_ascii=False)
    answer = Completion(text, "stop", model=str(arm.function), backend="function", parsed=value, latency=seconds)
    return read_answer(answer, form)
