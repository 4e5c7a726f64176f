"""The kit is tested, too: every check passes a backend that keeps the contract, and catches one that breaks it."""

import inspect

import pytest
from broken_backends import BROKEN, EngineBroke
from jsonschema import ValidationError
from whole_backend import TOO_LONG, Whole

from osport.errors import OsportError, UsageError
from osport.plugin import BackendSpec, register
from osport.plugin.registry import registry
from osport.testing import BackendConformance

CAUGHT = (AssertionError, pytest.fail.Exception, OsportError, ValidationError, EngineBroke)
CHECKS = sorted(name for name in dir(BackendConformance) if name.startswith("test_"))


@pytest.fixture(autouse=True)
def _fresh_registry():
    registry.cache_clear()
    yield
    registry.cache_clear()


def run(check, backend, capfd):
    """The check, with each of its parameters, on this backend."""
    register(BackendSpec("made", backend, backend.features, "tests"))

    class Kit(BackendConformance):
        reference = getattr(backend, "kit_reference", "made:x")
        options = getattr(backend, "kit_options", {})
        overflow = TOO_LONG
        patience = 5.0

    function = getattr(Kit(), check)
    marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
    parameters = [{mark.args[0]: value} for mark in marks for value in mark.args[1]] or [{}]
    takes = inspect.signature(function).parameters
    if "model" not in takes:
        function(**({"capfd": capfd} if "capfd" in takes else {}))
        return
    with Kit.make_model() as model:
        for parameter in parameters:
            function(model, **parameter)


@pytest.mark.parametrize("check", CHECKS)
def test_a_backend_that_keeps_the_contract_passes(check, capfd):
    run(check, Whole, capfd)


@pytest.mark.parametrize(("check", "backend"), BROKEN, ids=[f"{check}-{broken.__name__}" for check, broken in BROKEN])
def test_a_backend_that_breaks_it_is_caught(check, backend, capfd):
    # Not a bare Exception: a mistake in the check or in the broken backend must not pass for a catch.
    with pytest.raises(CAUGHT):
        run(check, backend, capfd)


def test_no_check_is_without_a_backend_that_it_must_catch():
    assert {check for check, _ in BROKEN} == set(CHECKS)


def test_every_check_belongs_to_one_area():
    owners = {check: [area for area in BackendConformance.areas if check in vars(area)] for check in CHECKS}
    assert {check: len(areas) for check, areas in owners.items()} == dict.fromkeys(CHECKS, 1)


def test_an_override_without_a_reason_fails():
    with pytest.raises(UsageError, match=r"overrides test_it_is_quiet.*does not say why"):

        class Kit(BackendConformance):
            def test_it_is_quiet(self):
                pass


def test_an_override_that_comes_in_by_a_second_base_needs_a_reason_too():
    class Lenient:
        test_it_is_quiet = None

    with pytest.raises(UsageError, match="does not say why"):

        class Kit(Lenient, BackendConformance):
            pass


@pytest.mark.parametrize("exceptions", [{"test_it_is_quiet": " "}, {"test_it_is_quit": "a good one"}])
def test_an_exception_needs_a_reason_and_a_check(exceptions):
    with pytest.raises(UsageError, match="test_it_is_qui"):
        type("Kit", (BackendConformance,), {"exceptions": exceptions})


def test_a_stated_exception_skips_with_its_reason_and_an_overriding_check_runs(pytester):
    pytester.makepyfile(
        """
        from osport.testing import BackendConformance

        class TestEcho(BackendConformance):
            reference = "echo:x"
            exceptions = {
                "test_max_tokens_is_kept": "nothing to keep",
                "test_it_is_quiet": "it sings, and that is checked here",
            }

            def test_it_is_quiet(self):
                assert False, "the subclass's own"
        """
    )
    result = pytester.runpytest_inprocess("-rs", "-k", "max_tokens_is_kept or quiet")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["*a stated exception: nothing to keep*"])
    result.stdout.fnmatch_lines(["*the subclass's own*"])
