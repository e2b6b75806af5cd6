"""The report of shadow mode as admins see it; `fairness.store.shadow` says what numbers mean."""

from __future__ import annotations

from typing import Any

from fairness.store.shadow import Shadow, ShadowReport
from router.admin.fields import moment

MOST_NAMED = 10


def client_view(report: ShadowReport, client: str) -> dict[str, float] | None:
    """Of one client; None where shadow mode never was."""
    if not report.since:
        return None
    shadow = report.clients.get(client, Shadow())
    return {
        "grants": shadow.grants,
        "went_ahead": shadow.went_ahead,
        "passed_over": shadow.passed_over,
        "service_ahead": shadow.service_ahead,
        "service_passed": shadow.service_passed,
    }


def summary(report: ShadowReport) -> dict[str, Any] | None:
    """Of all: the share of grants out of turn, and whom VTC would serve sooner and later, those it
    matters most to first; None where shadow mode never was."""
    if not report.since:
        return None
    grants = sum(shadow.grants for shadow in report.clients.values())
    out_of_turn = sum(shadow.went_ahead for shadow in report.clients.values())
    gains = sorted((shadow.gain, name) for name, shadow in report.clients.items())
    since = moment(report.since)
    return {
        "since": None if since is None else since.isoformat(),
        "grants": grants,
        "out_of_turn": out_of_turn,
        "share": out_of_turn / grants if grants else 0.0,
        "sooner": [_gain(name, gain) for gain, name in gains[: -MOST_NAMED - 1 : -1] if gain > 0],
        "later": [_gain(name, gain) for gain, name in gains[:MOST_NAMED] if gain < 0],
    }


def _gain(client: str, gain: float) -> dict[str, Any]:
    return {"client": client, "service": abs(gain)}
