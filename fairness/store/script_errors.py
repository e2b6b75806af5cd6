"""Is it the script that failed, on these arguments, or the server that can't serve now?

Both come as an error reply that names a line of the script: a write on a replica after a failover
(READONLY), a full memory (OOM), too few replicas (NOREPLICAS) and a missing permission are errors
of the script's own `redis.call`. Those pass; a fault in the arguments does not.
"""

from __future__ import annotations

import re

from redis.exceptions import ResponseError

# The error's code opens the message; Redis 6.2 has it in the middle, after a dash.
CODE = re.compile(r"(?:^|: -)([A-Z]{2,})\b")
# Codes that speak of what a command was given. (redis-py cuts a leading "ERR" off.)
OURS = ("ERR", "WRONGTYPE")
# Words of the errors that pass and have no code.
PASSING = ("ACL failure in script", "The user executing the script", "Script killed by user")


def script_failed(error: Exception) -> bool:
    """Did the script fail on its arguments, so that sending it again is in vain?"""
    text = str(error)
    # Errors that redis-py knows (READONLY, OOM...) have classes of their own, and all pass.
    if type(error) is not ResponseError or "user_script" not in text:
        return False
    code = CODE.search(text)
    if code is not None:
        return code.group(1) in OURS
    return not any(words in text for words in PASSING)
