"""The string formats of JSON Schema that osport verifies, each by a definition of its own.

jsonschema checks many formats only when further packages are installed and is silent otherwise;
here a format is checked, or it is unknown and refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import jsonschema

__all__ = ["BRACKETED", "CHECKER", "PATTERNS"]

TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[zZ]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
# The years 1 to 9999, those that are leap years, and the days of all years.
YEAR = r"(?:\d{3}[1-9]|\d\d[1-9]0|\d[1-9]00|[1-9]000)"
LEAP = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DAY = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
DATE = rf"(?:{YEAR}-{DAY}|{LEAP}-02-29)"
LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
HOST = rf"{LABEL}(?:\.{LABEL})*"
OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
HOURS = r"\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S"
DAYS = r"\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D"
PCHAR = r"(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
REST = rf"(?:\?(?:{PCHAR}|[/?])*)?(?:#(?:{PCHAR}|[/?])*)?"
NAME = r"(?:[a-zA-Z0-9._~!$&'()*+,;=-]|%[0-9a-fA-F]{2})*"
USER = r"(?:[a-zA-Z0-9._~!$&'()*+,;=:-]|%[0-9a-fA-F]{2})"
BRACKETED = r"\[[^\]]*\]|"
AUTHORITY = rf"//(?:{USER}*@)?(?P<host>{BRACKETED}{NAME})(?::\d*)?"
PATH = rf"/(?:{PCHAR}+(?:/{PCHAR}*)*)?|{PCHAR}+(?:/{PCHAR}*)*|"

PATTERNS = {
    # RFC 3339, sections 5.6 and appendix A
    "time": TIME,
    "date": DATE,
    "date-time": rf"{DATE}[tT]{TIME}",
    "duration": rf"P(?:(?:{DAYS})(?:T(?:{HOURS}))?|T(?:{HOURS})|\d+W)",
    # RFC 5321, section 4.1.2, without quoted local parts
    "email": rf"{ATOM}(?:\.{ATOM})*@(?:{HOST}|\[{OCTET}(?:\.{OCTET}){{3}}\])",
    # RFC 1123, section 2.1
    "hostname": rf"(?=.{{1,253}}\Z){HOST}",
    "ipv4": rf"{OCTET}(?:\.{OCTET}){{3}}",
    # RFC 4122, section 3
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    # RFC 3986, section 3
    "uri": rf"[a-zA-Z][a-zA-Z0-9+.-]*:(?:{AUTHORITY}(?:/{PCHAR}*)*|{PATH}){REST}",
}


def ipv6(text: str) -> bool:
    """RFC 4291, section 2.2, without a zone."""
    ipaddress.IPv6Address(text)
    return "%" not in text


def uri_host(text: str) -> bool:
    """A host in brackets is an IPv6 address."""
    found = re.match(rf"[^:]*:{AUTHORITY}", text)
    return found is None or not found["host"].startswith("[") or ipv6(found["host"][1:-1])


MORE: dict[str, Callable[[str], bool]] = {"uri": uri_host}

CHECKER = jsonschema.FormatChecker(formats=())
"""What ``format`` means to osport; values that are not strings pass, as the specification says."""


def _by(check: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or check(value)


def _matches(name: str) -> Callable[[str], bool]:
    shape = re.compile(PATTERNS[name], re.ASCII)
    more = MORE.get(name)
    return lambda text: shape.fullmatch(text) is not None and (more is None or more(text))


for _name in PATTERNS:
    CHECKER.checks(_name, raises=ValueError)(_by(_matches(_name)))
CHECKER.checks("ipv6", raises=ValueError)(_by(ipv6))
