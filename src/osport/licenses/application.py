"""Fields of application, and the words by which people name them."""

from __future__ import annotations

import re

__all__ = ["HARMLESS", "categories"]

_WORDS = {
    "military": "militar|warfare|army|navy|air ?force|defen[cs]e|combat|nuclear|espionage|battlefield|munition",
    "weapons": "weapon|firearm|explosive|munition|missile|drone strike",
    "critical_infrastructure": "critical infrastructure|power grid|energy grid|water supply|air traffic|"
    "traffic control|transportation technolog|heavy machinery",
    "medical": "medic|clinic|health|diagnos|patient|therap|pharma|hospital",
    "legal": "legal|lawyer|attorney|law firm|litigation",
    "financial": "financ|invest(ing|ment|or)|trading|banking|tax advice",
    "law_enforcement": "law enforcement|police|policing|justice|migration|immigration|asylum|"
    "border (control|guard|patrol)|courts?\\b|parole",
    "automated_decisions": "automated decision|credit scor|scoring of people|hiring|recruit|employment|insurance|"
    "lending|loan|welfare|benefit eligib|admission",
    "surveillance": "surveil|tracking of people|wiretap|monitoring of people",
    "biometrics": "biometric|face recognition|facial recognition|emotion recognition",
    "malware": "malware|ransomware|exploits?\\b|phishing|hacking",
    "adult": "adult content|porn|sexual|nsfw|erotic",
    "minors": "child exploit|grooming|harm(ing)? (minors|children)",
    "discrimination": "discriminat|hate speech|harass",
    "personal_data": "personal data|doxx|scrap(e|ing) of people|personally identif|\\bpii\\b",
    "undisclosed_ai": "impersonat|undisclosed|pass(ed)? off as human|fake review|disinformation|astroturf|deepfake",
    "illegal": "illegal|unlawful|crim(e|inal)|fraud|terror|drugs? (deal|traffick)|scam|spam",
    "ai_work_assistant": "coding|code assist|programming|developer tool|copilot|software engineer|"
    "office (work|suite|assist|productivity)|productivity|"
    "work assistant|ide plugin|code complet|code review",
    "research": "research|scientific|academic",
    "evaluation": "evaluat|benchmark|testing",
    "education": "educat|teaching|school|classroom|university|course",
}
_PATTERNS = {name: re.compile(rf"\b(?:{words})", re.IGNORECASE) for name, words in _WORDS.items()}
HARMLESS = frozenset({"ai_work_assistant", "research", "evaluation", "education"})


def categories(application: str) -> frozenset[str]:
    """The known fields that the words of an application name; empty when none is recognised.

    >>> sorted(categories("military logistics")), categories("recipe search")
    (['military'], frozenset())
    """
    plain = application.replace("_", " ").replace("-", " ")
    exact = {application} & set(_WORDS)
    return frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(plain)) | exact
