"""One Hugging Face model in this process, driven through its own ``generate``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from osport.constrained.dialects import to_llguidance
from osport.constrained.thoughts import behind_thought
from osport.core.thought import Thought
from osport.core.types import Constraint, Sampling, TokenLogprob
from osport.errors import BackendError, MissingDependency, UsageError

__all__ = ["HfGenerator"]

NAME = "transformers"


class _Mask:
    """The logits processor of one constrained answer; what it raises ends ``generate``."""

    def __init__(self, text: str, tokenizer: Any, prompt: int) -> None:
        import llguidance.torch

        self._torch = llguidance.torch
        self._matcher = llguidance.LLMatcher(tokenizer, text, log_level=0)
        self._bits = llguidance.torch.allocate_token_bitmask(1, tokenizer.vocab_size)
        self._seen = prompt
        if self._matcher.is_error():
            raise UsageError(f"llguidance does not take the constraint: {self._matcher.get_error()}")

    def __call__(self, tokens: Any, scores: Any) -> Any:
        for token in tokens[0, self._seen :].tolist():
            self._matcher.consume_token(token)
        self._seen = tokens.shape[1]
        self._torch.fill_next_token_bitmask(self._matcher, self._bits, 0)
        if self._matcher.is_error():
            raise BackendError(f"the constraint failed midway: {self._matcher.get_error()}", backend=NAME)
        self._torch.apply_token_bitmask_inplace(scores, self._bits.to(scores.device))
        return scores


class _Watch:
    """Hears of each token, and says whether to stop; what it raises ends ``generate``."""

    def __init__(self, prompt: int, hear: Callable[[int], bool]) -> None:
        self._seen = prompt
        self._hear = hear

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        import torch

        stop = [self._hear(token) for token in tokens[0, self._seen :].tolist()]
        self._seen = tokens.shape[1]
        return torch.full((1,), any(stop), device=tokens.device, dtype=torch.bool)


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class HfGenerator:
    """The loaded model and its tokenizer. Not thread-safe."""

    def __init__(self, folder: Path, *, dtype: str, device: str | None) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingDependency("transformers with torch", "transformers") from error
        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        safe = {"local_files_only": True, "trust_remote_code": False}
        try:
            with _no_progress_bar():
                self._tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
                self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, **safe)
            self._model.to(self.device).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise BackendError(f"{NAME}: {folder} does not load: {error}", backend=NAME) from error
        said = self._model.generation_config.eos_token_id
        ends = said if isinstance(said, list) else [self._tokenizer.eos_token_id if said is None else said]
        self.ends = frozenset(ends)
        self._masks: Any = None

    def encoded(self, prompt: list[int] | str) -> list[int]:
        """Token ids; a text gets what the tokenizer puts before every prompt."""
        return prompt if isinstance(prompt, list) else list(self._tokenizer.encode(prompt))

    def decoded(self, tokens: list[int], *, keep_marks: bool) -> str:
        """The text of generated tokens."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not keep_marks))

    def generate(
        self,
        prompt: list[int],
        sampling: Sampling,
        limit: int,
        *,
        constraint: Constraint | None,
        thought: Thought | None,
        logprobs: int | None,
        hear: Callable[[int], bool],
    ) -> list[TokenLogprob] | None:
        """Generate until an end token, ``limit`` tokens, or until ``hear``, which gets each token, says True.

        ``thought``: what the constraint holds behind.
        Returns the log-probabilities of the model itself where they were asked for, with so many alternatives.
        """
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        given = self._torch.tensor([prompt], device=self.device)
        drawn = self.drawn(sampling)
        config = GenerationConfig(
            max_new_tokens=limit,
            **drawn,
            eos_token_id=sorted(self.ends),
            pad_token_id=min(self.ends),
            return_dict_in_generate=True,
            output_logits=logprobs is not None,
        )
        masks = [self._mask(constraint, thought, len(prompt))] if constraint is not None else []
        devices = [self.device] if self.device.startswith("cuda") else []
        with self._torch.random.fork_rng(devices), self._torch.inference_mode():
            self._torch.manual_seed(sampling.seed)
            output = self._model.generate(
                given,
                attention_mask=self._torch.ones_like(given),
                generation_config=config,
                logits_processor=LogitsProcessorList(masks),
                stopping_criteria=StoppingCriteriaList([_Watch(len(prompt), hear)]),
            )
            if logprobs is None:
                return None
            tokens = output.sequences[0, len(prompt) :].tolist()
            return [self._row(token, row[0], logprobs) for token, row in zip(tokens, output.logits, strict=True)]

    def score(self, prompt: list[int], continuation: str) -> list[TokenLogprob]:
        """Each token of the continuation after the prompt, by one forward pass."""
        tokens = list(self._tokenizer.encode(continuation, add_special_tokens=False))
        with self._torch.inference_mode():
            logits = self._model(self._torch.tensor([prompt + tokens], device=self.device)).logits[0]
            rows = logits[len(prompt) - 1 : -1] if tokens else []
            return [self._row(token, row, 0) for token, row in zip(tokens, rows, strict=True)]

    @staticmethod
    def drawn(sampling: Sampling) -> dict[str, Any]:
        """The parameters of drawing by the package's names; greedy search takes the penalty alone."""
        if not sampling.temperature:
            greedy = {"temperature": None, "top_p": None, "top_k": None, "min_p": None}
            return {"do_sample": False, **greedy, "repetition_penalty": float(sampling.repeat_penalty or 1)}
        return {
            "do_sample": True,
            "temperature": float(sampling.temperature),
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": float(sampling.repeat_penalty or 1),
        }

    def _mask(self, constraint: Constraint, thought: Thought | None, prompt: int) -> _Mask:
        if self._masks is None:
            try:
                from llguidance.hf import from_tokenizer
            except ImportError as error:
                raise MissingDependency("llguidance", "transformers") from error
            size = max(self._model.config.get_text_config().vocab_size, len(self._tokenizer))
            self._masks = from_tokenizer(self._tokenizer, size, eos_token=sorted(self.ends))
        text = to_llguidance(constraint)
        if thought is not None:
            # To llguidance the special ones, and all that look like a tag, are no text.
            added = self._tokenizer.added_tokens_decoder.items()
            text = behind_thought(text, thought, {token.content: at for at, token in added})
        return _Mask(text, self._masks, prompt)

    def _row(self, token: int, logits: Any, alternatives: int) -> TokenLogprob:
        row = self._torch.log_softmax(logits.float(), dim=-1)
        top = row.topk(min(alternatives, len(row)))
        likeliest: dict[str, float] = {}
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            likeliest.setdefault(self._tokenizer.decode([index]), value)
        return TokenLogprob(self._tokenizer.decode([token]), float(row[token]), likeliest)
