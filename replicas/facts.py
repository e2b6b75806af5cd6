"""What a replica tells of itself beside its queue: its size, how full it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fairness.observe.board import Board
from fairness.observe.observation import ReplicaFacts
from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import StoreUnavailableError

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0


def cache_tokens(vllm_config: Any) -> int:
    """Tokens that the engine's KV cache holds; 0 where vLLM does not say.

    vLLM's front end hears the number of blocks from the engine when that has started.
    """
    cache = vllm_config.cache_config
    return int(getattr(cache, "num_gpu_blocks", None) or 0) * int(cache.block_size or 0)


async def keep_telling(board: Board, replica: str, facts: Callable[[], ReplicaFacts]) -> None:
    """Tell the pool's observer until cancelled. One small write every `INTERVAL_S`."""
    while True:
        pause_s = INTERVAL_S
        try:
            await board.tell_facts(replica, facts())
        except BreakerOpenError as error:
            pause_s = max(pause_s, error.retry_in_s)
        except StoreUnavailableError as error:
            logger.warning("the pool's observer can't be told: %s", error)
        await asyncio.sleep(pause_s)
