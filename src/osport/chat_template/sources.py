"""Where a chat template comes from: the header of a GGUF file, or the folder of a Hugging Face tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from osport.errors import FormatError, MissingDependency, StorageError, TemplateError, Unreachable
from osport.formats.gguf import GgufArray, GgufHeader

__all__ = ["TemplateSource", "read_gguf", "read_hf", "read_server"]

TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

GGUF_TOKEN_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelt like this in the format
    "pad_token": "padding_token_id",
    "mask_token": "mask_token_id",
}

# llama.cpp's own default where the file has no tokenizer.ggml.add_bos_token: SentencePiece and
# WordPiece vocabularies add BOS; of the byte-pair ones, only those with these pre-tokenizers do
# (llama.cpp, src/llama-vocab.cpp, read 2026-09).
GGUF_ADDS_BOS_MODELS = frozenset({"llama", "bert"})
GGUF_ADDS_BOS_PRE_TOKENIZERS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken", "chameleon"}
)


@frozen
class TemplateSource:
    """The templates by name (``default``, ``tool_use``, ``rag``), and what the tokenizer says.

    ``adds_bos``: whether the tokenizer puts BOS before a plain text prompt by itself. ``tokenizer``: the
    path of a ``tokenizer.json`` or of a GGUF file, where there is one. ``response``: the response template by
    which transformers reads the model's answers, where there is one.
    """

    origin: str
    templates: Mapping[str, str]
    tokens: Mapping[str, str]
    adds_bos: bool = False
    tokenizer: Path | None = None
    response: Mapping[str, Any] | None = None

    def pick(self, name: str | None) -> str:
        """The template of this name; without a name, the default one.

        Raises :class:`~osport.errors.TemplateError` when there is none: osport never falls back to another.
        """
        if not self.templates:
            raise TemplateError(
                f"{self.origin} has no chat template (a base model, or an old conversion); "
                "take an instruction-tuned model, or pass its official template to ChatTemplate.from_text"
            )
        wanted = name or "default"
        if wanted not in self.templates:
            raise TemplateError(
                f"{self.origin} has no chat template named {wanted!r}; it has: {', '.join(sorted(self.templates))}"
            )
        return self.templates[wanted]


def read_gguf(path: str | Path) -> TemplateSource:
    """Read templates and special tokens from the header of a GGUF file; weights are not touched."""
    metadata = GgufHeader.read(path).metadata
    prefix = "tokenizer.chat_template"
    templates = {
        key.removeprefix(prefix).removeprefix(".") or "default": value
        for key, value in metadata.items()
        if (key == prefix or key.startswith(prefix + ".")) and isinstance(value, str)
    }
    vocabulary = _strings(metadata.get("tokenizer.ggml.tokens"))
    tokens = {
        name: vocabulary[index]
        for name, key in GGUF_TOKEN_KEYS.items()
        if isinstance(index := metadata.get(f"tokenizer.ggml.{key}"), int) and 0 <= index < len(vocabulary)
    }
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token")
    if adds_bos is None:
        adds_bos = (
            metadata.get("tokenizer.ggml.model") in GGUF_ADDS_BOS_MODELS
            or metadata.get("tokenizer.ggml.pre") in GGUF_ADDS_BOS_PRE_TOKENIZERS
        )
    return TemplateSource(str(path), templates, tokens, bool(adds_bos), Path(path))


def read_hf(folder: str | Path) -> TemplateSource:
    """Read a tokenizer folder: ``tokenizer_config.json``, ``chat_template.jinja``,
    ``additional_chat_templates/*.jinja``, ``special_tokens_map.json``, ``tokenizer.json``.

    As in transformers, a ``.jinja`` file wins over the template inside ``tokenizer_config.json``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; from_hf takes the folder of a Hugging Face tokenizer")
    config = _json(folder / "tokenizer_config.json")
    inside = config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(inside, str):
        templates["default"] = inside
    elif isinstance(inside, list):
        try:
            templates.update({entry["name"]: entry["template"] for entry in inside})
        except (TypeError, KeyError):
            raise FormatError(
                f"{folder / 'tokenizer_config.json'}: chat_template is a list, but not of {{name, template}} objects"
            ) from None
    for file in (folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))):
        if file.is_file():
            templates["default" if file.parent == folder else file.stem] = file.read_text(encoding="utf-8")
    named = {**_json(folder / "special_tokens_map.json"), **config}
    tokens = {name: text for name in TOKEN_NAMES if (text := _token_text(named.get(name)))}
    adds_bos = config.get("add_bos_token")
    if adds_bos is None:
        adds_bos = _post_processor_adds(tokens.get("bos_token"), _json(folder / "tokenizer.json").get("post_processor"))
    tokenizer = folder / "tokenizer.json"
    response = config.get("response_template")
    return TemplateSource(
        str(folder),
        templates,
        tokens,
        bool(adds_bos),
        tokenizer if tokenizer.is_file() else None,
        response if isinstance(response, Mapping) else None,
    )


def read_server(url: str, timeout: float) -> TemplateSource:
    """Ask a running llama.cpp server for its template, and whether its tokenizer adds BOS."""
    try:
        import httpx
    except ImportError:
        raise MissingDependency("httpx", "llama-server") from None
    base = url.rstrip("/")
    try:
        with httpx.Client(timeout=timeout) as client:
            properties = client.get(f"{base}/props").raise_for_status().json()
            added = client.post(f"{base}/tokenize", json={"content": "", "add_special": True}).raise_for_status().json()
    except httpx.HTTPStatusError as error:
        raise TemplateError(
            f"{base} does not tell its chat template (HTTP {error.response.status_code} for {error.request.url.path}); "
            "only llama.cpp servers do. Use from_gguf or from_hf"
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise Unreachable(f"{base} does not answer as a llama.cpp server: {error}") from error
    text = properties.get("chat_template")
    tokens = {name: token for name in TOKEN_NAMES if isinstance(token := properties.get(name), str) and token}
    return TemplateSource(base, {"default": text} if text else {}, tokens, bool(added.get("tokens")))


def _strings(value: object) -> tuple[str, ...]:
    return value.values() if isinstance(value, GgufArray) and value.type == "string" else ()


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _token_text(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _post_processor_adds(bos: str | None, processor: object) -> bool:
    """Whether a ``tokenizer.json`` post-processor writes ``bos`` before a single sequence."""
    if not isinstance(processor, Mapping):
        return False
    if processor.get("type") == "Sequence":
        return any(_post_processor_adds(bos, part) for part in processor.get("processors", ()))
    single = processor.get("single") or [{}]
    return bool(bos) and single[0].get("SpecialToken", {}).get("id") == bos
