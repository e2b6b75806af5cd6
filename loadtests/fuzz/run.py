"""Many cases against one router, some at a time, with a sound request between batches."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from loadtests.fuzz.admin_cases import AdminCases
from loadtests.fuzz.bodies import MODEL
from loadtests.fuzz.case import Case, request
from loadtests.fuzz.check import Address, Bars, judge
from loadtests.fuzz.http_cases import bearer, body_case, header_case, path_case, sound_case
from loadtests.fuzz.wire_cases import wire_case

BATCH = 200
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Find:
    """A bar that was missed. number: of the case, which its seed makes again."""

    number: int
    kind: str
    problem: str
    sent: str


@dataclass(slots=True)
class Outcome:
    """cases: by kind. statuses: of all answers; `closed` and `silent` where none came."""

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For the last line of a run."""
        return {
            "cases": self.cases.total(),
            "by_kind": dict(sorted(self.cases.items())),
            "statuses": dict(sorted(self.statuses.items())),
            "finds": len(self.finds),
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A router, and keys of it. secrets: what no answer may hold. others: names of other clients,
    which only an admin may be told. models: that bodies ask for."""

    address: Address
    key: str
    admin_key: str
    secrets: tuple[str, ...]
    others: tuple[str, ...] = ()
    models: tuple[str, ...] = (MODEL,)


async def description(target: Target) -> dict[str, Any]:
    """The admin API's own. Raises RuntimeError."""
    raw = request("GET", "/admin/openapi.json", bearer(target.admin_key))
    answers, _ = await target.address.ask(Case("description", (raw,), "GET"))
    if not answers or answers[0].status != 200:
        raise RuntimeError(f"no description of the admin API: {answers}")
    found: dict[str, Any] = json.loads(answers[0].body)
    return found


async def fuzz(
    target: Target, seed: int, numbers: range, tell: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """All cases of these numbers. tell: called after each batch."""
    admin = AdminCases(await description(target))
    bars = Bars(
        tuple(secret.encode() for secret in target.secrets),
        tuple(name.encode() for name in target.others),
    )
    outcome = Outcome()
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, case: Case) -> None:
        async with room:
            answers, end = await target.address.ask(case)
        outcome.cases[case.kind] += 1
        outcome.statuses.update([str(answer.status) for answer in answers] or [end])
        sent = repr(b" | ".join(case.parts)[:1000])
        for problem in judge(case, answers, end, bars):
            outcome.finds.append(Find(number, case.kind, problem, sent))

    for first in range(numbers.start, numbers.stop, BATCH):
        batch = range(first, min(first + BATCH, numbers.stop))
        await asyncio.gather(*(one(n, made(target, admin, seed, n)) for n in batch))
        await one(-1, sound_case(target.key))
        tell(outcome)
    return outcome


def made(target: Target, admin: AdminCases, seed: int, number: int) -> Case:
    """The case of that number; the same every time."""
    random = Random(f"{seed}:{number}")
    match random.randrange(20):
        case kind if kind < 8:
            return body_case(random, target.key, target.models)
        case kind if kind < 11:
            return path_case(random, target.key)
        case kind if kind < 14:
            return header_case(random, target.key, target.models)
        case kind if kind < 16:
            return admin.case(random, target.admin_key)
    return wire_case(random, target.key)
