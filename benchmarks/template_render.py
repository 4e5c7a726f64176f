"""Warm renders through ChatTemplate against transformers' own function: python benchmarks/template_render.py FOLDER

Prints the ratio of their times over every ``*.jinja`` file below FOLDER, and checks on the way that both give the
same bytes. Both are timed in turns in one run, a few renders at a time, by the time of the processor, and the least
of each counts: whatever else the machine does only adds. A ratio above the bar is measured once more, with more
turns. FOLDER defaults to ``OSPORT_CORPUS/templates``; without either, three templates written here are measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from osport.chat_template import ChatTemplate, Conversation
from osport.core.types import Message
from osport.errors import TemplateError

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
ROUNDS, REPEATS = 15, 10
BAR = 1.3

OWN = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "pieces": "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}",
    "joined": "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ m.content %}{% endfor %}"
    "{{ ns.t }}",
}

SHORT = (
    Message.system("You sort reviews."),
    Message.user("Too slow."),
    Message.assistant("neg"),
    Message.user("Lovely service, and the food was fine."),
)
LONG = (SHORT[0], *(SHORT[1:3] * 24), SHORT[3])


def templates(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return OWN
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.jinja"))}


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(REPEATS):
        call()
    return (time.process_time() - start) / REPEATS


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return min(mine for mine, _ in pairs) / min(own for _, own in pairs)


def main() -> None:
    corpus = os.environ.get("OSPORT_CORPUS")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(corpus) / "templates" if corpus else None
    for title, messages in (("4 messages", SHORT), ("50 messages", LONG)):
        wire = [{"role": m.role, "content": m.content} for m in messages]
        ratios: dict[str, float] = {}
        refused = different = 0
        for name, source in templates(folder).items():
            template, conversation = ChatTemplate.from_text(source, tokens=TOKENS), Conversation(messages)
            try:
                ours = template.render(conversation).text
            except TemplateError:
                refused += 1
                continue

            def theirs(source: str = source, wire: list[dict[str, str]] = wire) -> str:
                texts, _ = render_jinja_template([wire], chat_template=source, add_generation_prompt=True, **TOKENS)
                return texts[0]

            if theirs() != ours and "strftime_now" not in source:
                different += 1
                print(f"  different bytes: {name}")

            def mine(template: ChatTemplate = template, conversation: Conversation = conversation) -> str:
                return template.render(conversation).text

            ratios[name] = ratio(mine, theirs, ROUNDS)
            if ratios[name] > BAR:
                ratios[name] = ratio(mine, theirs, 4 * ROUNDS)
        ordered = sorted(ratios.values())
        worst = sorted(ratios, key=lambda name: -ratios[name])[:8]
        print(
            f"{title}: ratio median {statistics.median(ordered):.2f}, "
            f"worst {ordered[-1]:.2f}, at most {BAR} for {sum(r <= BAR for r in ordered) / len(ordered):.1%} "
            f"of {len(ordered)}; {refused} refuse, {different} differ"
        )
        print("  slowest: " + ", ".join(f"{name} {ratios[name]:.2f}" for name in worst))


if __name__ == "__main__":
    main()
