"""One model loaded through llama-cpp-python, driven token by token."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osport.constrained.masks import ModelMasks, TokenMask
from osport.constrained.vocabulary import llama_vocabulary
from osport.core.types import Constraint, Sampling
from osport.errors import BackendError, BadRequest, MissingDependency, ServerFault

__all__ = ["LlamaCppEngine", "import_llama_cpp"]

NAME = "llama_cpp"
# Penalties look back this many generated tokens; the samplers below are always off.
LAST_TOKENS = 64
PINNED: dict[str, Any] = {"typical_p": 1.0, "mirostat_mode": 0}
LOG_LINES = 200
TAIL_LINES = 8

_log: deque[str] = deque(maxlen=LOG_LINES)
_log_callback: Any = None
_loading = threading.Lock()


def import_llama_cpp() -> Any:
    """The package, with its log kept in memory instead of on the host's stderr."""
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingDependency("llama-cpp-python", "llama-cpp") from error
    global _log_callback
    if _log_callback is None:

        def keep(level: int, text: bytes, user_data: object) -> None:
            _log.append(text.decode("utf-8", "replace").rstrip())

        # The engine keeps only the address, so the callback must never be collected.
        _log_callback = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))
    return llama_cpp


def log_tail() -> str:
    """The last lines that llama.cpp logged in this process."""
    lines = [line for line in _log if line.strip(". ")][-TAIL_LINES:]
    return "\n".join(["last lines of the engine's log:", *(f"  {line}" for line in lines)]) if lines else ""


class MaskedLogits:
    """The logits processor of one constrained answer.

    An exception inside the engine's callback would be swallowed and the answer go on unconstrained.
    So nothing is raised here: the fault is kept, only the end is allowed, and the loop raises.
    """

    def __init__(self, mask: TokenMask, ends: list[int]) -> None:
        self.mask = mask
        self.calls = 0
        self.fault: BaseException | None = None
        self._ends = ends

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
        self._package = import_llama_cpp()
        # Made for the first constrained answer: it walks the whole vocabulary.
        self._masks: ModelMasks | None = None
        _log.clear()
        try:
            with _host_output_untouched(self._package):
                self._llama = self._package.Llama(
                    str(path),
                    n_ctx=context,
                    n_batch=min(context, 512),
                    n_threads=threads,
                    n_threads_batch=threads,
                    n_gpu_layers=gpu_layers,
                    last_n_tokens_size=LAST_TOKENS,
                    verbose=False,
                )
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"{NAME}: {path} does not load: {error}\n{log_tail()}".rstrip(), backend=NAME) from error
        self._vocabulary = self._package.llama_model_get_vocab(self._llama._model.model)
        self._piece = ctypes.create_string_buffer(256)

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a prompt: special tokens recognised, BOS where the model wants one and never twice."""
        tokens: list[int] = self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=True, special=True)
        begin = self._llama.token_bos()
        return tokens[1:] if tokens[:2] == [begin, begin] else tokens

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

    def masked(self, constraint: Constraint) -> MaskedLogits:
        """The processor for one answer under a constraint."""
        if self._masks is None:
            self._masks = ModelMasks(llama_vocabulary(self._llama))
        return MaskedLogits(self._masks.mask(constraint), list(self._masks.vocabulary.ends))

    def is_end(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return bool(self._package.llama_vocab_is_eog(self._vocabulary, token))

    def piece(self, token: int) -> bytes:
        """The bytes of one token; nothing for a special token."""
        size = self._package.llama_token_to_piece(self._vocabulary, token, self._piece, len(self._piece), 0, False)
        if size < 0:
            self._piece = ctypes.create_string_buffer(-size)
            return self.piece(token)
        return self._piece.raw[:size]

    def tokens(
        self, prompt: list[int], sampling: Sampling, *, masked: MaskedLogits | None, grammar: Any
    ) -> Iterator[int]:
        """Tokens without end. Every sampling parameter is given, none left to the package."""
        self._llama.set_seed(sampling.seed)
        processors = self._package.LogitsProcessorList([masked]) if masked is not None else None
        try:
            yield from self._llama.generate(
                prompt, **self.parameters(sampling), logits_processor=processors, grammar=grammar
            )
        except RuntimeError as error:
            self.forget()
            raise ServerFault(f"{NAME}: {error}\n{log_tail()}".rstrip(), backend=NAME) from error

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
