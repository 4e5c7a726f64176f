"""Forms of engines without limits: compiled in a child, kept on disk, and stopped when they explode."""

import threading
import time

import pytest

from osport import ConstrainedOutput
from osport.confined import Confined
from osport.constrained import elsewhere
from osport.constrained.masks import ModelMasks
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.types import Constraint
from osport.errors import UnsupportedFeature
from osport.file_cache import FileCache

PACKAGES = {"xgrammar": "xgrammar", "outlines": "outlines_core"}
EXPLODING = {
    "outlines": [
        Constraint("json_schema", {"type": "string", "pattern": "^(a{1,500}){1,500}$"}),
        Constraint("json_schema", {"type": "array", "items": {"enum": ["abc", "abd"]}, "maxItems": 100_000}),
        Constraint("regex", "(a|b)*a(a|b){25}"),
    ],
    "xgrammar": [
        Constraint("regex", "[a-z]?" * 1500),
    ],
}


@pytest.fixture(params=sorted(PACKAGES))
def engine(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    return request.param


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "cache_dir", lambda: tmp_path)
    return tmp_path / "compiled"


@pytest.fixture
def asked(monkeypatch):
    """How often a child was asked to compile."""
    texts = []
    ask = elsewhere.ask

    def counted(maker, how, text, vocabulary):
        texts.append(text)
        return ask(maker, how, text, vocabulary)

    monkeypatch.setattr(elsewhere, "ask", counted)
    return texts


def like_bytes(*more):
    return Vocabulary((*BYTES.pieces, *more), BYTES.ends)


def mask(engine, vocabulary, *labels):
    made = ModelMasks(vocabulary).mask(Constraint("choice", labels, engine))
    for byte in labels[0].encode():
        made.advance(byte)
    assert made.is_accepting
    return made


def test_a_form_is_compiled_once_for_a_vocabulary_then_read_from_disk(engine, folder, asked):
    mask(engine, BYTES, "yes", "no")
    mask(engine, like_bytes(), "yes", "no")
    assert len(asked) == 1
    mask(engine, like_bytes(b"ye"), "yes", "no")
    assert len(asked) == 2, "tokens of another vocabulary have other numbers"
    mask(engine, Vocabulary(BYTES.pieces, (*BYTES.ends, 0)), "yes", "no")
    assert len(asked) == 3, "so have other ends"
    mask(engine, BYTES, "yes", "noo")
    assert len(asked) == 4
    assert len(list(folder.iterdir())) == 4


def test_another_version_of_the_engine_compiles_anew(engine, folder, asked, monkeypatch):
    from osport.constrained.engines import ENGINES

    mask(engine, BYTES, "yes")
    monkeypatch.setattr(type(ENGINES[engine]), "version", lambda self: "another 9.9")
    mask(engine, BYTES, "yes")
    assert len(asked) == 2


@pytest.mark.parametrize("intact", [False, True], ids=["damaged", "of another kind"])
def test_a_file_that_is_no_form_is_made_anew(engine, folder, asked, intact):
    mask(engine, BYTES, "yes")
    (file,) = folder.iterdir()
    if intact:
        FileCache(folder, entries=9, size=9999).put(file.name, b"")
    else:
        file.write_bytes(b"rubbish" * 20)
    mask(engine, BYTES, "yes")
    mask(engine, BYTES, "yes")
    assert len(asked) == 2


def test_without_a_disk_it_goes_on(engine, tmp_path, asked, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(elsewhere, "cache_dir", lambda: tmp_path / "file")
    mask(engine, BYTES, "yes")
    mask(engine, BYTES, "yes")
    assert len(asked) == 2


@pytest.fixture
def hurried(monkeypatch):
    """A second and a half instead of ten."""
    made = {}

    def child_for(maker):
        return made.setdefault(maker, Confined(maker, seconds=1.5, memory=elsewhere.MEMORY_BYTES))

    monkeypatch.setattr(elsewhere, "child_for", child_for)
    return child_for


@pytest.mark.parametrize(
    ("engine", "constraint"),
    [(engine, constraint) for engine, constraints in EXPLODING.items() for constraint in constraints],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_form_that_explodes_is_an_error_and_holds_up_nobody(engine, constraint, hurried):
    pytest.importorskip(PACKAGES[engine], reason=f"{engine} is not installed")
    pytest.importorskip("llguidance")
    masks = ModelMasks(BYTES)
    masks.mask(Constraint("choice", ("a", "b"), engine))
    masks.mask(Constraint("choice", ("a", "b"), "llguidance"))
    caught = []

    def explode():
        with pytest.raises(UnsupportedFeature) as error:
            masks.mask(Constraint(constraint.kind, constraint.value, engine))
        caught.append(error.value)

    exploding = threading.Thread(target=explode)
    exploding.start()
    time.sleep(0.3)
    masks.mask(Constraint("choice", ("a", "b"), engine))
    masks.mask(Constraint("choice", ("a", "c"), "llguidance"))
    assert exploding.is_alive(), "the form is too small for this test"
    exploding.join(20)
    (error,) = caught
    assert error.backend == engine
    assert "longer than 1.5 s or more than 1024 MiB" in str(error)
    assert "llguidance" in str(error)


def test_a_schema_nested_too_deeply_for_an_engine_is_refused():
    schema = {"type": "boolean"}
    for _ in range(90):
        schema = {"anyOf": [schema, {"type": "null"}]}
    output = ConstrainedOutput.json_schema(schema)
    for engine, package in (("outlines", "outlines_core"), ("llguidance", "llguidance")):
        pytest.importorskip(package)
        with pytest.raises(UnsupportedFeature):
            output.matcher(engine=engine)


def test_the_bounds_are_those_that_the_documentation_states():
    assert (elsewhere.SECONDS, elsewhere.MEMORY_BYTES) == (10.0, 2**30)
    assert (elsewhere.KEPT_BYTES, elsewhere.KEPT_FILES) == (256 * 2**20, 1000)
