"""A running application: does it serve, is it closed to strangers, does the admin API open."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx

from deployments.doctor.finding import Finding, State

AREA = "application"
TIMEOUT_S = 10.0
say = partial(Finding, AREA)


def look(url: str, admin_url: str, admin_key: str | None) -> Iterator[Finding]:
    """admin_url: where the admin API is. admin_key: or None, to leave that out."""
    with httpx.Client(timeout=TIMEOUT_S) as http:
        try:
            ready = http.get(f"{url}/readyz")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            mend = "see that it runs (serve status, kubectl get rayservice), and the URL"
            yield say("reachable", State.FAILED, f"{url}: {error or type(error).__name__}", mend)
            return
        yield from _ready(ready)
        yield _closed(http.get(f"{url}/v1/models"))
        if admin_key is None:
            yield say(
                "admin API", State.SKIPPED, "no key", "set FAIRLANE_ADMIN_KEY to have it tried"
            )
            return
        try:
            answer = http.get(
                f"{admin_url}/admin/queue/policy", headers={"Authorization": f"Bearer {admin_key}"}
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            yield say(
                "admin API", State.FAILED, f"{admin_url}: {error}", "see admin.port and --admin-url"
            )
            return
        yield _admin(answer)


def _ready(answer: httpx.Response) -> Iterator[Finding]:
    try:
        said: Any = answer.json()
        pools: dict[str, int] = said["replicas"]
        degraded = bool(said["degraded"])
    except (ValueError, KeyError, TypeError):
        found = f"/readyz answers {answer.status_code}, not in Fairlane's words"
        yield say("ready", State.FAILED, found, "is that the URL of Fairlane?")
        return
    for pool, replicas in pools.items():
        if replicas:
            yield say(f"pool {pool}", State.OK, f"{replicas} replicas")
        else:
            mend = "see why in `serve status` and the replicas' logs: out of GPUs, or of memory?"
            yield say(f"pool {pool}", State.FAILED, "no replica", mend)
    if degraded:
        mend = "fairlane doctor CONFIG --only store, from a machine that runs routers"
        yield say("store", State.WARNING, "routers do without it (degraded)", mend)
    elif answer.status_code == 200:
        yield say("store", State.OK, "routers have it")


def _closed(answer: httpx.Response) -> Finding:
    if answer.status_code == 401:
        return say("identity", State.OK, "strangers are refused")
    found = f"GET /v1/models without a key: {answer.status_code}, not 401"
    return say("identity", State.FAILED, found, "is that the URL of Fairlane?")


def _admin(answer: httpx.Response) -> Finding:
    if answer.status_code == 200:
        return say("admin API", State.OK, "opens to the key")
    mends = {
        401: "the key is none of admin_key_hashes; fairlane hash-key tells its hash",
        404: "it has a port of its own (admin.port): give --admin-url",
        503: "the store is away",
    }
    mend = mends.get(answer.status_code, "see the routers' logs")
    return say("admin API", State.FAILED, f"answers {answer.status_code}", mend)
