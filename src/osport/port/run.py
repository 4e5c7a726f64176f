"""``Port``: run every arm of a port file over its golden set, then compare, decide and report."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from osport.errors import UsageError
from osport.evals.compare import Comparison, NothingToCompare, compare
from osport.evals.golden import GoldenItem, GoldenSet
from osport.evals.record import ItemResult, RunRecord
from osport.evals.runner import needs_asking, run_arm
from osport.evals.scorers import best_constant_share, scorer
from osport.port.arms import open_arm
from osport.port.decide import decide
from osport.port.plan import Arm, Plan, read_plan
from osport.port.report import write_report
from osport.port.result import PortResult
from osport.port.summary import ArmSummary, summarise

__all__ = ["Port"]


@frozen
class Port:
    """A task that is to move from one model to another, with its items and its rule.

    >>> from osport import Port  # doctest: +SKIP
    >>> Port.from_file("port.toml").run("out").decision.verdict  # doctest: +SKIP
    'PASS'
    """

    plan: Plan
    golden: GoldenSet
    examples: GoldenSet | None

    @classmethod
    def from_file(cls, path: str | Path) -> Port:
        """Read a port file (TOML) and its golden set; nothing is loaded or run.

        Raises :class:`~osport.errors.UsageError` for anything wrong in either, few-shot examples
        that are also golden items included, and :class:`~osport.errors.StorageError` for a file
        that cannot be read.
        """
        plan = read_plan(path)
        golden = GoldenSet.from_jsonl(plan.folder / plan.golden)
        examples = None if plan.few_shot is None else GoldenSet.from_jsonl(plan.folder / plan.few_shot)
        refuse_leaks(golden, examples)
        scorer(plan.scorer)
        return cls(plan, golden, examples)

    def run(self, out: str | Path, *, incumbent: str | None = None, resume: bool = True) -> PortResult:
        """Run the arms one after the other into the folder ``out``, and write the report there.

        ``incumbent``: the reference of the closed model for this run (``anthropic:<model>``,
        ``replay:<file.jsonl>``); without one, in the file or here, the decision is withheld.
        ``resume``: finished items of an earlier run are kept and not asked again; with False the
        earlier records are moved aside and everything is run anew.

        Raises :class:`~osport.errors.UsageError` when an earlier record was made with other
        settings, and whatever stops an arm; records stay intact in every case.
        """
        plan = with_incumbent(self.plan, incumbent)
        out = Path(out)
        items = list(self.golden)
        random.Random(plan.seed).shuffle(items)  # noqa: S311 - a reproducible order, not a secret
        results: dict[str, dict[str, ItemResult]] = {}
        summaries: dict[str, ArmSummary] = {}
        for arm in plan.arms.values():
            if arm.model is None and arm.function is None:
                continue
            results[arm.name], summaries[arm.name] = self._run_arm(arm, plan, items, out, resume)
        present = plan.incumbent if plan.incumbent in results else None
        comparisons = tuple(self._compare(plan, present, results))
        best_constant = best_constant_share(scorer(plan.scorer), self.golden)
        decision = decide(
            plan.candidate, present, summaries, comparisons, limits=plan.limits, best_constant=best_constant
        )
        result = PortResult(decision, tuple(summaries.values()), comparisons, best_constant, out / "report.html")
        write_report(result, plan, self.golden, out)
        return result

    def _run_arm(
        self, arm: Arm, plan: Plan, items: Sequence[GoldenItem], out: Path, resume: bool
    ) -> tuple[dict[str, ItemResult], ArmSummary]:
        path = out / f"{arm.name}.jsonl"
        with open_arm(arm, plan, self.examples) as opened:
            settings = {
                "rule": plan.rule(self.golden.sha256),
                "arm": opened.settings,
                "run": {"concurrency": plan.concurrency, "seed": plan.seed},
            }
            with RunRecord.open(path, settings, resume=resume) as record:
                if any(needs_asking(record.results.get(item.id)) for item in items):
                    # The first call pays for loading the model; its answer is not counted, and what
                    # goes wrong in it goes wrong again where it is.
                    with contextlib.suppress(Exception):
                        opened.ask(self.examples.items[0] if self.examples else items[0])
                run_arm(items, opened.ask, scorer(plan.scorer), record, name=arm.name, concurrency=plan.concurrency)
                found = record.results
            return found, summarise(arm, plan, list(found.values()), settings, opened.facts, path.name)

    def _compare(
        self, plan: Plan, incumbent: str | None, results: Mapping[str, Mapping[str, ItemResult]]
    ) -> list[Comparison]:
        others = [name for name in results if name not in (plan.candidate, incumbent)]
        pairs = [(plan.candidate, name) for name in ([incumbent] if incumbent else []) + others]
        pairs += [(name, plan.candidate) for name in others if plan.arms[name].function is not None]
        ids = [item.id for item in self.golden]
        found = []
        for pair in pairs:
            # An arm whose every call failed leaves nothing to compare; its errors stand in the report.
            with contextlib.suppress(NothingToCompare):
                found.append(
                    compare(results[pair[0]], results[pair[1]], ids, margin=plan.margin, alpha=plan.alpha, names=pair)
                )
        return found


def with_incumbent(plan: Plan, reference: str | None) -> Plan:
    """The plan with the model of its incumbent arm set, or with an incumbent arm added.

    An added arm sends the Anthropic request that another arm of the file names.
    """
    if reference is None:
        return plan
    if plan.incumbent is not None:
        arm = plan.arms[plan.incumbent]
        if arm.function is not None:
            raise UsageError(f"the incumbent {arm.name!r} is a function; it takes no model from outside")
        return evolve(plan, arms={**plan.arms, arm.name: evolve(arm, model=reference)})
    requests = {arm.request for arm in plan.arms.values() if arm.request is not None}
    if len(requests) != 1 or "incumbent" in plan.arms:
        raise UsageError(
            "the port file does not say what the incumbent is asked; add [arms.incumbent] with prompt = 'request' "
            "and the request's file, and incumbent = 'incumbent' in [port]"
        )
    arm = Arm(name="incumbent", model=reference, prompt="request", request=requests.pop())
    return evolve(plan, arms={**plan.arms, arm.name: arm}, incumbent=arm.name)


def refuse_leaks(golden: GoldenSet, examples: GoldenSet | None) -> None:
    """A golden item among the few-shot examples is one that the model was told the answer of."""
    ids = {item.id for item in golden}
    texts = {item.input: item.id for item in golden}
    for example in examples or ():
        if example.id in ids or example.input in texts:
            raise UsageError(
                f"few-shot example {example.id!r} is also in the golden set "
                f"(item {texts.get(example.input, example.id)!r}); the two must not share items"
            )
