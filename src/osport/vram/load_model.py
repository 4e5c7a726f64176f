"""From a path, a name or a number to an architecture and its weights."""

from __future__ import annotations

import re
from pathlib import Path

from osport.errors import FormatError, UsageError
from osport.formats.gguf import GgufHeader, GgufTensor
from osport.formats.hf_config import HfConfig
from osport.formats.remote import fetch_gguf
from osport.formats.safetensors import Checkpoint
from osport.vram.architecture import Architecture
from osport.vram.catalogue import named_architecture
from osport.vram.config_reader import architecture_of_config
from osport.vram.gguf_reader import architecture_of_gguf
from osport.vram.quant_mix import named_quantization
from osport.vram.weights import Weights, rough_weights, weights_of_checkpoint, weights_of_gguf, weights_of_plan

__all__ = ["by_name", "from_gguf", "from_hf", "from_parameters"]

_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
# general.file_type of a GGUF header.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4_MOE",
}  # fmt: skip


def from_gguf(path: str | Path) -> tuple[Architecture, Weights, str | None]:
    """A local file with its shards, the beginning of one, or a URL."""
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        header = fetch_gguf(path)
        tensors = list(header.tensors.values())
        _refuse_lone_shard(header, path)
    else:
        header = GgufHeader.read(path, partial=True)
        tensors = _all_shards(Path(path), header)
    source = f"header of {path}"
    architecture = architecture_of_gguf(header, tensors, source)
    file_type = header.metadata.get("general.file_type")
    kind = _FILE_TYPES.get(file_type) if isinstance(file_type, int) else None
    return architecture, weights_of_gguf(tensors, architecture, source), kind


def _all_shards(path: Path, header: GgufHeader) -> list[GgufTensor]:
    count = header.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return list(header.tensors.values())
    match = _SHARD.match(path.name)
    if match is None or int(match.group(3)) != count or count > 1000:
        raise FormatError(f"{path}: one of {count} shards, but its name is not <name>-00001-of-{count:05}.gguf")
    if int(match.group(2)) != 1:
        raise FormatError(f"{path}: give the first shard; it alone carries the metadata")
    tensors = list(header.tensors.values())
    for number in range(2, count + 1):
        shard = path.with_name(f"{match.group(1)}-{number:05}-of-{count:05}.gguf")
        if not shard.exists():
            raise FormatError(f"{path}: shard {shard.name} is missing")
        tensors += GgufHeader.read(shard, partial=True).tensors.values()
    return tensors


def _refuse_lone_shard(header: GgufHeader, url: str) -> None:
    count = header.metadata.get("split.count", 1)
    if isinstance(count, int) and count > 1:
        raise FormatError(f"{url}: one of {count} shards; download the headers and use the local files")


def from_hf(path: str | Path, quantization: str | None) -> tuple[Architecture, Weights | None, str | None]:
    """A config with, where they are there, the headers of its checkpoint."""
    config = HfConfig.read(path)
    architecture = architecture_of_config(config)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    own = config.quantization
    name = quantization or (own.method if own else "bf16")
    checkpoint = Checkpoint.of_folder(folder) if quantization is None else None
    if checkpoint is not None:
        return architecture, weights_of_checkpoint(checkpoint, architecture, f"headers in {folder}"), name
    if architecture.missing or name == "mixed":
        return architecture, None, name
    if quantization is not None or own is None:
        return architecture, weights_of_plan(architecture, named_quantization(name)), name
    if own.bits in {3, 8} and own.method in {"gptq", "awq"}:
        name = f"gptq-{own.bits:g}"
    plan = named_quantization(name, group=own.group_size, ignored=own.ignored)
    return architecture, weights_of_plan(architecture, plan), name


def by_name(name: str, quantization: str) -> tuple[Architecture, Weights, str]:
    """A model of the catalogue at a quantisation."""
    architecture = named_architecture(name)
    plan = named_quantization(quantization)
    return architecture, weights_of_plan(architecture, plan), plan.name


def from_parameters(parameters: float, bits: float) -> tuple[Architecture, Weights, None]:
    """A bare number: nothing is known about the layers."""
    if not isinstance(parameters, int | float) or not 1e3 <= parameters <= 1e14:
        raise UsageError(f"parameters is a count such as 32e9, not {parameters!r}")
    if not isinstance(bits, int | float) or not 0.5 <= bits <= 32:
        raise UsageError(f"bits is a number from 0.5 to 32, not {bits!r}")
    count = int(parameters)
    architecture = Architecture(
        f"{parameters / 1e9:g}B parameters", "unknown", "the caller", 0, 0, 0, 0, 0, (), (), False, None,
        published_parameters=count,
    )  # fmt: skip
    return architecture, rough_weights(count, bits), None
