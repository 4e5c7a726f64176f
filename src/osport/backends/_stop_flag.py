"""The end of a computation inside llama.cpp, wished for from another thread."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

__all__ = ["StopFlag", "Stopped"]


class Stopped(Exception):
    """The flag of the call was set: the call's own wish, no fault."""


class StopFlag:
    """Set from any thread, it ends the computation that the engine is in within milliseconds.

    The engine asks a C function after every node of its graph, some hundred times a token, and Python
    would be too slow for that. So the function is the C library's ``strlen`` and the flag a text in memory:
    empty is false, one character is true.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop."""
        self._text[0] = b"x"

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._text.value != b""

    def hand_to(self, package: Any, context: Any) -> None:
        """Make the engine look at this flag, and at no other."""
        function = ctypes.cast(_library().strlen, package.ggml_abort_callback)
        package.llama_set_abort_callback(context, function, ctypes.cast(self._text, ctypes.c_void_p))


@functools.cache
def _library() -> Any:
    """The C library, in whatever form this process has it."""
    return ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
