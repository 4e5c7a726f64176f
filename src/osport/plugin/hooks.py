"""The packages in the entry-point group ``osport.plugins``: each is loaded, and called, inside its own guard.

What a package raises is reported by the package's name, and the others are asked all the same. That holds for
whatever it raises, ``SystemExit`` and a panic of compiled code included, but for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, TypeVar, cast

import pluggy

from osport.errors import PluginError, PluginLoadError
from osport.plugin import hookspecs
from osport.plugin.entries import package_of, said

__all__ = ["Hooks"]

T = TypeVar("T")

PROJECT = "osport"

log = logging.getLogger("osport.plugin")


class Hooks:
    """The plugins that implement hooks, and what they answer. ``report`` is told of each fault."""

    def __init__(self, report: Callable[[PluginError], None]) -> None:
        self._report = report
        self._packages: dict[str, str] = {}
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)

    def load(self, entry: EntryPoint) -> None:
        """Load one plugin; one that fails implements nothing."""
        name = f"{package_of(entry)} ({entry.name})"
        faults: list[str] = []
        with self._guarded(f"plugin {name} failed to load:"):
            plugin = entry.load()
            self._packages[name] = package_of(entry)
            try:
                self.manager.register(plugin, name=name)
                self._refuse_what_is_no_plain_function(plugin)
            except BaseException:
                if self.manager.has_plugin(name):
                    self.manager.unregister(name=name)
                raise
            faults = list(self._misspelt(plugin))
        for fault in faults:
            self._report(PluginLoadError(f"plugin {name} {fault}"))

    def items(self, hook: str, kind: type[T]) -> list[tuple[str, T]]:
        """All that the plugins offer through a hook that returns several, each with the name of its package."""
        offered: list[tuple[str, T]] = []
        for impl in self._impls(hook):
            what = f"{hook} of {impl.plugin_name}"
            answered: list[object] = []
            with self._guarded(f"{what} raised"):
                # One by one: what a generator gave before it failed is kept.
                for item in cast(Iterable[Any], impl.function()):
                    answered.append(item)
            for item in answered:
                if isinstance(item, kind):
                    offered.append((self._packages.get(impl.plugin_name, impl.plugin_name), item))
                else:
                    self._report(_wrong(what, item, kind))
        return offered

    def first(self, hook: str, kind: type[T], **arguments: object) -> T | None:
        """The first answer to a hook that returns one or None."""
        for impl in self._impls(hook):
            what = f"{hook} of {impl.plugin_name}"
            answer: object = None
            with self._guarded(f"{what} raised"):
                answer = impl.function(*(arguments[name] for name in impl.argnames))
            if isinstance(answer, kind):
                return answer
            if answer is not None:
                self._report(_wrong(what, answer, kind))
        return None

    def tell(self, hook: str, **arguments: object) -> None:
        """Call everybody who listens to a hook; what they raise is logged."""
        for impl in self._impls(hook):
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except KeyboardInterrupt:
                raise
            except BaseException:
                log.exception("observer %s failed", impl.plugin_name)

    def heard(self, hook: str) -> bool:
        """Whether anybody listens to a hook."""
        return bool(self._impls(hook))

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        # In the order of pluggy's own calls: the last registered first, after those that ask to be first.
        implemented: list[pluggy.HookImpl] = getattr(self.manager.hook, hook).get_hookimpls()
        return implemented[::-1]

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; it is named
            self._report(PluginLoadError(f"{what} {said(error)}"))

    def _refuse_what_is_no_plain_function(self, plugin: object) -> None:
        for caller in self.manager.get_hookcallers(plugin) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and (
                    impl.wrapper or impl.hookwrapper or inspect.iscoroutinefunction(impl.function)
                ):
                    raise TypeError(
                        f"{caller.name} is a wrapper or asynchronous; osport calls hooks as plain functions"
                    )

    def _misspelt(self, plugin: object) -> Iterator[str]:
        callers = self.manager.get_hookcallers(plugin) or []
        known = {name for name in dir(hookspecs) if name.startswith(f"{PROJECT}_")}
        for caller in callers:
            if not caller.has_spec() and any(not i.optionalhook for i in caller.get_hookimpls() if i.plugin is plugin):
                yield f"implements an unknown hook {caller.name}{_near(caller.name, known)}"
        for name in dir(plugin):
            value = getattr(plugin, name, None)
            marked = hasattr(value, f"{PROJECT}_impl") or hasattr(value, f"{PROJECT}_spec")
            if name.startswith(f"{PROJECT}_") and callable(value) and not marked:
                if name in known:
                    yield f"defines {name} without @hookimpl, so that nobody calls it"
                else:
                    yield f"implements an unknown hook {name}{_near(name, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _wrong(what: str, value: object, wanted: type) -> PluginLoadError:
    return PluginLoadError(f"{what} gave a {type(value).__name__}, not a {wanted.__name__}")
