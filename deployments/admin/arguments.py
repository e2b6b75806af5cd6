"""What arguments mean, as types for argparse: each raises ArgumentTypeError, which says how to
write it."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from datetime import date

from fairness.limits import Limits

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(text: str) -> int:
    """Of a duration as people write it: 90d, 24h, 30m, 45s, 0."""
    if text == "0":
        return 0
    match = re.fullmatch(r"([0-9]{1,10})([smhdw])", text)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r} is no duration: write a number and s, m, h, d or w, such as 90d or 12h"
        )
    return int(match[1]) * SECONDS[match[2]]


def day(text: str) -> str:
    """A day as people and computers write it: 2026-11-30."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no day: write it as 2026-11-30") from None


def limits(text: str) -> dict[str, float]:
    """Limits of a client or group: NAME=NUMBER, several with commas; `none` for none."""
    found: dict[str, float] = {}
    for part in text.split(",") if text != "none" else ():
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in Limits._fields or not 0 < number < math.inf:
            raise ArgumentTypeError(
                f"{part!r} is no limit: write NAME=NUMBER, such as requests_per_minute=60; the "
                f"names are {', '.join(Limits._fields)}"
            )
        found[name] = int(number) if number.is_integer() else number
    return found


def weight(text: str) -> float:
    """A share: any number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} is no weight: write a number above zero, such as 0.5")
    return value


def key_id(text: str) -> str:
    """The id of a key: the first 12 digits of its hash. (The message does not repeat what may be
    a key.)"""
    if not re.fullmatch(r"[0-9a-f]{12}", text):
        raise ArgumentTypeError(
            "the id of a key is 12 digits of 0-9 and a-f: `fairlane keys list CLIENT` shows it, "
            "and `fairlane hash-key` begins with it"
        )
    return text
