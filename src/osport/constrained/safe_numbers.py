"""Numbers that llguidance (seen in 1.9.1) reads wrongly, written so that it reads them rightly.

* It reads every number as a double, so a whole number beyond 2**53 may become another one, or lose its ``exclusive``;
  and the last place of one with 16 and more digits may be wrong.
* An exclusive bound that is whole is let in where the other bound is less than one away: ``(0, 0.5]`` takes 0.
* Two ``multipleOf`` on one number are multiplied in 32 bits; one with many digits takes minutes and gigabytes.
* Minus nought is another number than nought.
* Below a bound with two decimals and more, and among multiples of one, it takes none with fewer: no 3.9 below 3.99.

What the new bounds lose lies within the last of 15 digits of the old ones, or between those of 63 and of 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from osport.constrained.refusal import Misread
from osport.constrained.values import ALL_TYPES, is_multiple, type_of

__all__ = ["DOUBTFUL_WORDS", "is_doubtful", "with_safe_numbers"]

# What a schema must hold for any of the above to matter: words, or such a number.
DOUBTFUL_WORDS = frozenset({"multipleOf", "exclusiveMinimum", "exclusiveMaximum"})
DOUBTFUL = re.compile(r"\.[0-9][0-9]|-0\.0|e", re.IGNORECASE)
# Where two rules may meet in one number.
MEETING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "patternProperties"})

WHOLE = 2**53  # up to here doubles tell whole numbers apart
LARGEST_DOUBLE = 2**63 - 1024  # below 2**63
# Compiling takes 0.1 s and 10 MB at 10,000, 1.3 to 2.7 s and 100 MB here, a minute and 1.6 GB at 3,000,000.
MAX_MULTIPLE = 65_535
MAX_PRODUCT = 2**32 - 1
# The smallest number above nought that counts, and what the depth of llguidance's regular expressions allows.
TINY, TINIEST = Decimal("1e-30"), Decimal("1e-60")
DIGITS = 15  # so many a double always keeps
MAX_POWER = 308
# Beyond these a rule is not written once more for each number of decimals.
MAX_SPELLINGS, MAX_DIGITS = 8, 1000


def is_doubtful(number: str) -> bool:
    """Whether a number of a schema may be read wrongly."""
    return len(number) > DIGITS or DOUBTFUL.search(number) is not None


def with_safe_numbers(nodes: Collection[dict[str, Any]]) -> None:
    """Write the numbers of a schema, given by all its objects, so that llguidance takes no value too many.

    Raises :class:`Misread` for a number that cannot be.
    """
    meeting = any(not MEETING.isdisjoint(node) for node in nodes)
    check_multiples([node["multipleOf"] for node in nodes if "multipleOf" in node], meeting=meeting)
    moved: dict[str, list[tuple[float, float]]] = {"minimum": [], "maximum": []}
    for node in nodes:
        for word in ("const", "enum"):
            if word in node and not all(map(is_read_rightly, numbers_in(node[word]))):
                raise Misread(word, "a number with more digits than it reads")
        with_safe_bounds(node, moved)
        if "multipleOf" in node and "enum" in node:
            # It computes in doubles whether there is a multiple at all.
            step = node.pop("multipleOf")
            node["enum"] = [value for value in node["enum"] if type_of(value) != "number" or is_multiple(value, step)]
    lows, highs = sorted(set(moved["minimum"])), sorted(set(moved["maximum"]))
    if any(low <= high and safe_low > safe_high for low, safe_low in lows for high, safe_high in highs):
        raise Misread("minimum", "no double lies between two bounds")
    for node in nodes:
        low, high = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
        if low is not None and (near := between(low, [safe for _, safe in highs])):
            del node["exclusiveMinimum"]
            node["minimum"] = max(above(low, near), node.get("minimum", -math.inf))
        if high is not None and (near := between(-high, [-safe for _, safe in reversed(lows)])):
            del node["exclusiveMaximum"]
            node["maximum"] = min(-above(-high, near), node.get("maximum", math.inf))
    for node in nodes:
        with_fewer_decimals(node)


def numbers_in(value: Any) -> Iterator[int | float]:
    """The numbers that stand anywhere in a value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers_in(item)


def is_read_rightly(number: int | float) -> bool:
    """Whether llguidance finds the number that the text means: the digits by a power of ten, both as doubles.

    Of more than 15 digits it may write others than Python.
    """
    if abs(number) > LARGEST_DOUBLE:
        return False  # among integers it would be the largest of 64 bits
    if isinstance(number, int):
        return abs(number) <= WHOLE or int(float(number)) == number
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    read, power = float(int("".join(map(str, digits)))), int(exponent)
    if power < -MAX_POWER:
        read, power = read / 10.0**MAX_POWER, power + MAX_POWER
    found = read * 10.0**power if power > 0 else read / 10.0**-power
    return len(digits) <= DIGITS and bool(found == abs(number))


def check_multiples(multiples: Iterable[int | float], *, meeting: bool) -> None:
    """Refuse what would explode, or overflow where two rules meet in one number."""
    given = [Decimal(repr(multiple)).normalize() for multiple in multiples]
    if not given:
        return
    places = [max(0, -int(number.as_tuple().exponent)) for number in given]
    for number, own in zip(given, places, strict=True):
        if number.scaleb(own) > MAX_MULTIPLE:
            raise Misread("multipleOf", f"{number} has digits beyond {MAX_MULTIPLE:,}, which takes too long to compile")
    scaled = [int(number.scaleb(max(places))) for number in given]
    if meeting and math.lcm(*scaled) * max(scaled) > MAX_PRODUCT:
        raise Misread("multipleOf", "those of the schema could meet in one number, and their product is too large")


def with_safe_bounds(node: dict[str, Any], moved: Mapping[str, list[tuple[float, float]]]) -> None:
    """Replace switches by numbers, and bounds that are no doubles by the next inside that are.

    ``moved`` gets each bound as it was and as it is, by ``minimum`` and ``maximum``.
    """
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(node.get(strict), bool) and node.pop(strict) and bound in node:
            node[strict] = node.pop(bound)
        for word in (bound, strict):
            if word not in node:
                continue
            safe = given = node[word]
            if not is_safe_bound(given):
                safe = inside(node.pop(word), upwards=bound == "minimum", strict=word == strict)
                best = max if bound == "minimum" else min
                node[bound] = best(safe, node.get(bound, safe))
            moved[bound].append((given, safe))


def is_safe_bound(bound: int | float) -> bool:
    return bool(abs(bound) < WHOLE if bound == int(bound) else is_read_rightly(bound))


def inside(bound: int | float, *, upwards: bool, strict: bool, word: str = "minimum") -> int | float:
    """A bound that llguidance reads rightly, as close as may be on the side that is let through."""
    if not upwards:
        return -inside(-bound, upwards=True, strict=strict, word="maximum")
    if bound != int(bound):
        with localcontext(prec=DIGITS, rounding=ROUND_CEILING):
            safe = float(+Decimal(repr(bound)))
        if not is_read_rightly(safe):
            raise Misread(word, "a bound with more digits than it reads")
        return safe
    if bound >= LARGEST_DOUBLE or bound < -(2**64):
        raise Misread(word, "a bound beyond 64 bits")
    if bound < -LARGEST_DOUBLE:
        return -LARGEST_DOUBLE
    near = float(bound)
    # It takes a double for its value among integers, and for its shortest digits and noughts among numbers.
    while (least := min(int(near), int(Decimal(repr(near))))) < bound or (strict and least == bound):
        near = math.nextafter(near, math.inf)
    return int(near)


def between(low: int | float, highs: Iterable[int | float]) -> int | float | None:
    """The least bound above a whole one that is less than one away; only bounds from nought on are let in."""
    if low < 0 or low != int(low):
        return None
    return next((high for high in highs if low < high < low + 1), None)


def above(low: int | float, high: int | float) -> float:
    """The next number of 15 digits above a whole bound; it must be below another bound."""
    if low:
        step = Decimal(1).scaleb(len(str(int(low))) - DIGITS)
    else:
        step = min(TINY, Decimal(1).scaleb(Decimal(repr(high)).adjusted() - DIGITS))
    found = float(int(low) + step)
    if found >= high or step < TINIEST:
        raise Misread("exclusiveMinimum", "a bound too close to it")
    return found


def with_fewer_decimals(node: dict[str, Any]) -> None:
    """Add to each rule for numbers those that say the same of the numbers with fewer decimals."""
    if node.get("type") == "integer":
        return
    rules: dict[str, list[dict[str, Any]]] = {}
    for bound, strict, sign in (("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)):
        for word in (bound, strict):
            if node.get(word, 0) * sign > 0:
                rules[word] = [{bound: sign * cut} for cut in cut_off(Decimal(repr(abs(node[word]))))]
    if "multipleOf" in node:
        rules["multipleOf"] = [{"multipleOf": step} for step in coarser(Decimal(repr(node["multipleOf"])).normalize())]
    for word, others in rules.items():
        if others:
            branches = [{"type": "number", **rule} for rule in ({word: node[word]}, *others)]
            if node.get("type") != "number":
                branches.append({"type": sorted(ALL_TYPES - {"number"})})
            node["allOf"] = [*node.get("allOf", ()), {"anyOf": branches}]


def cut_off(bound: Decimal) -> list[float]:
    """The bound with its last decimals left out, as long as one stays that says something."""
    places = range(1, min(MAX_SPELLINGS, -int(bound.normalize().as_tuple().exponent)))
    found = {float(bound.quantize(Decimal(1).scaleb(-place), ROUND_FLOOR)) for place in places}
    return sorted(cut for cut in found if cut != int(cut))


def coarser(step: Decimal) -> list[float]:
    """The steps between those multiples that have fewer decimals."""
    _, _, exponent = step.as_tuple()
    digits, places = int(step.scaleb(-min(0, int(exponent)))), -int(exponent)
    found = {place: math.lcm(digits, 10 ** (places - place)) for place in range(1, min(MAX_SPELLINGS, places))}
    steps = {place: lcm for place, lcm in found.items() if lcm != 10 ** (places - place) and digits <= MAX_DIGITS}
    return [float(Decimal(lcm).scaleb(-places)) for lcm in steps.values()]
