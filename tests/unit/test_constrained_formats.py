"""Each format by values on both sides of its border."""

import json

import pytest

from osport import ConstrainedOutput
from osport.constrained.formats import CHECKER
from osport.errors import ConstraintViolated

BORDERS = {
    "date": (
        ["2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01"],
        [
            "2023-02-29",
            "1900-02-29",
            "0000-01-01",
            "2024-04-31",
            "2024-13-01",
            "2024-1-1",
            "2024-01-01\n",
            "٢٠٢٤-01-01",
        ],
    ),
    "time": (["23:59:60Z", "00:00:00.5+01:30"], ["24:00:00Z", "12:00:00", "12:00Z"]),
    "date-time": (
        ["2024-02-29T12:00:00Z", "2024-01-01t00:00:00-23:59"],
        ["2023-02-29T12:00:00Z", "2024-01-01 00:00:00Z"],
    ),
    "duration": (["P1Y2M3D", "PT1H", "P4W", "P1DT12H"], ["P", "PT", "1D", "P1W2D", "P1.5D"]),
    "email": (
        ["a.b+c@example.org", "x@[127.0.0.1]"],
        ["a", "a@", "a..b@example.org", "a@-x.org", "a b@c.de", "a@" + "b" * 64],
    ),
    "hostname": (["a", "www.example.org", "xn--a.b"], ["", "-a", "a-.b", "a_b", "x" * 64, ".".join(["x" * 50] * 6)]),
    "ipv4": (["0.0.0.0", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (["::", "::1", "2001:db8::ff00:42:8329"], ["1::2::3", "::g", "fe80::1%eth0", "1.2.3.4"]),
    "uuid": (
        ["123e4567-e89b-12d3-a456-426614174000"],
        ["123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"],
    ),
    "uri": (
        ["https://a@example.org:80/x?y#z", "urn:isbn:1", "http://[::1]/"],
        ["/x", "http://a b", "http://[1::2::3]/", "http://[v1.x]/", "x"],
    ),
}


def test_every_format_that_osport_knows_has_its_border_here():
    assert set(BORDERS) == set(CHECKER.checkers)


@pytest.mark.parametrize("beside", [{}, {"pattern": "[^x]|x"}, {"minLength": 1, "maxLength": 400}])
@pytest.mark.parametrize("name", sorted(BORDERS))
def test_the_mask_keeps_to_the_border_of_a_format(name, beside):
    matcher = ConstrainedOutput.json_schema({"type": "string", "format": name, **beside}).matcher()
    inside, outside = BORDERS[name]
    for text in inside:
        assert matcher.accepts(json.dumps(text)), text
    for text in outside:
        assert not matcher.accepts(json.dumps(text)), text


@pytest.mark.parametrize("name", sorted(BORDERS))
def test_the_border_of_a_format(name):
    output = ConstrainedOutput.json_schema({"format": name})
    inside, outside = BORDERS[name]
    for text in inside:
        assert CHECKER.conforms(text, name), text
    for text in outside:
        assert not CHECKER.conforms(text, name), text
    with pytest.raises(ConstraintViolated) as caught:
        output.verify('"?"')
    assert caught.value.keyword == "format"
    assert output.verify("7") == 7, "a format says nothing about values that are not strings"
