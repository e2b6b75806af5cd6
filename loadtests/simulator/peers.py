"""What others do between their gateway and first-come-first-served engines, by published rules.

Each is the rule and nothing else: no failures, no network, fresh metrics. So they do better here
than they would in the field.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Protocol

from fairness.cost import ServiceCost
from loadtests.simulator.clock import Clock
from loadtests.simulator.clusters import ArrivalLine, Station
from loadtests.simulator.job import Job
from loadtests.simulator.systems import Site


class VtcBasic:
    """AIBrix's routing strategy `vtc-basic`: which server, not when.

    A client's tokens of the last hour (estimated, output for 1.5 times the input; input + 2 *
    output) point at a server, modulo 100 for each, and the closer to it the better; half of the
    score is how many places off a server is, half how much of 100 requests it runs, and up to 0.1
    is chance. The lowest score wins. Prompts are estimated well here (there: 4 characters a token),
    and no run lasts an hour.
    Source: github.com/vllm-project/aibrix, pkg/plugins/gateway/algorithms/vtc/: vtc_basic.go,
    token_estimator.go and token_tracker.go.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cost = ServiceCost()
        self._tokens: defaultdict[str, float] = defaultdict(float)

    def __call__(self, job: Job, stations: list[Station]) -> Station:
        points_at = self._tokens[job.client] % (len(stations) * 100) / 100
        self._tokens[job.client] += self._cost.of(job.prompt, math.ceil(1.5 * job.prompt))

        def score(number: int) -> float:
            off = abs(number - points_at)
            load = min(1.0, len(stations[number].engine.batch) / 100)
            return 0.5 * off + 0.5 * load + self._random.uniform(0, 0.1)

        return stations[min(range(len(stations)), key=score)]


class FairnessPolicy(Protocol):
    """Whose request a gateway dispatches next."""

    def next(self, lines: dict[str, deque[Job]], now: float) -> str:
        """One of the clients that wait."""
        ...

    def ended(self, job: Job, now: float) -> None:
        """A request is over and has told its usage."""
        ...


class TakeTurns:
    """llm-d's `round-robin-fairness-policy`: one request of each client in turn, by their names.

    Once nothing waits the turns begin anew. (So they do there when the client that had the last
    turn has been idle for so long that it is forgotten; not here.)
    Source: github.com/llm-d/llm-d-router,
    pkg/epp/framework/plugins/flowcontrol/fairness/roundrobin/roundrobin.go.
    """

    def __init__(self) -> None:
        self._last = ""

    def next(self, lines: dict[str, deque[Job]], now: float) -> str:
        """The next name after that of the last turn, and the first after the last name."""
        names = sorted(lines)
        client = names[bisect_right(names, self._last) % len(names)]
        is_last = len(lines) == 1 and len(lines[client]) == 1
        self._last = "" if is_last else client
        return client

    def ended(self, job: Job, now: float) -> None:
        """Turns cost the same, whatever they cost."""


class LeastAttainedService:
    """llm-d's `program-aware-fairness` (strategy `las`) with its default weights.

    Attained service is what ended requests used (input + 2 * output), and halves every 60 s. The
    score is 0.8 for little service plus 0.2 for a head that has waited long, each from 0 to 1
    between the least and the most among those that wait; the highest wins. (Earlier versions
    let only that of idle clients decay.)
    Source: github.com/llm-d/llm-d-router,
    pkg/epp/framework/plugins/flowcontrol/fairness/program-aware/: README.md, strategy_las.go and
    strategy.go.
    """

    HALF_LIFE_S = 60.0

    def __init__(self) -> None:
        self._cost = ServiceCost()
        self._attained: dict[str, tuple[float, float]] = {}  # client -> (service, as of when)

    def next(self, lines: dict[str, deque[Job]], now: float) -> str:
        """The best score; ties go by name."""
        service = _spread_out({client: self._service(client, now) for client in lines})
        waited = _spread_out({client: now - line[0].request.at for client, line in lines.items()})
        score = {client: 0.8 * (1 - service[client]) + 0.2 * waited[client] for client in lines}
        return min(lines, key=lambda client: (-score[client], client))

    def ended(self, job: Job, now: float) -> None:
        """Its usage counts from now on."""
        service = self._service(job.client, now) + self._cost.of(job.prompt, job.made)
        self._attained[job.client] = service, now

    def _service(self, client: str, now: float) -> float:
        service, then = self._attained.get(client, (0.0, now))
        return float(service * 0.5 ** ((now - then) / self.HALF_LIFE_S))


def _spread_out(values: Mapping[str, float]) -> dict[str, float]:
    """Where each stands between the least (0) and the most (1); halfway where they are equal."""
    least, most = min(values.values()), max(values.values())
    if least == most:
        return dict.fromkeys(values, 0.5)
    return {name: (value - least) / (most - least) for name, value in values.items()}


class HeldWhileSaturated:
    """llm-d's flow control: requests stay at the gateway while the pool is saturated.

    A server's saturation is the larger of (waiting requests / 5) and (KV cache in use / 0.8); the
    pool's is the average. Below 1 the gateway dispatches, to the server with the least saturation.
    It looks again when something arrives or ends, and every 50 ms.
    Source: github.com/llm-d/llm-d-router,
    pkg/epp/framework/plugins/flowcontrol/saturationdetector/utilization/detector.go.
    """

    LOOKS_S = 0.05
    QUEUE = 5
    KV_CACHE = 0.8

    def __init__(self, site: Site, lines: Iterable[ArrivalLine], policy: FairnessPolicy) -> None:
        self._clock: Clock = site.clock
        self._kv_tokens = site.server.kv_tokens
        self._stations = [Station(site, line) for line in lines]
        self._policy = policy
        self._lines: dict[str, deque[Job]] = {}
        self._looks = False

    def arrive(self, job: Job) -> None:
        """See `systems.Front`."""
        job.over = self._then_look(job.over)
        self._lines.setdefault(job.client, deque()).append(job)
        self._dispatch()

    def numbers(self) -> dict[str, float]:
        """See `systems.Front`."""
        return {}

    def _then_look(self, over: Callable[[Job], None]) -> Callable[[Job], None]:
        def ended(job: Job) -> None:
            over(job)
            self._policy.ended(job, self._clock.now)
            self._dispatch()

        return ended

    def _saturation(self, station: Station) -> float:
        station.engine.catch_up()
        used = station.engine.batch.context / self._kv_tokens
        return max(station.waiting / self.QUEUE, used / self.KV_CACHE)

    def _dispatch(self) -> None:
        saturation = [self._saturation(station) for station in self._stations]
        while self._lines and sum(saturation) < len(saturation):
            client = self._policy.next(self._lines, self._clock.now)
            line = self._lines[client]
            job = line.popleft()
            if not line:
                del self._lines[client]
            number = saturation.index(min(saturation))
            self._stations[number].add(job)
            saturation[number] = self._saturation(self._stations[number])
        if self._lines and not self._looks:
            self._looks = True
            self._clock.after(self.LOOKS_S, self._look)

    def _look(self) -> None:
        self._looks = False
        self._dispatch()
