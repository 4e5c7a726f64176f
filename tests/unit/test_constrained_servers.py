"""One constraint as each server takes it: the field that it heeds, and a refusal of what it would drop."""

import json

import pytest

from osport import ConstrainedOutput, Tool
from osport.constrained.servers import DIALECTS, dialect_of, fields_for
from osport.constrained.support import refuse_unless_enforced
from osport.constrained.verify import in_grammar
from osport.core.types import Constraint
from osport.errors import ConstraintViolated, UnsupportedFeature, UsageError

CLOSED = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "label": {"enum": ["pos", "neg"]}},
    "required": ["reason", "label"],
    "additionalProperties": False,
}
# Names that a server of that dialect takes without a word and ignores.
IGNORED = {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_object", "schema", "grammar_schema"}


def test_without_a_constraint_nothing_is_sent():
    assert all(fields_for(None, name) == {} for name in DIALECTS)


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        ("ollama", {"format": CLOSED}),
        ("llama.cpp", {"json_schema": CLOSED}),
        ("anthropic", {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}}),
        (
            "openai",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": CLOSED, "strict": True},
                }
            },
        ),
    ],
)
def test_a_schema_goes_under_the_name_that_the_server_heeds(dialect, fields):
    sent = fields_for(Constraint("json_schema", CLOSED), dialect)
    assert sent == fields
    assert json.dumps(sent) == json.dumps(fields), "properties keep their order"
    assert not IGNORED & set(sent)


def test_llama_cpp_takes_a_choice_as_its_grammar():
    assert fields_for(Constraint("choice", ("a", "b")), "llama.cpp") == {"grammar": 'root ::= "a" | "b"'}
    assert fields_for(Constraint("grammar", 'root ::= "x"'), "llama.cpp") == {"grammar": 'root ::= "x"'}


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Constraint("json_schema", {"type": "integer", "not": {"const": 3}}), "4", "3"),
        (Constraint("choice", ("a", "b")), "a", "c"),
        (Constraint("regex", "[0-9]{2}"), "12", "1"),
        (Constraint("grammar", 'root ::= "a" [0-9]'), "a1", "a"),
        (ConstrainedOutput.tools([Tool("now")]).constraint, '{"name": "now", "arguments": {}}', '{"name": "then"}'),
    ],
    ids=["json_schema", "choice", "regex", "grammar", "tools"],
)
def test_vllm_is_sent_a_text_that_only_llguidance_reads(constraint, good, bad):
    pytest.importorskip("llguidance")
    (name, how), *rest = fields_for(constraint, "vllm").items()
    assert (name, rest) == ("structured_outputs", [])
    assert list(how) == ["grammar"]
    assert how["grammar"].startswith("%llguidance")
    assert in_grammar(good, how["grammar"]) == good
    with pytest.raises(ConstraintViolated):
        in_grammar(bad, how["grammar"])


def test_xgrammar_does_not_read_the_text_that_vllm_is_sent():
    """vLLM offers it to xgrammar first: were it read there, keywords would be dropped without a word."""
    xgrammar = pytest.importorskip("xgrammar")
    pytest.importorskip("llguidance")
    text = fields_for(Constraint("json_schema", CLOSED), "vllm")["structured_outputs"]["grammar"]
    for read in (xgrammar.Grammar.from_lark, xgrammar.Grammar.from_ebnf):
        with pytest.raises(RuntimeError):
            read(text)


def test_vllms_own_xgrammar_is_sent_the_schema_with_open_objects_open():
    nested = {"type": "array", "items": {"type": "object", "properties": {"a": {"enum": [{"type": "object"}]}}}}
    constraint = Constraint("json_schema", nested, "vllm-xgrammar")
    sent = fields_for(constraint, "vllm")["structured_outputs"]
    assert sent == {"json": {**nested, "items": {**nested["items"], "additionalProperties": True}}}
    choice = Constraint("choice", ("a", "b"), "vllm-xgrammar")
    assert fields_for(choice, "vllm") == {"structured_outputs": {"choice": ["a", "b"]}}
    assert (
        fields_for(Constraint("json_schema", CLOSED, "vllm-xgrammar"), "vllm")["structured_outputs"]["json"] == CLOSED
    )


@pytest.mark.parametrize("version", ["0.11.0", "v0.10.2", "0.9"])
def test_a_vllm_that_knows_other_names_is_refused(version):
    with pytest.raises(UnsupportedFeature, match="0.12 is the oldest"):
        fields_for(Constraint("choice", ("a",)), "vllm", version=version)


@pytest.mark.parametrize("version", ["0.12.0", "0.12.0rc1", "0.32.0+cpu", "1.0", None])
def test_a_newer_vllm_is_taken(version):
    assert dialect_of("vllm", version).engine == "llguidance"


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [("ollama", "choice"), ("openai", "regex"), ("anthropic", "grammar"), ("llama.cpp", "regex"), ("openai", "tools")],
)
def test_a_kind_without_a_field_is_refused(dialect, kind):
    with pytest.raises(UnsupportedFeature, match=f"kind {kind}"):
        fields_for(Constraint(kind, "x"), dialect)
    assert kind not in dialect_of(dialect).kinds


def test_an_engine_that_is_not_the_servers_is_refused():
    with pytest.raises(UnsupportedFeature, match="the engine outlines: it has llguidance, vllm-xgrammar"):
        fields_for(Constraint("choice", ("a",), "outlines"), "vllm")
    with pytest.raises(UsageError, match="dialect='magic'"):
        fields_for(Constraint("choice", ("a",)), "magic")


# A schema that conforms to the strict rules, changed in one place.
def changed(**rules):
    return {**CLOSED, "properties": {**CLOSED["properties"], "reason": {"type": "string", **rules}}}


def listed(**rules):
    items = {"type": "array", "items": {"type": "string"}, **rules}
    return {**CLOSED, "properties": {**CLOSED["properties"], "reason": items}}


OPEN = {key: value for key, value in CLOSED.items() if key != "additionalProperties"}
LOOPED = {**CLOSED, "properties": {**CLOSED["properties"], "reason": {"$ref": "#/$defs/t"}},
          "$defs": {"t": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/t"}]}}}  # fmt: skip
FATES = [
    # schema, then what OpenAI, Anthropic and llama.cpp (Ollama, OpenAI-compatible) refuse of it; None: taken
    (CLOSED, None, None, None),
    (OPEN, "additionalProperties", "additionalProperties", None),
    ({**CLOSED, "required": ["label"]}, "required", None, None),
    ({"type": "array", "items": {"type": "string"}}, "type", None, None),
    (changed(maxLength=5), "maxLength", "maxLength", None),
    (changed(pattern="^[a-z]+$"), None, None, "pattern"),
    (changed(pattern="[a-z]+"), "pattern", "pattern", "pattern"),
    (changed(format="email"), None, None, "format"),
    (changed(type="integer", minimum=1), None, "minimum", None),
    (changed(type="number", minimum=1), None, "minimum", "minimum"),
    (listed(minItems=1), None, None, None),
    (listed(minItems=2), None, "minItems", None),
    (listed(maxItems=2), None, "maxItems", None),
    (listed(uniqueItems=True), "uniqueItems", "uniqueItems", "uniqueItems"),
    ({**CLOSED, "not": {"const": 1}}, "not", "not", "not"),
    (LOOPED, None, r"\$ref", None),
]


@pytest.mark.parametrize(("schema", "openai", "anthropic", "llama"), FATES)
def test_what_a_server_enforces_is_taken_and_the_rest_refused_by_name(schema, openai, anthropic, llama):
    fates = {"openai-strict": openai, "anthropic-strict": anthropic, "ollama": llama, "openai-compatible": llama}
    for engine, keyword in fates.items():
        if keyword is None:
            refuse_unless_enforced(schema, engine)
            continue
        with pytest.raises(UnsupportedFeature, match=f"{engine} does not support the keyword {keyword} at"):
            refuse_unless_enforced(schema, engine)


def test_what_vllm_would_route_to_another_engine_is_refused_by_its_xgrammar():
    for word, schema in {
        "multipleOf": {"type": "integer", "multipleOf": 5},
        "patternProperties": {
            "type": "object",
            "patternProperties": {"^a$": {"type": "null"}},
            "additionalProperties": False,
        },
    }.items():
        refuse_unless_enforced(schema, "xgrammar")
        with pytest.raises(UnsupportedFeature, match=word):
            refuse_unless_enforced(schema, "vllm-xgrammar")


def test_support_tells_the_fate_of_each_keyword_at_a_server():
    rows = ConstrainedOutput.json_schema(changed(maxLength=5)).support("openai-strict")
    assert [(row.keyword, row.status) for row in rows if row.status != "exact"] == [("maxLength", "refused")]
    rows = ConstrainedOutput.json_schema(changed(maxLength=5), on_unsupported="check").support("anthropic-strict")
    assert [(row.keyword, row.status) for row in rows if row.status != "exact"] == [("maxLength", "checked")]


def test_ollama_is_known_to_sort_properties():
    assert [name for name, dialect in DIALECTS.items() if not dialect.keeps_order] == ["ollama"]
