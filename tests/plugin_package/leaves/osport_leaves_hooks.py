"""A hook that fails whenever it is called."""

from osport.plugin import hookimpl


@hookimpl
def osport_scorers():
    return 1 / 0
