"""Two small templates of models that think, and weights that carry another template than their own."""

from __future__ import annotations

import struct
from pathlib import Path

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
# The prompt ends inside the reasoning, and nothing switches it off.
OPENED_BY_PROMPT = (
    TURNS + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# The model opens the reasoning, unless the prompt holds an empty one already.
OPENED_BY_MODEL = (
    TURNS + "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def with_template(model: Path, into: Path, template: str) -> Path:
    """The same weights with another chat template, padded so that the tensors stay aligned (to 32 bytes)."""
    content = model.read_bytes()
    key = b"tokenizer.chat_template"
    at = content.index(key) + len(key) + 4
    (length,) = struct.unpack_from("<Q", content, at)
    new = template.encode()
    padding = (length - len(new)) % 32 + 32
    new += b"{#" + b" " * (padding - 4) + b"#}"
    into.write_bytes(content[:at] + struct.pack("<Q", len(new)) + new + content[at + 8 + length :])
    return into
