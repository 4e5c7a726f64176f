"""Findings as a CycloneDX bill of materials, written by cyclonedx-python-lib."""

from __future__ import annotations

from collections.abc import Iterable

from osport.errors import MissingDependency
from osport.licenses.terms import licences
from osport.licenses.verdict import Verdict

__all__ = ["cyclonedx_json"]


def cyclonedx_json(verdicts: Iterable[Verdict]) -> str:
    """A CycloneDX 1.6 JSON document: one machine-learning model for each verdict, its licences, and the finding as
    properties under ``osport:``.

    Raises MissingDependency without cyclonedx-python-lib.
    """
    try:
        from cyclonedx.contrib.license.factories import LicenseFactory
        from cyclonedx.model import Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output import make_outputter
        from cyclonedx.schema import OutputFormat, SchemaVersion
    except ImportError as error:
        raise MissingDependency("cyclonedx-python-lib", "licenses") from error
    factory, bom = LicenseFactory(), Bom()
    for number, verdict in enumerate(verdicts):
        found = []
        for key in verdict.licences:
            terms = licences()[key]
            spdx = terms.ids.spdx[0] if terms.ids.spdx else None
            found.append(factory.make_with_id(spdx) if spdx else factory.make_with_name(f"{terms.title} ({key})"))
        said = [
            ("osport:license:outcome", str(verdict.outcome)),
            ("osport:license:facts-date", verdict.facts_date),
            ("osport:license:disclaimer", verdict.disclaimer),
            *(("osport:license:reason", str(reason)) for reason in verdict.deciding),
            *(("osport:license:obligation", str(obligation)) for obligation in verdict.obligations),
        ]
        bom.components.add(
            Component(
                name=verdict.subject,
                type=ComponentType.MACHINE_LEARNING_MODEL,
                bom_ref=f"model-{number}",
                licenses=found,
                properties=[Property(name=name, value=value) for name, value in said],
            )
        )
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
