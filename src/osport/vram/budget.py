"""``VramBudget``: the memory of one model on one runtime, as a ledger that can be judged against devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

from attrs import evolve, field, frozen

from osport.core.facts import ModelFacts
from osport.core.stage import Stage
from osport.errors import BudgetExceeded, UsageError
from osport.vram import load_model
from osport.vram.advice import Advice, advise
from osport.vram.architecture import Architecture
from osport.vram.decision_map import DecisionMap, decide
from osport.vram.devices import Device, DeviceLike, devices_of
from osport.vram.estimate import Estimate, total
from osport.vram.fit import Fit, Verdict, judge
from osport.vram.kv_cache import layer_memory
from osport.vram.ledger import HOST, LedgerRow, llama_cpp_ledger, overhead_rows, reference_device, vllm_ledger
from osport.vram.paged import PoolCapacity, pool_layout
from osport.vram.quality import Quality, quality_of
from osport.vram.quant_mix import named_quantization
from osport.vram.render import budget_html, ledger_text
from osport.vram.rough import rough_ledger
from osport.vram.settings import Settings, SettingsKeywords
from osport.vram.solve import best_quantization, largest_context, most_sequences
from osport.vram.speed import DecodeCeiling, bytes_per_token, decode_ceiling
from osport.vram.weights import Weights, weights_of_plan

__all__ = ["ExpertLedger", "VramBudget"]

_OVERHEAD = {"runtime context", "outside torch", "CUDA graphs"}
_COMPUTE = {"compute buffer", "staging", "activations"}


@frozen
class ExpertLedger:
    """A mixture of experts has two ledgers: what lies in memory, and what one token reads."""

    resident_parameters: int
    active_parameters: int
    bytes_resident: Estimate
    bytes_read_per_token: int


@frozen
class VramBudget(Stage):
    """What a model needs on a runtime, whether it fits, and what would make it fit.

    Make one with :meth:`from_gguf`, :meth:`from_hf`, :meth:`for_model` or :meth:`from_parameters`; all take the
    keywords of :class:`~osport.vram.settings.SettingsKeywords`. Sizes are in bytes; a term that cannot be
    computed is None, and ``missing`` says why. As a stage it stops ``Model(...)`` before anything is loaded.
    """

    architecture: Architecture
    weights_plan: Weights | None
    settings: Settings
    quantization: str | None = None
    origin: str = ""
    rough: bool = False
    device: tuple[Device, ...] | None = field(default=None, repr=False)

    @classmethod
    def from_gguf(cls, path: str | Path, **settings: Unpack[SettingsKeywords]) -> VramBudget:
        """From a GGUF file (all its shards), the beginning of one, or ``http(s)://``; weights are exact.

        Raises FormatError for a header that lies, StorageError when it cannot be read, UsageError for settings
        that cannot be.
        """
        return cls._made(*load_model.from_gguf(path), str(path), settings)

    @classmethod
    def from_hf(
        cls, path: str | Path, *, quantization: str | None = None, **settings: Unpack[SettingsKeywords]
    ) -> VramBudget:
        """From a ``config.json`` or its folder; weights are exact when the folder has safetensors headers.

        ``quantization`` overrides what the config says (default: the config's own, else ``bf16``). Raises like
        :meth:`from_gguf`.
        """
        settings.setdefault("runtime", "vllm")
        return cls._made(*load_model.from_hf(path, quantization), str(path), settings)

    @classmethod
    def for_model(cls, name: str, *, quantization: str, **settings: Unpack[SettingsKeywords]) -> VramBudget:
        """From the catalogue. Raises UsageError with the nearest names for an unknown model or quantisation."""
        return cls._made(*load_model.by_name(name, quantization), f"catalogue: {name}", settings)

    @classmethod
    def from_parameters(cls, parameters: float, *, bits: float, **settings: Unpack[SettingsKeywords]) -> VramBudget:
        """From a bare number of parameters: rough, marked so, with the spread of the catalogue's models of that size.

        Computed by the rules of llama.cpp, whatever the runtime.
        """
        made = cls._made(*load_model.from_parameters(parameters, bits), "parameters", settings)
        return evolve(made, rough=True)

    @classmethod
    def _made(
        cls, architecture: Architecture, weights: Weights | None, quantization: str | None, origin: str,
        settings: SettingsKeywords,
    ) -> VramBudget:  # fmt: skip
        made = cls(architecture, weights, Settings.of(settings), quantization, origin)
        made._check_context()
        return made

    def _check_context(self) -> None:
        trained, asked = self.architecture.context, self.settings.context
        shared = 1 if self.settings.runtime["per_sequence"] else self.settings.sequences
        if trained and asked and asked > math.ceil(trained * shared / 256) * 256 and not self.settings.rope_scaling:
            raise UsageError(
                f"context {asked} is beyond the {trained} tokens that {self.architecture.name} was trained for; "
                "pass rope_scaling=True when the positions are stretched (YaRN)"
            )

    def with_settings(self, **settings: Unpack[SettingsKeywords]) -> VramBudget:
        """The same model under other settings; those not named stay."""
        made = evolve(self, settings=self.settings.changed(settings))
        made._check_context()
        return made

    def with_quantization(self, name: str) -> VramBudget:
        """The same model at another quantisation, by name; weights become an interval."""
        plan = weights_of_plan(self.architecture, named_quantization(name))
        return evolve(self, weights_plan=plan, quantization=name)

    def on(self, device: DeviceLike) -> VramBudget:
        """The same budget, to be judged against these devices when it gates a model."""
        return evolve(self, device=devices_of(device))

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be computed; empty when the ledger is complete."""
        unknown = list(self.architecture.missing)
        if self.weights_plan is None:
            unknown.append("the weights: the checkpoint's own headers are needed for its mixed quantisation")
        if self.context is None:
            unknown.append("the context: none was given and the model does not say what it was trained for")
        return tuple(unknown)

    @property
    def context(self) -> int | None:
        """Tokens: what was asked for, else what the model was trained for."""
        return self.settings.context or self.architecture.context

    @property
    def parameters(self) -> int:
        """All parameters, every expert counted."""
        return self.architecture.parameters

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the stored weights over all parameters."""
        if self.weights_plan is None or not self.parameters:
            return None
        return self.weights_plan.file.likely * 8 / self.parameters

    @property
    def weights(self) -> Estimate | None:
        """Weights on the device: all but what the runtime keeps on the host."""
        return self._sum(lambda row: row.term == "weights")

    @property
    def file_weights(self) -> Estimate | None:
        """Weights as the file or checkpoint stores them."""
        return None if self.weights_plan is None else self.weights_plan.file

    @property
    def kv_cache(self) -> Estimate | None:
        """What grows with the context; with vLLM's pages the recurrent states are in it."""
        return None if self._cache_unknown else self._sum(lambda row: row.term.startswith("KV cache"))

    @property
    def state(self) -> Estimate | None:
        """Recurrent states of all sequences."""
        return None if self._cache_unknown else self._sum(lambda row: row.term == "recurrent state")

    @property
    def compute(self) -> Estimate | None:
        """Compute buffer or activations, with what is staged in it."""
        return None if self._cache_unknown else self._sum(lambda row: row.term in _COMPUTE)

    @property
    def overhead(self) -> Estimate:
        """Driver context and libraries; the margin is not in it."""
        return total(row.bytes for row in self.ledger() if row.term in _OVERHEAD)

    @property
    def total(self) -> Estimate | None:
        """Everything that is needed on the device, margin and pool reserve left out."""
        return None if self.missing else self._sum(lambda row: row.need)

    @property
    def experts(self) -> ExpertLedger | None:
        """The two ledgers of a mixture of experts; None for a dense model."""
        if not self.architecture.is_moe or self.weights_plan is None:
            return None
        read = bytes_per_token(self.architecture, self.weights_plan, 0)
        return ExpertLedger(self.parameters, self.architecture.active_parameters, self.weights_plan.file, read)

    @property
    def quality(self) -> Quality:
        """What the quantisation costs, with the figures behind it."""
        return quality_of(self.quantization, self.bits_per_weight, self.parameters)

    @property
    def _cache_unknown(self) -> bool:
        return (not self.architecture.layers and not self.rough) or self.context is None

    def _sum(self, wanted: Callable[[LedgerRow], bool]) -> Estimate | None:
        if self.weights_plan is None:
            return None
        return total(row.bytes for row in self.ledger() if row.device != HOST and wanted(row))

    def ledger(self, device: DeviceLike | None = None) -> tuple[LedgerRow, ...]:
        """Rows of device, term, bytes, rule and source; without a device, for one card without end."""
        devices = (reference_device(),) if device is None else devices_of(device)
        if self.weights_plan is None:
            return ()
        if self.rough and self.context:
            return rough_ledger(self.parameters, self.weights_plan, self.context, self.settings, devices[0])
        if self._cache_unknown:
            plan = self.weights_plan
            label = devices[0].name
            return (LedgerRow(label, "weights", plan.file, plan.rule, plan.source), *overhead_rows(label, devices[0]))
        make = vllm_ledger if self.settings.runtime.is_vllm else llama_cpp_ledger
        return tuple(make(self.architecture, self.weights_plan, self.context or 0, self.settings, devices))

    def fits(self, device: DeviceLike) -> Fit:
        """Judge against devices: ``"RTX 4090"``, ``["RTX 3090"] * 2``, ``"2xH100"``, ``"local"``, ``Device(...)``.

        Raises UsageError for an unknown device, or tensor parallelism that does not divide the heads.
        """
        devices = devices_of(device)
        if self.settings.runtime.is_vllm and devices[0].vendor == "apple":
            reason = "vLLM does not run on Apple GPUs; use llama.cpp"
            return Fit(
                Verdict.DOES_NOT_FIT, devices[0].name, "runtime", Estimate(0, 0, 0), devices[0].usable, (), reason
            )
        return judge(self.ledger(devices), devices, self.missing)

    def largest_context(self, device: DeviceLike, *, risk: bool = False) -> int:
        """Most tokens that fit, up to what the model was trained for; 0 when none do. ``risk`` ignores the margin."""
        return largest_context(self, devices_of(device), risk)

    def most_sequences(self, device: DeviceLike, *, risk: bool = False) -> int:
        """Most sequences of the present context each that fit; 0 when not one does."""
        return most_sequences(self, devices_of(device), risk)

    def best_quantization(self, device: DeviceLike, *, risk: bool = False) -> str | None:
        """The least lossy quantisation that fits; None when none does."""
        return best_quantization(self, devices_of(device), risk)

    def decode_ceiling(self, device: DeviceLike, *, host_bandwidth: float | None = None) -> DecodeCeiling:
        """Bound on tokens a second for one sequence whose context is full. Bandwidth in bytes per second.

        Raises UsageError when a bandwidth or a part of the model is not known.
        """
        if self.weights_plan is None or self._cache_unknown:
            raise UsageError(f"the bytes read per token are not known: {'; '.join(self.missing)}")
        cache = self._cache_of_one_sequence()
        read = bytes_per_token(self.architecture, self.weights_plan, cache)
        host = 0
        if self.settings.cpu_experts:
            host = self.weights_plan.routed.likely * self.architecture.experts_used // max(1, self.architecture.experts)
        devices = devices_of(device)
        if self.settings.runtime.is_vllm:
            read //= len(devices)
        return decode_ceiling(read - host, host, devices, host_bandwidth)

    def _cache_of_one_sequence(self) -> int:
        one, context = self.settings.changed({"sequences": 1}), self.context or 1
        if self.rough:
            rough = self.with_settings(sequences=1).kv_cache
            return rough.likely if rough is not None else 0
        if one.runtime.is_vllm:
            return pool_layout(self.architecture, context, one).needed(1)
        layers = [layer_memory(layer, self.architecture, context, one) for layer in self.architecture.layers]
        return sum(layer.kv + layer.state for layer in layers)

    def pool(self, size: float, *, ranks: int = 1) -> PoolCapacity:
        """What a vLLM pool of ``size`` bytes (as printed for one rank) holds. Raises UsageError otherwise."""
        if not self.settings.runtime.is_vllm or self._cache_unknown:
            raise UsageError("only vLLM manages a pool; pass runtime='vllm' and a context")
        return pool_layout(self.architecture, self.context or 1, self.settings, ranks).capacity(int(size))

    def advice(self, device: DeviceLike | None = None) -> list[Advice]:
        """What to do, and what to look out for; with a device, what would make it fit."""
        return advise(self, None if device is None else devices_of(device))

    @classmethod
    def decision_map(
        cls, models: Sequence[str], *, device: DeviceLike, quantizations: Sequence[str] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> DecisionMap:  # fmt: skip
        """Model by quantisation on one device: verdict, largest context, quality loss."""
        return decide(cls.for_model, models, devices_of(device), quantizations, settings)

    def gate(self, facts: ModelFacts) -> None:
        """Stop a model that does not fit the devices of :meth:`on` (default: this machine).

        Raises BudgetExceeded, or UsageError when the budget was made for another file.
        """
        path = facts.get("path")
        mine = Path(self.origin)
        if (
            path is not None
            and mine.suffix == ".gguf"
            and mine.exists()
            and Path(str(path)).resolve() != mine.resolve()
        ):
            raise UsageError(f"this budget was made for {mine}, the model is {path}; make one for that file")
        fit = judge(self.ledger(self.device), self.device, self.missing) if self.device else self.fits("local")
        if fit.verdict is Verdict.DOES_NOT_FIT:
            raise BudgetExceeded(
                f"{self.architecture.name} does not fit: {fit.reason}",
                needed=fit.needed.likely, available=fit.available,
            )  # fmt: skip

    def __str__(self) -> str:
        head = f"{self.architecture.name} {self.quantization or ''}".strip()
        known = self.total
        figure = f"needs {known}" if known is not None else f"unknown: {'; '.join(self.missing)}"
        mark = " (rough)" if self.rough else ""
        where = f"{self.settings.runtime.label}, context {self.context}"
        return f"{head} on {where}: {figure}{mark}\n{ledger_text(self.ledger())}"

    def _repr_html_(self) -> str:
        return budget_html(f"{self.architecture.name} {self.quantization or ''}", self.ledger(), self.missing)
