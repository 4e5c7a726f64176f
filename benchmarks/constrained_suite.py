"""The official JSON-Schema-Test-Suite: is anything accepted that its authors call invalid?

    python benchmarks/constrained_suite.py FOLDER

FOLDER is a checkout of https://github.com/json-schema-org/JSON-Schema-Test-Suite. Of its required tests for draft 7
and 2020-12 it prints, for osport and for llguidance alone: groups (one schema each) in which all is right, groups
refused, wrong accepts and wrong rejects, and which keywords' files the refusals come from. A valid instance counts as
accepted when it is with its properties in the schema's order, the only one that a mask lets through.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from constrained_coverage import alone, in_order, refusing
from referencing.exceptions import Unresolvable

from osport.constrained.bundle import bundled
from osport.constrained.schema import checked
from osport.errors import OsportError

DRAFTS = {"draft7": "http://json-schema.org/draft-07/schema#", "draft2020-12": None}


def texts(test, schema):
    """The ways in which an instance may be written."""
    forms = [test["data"]]
    if test["valid"] and isinstance(schema, dict):
        try:
            bundle = bundled(checked(schema, unknown_formats="drop").schema)
            forms.append(in_order(test["data"], [bundle], bundle.get("$defs", {})))
        except (OsportError, Unresolvable):  # of a schema with references that only llguidance takes
            pass
    return [json.dumps(form, ensure_ascii=False, separators=(",", ":")) for form in forms]


def run(folder, draft, compile_schema):
    count, refused, wrong = Counter(), Counter(), []
    for path in sorted((folder / "tests" / draft).glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            schema = group["schema"]
            if DRAFTS[draft] and isinstance(schema, dict):
                schema = {"$schema": DRAFTS[draft], **schema}
            count["groups"] += 1
            try:
                _, matcher = compile_schema(schema)
            except OsportError:
                if schema is False or not any(test["valid"] for test in group["tests"]):
                    count["right"] += 1  # nothing conforms, and that is what was said
                else:
                    refused[path.stem] += 1
                continue
            before = len(wrong)
            for test in group["tests"]:
                accepted = any(matcher.accepts(text) for text in texts(test, schema))
                count["valid" if test["valid"] else "invalid"] += 1
                if accepted != test["valid"]:
                    wrong.append((accepted, f"{path.stem}: {group['description']}: {test['description']}"))
            count["right"] += len(wrong) == before
    return count, refused, wrong


def main():
    folder = Path(sys.argv[1])
    for draft in DRAFTS:
        for name, compile_schema in (("llguidance alone", alone), ("osport", refusing)):
            count, refused, wrong = run(folder, draft, compile_schema)
            accepts = [text for accepted, text in wrong if accepted]
            print(
                f"{draft}, {name}: {count['right']} of {count['groups']} groups right, {refused.total()} refused; "
                f"invalid accepted {len(accepts)} of {count['invalid']}, "
                f"valid rejected {len(wrong) - len(accepts)} of {count['valid']}"
            )
            print(f"  refused: {', '.join(f'{word} {number}' for word, number in refused.most_common())}")
            for accepted, text in wrong:
                print(f"  {'ACCEPTED' if accepted else 'rejected'} {text}")


if __name__ == "__main__":
    main()
