"""Write a GGUF file's weights as a Hugging Face folder, for engines that read no GGUF.

``python tests/engines/hf_weights.py model.gguf folder`` needs torch, transformers, gguf and accelerate. The
weights are dequantised to bfloat16; tokenizer and chat template come from the same file.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from osport.formats.gguf import GgufHeader


def write_hf_folder(gguf: Path, folder: Path) -> None:
    """``folder`` appears only when it is complete."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # What was loaded from a GGUF file refuses to be saved, dequantised or not: so its weights move to a plain model.
    said = loaded.config.to_dict()
    said.pop("quantization_config", None)
    plain = type(loaded)(type(loaded.config).from_dict(said)).to(torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(part)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(part)
    licence = GgufHeader.read(gguf).metadata.get("general.license")
    if licence:
        (part / "README.md").write_text(f"---\nlicense: {licence}\n---\nDequantised from {gguf.name}.\n", "utf-8")
    part.rename(folder)


if __name__ == "__main__":
    write_hf_folder(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
