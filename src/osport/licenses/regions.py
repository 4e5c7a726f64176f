"""Countries and groups of countries, as far as licences name them."""

from __future__ import annotations

from osport.errors import UsageError

__all__ = ["WORLD", "overlaps", "region"]

WORLD = "WORLD"


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Member states of the European Union (27, since 2020-02-01): https://european-union.europa.eu/principles-countries-history/eu-countries_en
_EU = _codes("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")
# Parts of member states with an ISO code of their own in which Union law applies (Article 355 TFEU; Åland).
_EU_OUTERMOST = _codes("GF GP MF MQ RE YT AX")
_GROUPS = {"EU": _EU | _EU_OUTERMOST, "EEA": _EU | _EU_OUTERMOST | {"IS", "LI", "NO"}}
_NAMES = {
    "UK": "GB",
    "EL": "GR",
    "UNITED KINGDOM": "GB",
    "GREAT BRITAIN": "GB",
    "EUROPEAN UNION": "EU",
    "EUROPE": WORLD,
    "SOUTH KOREA": "KR",
    "KOREA": "KR",
    "REPUBLIC OF KOREA": "KR",
    "USA": "US",
    "UNITED STATES": "US",
    "UNITED STATES OF AMERICA": "US",
    "GERMANY": "DE",
    "FRANCE": "FR",
    "CHINA": "CN",
    "JAPAN": "JP",
    "SWITZERLAND": "CH",
    "WORLDWIDE": WORLD,
    "GLOBAL": WORLD,
    "*": WORLD,
}
# ISO 3166-1 alpha-2.
_ISO = _codes(
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY "
    "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
    "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR "
    "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK "
    "ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
    "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF "
    "TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)


def region(name: str) -> str:
    """The canonical code: ISO 3166 alpha-2, ``EU``, ``EEA`` or ``WORLD``.

    Raises UsageError for a name that is none of them.

    >>> region("UK"), region("European Union"), region("de")
    ('GB', 'EU', 'DE')
    """
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{name!r} is no place: give a country by its two ISO letters, or EU, EEA or WORLD")
    upper = " ".join(name.upper().replace("_", " ").split())
    code = _NAMES.get(upper, upper)
    if code in _ISO or code in _GROUPS or code == WORLD:
        return code
    raise UsageError(f"{name!r} is no place that is known: give a country by its two ISO letters, or EU, EEA or WORLD")


def overlaps(place: str, excluded: str) -> bool:
    """Whether some of ``place`` lies in ``excluded``; both canonical codes.

    >>> overlaps("DE", "EU"), overlaps("EEA", "EU"), overlaps("CH", "EU"), overlaps("WORLD", "GB")
    (True, True, False, True)
    """
    if WORLD in (place, excluded):
        return True
    return bool(_GROUPS.get(place, {place}) & _GROUPS.get(excluded, {excluded}))
