"""Who a request of the engine belongs to: written by us at the last moment, whatever a body says.

Every OpenAI handler of vLLM reaches the engine through `generate` or `encode` of one client
object. Both are wrapped: the lease that the grant check bound to this task goes into the request's
`extra_args`, where the scheduler reads it, and `priority` is what the router says, which orders
the requests of one client only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from replicas.grant_check import CURRENT_LEASE
from replicas.lease_book import EngineCall, Lease

IDENTITY = "fairlane"


class NoGrantError(PermissionError):
    """The engine was asked to work without a lease."""


def bind_identity(engine_client: Any) -> None:
    """Wrap `generate` and `encode` of vLLM's AsyncLLM (instance attributes)."""
    engine_client.generate = _wrap(engine_client.generate)
    engine_client.encode = _wrap(engine_client.encode)


def _wrap(method: Callable[..., AsyncGenerator[Any, None]]) -> Any:
    def with_identity(
        prompt: Any, params: Any = None, request_id: str = "", **options: Any
    ) -> AsyncGenerator[Any, None]:
        # Named differently by vLLM: sampling_params (generate), pooling_params (encode).
        for name in ("sampling_params", "pooling_params"):
            params = options.pop(name, params)
        lease = CURRENT_LEASE.get()
        if lease is None:
            raise NoGrantError("the engine works only for requests the global queue has granted")
        write_identity(params, lease)
        options["priority"] = lease.token.priority
        return _watch(lease, params, method(prompt, params, request_id, **options))

    return with_identity


def write_identity(params: Any, lease: Lease) -> None:
    """Put the lease where the scheduler finds it; what a client wrote there is lost."""
    token = lease.token
    identity = {
        "client": token.client,
        "lease": token.lease,
        "weight": token.weight,
        "counter": token.counter,
        "groups": [list(group) for group in token.groups],
        "price": token.price,
    }
    field = "extra_args" if hasattr(params, "extra_args") else "extra_kwargs"
    setattr(params, field, {IDENTITY: identity})


async def _watch(
    lease: Lease, params: Any, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """Pass outputs on, counting what the client is told."""
    call = EngineCall()
    lease.calls.append(call)
    kind = getattr(params, "output_kind", None)
    deltas = kind is not None and kind.name == "DELTA"
    async with aclosing(outputs):
        async for output in outputs:
            _count(call, output, deltas)
            if output.finished:
                call.complete = True
            yield output
    call.complete = True


def _count(call: EngineCall, output: Any, deltas: bool) -> None:
    if not call.input and output.prompt_token_ids is not None:
        call.input = len(output.prompt_token_ids)
    call.cached = output.num_cached_tokens or 0
    completions = getattr(output, "outputs", None)
    if not isinstance(completions, list):
        return  # pooling: no output tokens
    for completion in completions:
        before = call.outputs.get(completion.index, 0) if deltas else 0
        call.outputs[completion.index] = before + len(completion.token_ids)
