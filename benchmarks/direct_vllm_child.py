"""The child process of osport's vLLM backend that is also asked as its engine would be without osport.

One engine for both ways: two of them differ by more, from one start to the next, than what is to be measured.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

from direct_calls import conversation, gathered

from osport.backends import _vllm_child

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}
_numbers = itertools.count()


class Calls(_vllm_child.Calls):
    """``AsyncLLM`` as a careful caller would use it, with the same fields; the clock is in this process."""

    def take(self, message: dict[str, Any]) -> None:
        if message["do"] == "direct":
            self.running[message["call"]] = _vllm_child.asyncio.ensure_future(self.direct(**message))
        else:
            super().take(message)

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
    _vllm_child.sys.exit(_vllm_child.main())
