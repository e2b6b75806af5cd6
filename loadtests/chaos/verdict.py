"""The bars, and whether a scenario reached them; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from loadtests.chaos.charges import Audit
from loadtests.chaos.leaks import Leftovers
from loadtests.chaos.outcomes import Outcome, Outcomes, Refusals

FAIR_AGAIN_S = 30.0
# Of the rate before the fault: half of the machines are left, and have to notice first.
GOES_ON_SHARE = 0.25
# "About a second" of charges: the reports under way and the retry after them.
FORGOTTEN_S = 1.5


@dataclass(frozen=True, slots=True)
class Findings:
    """What one scenario showed. audit: of the queue's counters; usage: of the usage by the day.
    tokens_per_s: told to clients; may_forget: the store or a replica failed, and with it the last
    second of charges; refusals: None where requests may be served; goes_on: there must be answers
    during the fault, as many as what is left can give; answered_per_s: before it; healed: what
    died has been replaced."""

    outcomes: Outcomes
    leftovers: Leftovers
    fair_again_s: float | None
    audit: Audit
    usage: Audit
    tokens_per_s: float
    may_forget: bool
    answered_in_fault: int = 0
    answered_per_s: float = 0.0
    fault_s: float = 0.0
    refusals: Refusals | None = None
    goes_on: bool = False
    healed: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scenario's findings and the bars it missed; no findings when it could not be played."""

    name: str
    missed: tuple[str, ...]
    findings: Findings | None = None
    complaints: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every bar was reached."""
        return not self.missed


def judge(name: str, found: Findings) -> Verdict:
    """Hold a scenario's findings against the bars."""
    missed = []
    if lost := found.outcomes.of(Outcome.LOST):
        missed.append(f"{lost} requests were lost")
    if not found.outcomes.of(Outcome.ANSWERED):
        missed.append("nothing was answered")
    least = max(1.0, GOES_ON_SHARE * found.answered_per_s * found.fault_s)
    if found.goes_on and found.answered_in_fault < least:
        missed.append(
            f"{found.answered_in_fault} requests were answered during the fault, not {least:.0f}"
        )
    if not found.healed:
        missed.append("not all routers and replicas came back")
    if found.leftovers:
        missed.append(f"left behind: {found.leftovers}")
    if found.fair_again_s is None:
        missed.append("not fair again while the load lasted")
    elif found.fair_again_s > FAIR_AGAIN_S:
        missed.append(f"fair again only after {found.fair_again_s:.1f} s")
    forgotten = FORGOTTEN_S * found.tokens_per_s if found.may_forget else 0.0
    missed += _wrong("", found.audit, forgotten)
    missed += _wrong("usage: ", found.usage, forgotten)
    if found.refusals is not None:
        if found.refusals.wrong:
            missed.append(
                f"{found.refusals.wrong} requests without a store did not get a quick 503 with "
                "Retry-After"
            )
        if not found.refusals.refused:
            missed.append("nothing was refused while the store was away")
    return Verdict(name, tuple(missed), found, dict(found.outcomes.complaints.most_common(8)))


def _wrong(where: str, held: Audit, forgotten: float) -> list[str]:
    """The bars of one audit. forgotten: tokens that may be missing."""
    wrong = [f"{where}{held.excess} tokens were charged twice"] if held.excess else []
    if held.missing > forgotten:
        wrong.append(
            f"{where}{held.missing} tokens were never charged, {forgotten:.0f} may be forgotten"
        )
    return wrong


def table(verdicts: Sequence[Verdict]) -> Table:
    """Lay out the verdicts, a scenario a row."""
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="faults under load")
    result.add_column("scenario", no_wrap=True)
    for heading in (
        "requests", "answered", "refused", "cut", "left", "lost", "leaks", "fair again", "twice",
        "missing",
    ):  # fmt: skip
        result.add_column(heading, justify="right", no_wrap=True)
    result.add_column("", no_wrap=True)
    for verdict in verdicts:
        word = "[green]ok[/]" if verdict.passed else "[red]MISSED[/]"
        found = verdict.findings
        if found is None:
            result.add_row(verdict.name, *["-"] * 10, word)
            continue
        fair = "never" if found.fair_again_s is None else f"{found.fair_again_s:.1f} s"
        missing = max(found.audit.missing, found.usage.missing)
        kinds = (Outcome.ANSWERED, Outcome.REFUSED, Outcome.CUT, Outcome.LEFT, Outcome.LOST)
        result.add_row(
            verdict.name,
            str(found.outcomes.requests),
            *(str(found.outcomes.of(kind)) for kind in kinds),
            str(found.leftovers.count),
            fair,
            str(max(found.audit.excess, found.usage.excess)),
            f"{missing / found.tokens_per_s:.2f} s" if found.tokens_per_s else "-",
            word,
        )
    return result


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return every number by scenario."""
    return {verdict.name: _numbers(verdict) for verdict in verdicts}


def _numbers(verdict: Verdict) -> dict[str, Any]:
    numbers: dict[str, Any] = {"passed": verdict.passed, "missed": list(verdict.missed)}
    found = verdict.findings
    if found is None:
        return numbers
    numbers |= {"requests": found.outcomes.requests}
    numbers |= {kind.value: found.outcomes.of(kind) for kind in Outcome}
    numbers |= {
        "answered_in_fault": found.answered_in_fault,
        "answered_per_s": round(found.answered_per_s, 1),
        "fault_s": round(found.fault_s, 1),
        "leaks": found.leftovers.count,
        "left_behind": str(found.leftovers),
        "fair_again_s": found.fair_again_s,
        "accounts": _accounts(found.audit),
        "charged_twice": found.audit.excess,
        "not_charged": found.audit.missing,
        "usage": {
            "accounts": _accounts(found.usage),
            "charged_twice": found.usage.excess,
            "not_charged": found.usage.missing,
        },
        "tokens_per_s": round(found.tokens_per_s, 1),
        "complaints": dict(verdict.complaints),
    }
    if found.refusals is not None:
        numbers |= {
            "refused_without_store": found.refusals.refused,
            "wrongly_refused_without_store": found.refusals.wrong,
        }
    return numbers


def _accounts(held: Audit) -> dict[str, Any]:
    return {
        client: {
            "told": account.told,
            "at_least": account.surely,
            "charged": account.charged,
            "may": account.may,
        }
        for client, account in held.accounts.items()
    }
