"""How a model is to be run: checked once, used by every term of the ledger."""

from __future__ import annotations

import difflib
from typing import TypedDict

from attrs import field, frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.runtimes import Runtime

__all__ = ["Settings", "SettingsKeywords", "kv_row_bytes"]

_MAX_TOKENS = 2**31


class SettingsKeywords(TypedDict, total=False):
    """Keywords that every constructor of ``VramBudget`` takes.

    ``context``: tokens, as the runtime's own flag means it (llama.cpp: shared by all sequences; vLLM and
    Ollama: for each). None: what the runtime allocates by itself. ``kv_type``: one type or (K, V).
    ``flash_attention``, ``swa_full``, ``unified``, ``latent_cache``: None is the runtime's default.
    ``cpu_experts``: routed experts stay in host memory. ``gpu_layers``: None is all.
    ``rollback_states``: extra recurrent states for speculative decoding. ``draft``/``projector``: bytes of
    a draft model's or a multimodal projector's file. ``utilization``: vLLM's share of the device.
    ``rope_scaling``: positions are stretched, so the context may pass what the model was trained for.
    """

    context: int | None
    sequences: int
    kv_type: str | tuple[str, str]
    runtime: str
    flash_attention: bool | None
    ubatch: int | None
    swa_full: bool | None
    unified: bool | None
    latent_cache: bool | None
    cpu_experts: bool
    gpu_layers: int | None
    rollback_states: int
    draft: int
    projector: int
    utilization: float | None
    batched_tokens: int | None
    state_type: str | None
    tensor_parallel: int | None
    rope_scaling: bool


@frozen
class Settings:
    """The keywords, checked, with the runtime's defaults filled in."""

    context: int | None
    sequences: int
    key_type: str
    value_type: str
    runtime: Runtime
    flash_attention: bool
    ubatch: int
    swa_full: bool
    unified: bool
    latent_cache: bool
    cpu_experts: bool
    gpu_layers: int | None
    rollback_states: int
    draft: int
    projector: int
    utilization: float
    batched_tokens: int
    state_type: str | None
    tensor_parallel: int | None
    rope_scaling: bool
    asked: SettingsKeywords = field(factory=lambda: SettingsKeywords(), eq=False, repr=False)

    @classmethod
    def of(cls, keywords: SettingsKeywords) -> Settings:
        """Check the keywords. Raises UsageError for what no runtime could do."""
        unknown = set(keywords) - set(SettingsKeywords.__annotations__)
        if unknown:
            name = sorted(unknown)[0]
            near = difflib.get_close_matches(name, SettingsKeywords.__annotations__, 1, 0.5)
            raise UsageError(f"unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        runtime = Runtime.named(keywords.get("runtime", "llama.cpp"))
        rules = runtime.rules
        kv = keywords.get("kv_type", "f16")
        key, value = (kv, kv) if isinstance(kv, str) else kv
        for name in (key, value):
            _check_kv(name, runtime)
        flash = keywords.get("flash_attention")
        flash = bool(rules.get("flash_attention", True)) if flash is None else flash
        if not runtime.is_vllm and not flash and _layout(value)[1] < 2 * _layout(value)[0]:
            raise UsageError(f"a V cache of {value} needs flash attention in {runtime.name}; K alone may be quantised")
        context = keywords.get("context")
        default = rules["context"]
        if context is None and isinstance(default, int):
            context = default
        use = keywords.get("utilization")
        batched = keywords.get("batched_tokens") or rules.get("batched_tokens", 2048)
        chosen = cls(
            context=None if context is None else _count("context", context),
            sequences=_count("sequences", keywords.get("sequences", 1), most=2**20),
            key_type=key,
            value_type=value,
            runtime=runtime,
            flash_attention=flash,
            ubatch=_count("ubatch", keywords.get("ubatch") or rules.get("ubatch", 512), most=2**20),
            swa_full=_either(keywords.get("swa_full"), bool(rules.get("swa_full", False))),
            unified=_either(keywords.get("unified"), bool(rules.get("unified", False))),
            latent_cache=_either(keywords.get("latent_cache"), bool(rules.get("latent", True))),
            cpu_experts=keywords.get("cpu_experts", False),
            gpu_layers=_optional("gpu_layers", keywords.get("gpu_layers")),
            rollback_states=_count("rollback_states", keywords.get("rollback_states", 0), least=0),
            draft=_count("draft", keywords.get("draft", 0), least=0, most=2**50),
            projector=_count("projector", keywords.get("projector", 0), least=0, most=2**50),
            utilization=float(rules.get("utilization", 1.0)) if use is None else float(use),
            batched_tokens=_count("batched_tokens", batched),
            state_type=keywords.get("state_type"),
            tensor_parallel=keywords.get("tensor_parallel"),
            rope_scaling=bool(keywords.get("rope_scaling", False)),
            asked=keywords,
        )
        if not 0 < chosen.utilization <= 1:
            raise UsageError(f"utilization is a share of the device between 0 and 1, not {chosen.utilization}")
        if chosen.state_type not in {None, "f32", "bf16", "f16"}:
            raise UsageError(f"state_type is f32, bf16 or f16, not {chosen.state_type!r}")
        if chosen.tensor_parallel is not None:
            _count("tensor_parallel", chosen.tensor_parallel, most=4096)
        return chosen

    def changed(self, keywords: SettingsKeywords) -> Settings:
        """These settings with some replaced; defaults follow a change of the runtime."""
        return Settings.of({**self.asked, **keywords})


def kv_row_bytes(name: str, width: int) -> int:
    """Bytes of one token's row of ``width`` elements in a cache of this type (ggml_row_size)."""
    weights, size = _layout(name)
    if width % weights:
        raise UsageError(f"a KV cache of {name} needs rows divisible by {weights}; this model's have {width}")
    return width // weights * size


def _layout(name: str) -> tuple[int, int]:
    row = load("quantization.toml")["kv"][name]
    if "layout" in row:
        _, weights, size = load("ggml_types.toml")["layouts"][row["layout"]]
        return weights, size
    return row.get("weights", 1), row.get("bytes", 1)


def _check_kv(name: str, runtime: Runtime) -> None:
    known = load("quantization.toml")["kv"]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 3, 0.4) or sorted(known)
        raise UsageError(f"unknown KV cache type {name!r}; nearest known: {', '.join(near)}")
    only = known[name].get("only")
    foreign = only is not None and only != runtime.name
    blocked = runtime.is_vllm and only is None and name not in {"f16", "bf16", "f32"}
    if foreign or blocked:
        raise UsageError(f"{runtime.name} has no KV cache of type {name}")


def _count(name: str, value: int, *, least: int = 1, most: int = _MAX_TOKENS) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} is a whole number from {least} to {most}, not {value!r}")
    return value


def _optional(name: str, value: int | None) -> int | None:
    return None if value is None else _count(name, value, least=0)


def _either(asked: bool | None, default: bool) -> bool:
    return default if asked is None else asked
