"""Bytes of tokens become text: whole characters, and no piece of a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osport.backends._token_text import TokenText


def run(pieces: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    text = TokenText(stops)
    shown: list[str] = []
    for piece in pieces:
        shown.append(text.push(piece))
        if text.stopped:
            break
    return [*shown, text.finish()], text.stopped


def test_a_character_is_shown_when_its_last_byte_came():
    assert run(["é".encode()[:1], "é".encode()[1:], b"!"]) == (["", "é", "!", ""], False)


def test_a_character_that_never_ends_is_replaced():
    assert run([b"a\xe6\x97"]) == (["a", "\ufffd"], False)


def test_what_may_become_a_stop_string_is_held_until_it_is_clear():
    assert run([b"one\n", b"two"], ("\n\n",)) == (["one", "\ntwo", ""], False)
    assert run([b"one\n", b"\ntwo"], ("\n\n",)) == (["one", "", ""], True)


def test_the_first_stop_string_in_the_text_counts():
    assert run([b"a STOP b END"], ("END", "STOP")) == (["a ", ""], True)


@pytest.mark.parametrize("end", [b"", b"\xe6"])
def test_nothing_follows_a_stop_string(end):
    assert run([b"aX" + end], ("X",)) == (["a", ""], True)


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.integers(1, 4))
def test_pieces_add_up_to_the_text_before_the_first_stop(text, stops, size):
    data = text.encode("utf-8", "surrogatepass")
    whole = data.decode("utf-8", "replace")
    shown, stopped = run([data[i : i + size] for i in range(0, len(data), size)], tuple(stops))
    cuts = [at for stop in stops if (at := whole.find(stop)) >= 0]
    assert stopped == bool(cuts)
    joined = "".join(shown)
    assert whole.startswith(joined)
    if not cuts:
        assert joined == whole
    else:
        assert not any(stop in joined for stop in stops)
