"""The public surface is listed, sorted, documented, and in the changelog."""

import inspect
import re
from pathlib import Path

import pytest

import osport
from osport import errors

ROOT = Path(__file__).parents[2]
DOCS = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
CHANGES = "\n".join(page.read_text() for page in [ROOT / "CHANGELOG.md", *sorted((ROOT / "changelog.d").glob("*.md"))])


def test_the_names_are_sorted():
    assert osport.__all__ == sorted(osport.__all__)
    assert errors.__all__ == sorted(errors.__all__)


def test_dir_shows_names_that_are_not_loaded_yet():
    assert set(osport.__all__) <= set(dir(osport))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        osport.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("name", osport.__all__)
def test_every_name_has_a_docstring_a_page_and_a_line_in_the_changelog(name):
    thing = getattr(osport, name)
    assert inspect.getdoc(thing)
    assert re.search(rf"\b{name}\b", DOCS), f"{name} stands on no page of docs/"
    assert re.search(rf"\b{name}\b", CHANGES), f"{name} is in no changelog fragment"


@pytest.mark.parametrize("name", osport.__all__)
def test_every_public_method_has_a_docstring(name):
    thing = getattr(osport, name)
    if inspect.isclass(thing):
        for attribute, member in vars(thing).items():
            if not attribute.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute} has no docstring"


def tree_in_the_docstring():
    return set(re.findall(r"\b[A-Z]\w+", (errors.__doc__ or "").partition("::")[2])) & set(errors.__all__)


def test_the_error_tree_in_the_docstring_is_the_tree():
    assert tree_in_the_docstring() == set(errors.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.OsportError)


def test_retryable_errors_are_those_that_may_succeed_later():
    backend_errors = [getattr(errors, n) for n in errors.__all__ if issubclass(getattr(errors, n), errors.BackendError)]
    retryable = {cls.__name__ for cls in backend_errors if cls.retryable}
    assert retryable == {"RateLimited", "Unreachable", "TimedOut", "ServerFault", "BadResponse"}
