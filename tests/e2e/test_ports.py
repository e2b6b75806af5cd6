"""What of the real application can be reached from another machine: the less, the better."""

from __future__ import annotations

import contextlib
import ipaddress
import pickle

import grpc
import psutil
import pytest
from ray.serve.generated import serve_pb2, serve_pb2_grpc

from loadtests.process_cpu import system_processes
from tests.e2e.conftest import App

pytestmark = pytest.mark.e2e

ROUTERS, REPLICAS, STORES = 2, 2, 1


def listeners(app: App) -> set[tuple[str, str, int]]:
    """(process, address, port) of every listening TCP socket of the application."""
    found = set()
    for process in system_processes(app.process.pid).values():
        with contextlib.suppress(psutil.Error):
            for at in psutil.Process(process.id.pid).net_connections("tcp"):
                if at.status == psutil.CONN_LISTEN:
                    found.add((process.name, at.laddr.ip, at.laddr.port))
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def test_all_ports_are_on_loopback_but_those_that_ask_for_rays_token(app: App) -> None:
    """Serve opens one for calls between deployments in each of its replicas, on every address,
    and unpickles what it is sent: only from who has the token."""
    everything = listeners(app)
    assert {name for name, *_ in everything} >= {"haproxy", "raylet", "valkey-server"}
    beyond = {(name, port) for name, address, port in everything if not is_loopback(address)}
    assert {name.split(":")[2] for name, _ in beyond} == {"ServeReplica"}, beyond
    assert len(beyond) == ROUTERS + REPLICAS + STORES, beyond
    for _, port in beyond:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = serve_pb2.ASGIRequest(pickled_request_metadata=pickle.dumps(None))
            with pytest.raises(grpc.RpcError) as refused:
                serve_pb2_grpc.ASGIServiceStub(channel).HandleRequest(call, timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
