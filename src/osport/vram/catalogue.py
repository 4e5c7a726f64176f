"""Architectures by model name."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from osport.data import load
from osport.errors import UsageError
from osport.formats.hf_config import HfConfig
from osport.vram.architecture import Architecture
from osport.vram.config_reader import architecture_of_config

__all__ = ["catalogue_names", "named_architecture"]

_SUFFIX = re.compile(
    r"[-_](?:instruct|it|chat|base|pt|thinking|reasoning|hf|gguf|awq|gptq|fp8|bf16|nvfp4|int4|qat|mtp|\d{2}-\d{4}|\d{4}|"
    r"v\d+(?:\.\d+)?)$",
    re.IGNORECASE,
)


def catalogue_names() -> list[str]:
    """Every model that :func:`named_architecture` knows by its first name."""
    return sorted(load("architectures.toml")["model"])


def named_architecture(name: str) -> Architecture:
    """``Qwen3-32B``, ``meta-llama/Llama-3.1-8B-Instruct``. Raises UsageError with the nearest names."""
    rows = load("architectures.toml")["model"]
    names = {_plain(alias): key for key, row in rows.items() for alias in (key, *row.get("aliases", ()))}
    if _plain(name) in names:
        return _architecture(names[_plain(name)])
    shorter = name.rsplit("/", 1)[-1]
    while True:
        if _plain(shorter) in names:
            return _architecture(names[_plain(shorter)])
        cut = _SUFFIX.sub("", shorter)
        if cut == shorter:
            break
        shorter = cut
    near = dict.fromkeys(names[key] for key in difflib.get_close_matches(_plain(shorter), names, 5, 0.5))
    hint = f"nearest known: {', '.join(near)}" if near else f"{len(rows)} models are known"
    raise UsageError(f"no model {name!r} in the catalogue; {hint}; else use from_gguf or from_hf")


@cache
def _architecture(name: str) -> Architecture:
    row: dict[str, Any] = load("architectures.toml")["model"][name]
    values = {key: value for key, value in row.items() if key not in {"aliases", "source", "layer_runs"}}
    runs = row.get("layer_runs")
    if runs:
        values["layer_types"] = [kind for kind, count in runs for _ in range(count)]
    return architecture_of_config(HfConfig.of(values, name=name, source=f"catalogue: {row['source']}"))


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-()]+", "", name).lower()
