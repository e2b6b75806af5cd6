"""The VTC scheduler: vLLM's continuous batching, with fairness between clients.

vLLM's scheduler builds one batch per step: it goes on with all running requests, then admits
waiting ones while slots, tokens and KV cache blocks last. All of that stays vLLM's. What
changes is who goes first and who pays.

State
    - a **ledger** that knows for each request its client, its lease and the tokens it used,
      and a **counter** of weighted service per client (``replicas.ledger``,
      ``fairness.counters``);
    - vLLM's two queues replaced by fair ones that read those counters
      (``replicas.waiting_queue``). One is ``waiting``. The other is ``skipped_waiting`` up to
      vLLM 0.30 and ``kv_holding_waiting`` since.

Rules
    1. *Order.* Of all waiting requests the policy's first goes next: under VTC one of the client
       with the smallest counter, its oldest, unless the client itself gave another a smaller
       ``priority``. Requests that vLLM finds not ready when it looks (a grammar compiling, KV on
       its way, too many LoRAs) keep their places until they are. ``skipped_waiting`` holds those.
       Stock drains that queue first; here the heads of both compete, so a client's unready
       requests do not push ahead of others. Only among equals do the skipped go first, which under
       FCFS, where all clients are equal, is exactly the stock order. ``kv_holding_waiting`` holds
       those that wait with KV cache blocks in their hands: a session's next input, KV that has
       come. vLLM takes them first, lest they keep memory from others for nothing, and so does
       this one, in policy order among themselves.
    2. *A pop is not an admission.* vLLM also pops what it skips. So a pop is only noted, and
       decided the next time vLLM asks whose turn it is: running now means admitted, and its
       prompt is charged before the next request is chosen. That is why one client can't
       take all the free slots of a step, and why nothing need be taken back.
    3. *Prompt.* The tokens of a prompt that the prefix cache did not provide are charged when
       the request is first admitted, whole, in however many chunks they will be computed.
       Never again after a preemption: recomputing is the engine's loss. A request that ends
       before its prompt is computed gets the rest back.
    4. *Output.* Tokens are charged at the end of the step in which the engine accepted them:
       rejected drafts and tokens after a stop cost nothing. More input for a streaming session is
       charged like a prompt, when the session runs again.
    5. *Memory.* When blocks run out vLLM preempts the last of ``running``. So when they are
       low, ``running`` is put in policy order first: the last is then the request admitted
       last of the client that was served most. (Under FCFS the order is already right.) The
       preempted request goes back to the head of its client's line. A request that lost its
       memory three times is **protected**: it goes to the front of ``running`` and loses it again
       only when nothing unprotected runs. So each request is computed anew at most three times
       for the sake of others that came later, and a client that is always the most served
       finishes what it began. (The first in ``running`` never loses its memory while another
       runs, so there is progress even when all are protected.)
    6. *Holding back.* Who takes the last free blocks soon costs others theirs, or is the one who
       loses them, and what was computed is computed anew. So an admission must leave free what
       those who run fill in the next ``hold_back`` steps: that many tokens for each. No more
       than that lies idle while somebody waits who would fit, and not for long, since those who
       run grow into it. Where nothing runs nothing is held back: there is always progress. Nor is
       anything from a client that received less than one who runs by more than one running
       request's part of the memory is worth: it is admitted into the last blocks, and rule 5 takes
       the next from the most served. The holding back is done by vLLM's own ``watermark``. As a
       setting that is a constant part of the memory, and stays the least held back; here it
       follows the number of those who run. (``hold_back: 0`` leaves it alone.)
    7. *Classes* (``fairness.classes``), if there are any, go before counters wherever an order is
       made: a request of a higher class is admitted first, and memory is taken from the lowest
       first, except that a class which is owed its floor goes before all others in both. So what
       a class was admitted to for its floor is not taken from it at once.

Why it is right: at every admission the smallest counter of those who wait goes first, all
service is in the counters before the next decision, and who comes back from idleness is
lifted. Those are the conditions of the bound proved for VTC (OSDI 2024, theorem 4.4): two
backlogged clients never differ by more than 2U in service. Counters also follow the global
queue (see ``exchange``), so the batch keeps the cluster's order and not only its own. Holding back
changes when somebody is admitted, not who: the memory is a little smaller.

Cost per step: nothing per token (the engine counts them, and is asked when a counter is read), a
heap operation of O(log clients) per admission, and nothing for requests that only wait. When memory
is low, a look at the counters of those who run, and a sort of them if some may be preempted. Those
that wait for an event are asked whether it has come in every step that has room for one more, as
in stock, but aside from the order and at half of stock's cost (``SkippedRequestQueue``).
``make bench-scheduler`` measures it all.

Identity. The replica writes ``{"client", "lease", "weight", "counter", "groups", "price"}`` under
the key ``fairlane`` into ``SamplingParams.extra_args``, or for pooling requests into
``PoolingParams.extra_kwargs`` (``vllm_xargs`` of an HTTP body ends there too: the replica
must overwrite it always). See ``replicas.ledger.Identity``.

Settings come as ``additional_config={"fairlane": {...}}`` of the engine's arguments: ``policy``
(``vtc``, ``lcf``, ``fcfs``, or ``shadow``, which is ``fcfs`` here), ``input_weight``,
``output_weight``, ``cached_input_weight``, ``classes`` (``[[name, floor], ...]``, the highest
first; rule 7), and ``hold_back`` (rule 6).

Hooks. This class extends parts of vLLM that are not a public interface. ``HOOKS`` names them,
with what is called so only up to 0.30 or only since in ``EITHER``; the start fails with a clear
message where one is missing. ``tests/integration/test_vllm_versions.py`` runs the tests of this
file on the scheduler of each version.
"""

import ctypes
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MethodType
from typing import Any, TypeVar

from vllm import __version__ as vllm_version
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus, StreamingUpdate

from fairness.classes import Classes, ServiceClass
from fairness.cost import ServiceCost
from fairness.policy import VTC, Key, Place, Policy, Standing, ahead, policy, standing
from replicas.ledger import Identity, Ledger
from replicas.room import RoomEstimate
from replicas.waiting_queue import FairRequestQueue, ParkingRequestQueue, SkippedRequestQueue

Q = TypeVar("Q", bound=FairRequestQueue)

SUPPORTED_VLLM = "0.28 to 0.33"
PROTECTED_AFTER = 3  # preemptions; see rule 5
HOLD_BACK = 12  # tokens for each running request; see rule 6
HOOKS = (
    "schedule",
    "add_request",
    "update_from_output",
    "_update_request_as_session",
    "_preempt_request",
    "_free_request",
    "_is_blocked_waiting_status",
)
EITHER = (
    ("_select_waiting_queue_for_scheduling", "_try_promote_blocked_waiting_request"),  # to 0.30
    ("_handle_blocked_waiting_request",),  # since 0.31
)
KEY = "fairlane"
NOWHERE = Place(0, 0, 0)  # those who run stand in no line


class UnsupportedVLLMError(RuntimeError):
    """This vLLM lacks something that the fair scheduler extends."""


class FairScheduler(AsyncScheduler):
    """vLLM's scheduler, ordering and charging requests by client.

    Used as ``scheduler_cls="replicas.scheduler.FairScheduler"``. It extends the asynchronous
    scheduler; where asynchrony is off (on CPU) it goes back to the plain one's way of a step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_hooks(AsyncScheduler)
        super().__init__(*args, **kwargs)
        if self.policy is not SchedulingPolicy.FCFS:
            raise ValueError(
                "FairScheduler orders requests by client and needs vLLM's own scheduling policy "
                f"to be 'fcfs', not {self.policy.value!r}"
            )
        settings = read_settings(self.vllm_config.additional_config)
        fair_policy = settings.policy
        self._ledger = Ledger(settings.cost, settings.classes)
        self._counters = self._ledger.counters
        self._counters.lifts = fair_policy.lifts
        self._fair_policy = fair_policy
        self._room = RoomEstimate()
        self._hold_back = settings.hold_back
        if not hasattr(self.kv_cache_manager, "watermark_blocks"):
            raise unsupported("has no watermark_blocks in its kv_cache_manager")
        self._least_held_back: int = self.kv_cache_manager.watermark_blocks  # vLLM's setting
        self._sizes = [
            group.kv_cache_spec.block_size for group in self.kv_cache_config.kv_cache_groups
        ]
        self._popped: list[Request] = []
        self._ended_in_step: list[Request] | None = None  # None between steps
        self._preemptions = 0
        self._replace_queues()
        if not self.scheduler_config.async_scheduling:
            # What AsyncScheduler adds is for running ahead and would cost a tenth of each step.
            for name in ("_update_after_schedule", "_update_request_with_output"):
                setattr(self, name, MethodType(getattr(Scheduler, name), self))
        publish_exchange()
        die_with_parent()

    # --- what vLLM calls, in the order of a request's life ---------------------------------

    def add_request(self, request: Request) -> None:
        """Open an account for a new request, then queue it."""
        if request.request_id not in self.requests:  # else: more input for a session
            prompt, answer = request.num_prompt_tokens, request._output_token_ids
            self._ledger.opened(request.request_id, identity_of(request), prompt, answer)
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Build the next batch (rules 1, 2, 5 and 6)."""
        if self._memory_is_low():
            self._put_most_served_last()
        if self._has_room():
            for queue in self._parking:
                queue.wake(self._is_ready)
            self.kv_cache_manager.watermark_blocks = self._blocks_held_back()
        output = super().schedule(*args, **kwargs)
        self._settle_pops()
        for queue in self._parking:
            queue.end_step()
        return output

    def _select_waiting_queue_for_scheduling(self) -> RequestQueue | None:
        if not self.skipped_waiting:
            return self.waiting or None
        if not self.waiting or self.skipped_waiting.first_key() < self.waiting.first_key():
            return self.skipped_waiting
        return self.waiting

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        """Take the model's output, charge its tokens, close the accounts of what ended (rule 4)."""
        ended: list[Request] = []
        self._ended_in_step = ended
        answers = super().update_from_output(*args, **kwargs)
        self._ended_in_step = None
        self._ledger.stepped()
        for request in ended:
            self._close(request)
        return answers

    def _update_request_as_session(self, session: Request, update: StreamingUpdate) -> None:
        """Take more input for a streaming session: it waits again, like a new request."""
        self._ledger.continued(
            session.request_id, identity_of(update), len(update.prompt_token_ids or ())
        )
        super()._update_request_as_session(session, update)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._preemptions += 1
        self._ledger.preempted(request.request_id, request.num_computed_tokens)
        super()._preempt_request(request, *args, **kwargs)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Close the account of a request that finished, failed or was aborted in any state.

        Within a step it is closed at the end of it, when its last tokens are charged.
        """
        if self._ended_in_step is None:
            self._close(request)
        else:
            self._ended_in_step.append(request)
        return super()._free_request(request, *args, **kwargs)

    # --- what the replica calls, between steps ----------------------------------------------

    def exchange(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """Take news from the replica's event loop and report what changed here.

        It runs on the scheduler's thread, between steps (``EngineCore.fairlane_exchange``), so
        it needs no locks.

        Args:
            update: all keys are optional.
                ``base``: {client or group: base}, see ``fairness.counters``; unknown ones are
                skipped.
                ``policy``: the policy's name, to switch; ``None`` leaves it.
                ``forget``: [client, ...], to drop those that are idle and fully reported.

        Returns:
            ``leases``: [lease, waiting, running, input, cached, output] for each lease that
            changed since the last exchange: its engine requests never admitted yet, those
            admitted and not ended (preempted ones too), and its tokens. Both 0: it has ended,
            and this is its last report.
            ``charged``: {client: weighted service charged here in total} for the clients that
            have live requests or were charged since the last exchange, and for their groups. A
            client that was to be forgotten and is not in it is forgotten; its total starts from 0
            if it returns.
            ``waiting``, ``running``: engine requests in the queues (preempted ones too), in
            the batch. ``kv_usage``: 0 to 1. ``fits``: how many more requests the blocks are likely
            to hold that are free and not held back, None before the first. ``preemptions``: since
            the start.

        Raises:
            ValueError: the policy is unknown or a base is not a finite number.
        """
        if (name := update.get("policy")) is not None:
            self._switch_policy(name)
        base = update.get("base") or {}
        self._ledger.set_bases(base)
        for node in base:
            self._reorder(node)
        self._ledger.forget(update.get("forget") or ())
        leases, charged = self._ledger.report()
        running, waiting = self.get_request_counts()
        held_back = self.kv_cache_manager.watermark_blocks if running else 0
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        return {
            "leases": leases,
            "charged": charged,
            "waiting": waiting,
            "running": running,
            "kv_usage": float(self.kv_cache_manager.usage),
            "fits": self._room.fits(max(0, free - held_back)),
            "preemptions": self._preemptions,
        }

    # --- inside -----------------------------------------------------------------------------

    def _replace_queues(self) -> None:
        """Put fair queues in the places of vLLM's, in either of two forms (see "State")."""
        theirs = {name for name, value in vars(self).items() if isinstance(value, RequestQueue)}
        self.waiting: FairRequestQueue
        self._queues: tuple[FairRequestQueue, ...]
        self._parking: tuple[ParkingRequestQueue, ...]
        if theirs == {"waiting", "skipped_waiting"}:
            self.waiting = self._fair_queue(FairRequestQueue, rank=1)
            self.skipped_waiting = self._fair_queue(
                SkippedRequestQueue, rank=0, is_blocked=self._is_blocked
            )
            self._parking = (self.skipped_waiting,)
            self._queues = (self.waiting, self.skipped_waiting)
            self._promote = self._try_promote_blocked_waiting_request
        elif theirs == {"waiting", "kv_holding_waiting"}:
            self.waiting, self.kv_holding_waiting = self._parking = self._queues = tuple(
                self._fair_queue(ParkingRequestQueue, rank=0, is_blocked=self._is_blocked)
                for _ in range(2)
            )
            self._promote = self._handle_blocked_waiting_request
        else:
            raise unsupported(f"has the queues {', '.join(sorted(theirs)) or 'none'}")

    def _fair_queue(self, kind: type[Q], **settings: Any) -> Q:
        return kind(
            self._fair_policy,
            self._counters,
            lambda request: self._ledger.client_of(request.request_id),
            self._popped.append,
            self._settle_pops,
            **settings,
        )

    def _is_blocked(self, request: Request) -> bool:
        return self._is_blocked_waiting_status(request.status)

    def _is_ready(self, request: Request) -> bool:
        return not self._is_blocked(request) or self._promote(request)

    def _has_room(self) -> bool:
        taken = len(self.running) + self.num_waiting_for_streaming_input
        return bool(taken < self.max_num_running_reqs)

    def _settle_pops(self) -> None:
        """Charge the prompts of those popped requests that were admitted (rules 2 and 3)."""
        if not self._popped:
            return
        for request in self._popped:
            if request.status is RequestStatus.RUNNING:
                prefill = request.prefill_stats  # gone once the first output was taken
                prompt = request.num_prompt_tokens
                cached = 0 if prefill is None else prefill.num_cached_tokens
                self._ledger.admitted(request.request_id, prompt, cached)
                self._room.admitted(sum((prompt - cached) // size + 1 for size in self._sizes))
        self._popped.clear()

    def _close(self, request: Request) -> None:
        client = self._ledger.ended(request.request_id, request.num_computed_tokens)
        if client is not None:
            for node in (client, *self._counters.groups_of(client)):
                self._reorder(node)

    def _memory_is_low(self) -> bool:
        """Whether this step may have to preempt: running requests could ask for more than is free.

        Only they can make vLLM preempt: for a waiting request that doesn't fit nobody has to go.
        """
        requests = len(self.running)
        if requests < 2:
            return False
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        # First what the step could take at most: mostly there is more, and no need to look closer.
        # Every request may also start one block that it doesn't fill.
        tokens = self.max_num_scheduled_tokens + requests * self.num_lookahead_tokens
        if free >= sum(requests + 1 + tokens // size for size in self._sizes):
            return False
        return bool(free < sum(self._blocks_wanted(size) for size in self._sizes))

    def _blocks_wanted(self, size: int) -> int:
        """Return how many more blocks of a size the running requests ask for in this step."""
        wanted = 0
        for request in self.running:
            tokens = (
                request.num_tokens_with_spec
                + request.num_output_placeholders
                + self.num_lookahead_tokens
            )
            wanted += -(-tokens // size) - -(-request.num_computed_tokens // size)
        return wanted

    def _blocks_held_back(self) -> int:
        """Return how many blocks a waiting request must leave free in this step (rule 6).

        vLLM does the rest: it asks for its ``watermark_blocks`` where something runs.
        """
        blocks = sum(-(-self._hold_back * len(self.running) // size) for size in self._sizes)
        if blocks <= self._least_held_back:
            return self._least_held_back
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        step = sum(self.max_num_scheduled_tokens // size + 1 for size in self._sizes)
        if free >= blocks + step:  # no need to look closer, as for most steps
            return blocks
        queues = [queue for queue in self._queues if queue]
        if queues:
            first = min(queues, key=FairRequestQueue.first_key).peek_request()
            if self._is_far_behind(first, free):
                return self._least_held_back
        return blocks

    def _is_far_behind(self, request: Request, free: int) -> bool:
        """Whether a client that runs was served more than this one's, by a request's worth.

        The bound lets two clients differ by twice what all of memory is worth in output tokens,
        ``w_q M``. A request's worth is what a running request holds of that, in the mean.
        """
        client_of = self._ledger.client_of
        mine = self._standing(client_of(request.request_id))
        clients = {client_of(running.request_id) for running in self.running}
        most = max(ahead(self._standing(client), mine) for client in clients)
        tokens = (self.kv_cache_config.num_blocks - free) / sum(1 / size for size in self._sizes)
        worth = self._ledger.cost.of(0, tokens / len(self.running))
        return most > worth

    def _put_most_served_last(self) -> None:
        """Put ``running`` in policy order: vLLM preempts from its end (rule 5).

        The sort is stable, so each client's requests stay in the order of their admission. Those
        that are protected come first, as if their clients had never been served.
        """
        client_of = self._ledger.client_of
        order = self._fair_policy.key

        def key(request: Request) -> tuple[Key, Key]:
            protected = request.num_preemptions >= PROTECTED_AFTER
            return (
                order((-math.inf if protected else 0.0, ""), NOWHERE),
                order(self._standing(client_of(request.request_id)), NOWHERE),
            )

        self.running.sort(key=key)

    def _switch_policy(self, name: str) -> None:
        self._fair_policy = policy(name)
        self._counters.lifts = self._fair_policy.lifts
        for queue in self._queues:
            queue.set_policy(self._fair_policy)

    def _standing(self, client: str) -> Standing:
        return standing(client, self._counters.group_of(client), self._counters.order)

    def _reorder(self, node: str) -> None:
        """Take note that the counter of a client or a group may have gone down."""
        for queue in self._queues:
            queue.reorder(node)


def identity_of(request: Request | StreamingUpdate) -> Identity:
    """Read whose request (or more input for a session) it is from where the replica wrote it."""
    if request.sampling_params is not None:
        extra = request.sampling_params.extra_args
    else:
        pooling_params = getattr(request, "pooling_params", None)
        extra = getattr(pooling_params, "extra_kwargs", None)
    return Identity.read((extra or {}).get(KEY))


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``additional_config["fairlane"]`` may say."""

    policy: Policy
    cost: ServiceCost
    classes: Classes
    hold_back: int  # tokens for each running request; see rule 6


def read_settings(additional_config: Any) -> Settings:
    """Return the settings that ``additional_config["fairlane"]`` asks for.

    Raises:
        ValueError: a setting is unknown or has an impossible value.
    """
    section = additional_config.get(KEY) if isinstance(additional_config, dict) else None
    given = dict(section or {})
    order = policy(given.pop("policy", VTC.name))
    names = [weight.name for weight in fields(ServiceCost)]
    weights = {name: float(given.pop(name)) for name in names if name in given}
    hold_back = int(given.pop("hold_back", HOLD_BACK))
    if hold_back < 0:
        raise ValueError(f"hold_back must not be below 0, not {hold_back}")
    classes = Classes(
        tuple(ServiceClass(str(name), float(floor)) for name, floor in given.pop("classes", ()))
    )
    if given:
        raise ValueError(
            f"unknown settings in additional_config[{KEY!r}]: {', '.join(sorted(given))}; "
            f"there are: policy, {', '.join(names)}, classes, "
            "hold_back"
        )
    return Settings(order, ServiceCost(**weights), classes, hold_back)


def check_hooks(base: type) -> None:
    """Make sure that vLLM's scheduler still has the methods that this one extends.

    Raises:
        UnsupportedVLLMError: names what is missing and the version that is supported.
    """

    def lacks(names: Iterable[str]) -> list[str]:
        return [name for name in names if not callable(getattr(base, name, None))]

    # Of what comes in either of two forms: whatever the form that fits better lacks.
    missing = lacks(HOOKS) + min((lacks(names) for names in EITHER), key=len)
    if missing:
        raise unsupported(f"has no {', '.join(missing)}")


def unsupported(why: str) -> UnsupportedVLLMError:
    """Return the error for a vLLM whose scheduler is made otherwise."""
    return UnsupportedVLLMError(
        f"FairScheduler extends vLLM {SUPPORTED_VLLM}; the scheduler of vLLM {vllm_version} {why}. "
        f"Install vLLM {SUPPORTED_VLLM}, or leave scheduler_cls unset to serve without fairness "
        "inside the batch."
    )


def publish_exchange() -> None:
    """Make ``exchange`` callable from the replica's process.

    ``AsyncLLM.engine_core.call_utility_async(name, ...)`` calls the method ``name`` of the
    ``EngineCore`` object, between steps. The scheduler is built by that object and has no
    reference to it, so the method goes onto the class.
    """
    from vllm.v1.engine.core import EngineCore

    def fairlane_exchange(self: Any, update: dict) -> dict:
        return self.scheduler.exchange(update)

    EngineCore.fairlane_exchange = fairlane_exchange


def die_with_parent() -> None:
    """Have Linux kill this engine process when the replica that started it is gone.

    vLLM's engine process otherwise outlives a replica that was killed, and holds its GPU.
    Only done in a process that vLLM started for an engine and named so: where the engine runs
    inside the replica's own process (or a test's), the parent is somebody else.
    """
    if (
        sys.platform == "linux"
        and multiprocessing.parent_process() is not None
        and multiprocessing.current_process().name.startswith("EngineCore")
    ):
        pr_set_pdeathsig = 1
        if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
