"""The same schemas at every place that enforces them: the same verdict on each instance, or a refusal by name.

    python benchmarks/constrained_agreement.py FILE.jsonl.gz [INSTANCES]

Each line of the file is an object with ``schema`` and ``tests``, a list of ``{"v": valid, "d": instance}``. What a
backend would hand to its engine is replayed here on a vocabulary of single bytes: the mask of ``llama_cpp`` by each
engine, the text that the embedded ``llama_server`` is sent, the text or schema that vLLM is sent. Where vLLM is
installed, its own code says which of its engines would take them.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from pathlib import Path

from osport import ConstrainedOutput
from osport.backends._llama_constraints import compiled as server_text
from osport.backends._llama_constraints import with_ends
from osport.constrained.dialects import byte_tokenizer
from osport.constrained.engine_xgrammar import xgrammar_compiler
from osport.constrained.engines import ENGINES
from osport.constrained.servers import fields_for
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.vocabulary import BYTES
from osport.core.types import Constraint
from osport.errors import MissingDependency, OsportError, UnsupportedFeature, UsageError

# xgrammar and outlines-core have no limit of their own; larger schemas take them minutes.
SECONDS_A_PLACE = 40
MOST_BYTES = {"llama_cpp, xgrammar": 2000, "llama_cpp, outlines": 1000, "vllm, xgrammar": 2000}


def mask(engine):
    def compile_(schema):
        form = ENGINES[engine].compile(Constraint("json_schema", schema, engine), BYTES)

        def accepts(data):
            matcher = form.start()
            return all(map(matcher.advance, data)) and matcher.is_accepting

        return accepts

    return compile_


def text_accepts(text):
    """A text for llguidance, as a server with the package inside compiles it."""
    import llguidance

    form = llguidance.LLMatcher(byte_tokenizer(), text, log_level=0)
    if form.is_error():
        raise AssertionError(f"the server would refuse the text: {form.get_error()}")

    def accepts(data):
        matcher = form.deep_copy()
        return matcher.try_consume_tokens(list(data)) == len(data) and matcher.is_accepting()

    return accepts


def embedded_server(schema):
    return text_accepts(with_ends(server_text(Constraint("json_schema", schema)), (256,), renames=True))


def vllm(schema):
    import llguidance

    text = fields_for(Constraint("json_schema", schema), "vllm")["structured_outputs"]["grammar"]
    return text_accepts(llguidance.grammar_from("grammar", text))


def vllm_xgrammar(schema):
    refuse_unless_enforced(schema, "vllm-xgrammar")
    sent = fields_for(Constraint("json_schema", schema, "vllm-xgrammar"), "vllm")["structured_outputs"]["json"]
    try:
        import xgrammar
    except ImportError as error:
        raise MissingDependency("xgrammar", "xgrammar") from error
    # White space apart, as vLLM compiles it.
    compiler = BYTES.prepared("xgrammar compiler", xgrammar_compiler)
    try:
        form = compiler.compile_json_schema(json.dumps(sent), any_whitespace=False, separators=(",", ":"))
    except RuntimeError as error:
        raise UnsupportedFeature("this schema", "vllm-xgrammar", reason=str(error)) from error

    def accepts(data):
        matcher = xgrammar.GrammarMatcher(form)
        return all(map(matcher.accept_token, data)) and matcher.is_completed()

    return accepts


PLACES = {
    "llama_cpp, llguidance": mask("llguidance"),
    "llama_server, embedded": embedded_server,
    "vllm, llguidance": vllm,
    "llama_cpp, xgrammar": mask("xgrammar"),
    "llama_cpp, outlines": mask("outlines"),
    "vllm, xgrammar": vllm_xgrammar,
}


def cases(path, instances):
    """Schemas that osport takes at all, with their instances as compact JSON, until there are enough."""
    seen = 0
    with gzip.open(path, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            try:
                schema = ConstrainedOutput.json_schema(entry["schema"]).constraint.value
            except OsportError:
                continue
            tests = [
                (json.dumps(t["d"], separators=(",", ":"), ensure_ascii=False).encode(), t["v"]) for t in entry["tests"]
            ]
            yield schema, tests[: instances - seen]
            seen += len(tests)
            if seen >= instances:
                return


def compared(path, instances):
    """For each place: schemas refused and taken, instances judged, invalid ones accepted, and verdicts that are not
    those of the first place."""
    counts = {place: Counter() for place in PLACES}
    spent: Counter[str] = Counter()
    for schema, tests in cases(path, instances):
        first = None
        for place, compile_ in PLACES.items():
            if len(json.dumps(schema)) > MOST_BYTES.get(place, 1_000_000) or spent[place] > SECONDS_A_PLACE:
                counts[place]["not tried"] += 1
                continue
            began = time.perf_counter()
            try:
                accepts = compile_(schema)
            except (UnsupportedFeature, UsageError):  # the second: no value conforms to the schema
                counts[place]["refused"] += 1
                continue
            except MissingDependency:
                counts[place]["not installed"] += 1
                continue
            finally:
                spent[place] += time.perf_counter() - began
            verdicts = [accepts(data) for data, _ in tests]
            counts[place].update(
                taken=1,
                instances=len(tests),
                wrong=sum(said and not valid for said, (_, valid) in zip(verdicts, tests, strict=True)),
            )
            if place == "llama_cpp, llguidance":
                first = verdicts
            if first is not None:
                counts[place]["compared"] += len(tests)
                counts[place]["differ"] += sum(one != other for one, other in zip(first, verdicts, strict=True))
    return counts


def vllm_routes(path, instances):
    """Which engine vLLM's own code gives the text to, where vLLM is installed; None where it is not."""
    try:
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import SamplingParams, StructuredOutputsParams
        from vllm.v1.structured_output.backend_guidance import validate_guidance_grammar
        from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar
    except ImportError:
        return None
    routes = Counter()
    for schema, _ in cases(path, instances):
        try:
            fields = fields_for(Constraint("json_schema", schema), "vllm")
        except (UnsupportedFeature, UsageError):
            routes["refused by name"] += 1
            continue
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**fields["structured_outputs"]))
        try:
            validate_xgrammar_grammar(params)
            routes["xgrammar"] += 1
        except VLLMValidationError:
            validate_guidance_grammar(params)
            routes["guidance"] += 1
    return routes


def main():
    path, instances = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 500
    for place, counted in compared(path, instances).items():
        print(f"{place:24s} " + ", ".join(f"{name} {number}" for name, number in sorted(counted.items())))
    if routes := vllm_routes(path, instances):
        print("vLLM's own choice of engine:", dict(routes))


if __name__ == "__main__":
    main()
