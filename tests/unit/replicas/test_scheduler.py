"""The fair scheduler: vLLM's real one underneath, a fake model on top (see fake_engine)."""

import ctypes
import multiprocessing
import random
from statistics import mean
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
from vllm.v1.request import RequestStatus

from loadtests.fake_engine import BLOCK, FakeEngine
from replicas.scheduler import (
    EITHER,
    HOOKS,
    PROTECTED_AFTER,
    FairScheduler,
    UnsupportedVLLMError,
    check_hooks,
    die_with_parent,
    publish_exchange,
)

STOCK = {"policy": "fcfs", "hold_back": 0}
KEEP_NOTHING = {"hold_back": 0}  # where a test wants preemptions


def fair(**kwargs) -> FakeEngine:
    return FakeEngine(FairScheduler, **kwargs)


def stock(**kwargs) -> FakeEngine:
    return FakeEngine(AsyncScheduler, **kwargs)


def charged(engine: FakeEngine, client: str) -> float:
    return engine.scheduler._counters.charged(client)


def assert_nothing_is_left(engine: FakeEngine) -> None:
    """After everything has ended and was reported, only clients' counters remain."""
    engine.exchange()
    clients = list(engine.scheduler._counters._accounts)
    reply = engine.exchange(forget=clients)
    assert (reply["leases"], reply["charged"]) == ([], {})
    scheduler = engine.scheduler
    ledger = scheduler._ledger
    assert not ledger._requests and not ledger._clients and not ledger._leases
    assert not ledger._gone and not ledger._changed_leases
    assert not ledger._served
    assert len(scheduler._counters) == 0 and not scheduler._popped
    for queue in scheduler._queues:
        assert not queue._queue._lines and not queue._queue._client_of


# --- order ----------------------------------------------------------------------------------


@pytest.mark.parametrize("run_ahead", [False, True])
def test_a_flood_does_not_delay_a_polite_client(run_ahead):
    latency, steps = {}, {}
    for name, engine in {
        "stock": stock(run_ahead=run_ahead),
        "fair": fair(run_ahead=run_ahead),
    }.items():
        for _ in range(200):
            engine.send("flood", output=32)
        for _ in range(20):
            engine.step()
        polite = [engine.send("polite", output=32) for _ in range(20)]
        engine.run()
        latency[name] = mean(step - 20 for step, request in engine.finished if request in polite)
        steps[name] = engine.steps
    assert steps["fair"] == steps["stock"], "fairness costs no work"
    assert latency["fair"] < latency["stock"] / 4


def test_one_client_cannot_take_all_free_slots_of_a_step():
    engine = fair(slots=4)
    for _ in range(10):
        engine.send("a")
    for _ in range(10):
        engine.send("b")
    engine.step()
    assert engine.admission_order() == ["a-0", "b-10", "a-1", "b-11"]


def test_service_follows_weights():
    engine = fair(slots=8)
    for _ in range(300):
        engine.send("light", weight=1.0)
        engine.send("heavy", weight=3.0)
    for _ in range(200):
        engine.step()
    service = {
        client: charged(engine, client) * weight for client, weight in [("light", 1), ("heavy", 3)]
    }
    assert service["heavy"] / service["light"] == pytest.approx(3, rel=0.05)


def test_two_overloading_clients_stay_within_2u():
    slots, longest, most_output = 8, 400, 60
    engine = fair(slots=slots, batch_tokens=128)
    rng = random.Random(1)
    for _ in range(150):
        engine.send("short", prompt=rng.randint(1, 20), output=rng.randint(1, 10))
        engine.send("long", prompt=rng.randint(100, longest), output=rng.randint(20, most_output))
    u = max(longest, 2 * slots * (longest + most_output))
    worst = 0.0
    while len(engine.finished) < 200:
        engine.step()
        if not all(
            any(r.startswith(client) for r in engine.scheduler._ledger._requests)
            for client in ("short", "long")
        ):
            break
        worst = max(worst, abs(charged(engine, "short") - charged(engine, "long")))
    assert 0 < worst <= 2 * u


def test_a_returning_client_has_not_saved_up_its_idle_time():
    engine = fair(slots=1)
    first = engine.send("returns")
    engine.run(until=[first])
    for _ in range(100):
        engine.send("stays")
    for _ in range(300):
        engine.step()
    for _ in range(10):
        engine.send("returns")
    del engine.admitted[:]
    for _ in range(100):
        engine.step()
    turns = [request.split("-")[0] for request in engine.admission_order()]
    assert abs(turns.count("returns") - turns.count("stays")) <= 2


def test_the_order_follows_the_global_counters():
    engine = fair(slots=1)
    for client, counter in (("a", 900.0), ("b", 100.0), ("c", 500.0)):
        engine.send(client, counter=counter)
    engine.exchange(base={"c": 50.0, "stranger": 1.0})
    engine.run()
    assert [request[0] for request in engine.admission_order()] == ["c", "b", "a"]


def test_groups_share_before_their_clients_do():
    engine = fair(slots=3)
    acme = [["acme/", 1.0, 0.0]]
    for client, groups in (("ann", acme), ("ben", acme), ("zoe", [])):
        for number in range(40):
            identity = {"client": client, "lease": f"{client}{number}.1", "groups": groups}
            engine.send(None, prompt=8, output=8, identity=identity)
    for _ in range(150):
        engine.step()
    ann, ben, zoe = (charged(engine, client) for client in ("ann", "ben", "zoe"))
    assert charged(engine, "acme/") == ann + ben > 400
    assert zoe == pytest.approx(ann + ben, abs=60)
    assert ann == pytest.approx(ben, abs=60)


def test_a_request_that_is_not_ready_lets_others_pass_and_costs_nothing_until_it_runs():
    engine = fair(slots=1)
    unready = engine.send("a", prompt=10, output=1, ready=False)
    engine.send("b", output=1)
    for _ in range(3):
        engine.step()
    assert charged(engine, "a") == 0
    assert engine.admission_order() == ["b-1"]
    engine.make_ready(unready)
    engine.run()
    assert charged(engine, "a") == 12
    assert_nothing_is_left(engine)


def test_skipped_requests_do_not_go_before_clients_with_less_service():
    engine = fair(slots=1)
    skipped = engine.send("served", counter=50.0, ready=False)
    engine.send("starved", counter=10.0)
    engine.make_ready(skipped)
    engine.step()
    assert engine.admission_order() == ["starved-1"]


def test_requests_that_are_not_ready_keep_their_places_and_cost_the_order_nothing():
    engine = fair(slots=1)
    sent = [engine.send(f"c{number % 5}", output=1, ready=False) for number in range(50)]
    for _ in range(5):
        engine.step()
    assert sum(len(queue) for queue in engine.scheduler._parking) == 50
    assert not any(engine.scheduler._parking), "none of them can be chosen"
    for request in random.Random(1).sample(sent, len(sent)):
        engine.make_ready(request)
    engine.run()
    assert engine.admission_order() == sent, "equals take turns, each client's in order"
    assert_nothing_is_left(engine)


def test_who_becomes_ready_in_the_middle_of_a_line_goes_back_to_the_middle():
    engine = fair(slots=1, settings=STOCK)
    sent = [engine.send("a", output=2, ready=False) for _ in range(6)]
    for number in (0, 1, 3, 5):
        engine.make_ready(sent[number])
    engine.step()
    engine.make_ready(sent[2])
    engine.step()
    engine.step()
    engine.make_ready(sent[4])
    engine.run()
    assert engine.admission_order() == sent


def test_a_grammar_that_fails_ends_its_request_at_no_cost():
    engine = fair()
    failing = engine.send("a", lease="l", ready=False)
    engine.send("b", output=4)
    engine.requests[failing].structured_output_request = SimpleNamespace(grammar=ValueError("no"))
    engine.run()
    assert failing in {request for _, request in engine.finished}
    reply = engine.exchange()
    assert reply["leases"] == [["l", 0, 0, 0, 0, 0]]
    assert reply["charged"]["a"] == 0
    assert_nothing_is_left(engine)


def test_adapters_beyond_the_limit_of_a_batch_wait_without_holding_up_others():
    engine = fair(slots=4, max_loras=1)
    engine.send("a", lora=1, output=6)
    other = [engine.send("b", lora=2, output=2) for _ in range(2)]
    engine.send("c", lora=1, output=2)
    plain = engine.send("d", output=2)
    for _ in range(3):
        engine.step()
    assert engine.admission_order() == ["a-0", "c-3", plain]
    assert charged(engine, "b") == 0
    engine.run()
    assert engine.admission_order()[3:] == other
    assert charged(engine, "b") == 2 * (16 + 2 * 2)
    assert_nothing_is_left(engine)


# --- FCFS is stock --------------------------------------------------------------------------


def drive(engine: FakeEngine, seed: int) -> tuple[list, list, int]:
    """Send, step, abort and finish grammars at random; return all that happened."""
    rng = random.Random(seed)
    shared = [5] * 200
    unready: list[str] = []
    for _ in range(120):
        for _ in range(rng.randint(0, 3)):
            prompt = rng.randint(1, 150)
            ready = rng.random() < 0.8
            request = engine.send(
                rng.choice("abc"),
                prompt=[*shared[:prompt], rng.randint(10, 99)] if rng.random() < 0.5 else prompt,
                output=rng.randint(1, 60),
                ready=ready,
            )
            if not ready:
                unready.append(request)
        if unready and rng.random() < 0.5:
            engine.make_ready(unready.pop(rng.randrange(len(unready))))
        alive = sorted(engine.scheduler.requests)
        if alive and rng.random() < 0.1:
            engine.abort(rng.choice(alive))
        engine.step()
    for request in unready:
        engine.make_ready(request)
    engine.run()
    return engine.admitted, engine.finished, engine.steps


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("run_ahead", [False, True])
def test_fcfs_is_exactly_stock(seed, run_ahead):
    """Same requests admitted and finished in the same steps, with preemptions and aborts."""
    tight = {
        "slots": 6,
        "batch_tokens": 100,
        "blocks": 20,
        "prefix_cache": seed % 2 == 0,
        "run_ahead": run_ahead,
    }
    engine = fair(settings=STOCK, **tight)
    assert drive(engine, seed) == drive(stock(**tight), seed)
    assert engine.exchange()["preemptions"] > 0
    assert_nothing_is_left(engine)


def test_a_single_client_is_served_as_stock_would():
    tight = {"slots": 6, "batch_tokens": 100, "blocks": 20}
    ours, theirs = fair(settings=KEEP_NOTHING, **tight), stock(**tight)
    for engine in (ours, theirs):
        rng = random.Random(0)
        for _ in range(80):
            engine.send("only", prompt=rng.randint(1, 150), output=rng.randint(1, 60))
        engine.run()
    assert (ours.admitted, ours.finished) == (theirs.admitted, theirs.finished)


@pytest.mark.parametrize("run_ahead", [False, True])
@pytest.mark.parametrize("blocks", [10_000, 16])
def test_every_answer_is_stocks_token_for_token(run_ahead, blocks):
    """Under greedy decoding, with ample memory and with so little that requests are preempted."""
    tight = {"slots": 6, "batch_tokens": 100, "blocks": blocks, "run_ahead": run_ahead}
    ours, theirs = fair(**tight), stock(**tight)
    for engine in (ours, theirs):
        rng = random.Random(7)
        for _ in range(60):
            engine.send(rng.choice("abc"), prompt=rng.randint(1, 200), output=rng.randint(1, 120))
        engine.run()
    assert (ours.exchange()["preemptions"] > 0) == (blocks == 16)
    assert ours.admission_order() != theirs.admission_order()
    assert ours.texts == theirs.texts
    assert len(ours.texts) == 60


def test_a_priority_orders_the_requests_of_its_own_client_only():
    engine = fair(slots=1)
    for number, priority in enumerate((0, 3, -2, 0)):
        engine.send("b", priority=priority)
        engine.send("a", lease=f"l{number}")
    engine.run()
    order = engine.admission_order()
    assert [name[0] for name in order] == ["a", "b"] * 4
    assert [name for name in order if name[0] == "b"] == ["b-4", "b-0", "b-6", "b-2"]


def test_the_exchange_says_how_many_more_would_fit():
    engine = fair(slots=8, blocks=21)  # vLLM keeps one for itself
    assert engine.exchange()["fits"] is None
    for _ in range(2):
        engine.send("a", prompt=BLOCK * 3 - 1, output=BLOCK)
    engine.step()
    assert engine.exchange()["fits"] == (20 - 2 * 3) // 3


# --- charges --------------------------------------------------------------------------------


def test_a_chunked_prompt_is_charged_whole_and_once():
    engine = fair(batch_tokens=64)
    engine.send("a", prompt=500, output=4)
    engine.step()
    assert charged(engine, "a") == 500
    engine.step()
    assert charged(engine, "a") == 500
    engine.run()
    assert charged(engine, "a") == 500 + 2 * 4


def test_a_cached_prefix_is_not_charged():
    engine = fair(prefix_cache=True)
    shared = list(range(10, 10 + 10 * BLOCK))
    for client in ("first", "second"):
        engine.send(client, prompt=[*shared, 5], output=1, lease=client)
        engine.run()
    leases = {lease: rest for lease, *rest in engine.exchange()["leases"]}
    assert leases["first"] == [0, 0, 10 * BLOCK + 1, 0, 1]
    assert leases["second"] == [0, 0, 10 * BLOCK + 1, 10 * BLOCK, 1]
    assert charged(engine, "first") == 10 * BLOCK + 1 + 2
    assert charged(engine, "second") == 1 + 2


def test_a_cached_prefix_may_be_charged_in_part():
    engine = fair(prefix_cache=True, settings={"cached_input_weight": 0.25})
    shared = list(range(10, 10 + 10 * BLOCK))
    for client in ("first", "second"):
        engine.send(client, prompt=[*shared, 5], output=1)
        engine.run()
    assert charged(engine, "first") == 10 * BLOCK + 1 + 2
    assert charged(engine, "second") == 10 * BLOCK / 4 + 1 + 2


def test_costs_are_configured():
    engine = fair(settings={"input_weight": 0.5, "output_weight": 4.0})
    engine.send("a", prompt=10, output=3)
    engine.run()
    assert charged(engine, "a") == 5 + 12


def test_pooling_requests_pay_for_their_input():
    engine = fair()
    engine.send("a", prompt=30, pooling=True, lease="l")
    engine.run()
    assert engine.exchange()["leases"] == [["l", 0, 0, 30, 0, 0]]
    assert charged(engine, "a") == 30


@pytest.mark.parametrize("accepted", [0, 1, 3])
def test_of_drafted_tokens_only_those_accepted_are_charged(accepted):
    engine = fair(drafts=3, accepted=accepted)
    request = engine.send("a", prompt=10, output=20)
    for _ in range(3):
        engine.step()
    assert charged(engine, "a") == 10 + 2 * (1 + 2 * (1 + accepted))
    engine.run()
    assert len(engine.texts[request]) == 20
    assert charged(engine, "a") == 10 + 2 * 20, "what was drafted beyond the last token is free"
    assert_nothing_is_left(engine)


def test_a_session_pays_for_each_input_once_and_for_its_answers():
    engine = fair()
    session = engine.send("a", prompt=40, output=3, resumable=True, lease="l")
    for _ in range(5):
        engine.step()
    assert charged(engine, "a") == 40 + 2 * 3
    engine.send("a", prompt=10, output=3, resumable=True, session=session)
    for _ in range(5):
        engine.step()
    assert charged(engine, "a") == 50 + 2 * 6
    assert engine.exchange()["leases"] == [["l", 0, 1, 50, 0, 6]]
    engine.send("a", session=session)
    assert engine.exchange()["leases"] == [["l", 0, 0, 50, 0, 6]]
    assert_nothing_is_left(engine)


def test_input_that_comes_while_a_session_still_answers_waits_its_turn():
    engine = fair(slots=1)
    session = engine.send("a", prompt=20, output=4, resumable=True)
    engine.send("a", prompt=7, output=4, resumable=True, session=session)
    engine.step()
    assert charged(engine, "a") == 20 + 2
    engine.send("b", output=1)
    for _ in range(10):
        engine.step()
    assert charged(engine, "a") == 27 + 2 * 8
    engine.abort(session)
    engine.run()
    assert_nothing_is_left(engine)


def test_a_session_that_vllm_queues_twice_stands_once():
    engine = fair()
    queue = engine.scheduler.waiting
    engine.send("a")
    (session,) = queue
    queue.add_request(session)
    assert list(queue) == [session]


def test_a_session_that_lay_idle_has_not_saved_up_its_idle_time():
    engine = fair(slots=2)
    session = engine.send("idle", prompt=10, output=1, resumable=True)
    engine.step()
    for _ in range(20):
        engine.send("busy", prompt=500, output=1)
    for _ in range(10):
        engine.step()
    engine.send("idle", prompt=10, output=1, resumable=True, session=session)
    counter = engine.scheduler._counters.counter
    assert counter("idle") == counter("busy")


@pytest.mark.parametrize("identity", [None, "forged", {"client": "x", "weight": -1}])
def test_requests_without_a_usable_identity_are_nobodys(identity):
    engine = fair()
    engine.send(None, prompt=10, output=1, identity=identity)
    engine.run()
    reply = engine.exchange()
    assert (reply["leases"], reply["charged"]) == ([], {"": 12.0})


# --- memory ---------------------------------------------------------------------------------


def test_the_most_served_clients_youngest_request_is_preempted_and_pays_once():
    # Both clients' requests fill two blocks each; then there is one for the four of them
    # (vLLM keeps a block for itself). Stock would preempt starved-3, the last admitted.
    engine = fair(slots=4, blocks=1 + 2 * 4 + 1)
    engine.send("served", prompt=BLOCK, output=70, counter=10_000.0)
    engine.send("served", prompt=BLOCK, output=70)
    engine.step()
    engine.send("starved", prompt=BLOCK, output=70, counter=1.0)
    engine.send("starved", prompt=BLOCK, output=70)
    while not engine.exchange()["preemptions"]:
        engine.step()
    victims = [r for r in engine.requests.values() if r.status == RequestStatus.PREEMPTED]
    assert [v.request_id for v in victims] == ["served-1"]
    reply = engine.exchange()
    assert (reply["waiting"], reply["running"]) == (1, 3)
    engine.run()
    assert len(engine.finished) == 4
    for client in ("served", "starved"):
        assert charged(engine, client) == 2 * (BLOCK + 2 * 70)
    assert_nothing_is_left(engine)


# (The fake engine doesn't draft while it runs ahead.)
@pytest.mark.parametrize(("run_ahead", "drafts"), [(False, 0), (False, 3), (True, 0)])
def test_nothing_is_preempted_before_the_most_served_are_put_last(run_ahead, drafts):
    """The look at memory may be wrong in one direction only."""
    tight = {"slots": 6, "batch_tokens": 100, "blocks": 20, "run_ahead": run_ahead}
    engine = fair(drafts=drafts, accepted=drafts // 2, settings=KEEP_NOTHING, **tight)
    scheduler = engine.scheduler
    sorted_in_this_step: list[bool] = []
    look, preempt = scheduler._memory_is_low, scheduler._preempt_request
    preempted = 0

    def noted_look() -> bool:
        sorted_in_this_step[:] = [look()]
        return sorted_in_this_step[0]

    def checked_preempt(request, *args, **kwargs) -> None:
        nonlocal preempted
        preempted += 1
        assert sorted_in_this_step == [True] or len(scheduler.running) == 0
        preempt(request, *args, **kwargs)

    scheduler._memory_is_low, scheduler._preempt_request = noted_look, checked_preempt
    drive(engine, seed=3)
    assert preempted > 5


def test_a_request_preempted_three_times_is_protected_while_another_can_go():
    engine = fair(slots=4, blocks=1 + 12)
    unlucky = engine.send("served", prompt=BLOCK, output=250)
    victims: list[str] = []
    while unlucky in engine.scheduler.requests:
        while len(engine.scheduler.requests) < 4:
            engine.send("starved", prompt=BLOCK, output=120)
        waits = engine.requests[unlucky].status is not RequestStatus.RUNNING
        # It comes back as soon as it can, to be the most served again.
        engine.exchange(base={"served": -1e6 if waits else 1e6, "starved": 0.0})
        before = {name: request.num_preemptions for name, request in engine.requests.items()}
        engine.step()
        victims += [name for name, n in before.items() if engine.requests[name].num_preemptions > n]
    assert victims.count(unlucky) == PROTECTED_AFTER
    assert victims[-1] != unlucky, "memory stayed short, and others were preempted"
    assert len(engine.texts[unlucky]) == 250


@pytest.mark.parametrize("run_ahead", [False, True])
def test_the_least_fortunate_request_is_computed_anew_a_few_times_at_most(run_ahead):
    """One client's requests are always the most served; memory is short; each of them ends."""
    engine = fair(slots=6, batch_tokens=128, blocks=24, run_ahead=run_ahead)
    poor = [engine.send("poor", prompt=40, output=150, weight=0.01) for _ in range(3)]
    for _ in range(60):
        engine.send("rich", prompt=40, output=100, weight=100.0)
    engine.run()
    assert engine.exchange()["preemptions"] > 5
    assert set(poor) <= {request for _, request in engine.finished}
    assert max(engine.requests[request].num_preemptions for request in poor) <= 2 * PROTECTED_AFTER


@pytest.mark.parametrize("run_ahead", [False, True])
def test_scarce_memory_loses_nothing_and_charges_nothing_twice(run_ahead):
    engine = fair(slots=6, batch_tokens=128, blocks=16, run_ahead=run_ahead)
    rng = random.Random(3)
    due = {"a": 0, "b": 0, "c": 0}
    for _ in range(60):
        client, prompt, output = rng.choice("abc"), rng.randint(1, 200), rng.randint(1, 150)
        engine.send(client, prompt=prompt, output=output)
        due[client] += prompt + 2 * output
    engine.run()
    reply = engine.exchange()
    assert reply["preemptions"] > 5
    assert len(engine.finished) == 60
    assert reply["charged"] == due
    assert reply["kv_usage"] == 0
    assert_nothing_is_left(engine)


# --- aborts ---------------------------------------------------------------------------------


def test_aborted_while_waiting_costs_nothing():
    engine = fair(slots=1)
    engine.send("a", output=50)
    waiting = engine.send("b", lease="l")
    engine.step()
    engine.abort(waiting)
    reply = engine.exchange()
    assert reply["leases"] == [["l", 0, 0, 0, 0, 0]]
    assert reply["charged"]["b"] == 0


@pytest.mark.parametrize("run_ahead", [False, True])
def test_aborted_in_prefill_pays_for_the_chunks_computed(run_ahead):
    engine = fair(batch_tokens=64, run_ahead=run_ahead)
    request = engine.send("a", prompt=500, lease="l")
    engine.step()
    engine.step()
    engine.abort(request)
    assert charged(engine, "a") == 128
    assert engine.exchange()["leases"] == [["l", 0, 0, 128, 0, 0]]
    engine.run()
    assert_nothing_is_left(engine)


def test_aborted_in_prefill_after_a_cached_prefix_pays_for_the_chunks_computed():
    engine = fair(batch_tokens=64, prefix_cache=True)
    shared = [5] * (8 * BLOCK)
    engine.send("first", prompt=shared, output=1)
    engine.run()
    request = engine.send("a", prompt=shared + [6] * 200, lease="l")
    engine.step()
    engine.abort(request)
    assert charged(engine, "a") == 64
    assert engine.exchange()["leases"][-1] == ["l", 0, 0, 8 * BLOCK + 64, 8 * BLOCK, 0]


def test_aborted_while_decoding_pays_for_the_tokens_made():
    engine = fair()
    request = engine.send("a", prompt=10, output=50)
    for _ in range(5):
        engine.step()
    engine.abort(request)
    assert charged(engine, "a") == 10 + 2 * 5


def test_aborted_while_preempted_pays_for_what_was_computed_before():
    engine = fair(slots=2, blocks=5, batch_tokens=64)
    engine.send("a", prompt=BLOCK, output=90)
    engine.send("b", prompt=BLOCK, output=90, counter=500.0)
    while not engine.exchange()["preemptions"]:
        engine.step()
    victim = engine.requests["b-1"]
    assert victim.status == RequestStatus.PREEMPTED
    made = victim.num_output_tokens
    engine.abort("b-1")
    assert charged(engine, "b") == BLOCK + 2 * made
    engine.run()
    assert_nothing_is_left(engine)


def test_the_requests_of_one_call_are_aborted_one_by_one():
    """``n`` and lists of prompts: some run, one is in prefill, some wait."""
    engine = fair(slots=3, batch_tokens=64)
    sent = [engine.send("a", prompt=prompt, output=50, lease="l") for prompt in (10, 10, 300, 9, 9)]
    for _ in range(3):
        engine.step()
    made = sum(len(engine.texts.get(request, [])) for request in sent)
    for request, waiting, running in zip(
        reversed(sent), (1, 0, 0, 0, 0), (3, 3, 2, 1, 0), strict=True
    ):
        engine.abort(request)
        assert engine.exchange()["leases"][0][1:3] == [waiting, running]
    computed = engine.requests[sent[2]].num_computed_tokens
    assert 0 < computed < 300
    assert charged(engine, "a") == 20 + computed + 2 * made
    assert_nothing_is_left(engine)


def waiting(engine: FakeEngine) -> str:
    engine.send("other", output=90)
    engine.step()
    return engine.send("a", lease="l")


def parked(engine: FakeEngine) -> str:
    request = engine.send("a", ready=False, lease="l")
    engine.step()
    return request


def skipped_for_its_adapter(engine: FakeEngine) -> str:
    engine.send("other", lora=1, output=90)
    engine.step()
    request = engine.send("a", lora=2, lease="l")
    engine.step()
    return request


def in_prefill(engine: FakeEngine) -> str:
    request = engine.send("a", prompt=500, lease="l")
    engine.step()
    return request


def decoding(engine: FakeEngine) -> str:
    request = engine.send("a", prompt=10, output=50, lease="l")
    for _ in range(5):
        engine.step()
    return request


def idle_session(engine: FakeEngine) -> str:
    request = engine.send("a", prompt=10, output=2, resumable=True, lease="l")
    for _ in range(5):
        engine.step()
    return request


def session_in_its_second_prefill(engine: FakeEngine) -> str:
    request = idle_session(engine)
    engine.send("a", prompt=500, output=2, resumable=True, session=request)
    engine.step()
    return request


@pytest.mark.parametrize("run_ahead", [False, True])
@pytest.mark.parametrize(
    ("reach", "slots", "computed", "made"),
    [
        (waiting, 1, 0, 0),
        (parked, 2, 0, 0),
        (skipped_for_its_adapter, 2, 0, 0),
        (in_prefill, 2, 64, 0),
        (decoding, 2, 10, 5),
        (idle_session, 2, 10, 2),
        # The last token of the first answer was never computed: vLLM drops it from the context.
        (session_in_its_second_prefill, 2, 10 + 64, 2),
    ],
)
def test_an_abort_costs_what_was_computed_in_every_state(reach, slots, computed, made, run_ahead):
    engine = fair(slots=slots, batch_tokens=64, max_loras=1, run_ahead=run_ahead)
    request = reach(engine)
    delivered = len(engine.texts.get(request, []))
    assert delivered in (made, made - run_ahead)
    engine.abort(request)
    assert engine.exchange()["leases"] == [["l", 0, 0, computed, 0, delivered]]
    assert charged(engine, "a") == computed + 2 * delivered
    engine.run()
    assert charged(engine, "a") == computed + 2 * delivered, "what was in flight is not delivered"
    assert_nothing_is_left(engine)


def test_a_refund_moves_its_client_forward():
    engine = fair(slots=2, batch_tokens=64)
    engine.send("a", prompt=16, output=200)
    long = engine.send("b", prompt=1_000)
    engine.step()
    engine.send("a", counter=900.0)
    engine.send("b")
    assert engine.scheduler.waiting.peek_request().request_id == "a-2"
    engine.abort(long)
    engine.step()
    assert engine.admission_order()[-1] == "b-3"


# --- leases and the exchange ----------------------------------------------------------------


def test_the_requests_of_one_lease_are_added_up():
    engine = fair(slots=2)
    for output in (2, 6, 4):
        engine.send("a", prompt=10, output=output, lease="l")
    assert engine.exchange()["leases"] == [["l", 3, 0, 0, 0, 0]]
    engine.step()
    assert engine.exchange()["leases"] == [["l", 1, 2, 20, 0, 2]]
    engine.run()
    assert engine.exchange()["leases"] == [["l", 0, 0, 30, 0, 12]]
    assert engine.exchange()["leases"] == [], "an end is reported once"


def test_the_exchange_reports_only_what_changed():
    engine = fair(slots=1)
    engine.send("a", output=2, lease="runs")
    engine.send("b", lease="waits")
    engine.step()
    assert {lease for lease, *_ in engine.exchange()["leases"]} == {"runs", "waits"}
    engine.step()
    reply = engine.exchange()
    assert [lease for lease, *_ in reply["leases"]] == ["runs"]
    assert set(reply["charged"]) == {"a", "b"}
    assert set(engine.exchange()["charged"]) == {"b"}, "a is idle and reported, b is live"


def test_the_reply_is_plain_data():
    engine = fair()
    engine.send("a", lease="l", counter=3.0)
    engine.step()
    reply = engine.exchange(base={"a": 1.5}, policy=None, forget=["a"])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reply)) == reply
    assert set(reply) == {
        *("leases", "charged", "waiting", "running", "kv_usage", "fits", "preemptions")
    }
    assert 0 < reply["kv_usage"] < 1
    assert type(reply["kv_usage"]) is float


def test_forgetting_keeps_clients_with_live_requests():
    engine = fair()
    engine.send("a", output=3)
    engine.step()
    assert engine.exchange(forget=["a"])["charged"] == {"a": 18.0}
    engine.run()
    assert engine.exchange(forget=["a"])["charged"] == {"a": 22.0}, "first told, then forgotten"
    assert engine.exchange(forget=["a"])["charged"] == {}
    engine.send("a", prompt=5)
    engine.step()
    assert engine.exchange()["charged"] == {"a": 7.0}


def test_the_policy_is_switched_while_running():
    engine = fair(slots=1, settings=STOCK)
    for _ in range(3):
        engine.send("a", output=1)
    engine.send("b", output=1)
    engine.step()
    engine.exchange(policy="vtc")
    engine.step()
    engine.exchange(policy="fcfs")
    engine.run()
    assert engine.admission_order() == ["a-0", "b-3", "a-1", "a-2"]
    with pytest.raises(ValueError, match="choose one of"):
        engine.exchange(policy="lifo")


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.sampled_from("abc"),
            st.integers(1, 150),
            st.integers(1, 60),
            st.integers(0, 5),
        ),
        st.tuples(st.just("step"), st.integers(1, 12)),
        st.tuples(st.just("abort"), st.integers(0, 1_000)),
        st.tuples(st.just("base"), st.sampled_from("abc"), st.integers(0, 500)),
        st.tuples(st.just("policy"), st.sampled_from(["vtc", "fcfs"])),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(EVENTS, st.booleans(), st.booleans())
def test_charges_equal_tokens_times_cost_in_any_history(events, prefix_cache, run_ahead):
    """All that clients were charged is what their leases used, at every moment, exactly."""
    engine = fair(
        slots=4, batch_tokens=100, blocks=14, prefix_cache=prefix_cache, run_ahead=run_ahead
    )
    leases: dict[str, list[int]] = {}
    charges: dict[str, float] = {}

    def check() -> None:
        reply = engine.exchange()
        charges.update(reply["charged"])
        leases.update({lease: counts for lease, *counts in reply["leases"]})
        due = dict.fromkeys(charges, 0)
        for lease, (_, _, input_tokens, cached, output) in leases.items():
            due[lease[0]] += input_tokens - cached + 2 * output
        assert charges == due
        live = sum(waiting + running for waiting, running, *_ in leases.values())
        assert (
            live == reply["waiting"] + reply["running"] == len(engine.scheduler._ledger._requests)
        )

    for number, (verb, *rest) in enumerate(events):
        if verb == "send":
            client, prompt, output, shared = rest
            tokens = ([5] * 200)[:prompt] if shared else prompt
            lease = f"{client}{number}"
            for _ in range(1 + (shared == 1)):
                engine.send(client, prompt=tokens, output=output, lease=lease)
        elif verb == "step":
            for _ in range(rest[0]):
                engine.step()
        elif verb == "abort" and engine.scheduler.requests:
            alive = sorted(engine.scheduler.requests)
            engine.abort(alive[rest[0] % len(alive)])
        elif verb == "base":
            engine.exchange(base={rest[0]: float(rest[1])})
        elif verb == "policy":
            engine.exchange(policy=rest[0])
        check()
    engine.run()
    check()
    assert all(counts[:2] == [0, 0] for counts in leases.values())
    assert_nothing_is_left(engine)


# --- start ----------------------------------------------------------------------------------


def test_a_missing_hook_is_named_with_the_version_that_has_it():
    check_hooks(AsyncScheduler)
    for form in EITHER:
        names = {*HOOKS, *form} - {"_preempt_request"}
        with pytest.raises(UnsupportedVLLMError, match=r"vLLM 0\..* has no _preempt_request\."):
            check_hooks(type("Other", (), dict.fromkeys(names, print)))
    with pytest.raises(UnsupportedVLLMError, match=r" has no _handle_blocked_waiting_request\."):
        check_hooks(type("Other", (), dict.fromkeys(HOOKS, print)))


def test_queues_that_it_does_not_know_are_named():
    class Other(FairScheduler):
        def _replace_queues(self) -> None:
            self.third_waiting = create_request_queue(SchedulingPolicy.FCFS)
            super()._replace_queues()

    with pytest.raises(UnsupportedVLLMError, match=r"has the queues .*third_waiting, waiting\."):
        FakeEngine(Other)


def test_a_memory_without_a_watermark_is_named(monkeypatch):
    make = KVCacheManager.__init__

    def make_without(self, *args, **kwargs) -> None:
        make(self, *args, **kwargs)
        del self.watermark_blocks

    monkeypatch.setattr(KVCacheManager, "__init__", make_without)
    with pytest.raises(UnsupportedVLLMError, match=r" has no watermark_blocks "):
        fair()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="choose one of: vtc, lcf, fcfs"):
        fair(settings={"policy": "lottery"})
    with pytest.raises(ValueError, match=r"unknown settings .*: polcy; there are: policy"):
        fair(settings={"polcy": "vtc"})
    with pytest.raises(ValueError, match="hold_back must not be below 0"):
        fair(settings={"hold_back": -1})
    with pytest.raises(ValueError, match="'fcfs', not 'priority'"):
        fair(scheduling_policy="priority")


def test_the_exchange_is_a_method_of_the_engine_core():
    from vllm.v1.engine.core import EngineCore

    publish_exchange()
    engine = fair()
    engine.send("a")
    core = SimpleNamespace(scheduler=engine.scheduler)
    assert EngineCore.fairlane_exchange(core, {})["charged"] == {"a": 0.0}


def death_signal() -> int:
    """Return the signal this process gets when its parent dies."""
    pr_get_pdeathsig = 2
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(pr_get_pdeathsig, ctypes.byref(number))
    return number.value


def test_only_an_engine_process_dies_with_its_parent():
    fair()
    assert death_signal() == 0, "this is the tests' own process"
    fork = multiprocessing.get_context("fork")
    for name, expected in (("EngineCore", 9), ("EngineCore_DP0", 9), ("SomethingElse", 0)):
        answers = fork.SimpleQueue()

        def child(answers=answers) -> None:
            die_with_parent()
            answers.put(death_signal())

        process = fork.Process(target=child, name=name)
        process.start()
        process.join(30)
        assert answers.get() == expected
