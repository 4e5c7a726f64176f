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
import os
import threading
import warnings
from collections.abc import Iterable
from importlib.metadata import EntryPoint, metadata

from attrs import define, evolve, field, frozen

from osport.core.facts import ModelFacts
from osport.core.secrets import shown_url
from osport.errors import (
    BackendNotFound,
    MissingDependency,
    OsportError,
    PluginConflict,
    PluginError,
    PluginLoadError,
    UsageError,
)
from osport.plugin.backend import Backend, BackendSpec
from osport.plugin.entries import BACKENDS_GROUP, OWN_PACKAGE, PLUGINS_GROUP, admitted_entries, package_of, said
from osport.plugin.hooks import Hooks
from osport.plugin.hookspecs import CallRecord, ModelRef, ScorerSpec

__all__ = ["BackendInfo", "Registry", "parse_reference", "registry"]


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


def _strict() -> bool:
    return os.environ.get("OSPORT_STRICT_PLUGINS", "") not in ("", "0")


@define
class Registry:
    """What is installed. Use :func:`registry`, one a process."""

    _entries: dict[str, list[EntryPoint]] = field(factory=dict)
    _registered: dict[str, BackendSpec] = field(factory=dict)
    _lock: threading.RLock = field(factory=threading.RLock)
    _plugins: Hooks | None = None
    _hooked: dict[str, list[BackendSpec]] = field(factory=dict)
    reported: list[str] = field(factory=list)
    """What was found wrong with plugins so far; each was a RuntimeWarning once."""

    @classmethod
    def discover(cls) -> Registry:
        """Read the entry points of the installed packages; loads none of them."""
        found = cls()
        for entry in admitted_entries(BACKENDS_GROUP, found._report):
            found._entries.setdefault(entry.name, []).append(entry)
        return found

    def register(self, spec: BackendSpec) -> None:
        """Offer a backend for this process. See :func:`osport.plugin.register`."""
        with self._lock:
            if owners := self._owners(spec.name):
                raise PluginConflict(
                    f"backend {spec.name!r} is already offered by {owners}; register yours under another name"
                )
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
            raise _conflict(f"a backend {name!r}", map(package_of, entries))
        if entries:
            return _load(entries[0])
        self._hooks()
        hooked = self._hooked.get(name, [])
        if len(hooked) > 1:
            raise _conflict(f"a backend {name!r}", (spec.package for spec in hooked))
        if hooked:
            return hooked[0]
        raise BackendNotFound(self._not_found(name))

    def backends(self) -> list[BackendInfo]:
        """Every backend by name, each loaded inside its own guard."""
        self._hooks()
        found = []
        for name in self._known_names():
            try:
                spec = self.spec(name)
            except OsportError as error:
                found.append(BackendInfo(name, self._owners(name), error=str(error)))
            else:
                found.append(BackendInfo(name, spec.package, spec.features))
        return found

    def name_of(self, backend: Backend) -> str:
        """The name under which the class of an instance is offered; the name of the class when it is not."""
        self._hooks()
        for name in self._known_names():
            with contextlib.suppress(OsportError):
                if self.spec(name).factory is type(backend):
                    return name
        return type(backend).__name__

    def offering(self, feature: str, *, besides: str) -> list[str]:
        """Names of the backends that declare this feature."""
        return [info.name for info in self.backends() if feature in info.features and info.name != besides]

    def scorers(self) -> dict[str, ScorerSpec]:
        """The scorers that plugins add, by name; a name that two of them use is reported, and neither's."""
        offered: dict[str, list[tuple[str, ScorerSpec]]] = {}
        for package, spec in self._hooks().items("osport_scorers", ScorerSpec):
            offered.setdefault(spec.name, []).append((package, spec))
        for name, several in offered.items():
            if len(several) > 1:
                self._report(_conflict(f"a scorer {name!r}", (package for package, _ in several)))
        return {name: several[0][1] for name, several in offered.items() if len(several) == 1}

    def model_facts(self, ref: ModelRef, known: ModelFacts) -> ModelFacts:
        """``known``, and what a plugin knows besides."""
        found = self._hooks().first("osport_model_facts", ModelFacts, ref=ref, known=known)
        return known.merged(found) if found is not None else known

    def call_finished(self, record: CallRecord) -> None:
        """Tell the observers; what they raise is logged."""
        self._hooks().tell("osport_call_finished", record=record)

    @property
    def observed(self) -> bool:
        """Whether anybody wants to hear of finished calls."""
        return self._hooks().heard("osport_call_finished")

    def _hooks(self) -> Hooks:
        with self._lock:
            if self._plugins is None:
                # Known at once: a plugin may use osport while it is imported.
                self._plugins = Hooks(self._report)
                try:
                    self._load_plugins(self._plugins)
                except BaseException:
                    # Strict, or Ctrl-C: the next call shall not find half of the plugins and no word of the rest.
                    self._plugins = None
                    self._hooked.clear()
                    raise
            return self._plugins

    def _load_plugins(self, plugins: Hooks) -> None:
        for entry in admitted_entries(PLUGINS_GROUP, self._report):
            plugins.load(entry)
        for package, spec in plugins.items("osport_backends", BackendSpec):
            if spec.name in self._entries or spec.name in self._registered:
                self._report(
                    PluginConflict(
                        f"a hook of {package} offers a backend {spec.name!r}, a name in use by "
                        f"{self._owners(spec.name) or 'this process'}"
                    )
                )
            else:
                self._hooked.setdefault(spec.name, []).append(evolve(spec, package=package))
        for name, specs in self._hooked.items():
            if len(specs) > 1:
                self._report(_conflict(f"a backend {name!r}", (spec.package for spec in specs)))

    def _known_names(self) -> list[str]:
        return sorted({*self._entries, *self._registered, *self._hooked})

    def _owners(self, name: str) -> str:
        """The packages that offer a backend of this name."""
        packages = {*map(package_of, self._entries.get(name, [])), *(s.package for s in self._hooked.get(name, []))}
        return " and ".join(sorted(packages))

    def _report(self, error: PluginError) -> None:
        """Warn once in the life of this registry, however often the fault is met."""
        if _strict():
            raise error
        if str(error) not in self.reported:
            self.reported.append(str(error))
            warnings.warn(str(error), RuntimeWarning, stacklevel=1)  # whoever came by is not at fault

    def _not_found(self, name: str) -> str:
        installed = self._known_names()
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


def _conflict(what: str, packages: Iterable[str]) -> PluginConflict:
    both = " and ".join(sorted(packages))
    return PluginConflict(f"{both} both offer {what}; uninstall one, or set OSPORT_DISABLE_PLUGINS to its name")


def _load(entry: EntryPoint) -> BackendSpec:
    package = package_of(entry)
    try:
        loaded = entry.load()
        if isinstance(loaded, BackendSpec):
            return evolve(loaded, name=entry.name, package=package)
        if isinstance(loaded, type) and issubclass(loaded, Backend):
            return BackendSpec(entry.name, loaded, loaded.features, package)
    except (MissingDependency, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginLoadError(
            f"backend {entry.name!r} of package {package} failed to load ({entry.value}): {said(error)}"
        ) from error
    raise PluginLoadError(
        f"backend {entry.name!r} of package {package}: {entry.value} is neither a Backend class nor a BackendSpec"
    )


class _OneRegistry:
    """Made at the first use, whichever thread comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Registry | None = None

    def __call__(self) -> Registry:
        """The registry of this process; ``registry.cache_clear()`` reads the entry points again."""
        with self._lock:
            if self._made is None:
                self._made = Registry.discover()
            return self._made

    def cache_clear(self) -> None:
        """Forget what was found and registered."""
        with self._lock:
            self._made = None


registry = _OneRegistry()
