"""What a model says about itself: from facts, from a GGUF header, from a folder as the hub serves it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from osport.core.facts import ModelFacts
from osport.errors import FormatError, MissingDependency, StorageError, UsageError
from osport.formats.gguf import GgufHeader

__all__ = ["Card", "from_facts", "from_folder", "from_gguf", "from_path", "looks_like_path", "on_disk"]

_LICENCE_FILES = ("license", "licence", "copying", "model_license", "model-license", "terms")
_CODE = ("license-code", "license_code", "licence-code")
_THIRD_PARTY = ("third-party", "third_party", "thirdparty", "3rd")
_LARGEST = 4_000_000


@frozen(kw_only=True)
class Card:
    """``said`` holds (kind, value) pairs in order of trust: ``license_link``, ``license_name``, ``tag``.
    ``texts`` holds (file name, text). ``bases`` are names, paths or licence keys of what it was made from."""

    name: str = ""
    source: str = ""
    said: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str | bytes], ...] = field(default=(), repr=False)
    bases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def publisher(self) -> str:
        """The part of the name before the slash."""
        return self.name.rpartition("/")[0]

    def joined(self, other: Card) -> Card:
        """This card with what ``other`` says besides."""
        return evolve(
            self,
            name=self.name or other.name,
            said=tuple(dict.fromkeys((*self.said, *other.said))),
            texts=(*self.texts, *other.texts),
            bases=tuple(dict.fromkeys((*self.bases, *other.bases))),
            notes=(*self.notes, *other.notes),
            folder=self.folder or other.folder,
        )


def _listed(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    return tuple(str(item).strip() for item in items if str(item).strip())


def _said(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    kinds = (("license_link", "license_link"), ("license_name", "license_name"), ("license", "tag"))
    return tuple((kind, said) for name, kind in kinds for said in _listed(values.get(name)))


def from_facts(facts: ModelFacts) -> Card:
    """From facts: ``license``, ``license_name``, ``license_link``, ``license_text``, ``base_model(s)``,
    ``hf_id`` or ``name``, and what lies at ``path``."""
    values = {name: facts.get(name) for name in facts if name.startswith(("license", "licence", "base_model"))}
    bases = (*_listed(values.get("base_models")), *_listed(values.get("base_model")))
    text = values.get("license_text")
    name = next((str(facts[key]) for key in ("hf_id", "repo", "model_id", "name") if facts.get(key)), "")
    card = Card(
        name=name,
        source=facts.fact("license").source if "license" in facts else "the given facts",
        said=_said(values),
        texts=(("license_text", text),) if isinstance(text, str | bytes) else (),
        bases=bases,
    )
    path = facts.get("path")
    if path and on_disk(Path(str(path))):
        card = card.joined(from_path(Path(str(path))))
    return card


def from_path(path: Path) -> Card:
    """From a GGUF file or a folder. Raises FormatError for another kind of file, StorageError when it is missing."""
    if path.is_dir():
        return from_folder(path)
    if path.suffix.lower() == ".gguf":
        return from_gguf(path)
    raise FormatError(f"{path}: neither a GGUF file nor a model folder; licences are read from these two")


def from_gguf(path: Path) -> Card:
    """From the keys ``general.license*`` and ``general.base_model.*`` of a header, and the licence files beside it."""
    said = GgufHeader.read(path, partial=True).metadata
    values = {
        "license": said.get("general.license"),
        "license_name": said.get("general.license.name"),
        "license_link": said.get("general.license.link"),
    }
    bases = []
    count = said.get("general.base_model.count", 0)
    for index in range(min(int(count), 64) if isinstance(count, int) else 0):
        prefix = f"general.base_model.{index}."
        url, organisation, name = (said.get(prefix + key) for key in ("repo_url", "organization", "name"))
        if isinstance(url, str) and "huggingface.co/" in url:
            bases.append(url.split("huggingface.co/", 1)[1].strip("/"))
        elif name:
            bases.append(f"{organisation}/{name}".replace(" ", "-") if organisation else str(name).replace(" ", "-"))
    # The file's name says more than general.name, which converters fill with words for people.
    organisation = said.get("general.organization")
    repository = said.get("general.repo_url") or said.get("general.source.url") or ""
    name = path.stem
    if isinstance(repository, str) and "huggingface.co/" in repository:
        name = repository.split("huggingface.co/", 1)[1].strip("/")
    elif isinstance(organisation, str) and organisation and "/" not in organisation:
        name = f"{organisation}/{path.stem}".replace(" ", "-")
    beside = tuple((file.name, _bytes(file)) for file in _licence_files(path.parent)) if _is_model_folder(path) else ()
    return Card(name=name, source=str(path), said=_said(values), bases=tuple(bases), texts=beside, folder=path.parent)


def _is_model_folder(path: Path) -> bool:
    """Only where the GGUF lies alone with its card do the licence files beside it speak of it."""
    return (path.parent / "README.md").is_file() and len(list(path.parent.glob("*.gguf"))) <= 64


def from_folder(folder: Path) -> Card:
    """From the README's front matter, ``adapter_config.json`` and the licence files of a folder.

    Raises StorageError when it cannot be read, FormatError for a front matter that is no YAML.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    matter = _front_matter(folder / "README.md")
    bases = list(_listed(matter.get("base_model")))
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            bases += _listed(json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path"))
        except (ValueError, AttributeError) as error:
            raise FormatError(f"{adapter}: not a JSON object: {error}") from error
    files = _licence_files(folder)
    model_files = [file for file in files if not _of_something_else(file.name.lower())]
    notes = tuple(
        f"{file.name} is not about the weights and was left aside" for file in files if file not in model_files
    )
    own_name = matter.get("model_name") if "/" in str(matter.get("model_name", "")) else None
    return Card(
        name=str(own_name or _folder_name(folder.resolve())),
        source=str(folder),
        said=_said(matter),
        texts=tuple((file.name, _bytes(file)) for file in model_files),
        bases=tuple(dict.fromkeys(bases)),
        notes=notes,
        folder=folder,
    )


def _of_something_else(name: str) -> bool:
    """Licences of code, or of third parties' parts, beside that of the weights."""
    return name.startswith(_CODE) or any(word in name for word in _THIRD_PARTY)


def _folder_name(folder: Path) -> str:
    """``publisher/name`` of a snapshot in the hub's cache (``models--publisher--name/snapshots/...``), or the name."""
    cached = next((part for part in folder.parts if part.startswith("models--")), folder.name)
    return cached.removeprefix("models--").replace("--", "/")


def _licence_files(folder: Path) -> list[Path]:
    def fits(path: Path) -> bool:
        low = path.name.lower()
        named = low.startswith(_LICENCE_FILES) or ("license" in low and low.endswith((".txt", ".md")))
        return named and path.is_file()

    return sorted(path for path in folder.iterdir() if fits(path))


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise FormatError(f"{file}: {file.stat().st_size} bytes is no licence text")
        return file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file}: cannot be read: {error.strerror or error}") from error


def _front_matter(readme: Path) -> Mapping[str, Any]:
    if not readme.is_file():
        return {}
    text = _bytes(readme).decode("utf-8", "replace").lstrip("\ufeff")
    if not text.startswith("---"):
        return {}
    _, _, rest = text.partition("\n")
    head, fence, _ = rest.partition("\n---")
    if not fence:
        raise FormatError(f"{readme}: the front matter is never closed by ---")
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency("PyYAML", "licenses") from error
    try:
        matter = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise FormatError(f"{readme}: the front matter is no YAML: {' '.join(str(error).split())}") from error
    if matter is None:
        return {}
    if not isinstance(matter, Mapping):
        raise FormatError(f"{readme}: the front matter is no mapping")
    return matter


def on_disk(path: Path) -> bool:
    """Whether a GGUF file or a folder lies there; a name that no file system takes does not."""
    try:
        return path.is_dir() or (path.suffix.lower() == ".gguf" and path.is_file())
    except (OSError, ValueError):
        return False


def looks_like_path(target: str) -> bool:
    """Whether a string means a file or folder on this machine rather than a model's name.

    Raises UsageError for a GGUF path that does not exist.
    """
    if on_disk(Path(target)):
        return True
    if target.lower().endswith(".gguf") and target.startswith(("/", "./", "../", "~")):
        raise UsageError(f"{target}: no such file")
    return False
