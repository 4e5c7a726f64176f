"""The child process of osport's vLLM backend that is also asked as its engine would be without osport.

One engine for both ways: two of them differ by more, from one start to the next, than what is to be measured.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from typing import Any

from direct_calls import conversation, gathered

from osport.backends import _vllm_child

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}
_numbers = itertools.count()


class Calls(_vllm_child.Calls):
    """``AsyncLLM`` as a careful caller would use it, with the same fields; the clock is in this process."""

    def take(self, message: dict[str, Any]) -> None:
        if message["do"] != "direct":
            super().take(message)
            return
        number = message["call"]
        self.running[number] = task = asyncio.get_running_loop().create_task(self.direct(**message))
        task.add_done_callback(lambda ended: self.ended(number, ended))

    def ended(self, number: int, task: asyncio.Task[None]) -> None:
        """Who asked waits for a last line, whatever happened."""
        self.running.pop(number, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.send(call=number, error="engine", message=repr(error))

    async def direct(self, call: int, do: str, questions: list[str], limit: int, kind: str) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(**GREEDY, max_tokens=limit, output_kind=RequestOutputKind[kind])

        async def pieces(question: str) -> AsyncIterator[tuple[bool, int]]:
            ids = self.tokenizer.apply_chat_template(
                conversation(question), add_generation_prompt=True, return_dict=False
            )
            name = f"{do}-{next(_numbers)}"
            async for output in self.engine.generate({"prompt_token_ids": ids}, params, name):
                [new] = output.outputs
                yield bool(new.text) and kind == "DELTA", len(new.token_ids)

        told = await gathered(pieces, questions)
        self.send(call=call, tokens=told.tokens, seconds=told.seconds, first=told.first)


if __name__ == "__main__":
    _vllm_child.Calls = Calls
    sys.exit(_vllm_child.main())
