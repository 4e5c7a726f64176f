"""The error tree between processes."""

import pickle

import pytest

from osport import errors
from osport.errors import BudgetExceeded, ConstraintViolated, MissingDependency, RateLimited, UnsupportedFeature

MADE = [
    MissingDependency("llguidance", "constrained"),
    UnsupportedFeature("logprobs", "echo", reason="it has none", alternatives=("llama_cpp",)),
    BudgetExceeded("too much", needed=5, available=3),
    ConstraintViolated("no", path="$.a", keyword="enum"),
    RateLimited("slow down", backend="anthropic", status=429, retry_after=1.5),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_crosses_between_processes_with_all_it_says(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_error_of_the_tree_can_be_pickled():
    for name in errors.__all__:
        kind = getattr(errors, name)
        error = kind.__new__(kind, "what happened")
        assert type(pickle.loads(pickle.dumps(error))) is kind
