"""The embedded store on a cluster of several nodes: refused, as it could not be reached.

It listens on loopback. A router or replica on another node would ask its own loopback for it, find
nobody, and never become ready without a word why; so the deployment fails, and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deployments.embedded_store import EmbeddedStore, StoreFailed


class OneNodeStore(EmbeddedStore):
    """`EmbeddedStore`, where all of the Ray cluster is one node when it starts."""

    def __init__(self, data_dir: str) -> None:
        """Start the server. Raises StoreFailed on several nodes, and what `EmbeddedStore` does."""
        import ray

        refuse_several(ray.nodes())
        super().__init__(data_dir)


def refuse_several(nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise StoreFailed unless those alive (of `ray.nodes()`) have one address."""
    addresses = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    if len(addresses) > 1:
        raise StoreFailed(
            f"the embedded store is for one machine, and this cluster has {len(addresses)} nodes: "
            "name a Redis or Valkey that all of them reach, as `store.url` or in REDIS_URL"
        )
