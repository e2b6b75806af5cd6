"""Who waited when, who received what, and who had nothing to do: noted while a cluster runs.

**Gap.** For two clients that both wait (at the queue, without a break), with D the difference of
what they have received so far per weight: the largest D less the smallest since both began to wait.
That covers every interval inside, not only those from the start.

**Excess.** The most that anyone, waiting or not, received more than a client that waited
throughout, over any interval: the largest rise of that difference.

**Starving.** A replica with a free slot and nothing to put there, while a request waits.
"""

from collections import Counter
from itertools import combinations, permutations


class Witness:
    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.received = dict.fromkeys(weights, 0.0)
        self.times: list[float] = []
        self.totals: list[float] = []
        self.gaps: dict[tuple[str, str], float] = dict.fromkeys(
            combinations(sorted(weights), 2), 0.0
        )
        self.excess: dict[tuple[str, str], float] = dict.fromkeys(
            permutations(sorted(weights), 2), 0.0
        )  # (who waits, the other)
        self.longest_idle = 0.0
        self._waiting: dict[str, str] = {}
        self._depth: Counter[str] = Counter()
        self._backlogged: set[str] = set()
        self._ranges: dict[tuple[str, str], list[float]] = {}  # D: lowest, highest, now
        self._rises: dict[tuple[str, str], float] = {}  # above the lowest since it waits
        self._idle_since: dict[str, float] = {}

    def waits(self, request: str, client: str) -> None:
        if request in self._waiting:
            return
        self._waiting[request] = client
        self._depth[client] += 1
        if client not in self._backlogged:
            for other in self._backlogged:
                self._ranges[min(client, other), max(client, other)] = [0.0, 0.0, 0.0]
            self._backlogged.add(client)
            self._rises |= {(client, other): 0.0 for other in self.weights if other != client}

    def waits_no_more(self, request: str) -> None:
        if request not in self._waiting:
            return
        client = self._waiting.pop(request)
        self._depth[client] -= 1
        if not self._depth[client]:
            self._backlogged.remove(client)
            for other in self._backlogged:
                pair = (min(client, other), max(client, other))
                self._close(pair)

    def delivered(self, client: str, service: float, time: float) -> None:
        self.received[client] += service
        self.times.append(time)
        self.totals.append((self.totals[-1] if self.totals else 0.0) + service)
        share = service / self.weights[client]
        waits = client in self._backlogged
        for other in self._backlogged:
            if other != client:
                rise = max(0.0, self._rises[other, client] + share)
                self._rises[other, client] = rise
                self.excess[other, client] = max(self.excess[other, client], rise)
                if waits:
                    self._move((min(client, other), max(client, other)), share, client < other)
        if waits:
            for other in self.weights:
                if other != client:
                    self._rises[client, other] = max(0.0, self._rises[client, other] - share)

    def sees(self, replica: str, starves: bool, now: float) -> None:
        if starves and self._waiting:
            since = self._idle_since.setdefault(replica, now)
            self.longest_idle = max(self.longest_idle, now - since)
        else:
            self._idle_since.pop(replica, None)

    def finish(self) -> None:
        """Count the pairs that still wait."""
        for pair in list(self._ranges):
            self._close(pair)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _move(self, pair: tuple[str, str], share: float, up: bool) -> None:
        lowest, highest, now = self._ranges[pair]
        now += share if up else -share
        self._ranges[pair] = [min(lowest, now), max(highest, now), now]

    def _close(self, pair: tuple[str, str]) -> None:
        lowest, highest, _ = self._ranges.pop(pair)
        self.gaps[pair] = max(self.gaps[pair], highest - lowest)
