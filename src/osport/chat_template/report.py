"""What an audit found, for people, for programs, and for code scanners."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from attrs import asdict, frozen

__all__ = ["Audit", "Finding", "Severity"]

Severity = Literal["error", "warning", "note"]


@frozen
class Finding:
    """One thing that an audit noticed.

    ``rule``: its name. ``place``: the part of the request or of the template. ``fix``: what would help.
    """

    severity: Severity
    rule: str
    place: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.severity} {self.rule} at {self.place}: {self.message}" + (f" ({self.fix})" if self.fix else "")


@frozen
class Audit:
    """The findings of one audit, for the template with this ``hash``."""

    source: str
    hash: str
    family: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is lost or broken: this prompt must not be sent as it is."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may cost quality."""
        return self._of("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What happens on purpose, or only in another engine."""
        return self._of("note")

    @property
    def fixes(self) -> tuple[str, ...]:
        """What would help, each once."""
        return tuple(dict.fromkeys(finding.fix for finding in self.findings if finding.fix))

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def __str__(self) -> str:
        head = f"{self.source}: {self.family or 'a family that osport does not know'}, template {self.hash[:12]}"
        tally = ", ".join(f"{len(self._of(s))} {s}s" for s in ("error", "warning", "note"))
        return "\n".join([head, *(f"  {finding}" for finding in self.findings), f"  {tally}"])

    def to_json(self) -> str:
        """The audit as a JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_sarif(self, version: str = "") -> str:
        """The audit in SARIF 2.1.0, the format that code scanners exchange."""
        return json.dumps(sarif([self], version), ensure_ascii=False, indent=2)


def sarif(audits: Iterable[Audit], version: str) -> dict[str, Any]:
    """Several audits as one SARIF 2.1.0 log."""
    results, rules = [], {}
    for audit in audits:
        for finding in audit.findings:
            rules[finding.rule] = {"id": finding.rule}
            results.append(
                {
                    "ruleId": finding.rule,
                    "level": finding.severity,
                    "message": {"text": f"{finding.place}: {finding.message}"},
                    "locations": [
                        {
                            "physicalLocation": {"artifactLocation": {"uri": audit.source}},
                            "logicalLocations": [{"fullyQualifiedName": finding.place}],
                        }
                    ],
                    "partialFingerprints": {"template": audit.hash},
                }
            )
    driver = {"name": "osport", "version": version, "rules": list(rules.values())}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
