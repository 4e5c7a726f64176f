import json

import pytest
from attrs import evolve
from broken_backends import BROKEN
from click.testing import CliRunner
from whole_backend import KINDS, Whole

from osport import Model, probe_constraints
from osport.cli import app
from osport.errors import BadRequest, ServerFault, UsageError
from osport.plugin import BackendSpec, ModelFacts, register
from osport.plugin.registry import registry
from osport.probing import recalled_probe


@pytest.fixture(autouse=True)
def _own_cache_and_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path / "cache"))
    registry.cache_clear()
    yield
    registry.cache_clear()


def results(probe):
    return {kind.kind: kind.result for kind in probe.kinds}


class Counting(Whole):
    asked = 0

    def answer(self, request):
        type(self).asked += 1
        return super().answer(request)


class DropsNow(Whole):
    """Drops the form in every third answer: a router in front of servers of two versions."""

    asked = 0

    def text(self, request):
        self.asked += 1
        return super().text(evolve(request, constraint=None) if self.asked % 3 == 0 else request)


class NoRegexes(Whole):
    def capabilities(self):
        return evolve(super().capabilities(), constraints=KINDS - {"regex"})

    def text(self, request):
        if request.constraint.kind == "grammar":
            raise BadRequest("failed to parse grammar")
        return super().text(request)


class RawOnly(Whole):
    def capabilities(self):
        return evolve(super().capabilities(), chat=False, prefill=False)


class Dies(Whole):
    def text(self, request):
        raise ServerFault("the server died")


def of_engine(name):
    class Of(Counting):
        asked = 0

        def facts(self):
            return ModelFacts.of("made up", engine=name)

    return Of("x")


def test_an_engine_that_enforces_is_told_so_for_every_kind():
    probe = probe_constraints(Model(Whole("x")))
    assert results(probe) == dict.fromkeys(KINDS, "enforced")
    assert not probe.dropped


def test_a_backend_that_drops_constraints_is_caught_in_every_kind():
    backend = dict(BROKEN)["test_a_form_is_kept_or_refused"]("x")
    probe = probe_constraints(Model(backend))
    assert results(probe) == dict.fromkeys(KINDS, "dropped")
    assert "allowed was" in probe.dropped[0].detail


def test_a_backend_that_answers_what_anybody_would_have_guessed_is_caught():
    backend = dict(BROKEN)["test_a_form_that_is_enforced_cannot_be_talked_out_of"]("x")
    assert results(probe_constraints(Model(backend))) == dict.fromkeys(KINDS, "dropped")


def test_one_dropped_form_among_several_tries_is_enough():
    assert set(results(probe_constraints(Model(DropsNow("x")))).values()) == {"dropped"}


def test_what_is_refused_by_capabilities_or_by_the_server_is_refused():
    probe = probe_constraints(Model(NoRegexes("x")))
    assert results(probe) == {
        "json_schema": "enforced", "choice": "enforced", "regex": "refused", "grammar": "refused"
    }  # fmt: skip
    assert "failed to parse grammar" in str(probe)


def test_a_backend_without_chat_is_asked_by_raw_prompts():
    assert results(probe_constraints(Model(RawOnly("x")))) == dict.fromkeys(KINDS, "enforced")


def test_an_engine_that_cannot_be_asked_is_an_error_and_no_result():
    model = Model(Dies("x"), retries=evolve(Model("echo:")._retries, most=0))
    with pytest.raises(ServerFault):
        probe_constraints(model)
    assert recalled_probe(model) is None


def test_a_probe_is_kept_by_backend_model_and_version():
    backend = of_engine("whole 1.0")
    first = probe_constraints(Model(backend))
    asked = backend.asked
    assert asked == 12
    assert probe_constraints(Model(backend)) == first
    assert backend.asked == asked
    assert recalled_probe(Model(of_engine("whole 1.1"))) is None
    probe_constraints(Model(backend), fresh=True)
    assert backend.asked == 2 * asked


@pytest.mark.parametrize("engine", ["", "llama.cpp server", "llama.cpp server b0-unknown"])
def test_what_tells_no_version_is_probed_each_time(engine):
    backend = of_engine(engine)
    probe_constraints(Model(backend))
    assert recalled_probe(Model(backend)) is None


def test_a_damaged_cache_file_is_no_result(tmp_path):
    model = Model(of_engine("whole 1.0"))
    probe_constraints(model)
    (file,) = (tmp_path / "cache" / "probes").iterdir()
    file.write_text('{"kinds": 3')
    assert recalled_probe(model) is None


def test_no_tries_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        probe_constraints(Model("echo:"), tries=0)


@pytest.mark.parametrize(
    ("backend", "code"), [(Whole, 0), (dict(BROKEN)["test_a_form_is_kept_or_refused"], 1)], ids=["truthful", "lying"]
)
def test_the_command_exits_with_1_when_a_form_was_dropped(backend, code):
    register(BackendSpec("made", backend, backend.features))
    run = CliRunner().invoke(app, ["probe", "made:x", "--json"])
    assert run.exit_code == code, run.output
    assert {kind["result"] for kind in json.loads(run.output)["kinds"]} == {"dropped" if code else "enforced"}
