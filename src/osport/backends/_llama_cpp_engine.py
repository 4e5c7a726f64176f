"""One model loaded through llama-cpp-python, driven token by token."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osport.backends._llama_cpp_log import clear_log, keep_log, log_tail
from osport.backends._stop_flag import StopFlag, Stopped
from osport.constrained.masks import ModelMasks, TokenMask
from osport.constrained.vocabulary import llama_vocabulary
from osport.core.types import Sampling, TokenLogprob
from osport.errors import BackendError, BadRequest, MissingDependency, ServerFault, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LlamaCppEngine", "MaskedLogits"]

NAME = "llama_cpp"
# Penalties look back this many generated tokens; the samplers below are always off.
LAST_TOKENS = 64
PINNED: dict[str, Any] = {"typical_p": 1.0, "mirostat_mode": 0}
BATCH = 512
# Every token of a scored batch has a row of logits, 0.2 to 1 MB each.
SCORED_AT_ONCE = 64

_loading = threading.Lock()


class MaskedLogits:
    """The logits processor of one constrained answer.

    An exception inside the engine's callback would be swallowed and the answer go on unconstrained.
    So nothing is raised here: the fault is kept, only the end is allowed, and the loop raises.
    """

    def __init__(self, mask: TokenMask, ends: Sequence[int]) -> None:
        self.mask = mask
        self.calls = 0
        self.fault: BaseException | None = None
        self._ends = list(ends)

    def __call__(self, token_ids: Any, scores: Any) -> Any:
        self.calls += 1
        try:
            self.mask.apply(scores)
        except BaseException as fault:  # noqa: BLE001 - raised again by the loop, outside the callback
            self.fault = fault
            scores.fill(-float("inf"))
            scores[self._ends] = 0.0
        # The very row that came in: the package then copies nothing back.
        return scores

    def advance(self, token: int, produced: int, *, ended: bool) -> bool:
        """Take the sampled token; True when the answer is complete. Raises what went wrong in the callback."""
        if self.fault is not None:
            raise self.fault
        if self.calls != produced:
            raise BackendError(
                f"{NAME}: the mask was asked {self.calls} times for {produced} tokens; the answer is not constrained"
            )
        if ended:
            if not self.mask.is_accepting:
                raise BackendError(f"{NAME}: the engine ended the answer where the constraint does not allow it")
            return True
        self.mask.advance(token)
        return self.mask.is_stopped


class LlamaCppEngine:
    """The loaded model. Not thread-safe: whoever calls holds a turn and a step."""

    def __init__(self, path: Path, *, context: int, threads: int, gpu_layers: int) -> None:
        self._package = _import_llama_cpp()
        # Made for the first constrained answer: it walks the whole vocabulary.
        self._masks: ModelMasks | None = None
        clear_log()
        try:
            with _host_output_untouched(self._package):
                self._llama = self._package.Llama(
                    str(path),
                    n_ctx=context,
                    n_batch=min(context, BATCH),
                    n_threads=threads,
                    n_threads_batch=threads,
                    n_gpu_layers=gpu_layers,
                    last_n_tokens_size=LAST_TOKENS,
                    verbose=False,
                )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise BackendError(
                f"{NAME}: {path} does not load with context={context}: {error or type(error).__name__}. If memory is "
                f"short, give a smaller context or a smaller file\n{log_tail()}".rstrip(),
                backend=NAME,
            ) from error
        self._vocabulary = self._package.llama_model_get_vocab(self._llama._model.model)
        self._piece = ctypes.create_string_buffer(256)
        self._stop = StopFlag()

    def stop_flag(self) -> StopFlag:
        """The flag of the call that begins now."""
        self._stop = StopFlag()
        self._stop.hand_to(self._package, self._llama._ctx.ctx)
        return self._stop

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a prompt: special tokens recognised, BOS where the model wants one and never twice."""
        tokens: list[int] = self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=True, special=True)
        begin = self._llama.token_bos()
        return tokens[1:] if tokens[:2] == [begin, begin] else tokens

    def tokenize_behind(self, prompt: list[int], prompt_text: str, text: str) -> list[int]:
        """Tokens of a text that follows a prompt whose own tokens stay what they are."""
        whole = self.tokenize(prompt_text + text)
        if whole[: len(prompt)] == prompt:
            return whole[len(prompt) :]
        # Prompt and text share a token where they meet. The model has read the prompt's own tokens by then.
        alone: list[int] = self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=False)
        if b"".join(self.piece(token) for token in alone) == text.encode("utf-8", "replace"):
            return alone
        raise UsageError(
            f"{text!r} cannot be scored behind a prompt that ends in {prompt_text[-12:]!r}: the tokenizer joins the "
            "two; move the space between them from the prompt into the continuation, or the other way round"
        )

    def cached(self, prompt: list[int]) -> int:
        """How many tokens of the prompt need not be computed again."""
        known = self._llama.input_ids[: self._llama.n_tokens]
        same = int(self._package.Llama.longest_token_prefix(known.tolist(), prompt))
        # A prompt known to its end is computed again from its last token, unless nothing came behind it.
        return same if self._llama.n_tokens == len(prompt) else min(same, len(prompt) - 1)

    def forget(self) -> None:
        """Compute the next prompt from its beginning."""
        self._llama.reset()

    def grammar(self, gbnf: str) -> Any:
        """A GBNF grammar that is safe to generate with: handed over unparsed, a bad one ends the process."""
        sampler = self._package.llama_sampler_init_grammar(self._vocabulary, gbnf.encode(), b"root")
        if not sampler:
            raise BadRequest(f"{NAME}: the GBNF grammar does not parse, or has no rule named root", backend=NAME)
        self._package.llama_sampler_free(sampler)
        return self._package.LlamaGrammar.from_string(gbnf, verbose=False)

    @property
    def masks(self) -> ModelMasks:
        """The masks over this model's vocabulary. They may be made without a step, and outlive the model."""
        if self._masks is None:
            self._masks = ModelMasks(llama_vocabulary(self._llama))
        return self._masks

    def is_end(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return bool(self._package.llama_vocab_is_eog(self._vocabulary, token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; of a special token nothing, or with ``special`` its name."""
        size = self._package.llama_token_to_piece(self._vocabulary, token, self._piece, len(self._piece), 0, special)
        if size < 0:
            self._piece = ctypes.create_string_buffer(-size)
            return self.piece(token, special=special)
        return self._piece.raw[:size]

    def tokens(
        self, prompt: list[int], sampling: Sampling, *, masked: MaskedLogits | None, grammar: Any
    ) -> Iterator[int]:
        """Tokens without end. Every sampling parameter is given, none left to the package."""
        self._llama.set_seed(sampling.seed)
        processors = self._package.LogitsProcessorList([masked]) if masked is not None else None
        with self._faults():
            yield from self._llama.generate(
                prompt, **self.parameters(sampling), logits_processor=processors, grammar=grammar
            )

    def logprob(self, token: int, top: int) -> TokenLogprob:
        """How likely the model itself found the token that :meth:`tokens` gave last."""
        return self._told(token, self._log_softmax(-1), top)

    def score(self, prompt: list[int], continuations: Sequence[list[int]], top: int) -> Iterator[list[TokenLogprob]]:
        """The log-probabilities of each continuation's tokens behind the prompt, which is computed once."""
        with self._faults():
            behind_prompt = self._read(prompt)
            for continuation in continuations:
                row, told = behind_prompt, []
                # A recurrent model cannot go back to where the prompt ended.
                if not self._llama._ctx.kv_cache_seq_rm(-1, len(prompt), -1):
                    self._read(prompt)
                for start in range(0, len(continuation), SCORED_AT_ONCE):
                    part = continuation[start : start + SCORED_AT_ONCE]
                    rows = [row, *self._read_behind(len(prompt) + start, part)]
                    told += [self._told(token, at, top) for token, at in zip(part, rows, strict=False)]
                    row = rows[-1]
                yield told

    @staticmethod
    def parameters(sampling: Sampling) -> dict[str, Any]:
        """The sampling parameters by the package's names."""
        return {
            "temp": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repeat_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            **PINNED,
        }

    def close(self) -> None:
        """Free model and context. Nothing may be called afterwards."""
        self._llama.close()

    def _read(self, prompt: list[int]) -> NDArray[np.float32]:
        """Read the prompt, what is known of it left out; the log-probabilities of what may follow."""
        same = min(self.cached(prompt), len(prompt) - 1)
        if same and self._llama._ctx.kv_cache_seq_rm(-1, same, -1):
            self._llama.n_tokens = same
        else:
            self.forget()
        self._llama.eval(prompt[self._llama.n_tokens :])
        # What is read behind it overwrites the logits of its end: who continues the prompt must read that again.
        self._llama.n_tokens = len(prompt) - 1
        return self._log_softmax(-1)

    def _read_behind(self, place: int, tokens: list[int]) -> list[NDArray[np.float32]]:
        """Read tokens at this place; the log-probabilities behind each of them."""
        self._llama._batch.set_batch(batch=tokens, n_past=place, logits_all=True)
        self._llama._ctx.decode(self._llama._batch)
        return [self._log_softmax(at) for at in range(len(tokens))]

    def _log_softmax(self, place: int) -> NDArray[np.float32]:
        """Natural log-probabilities at one place of the batch that was read last (-1: its end)."""
        import numpy as np

        logits = self._package.llama_get_logits_ith(self._llama._ctx.ctx, place)
        row = np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),))
        shifted: NDArray[np.float32] = row - row.max()
        shifted -= np.log(np.exp(shifted).sum(dtype=np.float64))
        return shifted

    def _told(self, token: int, row: NDArray[np.float32], top: int) -> TokenLogprob:
        import numpy as np

        top = min(top, len(row))
        likeliest = np.argpartition(row, -top)[-top:].tolist() if top else []
        alternatives: dict[str, float] = {}
        for other in sorted(likeliest, key=lambda other: (-row[other], other)):
            alternatives.setdefault(self._name(other), float(row[other]))
        return TokenLogprob(self._name(token), float(row[token]), alternatives)

    def _name(self, token: int) -> str:
        """The text of a token; bytes that are no character by themselves as escapes, for they must stay apart."""
        return self.piece(token, special=True).decode("utf-8", "backslashreplace")

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if self._stop.is_set:
                # What was read before stays known, but for the last token: its logits may be spoilt.
                self._llama.n_tokens = max(0, self._llama.n_tokens - 1)
                raise Stopped from None
            self.forget()
            raise ServerFault(f"{NAME}: {error}\n{log_tail()}".rstrip(), backend=NAME) from error


def _import_llama_cpp() -> Any:
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingDependency("llama-cpp-python", "llama-cpp") from error
    keep_log(llama_cpp)
    return llama_cpp


@contextlib.contextmanager
def _host_output_untouched(package: Any) -> Iterator[None]:
    """Load without the package's way of keeping quiet: it points the file descriptors 1 and 2 of the
    whole process at the null device, which swallows what other threads print in the meantime."""
    with _loading:
        modules = (package.llama, package._internals)
        originals = [module.suppress_stdout_stderr for module in modules]
        for module in modules:
            module.suppress_stdout_stderr = _nothing_suppressed
        try:
            yield
        finally:
            for module, original in zip(modules, originals, strict=True):
                module.suppress_stdout_stderr = original


def _nothing_suppressed(disable: bool = True) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()
