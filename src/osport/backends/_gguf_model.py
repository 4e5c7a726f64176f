"""The model file behind the llama.cpp backends: found, checked and described without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen

from osport import store
from osport.backends._file_digest import FileDigest
from osport.backends._options import check_number
from osport.core.facts import Fact, ModelFacts
from osport.errors import FormatError, ModelNotFound, UsageError
from osport.formats.gguf import GgufArray, GgufHeader

__all__ = ["GgufModel"]

# general.file_type, the numbers of llama.cpp's llama_ftype (llama.h).
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip

# tokenizer.ggml.token_type, the numbers of llama.cpp's llama_token_type (llama.h).
CONTROL, USER_DEFINED = 3, 4

DEFAULT_CONTEXT = 8192


@frozen
class GgufModel:
    """One GGUF file, checked: it exists, its header reads, and its last tensor ends inside it."""

    path: Path
    name: str
    header: GgufHeader

    @classmethod
    def find(cls, model: str, *, backend: str) -> GgufModel:
        """The file that the model part of a reference names: a path, or a name of the catalogue.

        Raises :class:`~osport.errors.ModelNotFound`, :class:`~osport.errors.FormatError` (not GGUF,
        cut off) or :class:`~osport.errors.StorageError` (not readable).
        """
        looks_like_a_path = model.endswith(".gguf") or os.sep in model or Path(model).is_file()
        path = Path(model).expanduser() if looks_like_a_path else store.model_path(model)
        if not path.is_file():
            what = "is a folder; name the .gguf file in it" if path.is_dir() else "does not exist"
            raise ModelNotFound(f"{path} {what}", backend=backend, model=model)
        return cls(path.resolve(), path.stem if looks_like_a_path else model, GgufHeader.read(path))

    @property
    def trained_context(self) -> int | None:
        """Tokens of context the model was trained with; None when the header does not say."""
        value = self._of_architecture("context_length")
        return value if isinstance(value, int) else None

    def checked_context(self, asked: object, *, backend: str) -> int:
        """The context to load with. None: the trained one, at most 8192, for a long one takes gigabytes.

        Raises :class:`~osport.errors.UsageError` for more than the model was trained with.
        """
        trained = self.trained_context
        if asked is None:
            return min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        context = check_number(backend, "context", asked, at_least=1)
        if trained is not None and context > trained:
            raise UsageError(f"{backend}: context={context}: the model was trained with {trained} tokens")
        return context

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that the model ships; None when it ships none."""
        value = self.header.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) and value.strip() else None

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer, as far as the header names them."""
        named = (self.header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
        return tuple(dict.fromkeys(token for token in named if isinstance(token, int)))

    @cached_property
    def controls(self) -> Mapping[str, int]:
        """The control tokens by name, which are no text to llama.cpp."""
        return self._tokens_of_kind(CONTROL)

    @cached_property
    def user_defined(self) -> Mapping[str, int]:
        """The tokens that were added to the vocabulary as a text to be kept whole."""
        return self._tokens_of_kind(USER_DEFINED)

    def _tokens_of_kind(self, wanted: int) -> dict[str, int]:
        names, kinds = (self.header.metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
        if not isinstance(names, GgufArray) or not isinstance(kinds, GgufArray):
            return {}
        rows = enumerate(zip(names.values(), kinds.values(), strict=False))
        return {str(name): token for token, (name, kind) in rows if kind == wanted}

    def facts(self, engine: str) -> ModelFacts:
        """What the header says. The facts' source is the file; ``sha256`` is computed when looked at."""
        said = self.header.metadata.get
        file_type = said("general.file_type")
        from_header = ModelFacts.of(
            str(self.path),
            architecture=said("general.architecture"),
            context_length=self.trained_context,
            chat_template=self.chat_template,
            quantization=FILE_TYPES.get(file_type, f"file type {file_type}") if file_type is not None else None,
            parameters=sum(tensor.elements for tensor in self.header.tensors.values()),
            license=said("general.license"),
            name=said("general.name") or self.name,
            path=str(self.path),
            size=self.path.stat().st_size,
        )
        rest = {"sha256": FileDigest(self.path), "engine": Fact(engine, "installed package")}
        return from_header.merged(ModelFacts(rest))

    def _of_architecture(self, key: str) -> Any:
        try:
            return self.header.metadata.get(f"{self.header.architecture}.{key}")
        except FormatError:
            return None
