"""One hook that exists, one whose name is misspelt."""

from osport.plugin import ScorerSpec, hookimpl


@hookimpl
def osport_scorers():
    return [ScorerSpec("never", lambda expected, answer: 0.0)]


@hookimpl
def osport_call_finishd(record):
    raise AssertionError("nobody calls a hook that does not exist")
