"""What a plan says of itself as a release: a counter against downgrade, and a last day.

Both stand in the provenance, so that the signature covers them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from planformat.errors import PlanError
from planformat.plan import Plan

NUMBER_KEY = "release"
EXPIRES_KEY = "expires"
MAX_NUMBER = (1 << 53) - 1
_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True)
class Release:
    """Statements of a plan.

    Attributes:
        number: counter that only rises, 0 when the plan states none.
        expires: last day of validity in UTC, `2027-01-31`, or empty.
    """

    number: int = 0
    expires: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.number <= MAX_NUMBER:
            raise PlanError(f"release number {self.number}; allowed are 0 to {MAX_NUMBER:,}")
        if self.expires and not _DAY.fullmatch(self.expires):
            raise PlanError(f"expiry '{self.expires}' is no day like 2027-01-31")


def release_of(plan: Plan) -> Release:
    """The statements in a plan. Raises PlanError when they cannot be read."""
    text = plan.provenance.get(NUMBER_KEY, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise PlanError(f"plan '{plan.name}': release is '{text[:40]}'; expected a whole number")
    return Release(int(text), plan.provenance.get(EXPIRES_KEY, ""))


def with_release(plan: Plan, release: Release) -> Plan:
    """The same plan with other statements; number 0 and an empty expiry remove them."""
    provenance = dict(plan.provenance)
    provenance.pop(NUMBER_KEY, None)
    provenance.pop(EXPIRES_KEY, None)
    if release.number:
        provenance[NUMBER_KEY] = str(release.number)
    if release.expires:
        provenance[EXPIRES_KEY] = release.expires
    return replace(plan, provenance=provenance)
