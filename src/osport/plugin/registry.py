"""From a reference to a backend: entry points and hooks, isolated from one another.

Plain pluggy loads everything at once and lets one broken package stop the rest. Here a backend's
entry point is loaded when a reference names it, each ``osport.plugins`` package is loaded inside its
own guard, and what went wrong is reported once, by package name.

``OSPORT_PLUGINS=a,b`` admits only the packages named (``OSPORT_PLUGINS=`` none but osport's own),
``OSPORT_DISABLE_PLUGINS=a,b`` shuts some out, ``OSPORT_STRICT_PLUGINS=1`` raises instead of warning.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import os
import threading
import warnings
from importlib.metadata import EntryPoint, entry_points, metadata
from typing import Any

import pluggy
from attrs import define, field, frozen

from osport.core.facts import ModelFacts
from osport.core.secrets import shown_url
from osport.errors import (
    BackendNotFound,
    OsportError,
    PluginConflict,
    PluginError,
    PluginLoadError,
    UsageError,
)
from osport.plugin import hookspecs
from osport.plugin.backend import Backend, BackendSpec
from osport.plugin.hookspecs import CallRecord, ModelRef, ScorerSpec

__all__ = ["BackendInfo", "Registry", "parse_reference", "registry"]

BACKENDS_GROUP = "osport.backends"
PLUGINS_GROUP = "osport.plugins"
OWN_PACKAGE = "osport"

log = logging.getLogger("osport.plugin")


@frozen
class BackendInfo:
    """One backend that a reference may name: who offers it, and what went wrong if it is unusable."""

    name: str
    package: str
    features: frozenset[str] = frozenset()
    error: str = ""


def parse_reference(reference: str) -> ModelRef:
    """Split ``backend:model`` at the first colon.

    A bare path of a ``.gguf`` file or an ``http(s)://`` URL belongs to ``llama_server``.
    Raises :class:`~osport.errors.UsageError` for anything else without a colon.
    """
    if reference.startswith(("http://", "https://")):
        return ModelRef("llama_server", reference)
    backend, colon, model = reference.partition(":")
    looks_like_a_name = backend.isidentifier() and backend.islower() and len(backend) > 1
    if colon and looks_like_a_name:
        return ModelRef(backend, model)
    if reference.endswith(".gguf"):
        return ModelRef("llama_server", reference)
    raise UsageError(
        f"model reference {shown_url(reference)!r}: write backend:model, e.g. llama_server:smollm2-135m, "
        "or give the path of a .gguf file or the URL of a running server"
    )


def _names(variable: str) -> frozenset[str] | None:
    value = os.environ.get(variable)
    if value is None:
        return None
    return frozenset(name.strip().lower() for name in value.split(",") if name.strip())


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value.partition(".")[0]


def _admitted(entry: EntryPoint) -> bool:
    package = _package(entry).lower()
    if package == OWN_PACKAGE:
        return True
    only, disabled = _names("OSPORT_PLUGINS"), _names("OSPORT_DISABLE_PLUGINS") or frozenset()
    names = {package, entry.name.lower()}
    return (only is None or bool(names & only)) and not names & disabled


def _strict() -> bool:
    return os.environ.get("OSPORT_STRICT_PLUGINS", "") not in ("", "0")


@define
class Registry:
    """What is installed. Use :func:`registry`, one a process."""

    _entries: dict[str, list[EntryPoint]]
    _registered: dict[str, BackendSpec] = field(factory=dict)
    _lock: threading.RLock = field(factory=threading.RLock)
    _manager: pluggy.PluginManager | None = None
    _hooked: dict[str, BackendSpec] = field(factory=dict)
    reported: list[str] = field(factory=list)
    """What was found wrong with plugins so far; each was a RuntimeWarning once."""

    @classmethod
    def discover(cls) -> Registry:
        """Read the entry points of the installed packages; loads none of them."""
        entries: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=BACKENDS_GROUP):
            if _admitted(entry):
                entries.setdefault(entry.name, []).append(entry)
        return cls(entries)

    def register(self, spec: BackendSpec) -> None:
        """Offer a backend for this process. See :func:`osport.plugin.register`."""
        if spec.name in self._entries:
            raise PluginConflict(
                f"backend {spec.name!r} is already offered by {_package(self._entries[spec.name][0])}; "
                "register yours under another name"
            )
        with self._lock:
            self._registered[spec.name] = spec

    def spec(self, name: str) -> BackendSpec:
        """The backend of this name, its module loaded.

        Raises :class:`~osport.errors.BackendNotFound`, :class:`~osport.errors.PluginConflict`
        or :class:`~osport.errors.PluginLoadError`; other backends are not affected.
        """
        if name in self._registered:
            return self._registered[name]
        entries = self._entries.get(name, [])
        if len(entries) > 1:
            packages = " and ".join(sorted(_package(entry) for entry in entries))
            raise PluginConflict(
                f"{packages} both offer a backend {name!r}; uninstall one, or set OSPORT_DISABLE_PLUGINS to its name"
            )
        if entries:
            return _load(entries[0])
        self._hooks()
        if name in self._hooked:
            return self._hooked[name]
        raise BackendNotFound(self._not_found(name))

    def backends(self) -> list[BackendInfo]:
        """Every backend by name, each loaded inside its own guard."""
        self._hooks()
        found = []
        for name in sorted({*self._entries, *self._registered, *self._hooked}):
            try:
                spec = self.spec(name)
            except OsportError as error:
                packages = " and ".join(sorted(_package(entry) for entry in self._entries.get(name, [])))
                found.append(BackendInfo(name, packages, error=str(error)))
            else:
                found.append(BackendInfo(name, spec.package, spec.features))
        return found

    def name_of(self, backend: Backend) -> str:
        """The name under which the class of an instance is offered; the name of the class when it is not."""
        for info in self.backends():
            with contextlib.suppress(PluginError):
                if self.spec(info.name).factory is type(backend):
                    return info.name
        return type(backend).__name__

    def offering(self, feature: str, *, besides: str) -> list[str]:
        """Names of the backends that declare this feature."""
        return [info.name for info in self.backends() if feature in info.features and info.name != besides]

    def scorers(self) -> dict[str, ScorerSpec]:
        """The scorers that plugins add, by name. Raises PluginConflict when two share a name."""
        found: dict[str, ScorerSpec] = {}
        for spec in self._each("osport_scorers"):
            if spec.name in found:
                raise PluginConflict(f"two plugins offer a scorer {spec.name!r}; disable one of them")
            found[spec.name] = spec
        return found

    def model_facts(self, ref: ModelRef, known: ModelFacts) -> ModelFacts:
        """``known``, and what a plugin knows besides."""
        found = self._hooks().hook.osport_model_facts(ref=ref, known=known)
        return known.merged(found) if found is not None else known

    def call_finished(self, record: CallRecord) -> None:
        """Tell the observers; what they raise is logged."""
        for impl in self._hooks().hook.osport_call_finished.get_hookimpls():
            try:
                impl.function(*[{"record": record}[name] for name in impl.argnames])
            except Exception:
                log.exception("observer %s failed", impl.plugin_name)

    @property
    def observed(self) -> bool:
        """Whether anybody wants to hear of finished calls."""
        return bool(self._hooks().hook.osport_call_finished.get_hookimpls())

    def _hooks(self) -> pluggy.PluginManager:
        with self._lock:
            if self._manager is None:
                self._manager = manager = pluggy.PluginManager("osport")
                manager.add_hookspecs(hookspecs)
                for entry in entry_points(group=PLUGINS_GROUP):
                    if _admitted(entry):
                        self._add_plugin(manager, entry)
                for spec in self._each("osport_backends"):
                    if spec.name in self._entries or spec.name in self._hooked:
                        who = spec.package or "a plugin"
                        self._report(PluginConflict(f"a hook of {who} offers a backend {spec.name!r}, a name in use"))
                    else:
                        self._hooked[spec.name] = spec
            return self._manager

    def _add_plugin(self, manager: pluggy.PluginManager, entry: EntryPoint) -> None:
        package = _package(entry)
        name = f"{package} ({entry.name})"
        try:
            plugin = entry.load()
            manager.register(plugin, name=name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is named
            if manager.has_plugin(name):
                manager.unregister(name=name)
            self._report(PluginLoadError(f"plugin {name} failed to load: {type(error).__name__}: {error}"))
            return
        known = {attribute for attribute in dir(hookspecs) if attribute.startswith("osport_")}
        for attribute in dir(plugin):
            if attribute.startswith("osport_") and attribute not in known and callable(getattr(plugin, attribute)):
                near = difflib.get_close_matches(attribute, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self._report(PluginLoadError(f"plugin {name} implements an unknown hook {attribute}{hint}"))

    def _report(self, error: PluginError) -> None:
        """Warn once in the life of this registry, however often the fault is met."""
        if _strict():
            raise error
        if str(error) not in self.reported:
            self.reported.append(str(error))
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)

    def _each(self, hook: str) -> list[Any]:
        manager = self._hooks()
        results = []
        for impl in getattr(manager.hook, hook).get_hookimpls():
            try:
                results.extend(impl.function())
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is named
                self._report(PluginLoadError(f"{hook} of {impl.plugin_name} raised {type(error).__name__}: {error}"))
        return results

    def _not_found(self, name: str) -> str:
        installed = sorted({*self._entries, *self._registered, *self._hooked})
        message = f"no backend {name!r}; installed: {', '.join(installed)}"
        near = difflib.get_close_matches(name, installed, n=1)
        if near:
            message += f". Did you mean {near[0]!r}?"
            extra = near[0].replace("_", "-")
            if extra in (metadata(OWN_PACKAGE).get_all("Provides-Extra") or ()):
                message += f" Its engine comes with: pip install 'osport[{extra}]'"
            return message
        return (
            f"{message}. The engines of osport's own backends come with an extra each, all with: "
            f"pip install 'osport[all]'; another package's backend has an entry point in the group {BACKENDS_GROUP}"
        )


def _load(entry: EntryPoint) -> BackendSpec:
    package = _package(entry)
    try:
        loaded = entry.load()
    except OsportError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"backend {entry.name!r} of package {package} failed to load ({entry.value}): "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, BackendSpec):
        return loaded
    if isinstance(loaded, type) and issubclass(loaded, Backend):
        return BackendSpec(entry.name, loaded, loaded.features, package)
    raise PluginLoadError(
        f"backend {entry.name!r} of package {package}: {entry.value} is neither a Backend class nor a BackendSpec"
    )


@functools.cache
def registry() -> Registry:
    """The registry of this process; ``registry.cache_clear()`` reads the entry points again."""
    return Registry.discover()
