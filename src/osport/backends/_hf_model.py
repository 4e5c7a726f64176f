"""A model as a Hugging Face folder: found, checked and described without loading it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from attrs import frozen

from osport.backends._file_digest import FileDigest
from osport.backends._options import check_number
from osport.chat_template import ChatTemplate
from osport.core.facts import Fact, ModelFacts
from osport.errors import FormatError, MissingDependency, ModelNotFound, TemplateError, UsageError
from osport.formats.hf_config import HfConfig
from osport.formats.safetensors import Checkpoint

__all__ = ["HfModel", "check_dtype"]

DEFAULT_CONTEXT = 8192
DTYPES = ("auto", "bfloat16", "float16", "float32")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
CARD_LICENSE = re.compile(r"\A---\s*\n(?:.*\n)*?license:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
CONTEXT_NAMES = ("max_position_embeddings", "max_sequence_length", "n_positions", "max_seq_len", "seq_length")


@frozen(slots=False)
class HfModel:
    """One folder with a ``config.json`` and weights."""

    folder: Path
    name: str
    config: HfConfig

    @classmethod
    def find(cls, model: str, *, backend: str) -> HfModel:
        """The folder that the model part of a reference names: a path, or a name on the Hugging Face Hub that was
        downloaded before.

        Raises :class:`~osport.errors.ModelNotFound`, :class:`~osport.errors.FormatError` (no config, or no weights
        that are safe to load) or :class:`~osport.errors.StorageError` (not readable).
        """
        folder = Path(model).expanduser()
        name = folder.resolve().name
        if folder.is_file():
            raise UsageError(
                f"{backend}: {folder} is a file; it takes the folder of a Hugging Face model"
                + ("; llama_cpp and llama_server take GGUF files" if folder.suffix == ".gguf" else "")
            )
        if not folder.is_dir():
            if not HUB_NAME.fullmatch(model):
                raise ModelNotFound(f"{folder} does not exist", backend=backend, model=model)
            folder, name = _downloaded(model, backend), model
        if not any(folder.glob("*.safetensors")):
            raise FormatError(f"{folder}: no .safetensors file; other forms of weights may run code when loaded")
        return cls(folder.absolute(), name, HfConfig.read(folder))

    @property
    def trained_context(self) -> int | None:
        """Tokens of context the model was trained with; None when the config does not say."""
        return self.config.optional(*CONTEXT_NAMES, least=1)

    def checked_context(self, asked: object, *, backend: str) -> int:
        """The context to load with. None: the trained one, at most 8192, for a long one takes gigabytes.

        Raises :class:`~osport.errors.UsageError` for more than the model was trained with.
        """
        trained = self.trained_context
        if asked is None:
            return min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        context = check_number(backend, "context", asked, at_least=2)
        if trained is not None and context > trained:
            raise UsageError(f"{backend}: context={context}: the model was trained with {trained} tokens")
        return context

    @functools.cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template that the model ships; None when it ships none."""
        try:
            return ChatTemplate.from_hf(self.folder)
        except TemplateError:
            return None

    def facts(self, engine: str) -> ModelFacts:
        """What the folder says. ``sha256`` is computed when looked at; of several files of weights it is that of
        their list, as ``sha256sum`` prints it, sorted by name."""
        quantization = self.config.quantization
        checkpoint = Checkpoint.of_folder(self.folder)
        weights = sorted(self.folder.glob("*.safetensors"))
        card = self.folder / "README.md"
        from_config = ModelFacts.of(
            self.config.source,
            architecture=self.config.model_type,
            context_length=self.trained_context,
            quantization=f"{quantization.method} {quantization.bits:g} bit" if quantization else self._dtype,
        )
        from_folder = ModelFacts.of(
            str(self.folder),
            chat_template=self.template.text if self.template else None,
            # Packed weights of a quantised checkpoint are not its parameters.
            parameters=sum(tensor.elements for tensor in checkpoint.tensors.values()) or None
            if checkpoint and not quantization
            else None,
            name=self.name,
            path=str(self.folder),
            size=sum(file.stat().st_size for file in weights),
        )
        rest: dict[str, Fact] = {
            "sha256": FileDigest(weights[0]) if len(weights) == 1 else _FilesDigest(weights),
            "engine": Fact(engine, "installed package"),
        }
        if card.is_file() and (found := CARD_LICENSE.match(card.read_text("utf-8", "replace"))):
            rest["license"] = Fact(found[1], str(card))
        return from_config.merged(from_folder).merged(ModelFacts(rest))

    @property
    def _dtype(self) -> str | None:
        named = self.config.values.get("dtype") or self.config.values.get("torch_dtype")
        return named if isinstance(named, str) else None


class _FilesDigest(Fact):
    """The SHA-256 of a list of files with their own, computed when it is first looked at."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(files, str(files[0].parent))

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name != "value":
            return value
        lines = (f"{FileDigest(file).value}  {file.name}\n" for file in value)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"_FilesDigest({self.source!r})"


def _downloaded(model: str, backend: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingDependency("huggingface_hub", backend) from error
    try:
        return Path(os.fspath(snapshot_download(model, local_files_only=True)))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"{model} is neither a folder nor in the Hugging Face cache; run: hf download {model}",
            backend=backend,
            model=model,
        ) from error


def check_dtype(backend: str, dtype: str) -> str:
    """The option ``dtype``, if it is one."""
    if dtype not in DTYPES:
        raise UsageError(f"{backend}: dtype={dtype!r}: must be one of {', '.join(DTYPES)}")
    return dtype
