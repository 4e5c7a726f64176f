"""Licence texts: word for word, nearly, by heading, and not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from osport.errors import FormatError
from osport.licenses import LicensePolicy, Outcome, Use, licences
from osport.licenses.text import digest, identify_text, passages, words_of

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
POLICY = LicensePolicy(Use(commercial=True, outputs="use", serving="product", monthly_active_users=10.0, seat="US"))


@pytest.fixture(scope="module")
def apache_text():
    """The licence of osport itself."""
    return (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        MIT,
        "MIT License\n\nCopyright (c) 2026 Acme Ltd\n\n" + MIT,
        "The MIT License (MIT)\r\n\r\nCopyright © 2026 Acme\r\n\r\n" + MIT.replace("\n", "\r\n"),
        " ".join(MIT.split()),
        MIT.replace('"', "”").lower(),
        "\ufeff" + MIT,
    ],
)
def test_the_same_words_in_another_dress(text):
    match = identify_text(text)
    assert (match.how, match.licences) == ("exact", ("mit",))
    assert POLICY.check(text=text.encode()).outcome is Outcome.ALLOWED


def test_apache_with_and_without_its_appendix(apache_text):
    assert identify_text(apache_text).licences == ("apache-2.0",)
    short = apache_text[: apache_text.index("APPENDIX")]
    assert (identify_text(short).how, identify_text(short).licences) == ("exact", ("apache-2.0",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MIT + "\nNo military use.", "No military use"),
        (MIT + "\nOur only change: display the name when you earn above 20 million US dollars a month.", "20 million"),
        (MIT.replace("without restriction", "without commercial restriction"), "passages are not there"),
        ("Copyright (c) 2026 Acme. Commercial use is not permitted.\n\n" + MIT, "not permitted"),
    ],
)
def test_nearly_a_known_text_is_not_that_text(text, says):
    verdict = POLICY.check(text=text)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.licences == ()
    assert "nearly, but not quite, MIT License" in verdict.deciding[0].text
    assert says in verdict.deciding[0].text


def test_apache_with_a_section_on_revenue_is_not_apache(apache_text):
    changed = apache_text.replace(
        "END OF TERMS", "10. You may not use it commercially above US$10,000,000.\n\nEND OF TERMS"
    )
    verdict = POLICY.check(text=changed, license="apache-2.0")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "10,000,000" in verdict.deciding[0].text


def test_a_text_that_nobody_has_read_in_full_is_known_by_its_heading():
    text = "Mistral AI Non-Production License\n\nTerms that the facts hold no copy of, at some length.\n"
    verdict = POLICY.check(text=text)
    assert verdict.licences == ("mistral-non-production",)
    assert verdict.outcome is Outcome.NEEDS_GRANT
    assert verdict.evidence[0].verified == "unverified"


def test_the_heading_of_a_known_text_above_another_body():
    verdict = POLICY.check(text="LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n\nDo as you please.\n")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "body" in verdict.deciding[0].text


def test_another_version_of_a_known_heading_is_unknown():
    assert POLICY.check(text="LLAMA 9 COMMUNITY LICENSE AGREEMENT\n\nTerms to come.\n").outcome is Outcome.UNKNOWN


def test_a_text_of_another_kind():
    verdict = POLICY.check(text="You may look at this model, but not touch it.")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "like none" in verdict.deciding[0].text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  \n\t ", "empty"),
        (b"", "empty"),
        (b"\x7fELF\0\0\0\1" * 30, "binary"),
        ("\x01\x02\x03" * 99, "binary"),
        ("x" * 5_000_000, "no licence text"),
    ],
)
def test_texts_that_are_none(text, says):
    with pytest.raises(FormatError, match=says):
        POLICY.check(text=text)


def test_every_passage_of_every_text_counts():
    for terms in licences().values():
        for text in terms.texts:
            assert len(text.whole) == 10
            assert len(text.passages) >= 4, terms.key
            assert all(len(passage) == 10 for passage in text.passages)


def test_no_two_licences_share_a_text():
    wholes = [text.whole for terms in licences().values() for text in terms.texts]
    assert len(wholes) == len(set(wholes))


def test_passages_and_words():
    assert passages("1. Be kind.\n\n(a) Be brief: be gone") == ["be kind", "a be brief", "be gone"]
    assert words_of("MIT License\n\nCopyright (c) 2026 Acme\nDo it.", ["MIT License"]) == "do it"
    assert digest("do it") == digest("do it") != digest("do it not")
