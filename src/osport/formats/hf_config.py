"""A Hugging Face ``config.json``: the text model's part of it, and how its weights are quantised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from osport.errors import FormatError, StorageError

__all__ = ["CheckpointQuantization", "HfConfig"]

_MAX_BYTES = 4 * 2**20
_MAX_NUMBER = 2**40
_TEXT_PARTS = ("text_config", "language_config", "llm_config", "thinker_config")
_TOWERS = ("vision_config", "audio_config", "vision_tower_config", "visual")


@frozen
class CheckpointQuantization:
    """``quantization_config``: the method (``awq``, ``gptq``, ``fp8``, ...), bits, group size, modules left wide.

    The method ``mixed`` has ``bits`` 0: only the checkpoint's own headers can say what it weighs.
    """

    method: str
    bits: float
    group_size: int | None = None
    ignored: tuple[str, ...] = ()


@frozen
class HfConfig:
    """One config with its nested text part on top. Numbers are read through :meth:`integer`, which checks them."""

    values: Mapping[str, Any]
    name: str
    towers: tuple[str, ...] = ()
    quantization: CheckpointQuantization | None = None
    source: str = field(default="config.json")

    @classmethod
    def read(cls, path: str | Path) -> HfConfig:
        """Read ``config.json``, or the one inside a folder.

        Raises StorageError when there is none, FormatError when it is not a JSON object of sane size.
        """
        path = Path(path)
        file = path / "config.json" if path.is_dir() else path
        values = _json(file)
        beside = file.with_name("hf_quant_config.json")
        if isinstance(values, dict) and "quantization_config" not in values and beside.exists():
            exported = _json(beside)
            if isinstance(exported, dict) and isinstance(exported.get("quantization"), dict):
                values["quantization_config"] = {"quant_method": "modelopt", **exported["quantization"]}
        return cls.of(values, name=file.parent.name or "model", source=str(file))

    @classmethod
    def of(cls, values: Any, *, name: str = "model", source: str = "config.json") -> HfConfig:
        """From a mapping that is already parsed. Raises FormatError when it is no JSON object."""
        if not isinstance(values, Mapping):
            raise FormatError(f"{source}: a config is a JSON object, not {type(values).__name__}")
        part = next((key for key in _TEXT_PARTS if isinstance(values.get(key), Mapping)), None)
        merged = dict(values)
        if part is not None:
            nested = values[part]
            deeper = next((key for key in _TEXT_PARTS if isinstance(nested.get(key), Mapping)), None)
            merged |= nested
            if deeper is not None:
                merged |= nested[deeper]
        towers = tuple(key for key in _TOWERS if isinstance(values.get(key), Mapping))
        named = values.get("_name_or_path")
        return cls(
            merged,
            named or name if isinstance(named, str) else name,
            towers,
            _quantization(values, merged, source),
            source,
        )

    @property
    def model_type(self) -> str:
        """The family (``qwen3_moe``). Raises FormatError when the config does not say."""
        value = self.values.get("model_type")
        if not isinstance(value, str) or not value:
            raise FormatError(f"{self.source}: no model_type; this is not a model's config.json")
        return value

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The first of these keys that is present and not null, checked to be a whole number of at least ``least``.

        Raises FormatError when none is there and there is no default, or when the value is absurd.
        """
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MAX_NUMBER:
                raise FormatError(f"{self.source}: {name} is {value!r}; expected a whole number of at least {least}")
            return value
        if default is None:
            raise FormatError(f"{self.source}: {names[0]} is missing; without it nothing can be computed")
        return default

    def optional(self, *names: str, least: int = 0) -> int | None:
        """Like :meth:`integer`, None when no key is present."""
        if all(self.values.get(name) is None for name in names):
            return None
        return self.integer(*names, least=least)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean key."""
        value = self.values.get(name)
        return default if value is None else bool(value)

    def items(self, name: str) -> Sequence[Any] | None:
        """A list, None when absent. Raises FormatError when the key holds something else."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) > 100_000:
            raise FormatError(f"{self.source}: {name} is not a list of sane length")
        return value


def _json(file: Path) -> Any:
    try:
        raw = file.read_bytes() if file.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise StorageError(f"{file}: cannot be read: {error.strerror or error}") from error
    if raw is None:
        raise FormatError(f"{file}: a config of more than {_MAX_BYTES} bytes is refused")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not JSON: {error}") from error


def _quantization(outer: Mapping[str, Any], inner: Mapping[str, Any], source: str) -> CheckpointQuantization | None:
    found = outer.get("quantization_config") or inner.get("quantization_config") or outer.get("compression_config")
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method") or found.get("quant_algo") or "").lower()
    ignored = found.get("ignore") or found.get("modules_to_not_convert") or found.get("ignored_layers") or ()
    names = tuple(str(item) for item in ignored) if isinstance(ignored, list | tuple) else ()
    if method in {"compressed-tensors", "modelopt"}:
        return _grouped(found, method, names, source)
    if method == "bitsandbytes":
        four = bool(found.get("load_in_4bit") or found.get("_load_in_4bit"))
        kind = str(found.get("bnb_4bit_quant_type") or "nf4") if four else "int8"
        return CheckpointQuantization(f"bnb-{kind}", 4 if four else 8, None, names)
    bits = found.get("bits") or found.get("w_bit") or {"fp8": 8, "mxfp4": 4, "nvfp4": 4}.get(method)
    if not isinstance(bits, int | float) or not 1 <= bits <= 16:
        raise FormatError(f"{source}: the quantisation {method or '?'} does not say how many bits a weight has")
    group = found.get("group_size") or found.get("q_group_size")
    return CheckpointQuantization(method, bits, group if isinstance(group, int) and group > 0 else None, names)


def _grouped(found: Mapping[str, Any], method: str, ignored: tuple[str, ...], source: str) -> CheckpointQuantization:
    """compressed-tensors and modelopt keep bits per group of modules; the first weight scheme counts."""
    algorithm = str(found.get("quant_algo") or "").upper()
    if "MIXED" in algorithm:
        return CheckpointQuantization("mixed", 0, None, ignored)
    if "NVFP4" in algorithm or str(found.get("format")) == "nvfp4-pack-quantized":
        return CheckpointQuantization("nvfp4", 4, 16, ignored)
    if "FP8" in algorithm:
        return CheckpointQuantization("fp8", 8, None, ignored)
    groups = found.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else []
    for scheme in schemes:
        weights = scheme.get("weights") if isinstance(scheme, Mapping) else None
        if isinstance(weights, Mapping) and isinstance(weights.get("num_bits"), int):
            group = weights.get("group_size")
            kind = "fp8" if weights.get("type") == "float" and weights["num_bits"] == 8 else "gptq"
            return CheckpointQuantization(kind, weights["num_bits"], group if isinstance(group, int) else None, ignored)
    raise FormatError(f"{source}: the {method} quantisation names no weight scheme that is understood")
