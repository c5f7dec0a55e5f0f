"""Which releases a board takes: none below its floor, none that has expired."""

from __future__ import annotations

from boards.errors import ReleaseRefusedError

_FIRST_DAY = "2026-01-01"  # a clock that says less was never set


def check_statements(name: str, number: int, expires: str, *, floor: int, today: str) -> None:
    """Compare what a release states with what a board takes; see `PlanStore.check_release`.

    Raises:
        ReleaseRefusedError: below the floor, or expired.
    """
    if number < floor:
        raise ReleaseRefusedError(
            f"'{name}': the plan is release {number}, this board takes {floor} and later; sign "
            f"it anew with: edgeplan sign PLAN --key KEY --release {floor} (or a higher number)"
        )
    if not expires:
        return
    if today < _FIRST_DAY:
        raise ReleaseRefusedError(
            f"'{name}': the plan is valid until {expires}, but the board's clock says {today}: "
            "set the clock"
        )
    if today > expires:
        raise ReleaseRefusedError(
            f"'{name}': the plan was valid until {expires}, the board's clock says {today}; "
            "sign it anew with: edgeplan sign PLAN --key KEY --expires YYYY-MM-DD"
        )
