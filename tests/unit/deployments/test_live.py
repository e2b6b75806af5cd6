"""What a `user_config` changes of the `args`."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.live import live_settings
from fairness.limits import Limits as LevelLimits
from router.app import Limits
from router.clients import Client, hash_key
from router.limits import QueueLimits

ARGS: dict[str, Any] = {
    "pools": [{"llm": {"model_loading_config": {"model_id": "tiny"}}}],
    "clients": [{"name": "alice", "keys": ["sk-1"]}],
    "admin_keys": ["sk-admin"],
    "router": {"replicas": 3, "max_wait_s": 5, "queue": {"requests": 7}},
}
LIVE = partial(live_settings, AppConfig(**ARGS).live())


def test_nothing_given_is_what_the_args_say() -> None:
    live = LIVE({})
    alice = Client("alice")
    assert live.clients.keys == ((hash_key("sk-1"), alice),)
    assert live.admin_key_hashes == (hash_key("sk-admin"),)
    assert live.limits == Limits(8 * 2**20, 5)
    assert live.queue_limits == QueueLimits(requests=7)


def test_the_defaults_are_those_of_the_router() -> None:
    live = live_settings(AppConfig(pools=ARGS["pools"]).live(), {})
    assert (live.limits, live.queue_limits) == (Limits(), QueueLimits())


def test_lists_are_replaced_whole_and_sections_field_by_field() -> None:
    live = LIVE(
        {
            "clients": [{"name": "bob", "weight": 2}],
            "router": {"max_body_bytes": 10, "queue": {"bytes": 99}},
        }
    )
    assert live.clients.clients == (Client("bob", 2),)
    assert live.clients.keys == ()  # alice's key opens nothing now
    assert live.admin_key_hashes == LIVE({}).admin_key_hashes
    assert live.limits == Limits(10, 5)
    assert live.queue_limits == QueueLimits(requests=7, bytes=99)


def test_limits_of_clients_and_groups_change_too() -> None:
    user_config = {
        "groups": [{"name": "acme", "limits": {"tokens_per_minute": 900}}],
        "clients": [
            {"name": "alice", "group": "acme", "keys": ["sk-1"], "limits": {"max_wait_s": 2.5}}
        ],
    }
    ((_, alice),) = LIVE(user_config).clients.keys
    assert alice.levels == (LevelLimits(max_wait_s=2.5), LevelLimits(tokens_per_minute=900))
    assert (alice.max_wait_s(600), alice.max_wait_s(1)) == (2.5, 1)
    assert LIVE({}).clients.keys[0][1].levels == ()


def test_the_same_twice_is_equal_also_in_another_process() -> None:
    again = pickle.loads(pickle.dumps(LIVE))
    assert again({"admin_keys": []}) == LIVE({"admin_keys": []}) != LIVE({})


@pytest.mark.parametrize(
    ("user_config", "why"),
    [
        ({"policy": "fcfs"}, "policy: unknown field"),
        ({"router": {"replicas": 2}}, "router.replicas: unknown field"),
        ({"clients": [{"name": "bob", "keys": ["sk-admin"]}]}, "same key"),
        ({"router": {"max_body_bytes": 2**40}}, "raise queue.bytes_per_client"),
    ],
)
def test_what_is_unsound_together_is_refused(user_config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LIVE(user_config)
