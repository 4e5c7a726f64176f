"""Does the licence reach the place: the seat of the user, where it runs, where the outputs go?"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from osport.licenses.regions import overlaps
from osport.licenses.trace import Trace
from osport.licenses.verdict import Assumption, Outcome

__all__ = ["territory"]


def territory(trace: Trace) -> None:
    """Hold the seat and the places of use against what the licence excludes."""
    terms = trace.terms.territory
    trace.rely("territory", terms)
    if not terms.excluded:
        return
    if terms.end_users_free and trace.reading.inside_product:
        trace.say(Outcome.ALLOWED, "territory", "End users of a product are not met by the exclusion.", terms)
        return
    if (terms.only_models or terms.modalities) and not _modality_meets(trace):
        trace.say(Outcome.ALLOWED, "territory", "The exclusion is about other kinds of models.", terms)
        return
    names = ", ".join(terms.excluded)
    hit = False
    if "seat" in terms.test and _reaches(trace, [trace.reading.seat()]):
        hit = True
        trace.say(Outcome.FORBIDDEN, "territory", f"No rights for whoever is domiciled in: {names}.", terms)
    if "place" in terms.test and _reaches(trace, trace.reading.places("places_of_use")):
        hit = True
        trace.say(Outcome.FORBIDDEN, "territory", f"The model may not be used in: {names}.", terms)
    if terms.reaches_outputs and _reaches(trace, trace.reading.places("places_of_output_use")):
        hit = True
        trace.say(Outcome.FORBIDDEN, "territory", f"Outputs may not be used in: {names}.", terms)
    if not hit:
        trace.say(Outcome.ALLOWED, "territory", f"Excluded places ({names}) are not touched.", terms)


def _reaches(trace: Trace, places: Iterable[str]) -> bool:
    return any(overlaps(place, gone) for place in places for gone in trace.terms.territory.excluded)


def _modality_meets(trace: Trace) -> bool:
    terms, said = trace.terms.territory, trace.reading.use.modality
    if terms.only_models:
        named = any(fnmatch.fnmatch(trace.subject.name.lower(), pattern) for pattern in terms.only_models)
        return named or said in terms.modalities
    known = trace.subject.modality or (terms.models if said in (None, "text") else "")
    if not known:
        if said is None:
            trace.reading.noted.setdefault(
                "modality",
                Assumption("modality", " or ".join(terms.modalities), "the model's own is not known"),
            )
            return True
        known = said
    return known in terms.modalities or ("multimodal" in terms.modalities and known != "text")
