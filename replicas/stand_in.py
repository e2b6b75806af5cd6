"""A replica's side of the time without a store: its room is shared between the routers that ask."""

from __future__ import annotations

from collections.abc import Callable

from fairness.store.stand_in import Answer, Question
from replicas.lease_book import LeaseBook

ASKING_S = 1.0  # a router that has not asked for so long gets no share


class Shares:
    """Answers routers. O(routers + leases asked about)."""

    def __init__(self, book: LeaseBook, longest: int, now: Callable[[], float]) -> None:
        """longest: prompt, in tokens. now: seconds, monotonic."""
        self._book = book
        self._longest = longest
        self._now = now
        self._asked: dict[str, float] = {}

    def answer(self, question: Question) -> Answer:
        """An equal share of the room, to the last place."""
        now = self._now()
        self._asked[question.router] = now
        self._asked = {name: at for name, at in self._asked.items() if now - at < ASKING_S}
        share, rest = divmod(self._book.room, len(self._asked))
        if sorted(self._asked).index(question.router) < rest:
            share += 1
        return Answer(
            share, self._longest, {name: self._book.state_of(name) for name in question.leases}
        )
