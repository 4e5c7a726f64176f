"""Two arms on the same items: flips, the paired tests, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from osport.errors import UsageError
from osport.evals.record import ItemResult
from osport.evals.statistics import Interval, ItemsNeeded, Verdict, items_needed, mcnemar_exact, tango, verdict

__all__ = ["Comparison", "NothingToCompare", "compare"]


class NothingToCompare(UsageError):
    """Two arms without a single item that both answered."""


@frozen
class Comparison:
    """A candidate against a reference, paired item by item.

    ``worse``: ids that the reference got right and the candidate wrong (harmful flips); ``better``:
    the other way round. ``difference`` = (better - worse) / ``pairs``, ``discordance`` =
    (better + worse) / ``pairs``; ``interval`` is Tango's. ``missing_candidate`` and
    ``missing_reference`` name the items that could not be paired.
    """

    candidate: str
    reference: str
    pairs: int
    worse: tuple[str, ...]
    better: tuple[str, ...]
    both_right: int
    both_wrong: int
    missing_candidate: tuple[str, ...]
    missing_reference: tuple[str, ...]
    difference: float
    discordance: float
    mcnemar_p: float
    interval: Interval
    margin: float
    verdict: Verdict
    needed: ItemsNeeded


def compare(
    candidate: Mapping[str, ItemResult],
    reference: Mapping[str, ItemResult],
    items: Iterable[str],
    *,
    margin: float,
    alpha: float = 0.05,
    names: tuple[str, str] = ("candidate", "reference"),
) -> Comparison:
    """Compare two arms over these item ids; ``margin`` is the accuracy that may be given up.

    An error of the candidate counts as wrong. An error of the reference leaves no answer to
    compare with: counting it as wrong would favour the candidate, so the item is named in
    ``missing_reference`` and left out. Raises :class:`NothingToCompare` when no pair is left.
    """
    ids = list(items)
    absent_candidate = tuple(i for i in ids if i not in candidate)
    absent_reference = tuple(i for i in ids if i not in reference or reference[i].status == "error")
    absent = {*absent_candidate, *absent_reference}
    pairs = [i for i in ids if i not in absent]
    if not pairs:
        raise NothingToCompare(f"{names[0]} and {names[1]} have no item in common that both answered")
    worse = tuple(i for i in pairs if reference[i].right and not candidate[i].right)
    better = tuple(i for i in pairs if candidate[i].right and not reference[i].right)
    both_right = sum(candidate[i].right and reference[i].right for i in pairs)
    n = len(pairs)
    interval = tango(len(worse), len(better), n, alpha)
    return Comparison(
        candidate=names[0],
        reference=names[1],
        pairs=n,
        worse=worse,
        better=better,
        both_right=both_right,
        both_wrong=n - both_right - len(worse) - len(better),
        missing_candidate=absent_candidate,
        missing_reference=absent_reference,
        difference=(len(better) - len(worse)) / n,
        discordance=(len(better) + len(worse)) / n,
        mcnemar_p=mcnemar_exact(len(worse), len(better)),
        interval=interval,
        margin=margin,
        verdict=verdict(interval, margin),
        needed=items_needed(len(worse), len(better), n, margin, alpha),
    )
