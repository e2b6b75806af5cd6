"""Stories of requests in the queue, until it has told how their leases ended.

A client has its answer before the replica has settled it with the store, so the last word on what
it cost comes a second or so later, when the router asks (`Call.ends`).
"""

from __future__ import annotations

import time

from fairness.store.contract import Call, Reply
from router.explain.story import Story

CLOSE_S = 15.0  # after which nobody waits for that word
LIMIT = 20_000  # of stories that wait for it; more go without


class Following:
    """The stories of one pool. O(1) a request, O(those that wait for the last word) a second."""

    def __init__(self) -> None:
        self._live: dict[str, Story] = {}
        self._over: dict[str, Story] = {}  # of those, the ones whose clients are served

    def begin(self, story: Story, request: str, *, degraded: bool) -> None:
        """It stands in line from now on, under this id."""
        story.request = request
        story.submitted = time.monotonic()
        story.degraded = degraded
        self._live[request] = story

    @staticmethod
    def ask(story: Story, call: Call, *, degraded: bool) -> None:
        """Have the queue explain it, in the call that submits it. (A router's own queue looks at
        all its clients to tell a standing: not asked.)"""
        wanted = story.kept and story.standing is None and not degraded
        call.explain(story.request, standing=wanted)

    def heed(self, reply: Reply) -> None:
        """What the queue tells."""
        for request, standing in reply.standings.items():
            if request in self._live:
                self._live[request].stand(standing)
        for end in reply.ends:
            story = self._live.get(end.lease.rpartition(".")[0])
            if story is not None:
                story.settle(end)
                if story.request in self._over and story.open_try is None:
                    self._finish(story)

    def over(self, story: Story) -> None:
        """Its client is served."""
        if story.open_try is None or len(self._over) >= LIMIT:
            self._finish(story)
        else:
            self._over[story.request] = story

    def tend(self) -> bool:
        """Give up those that have waited for long. Is there one that still waits?"""
        early = time.monotonic() - CLOSE_S
        for story in list(self._over.values()):  # the oldest first
            if story.ended is None or story.ended > early:
                break
            self._finish(story)
        return bool(self._over)

    def _finish(self, story: Story) -> None:
        self._live.pop(story.request, None)
        self._over.pop(story.request, None)
        story.finished(story)
