"""A pool as `GET /admin/live` tells it, laid out for a terminal. Pure: JSON in, rich out."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fairness.classes import split_class

BAR = 12  # cells
GOOD, BAD, WAIT, DIM = "green", "red", "yellow", "dim"


def verdict(seen: dict[str, Any]) -> tuple[str, str]:
    """One word on fairness, and a colour for it; the dashboard says the same (headline.js)."""
    gap, bound = seen["gap"], _bound(seen)
    if seen["policy"] != "vtc":
        return f"not fair ({seen['policy']})", BAD
    if gap is None:
        return ("free" if seen["waiting"] or seen["running"] else "idle"), GOOD
    if bound is None:
        return "fair? (bound unknown)", WAIT
    if gap <= bound:
        return "fair", GOOD
    certain = seen["bound"]
    return ("fair?", WAIT) if certain is None or gap <= certain else ("out of bound", BAD)


def _bound(seen: dict[str, Any]) -> float | None:
    """By the requests so far, as long as that is known."""
    bound: float | None = seen.get("bound_seen")
    return seen["bound"] if bound is None else bound


def screen(seen: dict[str, Any] | None, pool: str, clients: int = 15) -> RenderableType:
    """A headline, the clients with most, the replicas. seen: an observation, or None."""
    if seen is None:
        return Text(f"{pool}: nothing was seen in the last seconds", style=WAIT)
    parts: list[RenderableType] = [_headline(seen), _clients(seen, clients)]
    if seen["groups"]:
        parts.append(_groups(seen))
    parts.append(_replicas(seen))
    return Group(*parts)


def _headline(seen: dict[str, Any]) -> Text:
    word, color = verdict(seen)
    rates = seen["rates"]
    text = Text(f"{seen['pool']}  ", style="bold").append(word, style=f"bold {color}")
    if seen["gap"] is not None:
        bound = _bound(seen)
        text.append(f"  gap {short(seen['gap'])}" + (f" of {short(bound)}" if bound else ""))
    if seen["jain"] is not None:
        text.append(f"  Jain {seen['jain']:.3f}")
    text.append(f"\nservice {short(rates['service_per_s'])}/s")
    text.append(
        f"  tokens {short(rates['input_per_s'])}/s in, {short(rates['output_per_s'])}/s out"
    )
    many = "" if seen["backlogged"] == 1 else "s"
    text.append(f"\nwaiting {seen['waiting']:,} of {seen['backlogged']:,} client{many}")
    if seen["waiting"]:
        text.append(f", oldest {seen['oldest_wait_ms'] / 1000:.1f} s")
    text.append(f"  running {seen['running']}  credits {seen['credits']}")
    return text


def _clients(seen: dict[str, Any], most: int) -> Table:
    rows = sorted(seen["clients"], key=lambda row: (-_rate(row), row["client"]))
    lowest: dict[str, float] = {}
    for row in rows:
        if row["waiting"]:
            lowest[row["group"]] = min(row["counter"], lowest.get(row["group"], row["counter"]))
    table = _table("client", "group", "weight", "share", "", "waiting", "running", "ahead by")
    for row in rows[:most]:
        share = _rate(row) / (_rate(seen) or 1)
        ahead = row["counter"] - lowest[row["group"]] if row["waiting"] else None
        table.add_row(
            Text(row["client"]),
            Text(_group(row["group"]), style=DIM),
            "-" if row["weight"] is None else f"{row['weight']:g}",
            f"{share:.1%}",
            bar(share),
            str(row["waiting"]),
            str(row["running"]),
            short(ahead),
        )
    hidden = rows[most:]
    others = seen["others"]
    count = others["clients"] + len(hidden)
    if count:
        share = (_rate(others) + sum(map(_rate, hidden))) / (_rate(seen) or 1)
        waiting = others["waiting"] + sum(row["waiting"] for row in hidden)
        running = others["running"] + sum(row["running"] for row in hidden)
        name = Text(f"{count} more", style=DIM)
        table.add_row(name, "", "", f"{share:.1%}", bar(share), str(waiting), str(running), "")
    return table


def _groups(seen: dict[str, Any]) -> Table:
    table = _table("group", "", "weight", "share", "", "waiting", "running", "")
    for row in sorted(seen["groups"], key=lambda row: str(row["group"])):
        share = _rate(row) / (_rate(seen) or 1)
        outer, _, last = row["group"].rpartition("/")
        name = Text("  " * row["group"].count("/") + (last if outer else _group(last)))
        told = (f"{row['weight']:g}", f"{share:.1%}", bar(share))
        table.add_row(name, "", *told, str(row["waiting"]), str(row["running"]), "")
    return table


def _group(path: str) -> str:
    """As people call it: a priority class is an outermost group."""
    priority_class, within = split_class(f"{path}/")
    told = (within.removesuffix("/"), priority_class and f"class {priority_class}")
    return ", ".join(filter(None, told)) if priority_class else path


def _replicas(seen: dict[str, Any]) -> Table:
    table = _table("replica", "", "batch", "", "KV cache", "credits", "preempted", "")
    for row in seen["replicas"]:
        facts = row["facts"] or {}
        slots, use = facts.get("slots"), facts.get("kv_use", 0.0)
        table.add_row(
            Text(row["name"].rpartition("#")[2]),
            "" if row["taking"] else Text("draining", style=WAIT),
            f"{min(row['running'], slots)} of {slots}" if slots else str(row["running"]),
            bar(row["running"] / slots) if slots else "",
            f"{use:.0%}" if facts.get("kv_tokens") else "-",
            str(row["credits"]),
            str(facts.get("preemptions", "-")),
            "",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    left = ("client", "group", "replica", "")
    for column in columns:
        justify = "left" if column in left else "right"
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _rate(row: dict[str, Any]) -> float:
    return float(row["rates"]["service_per_s"])


def bar(part: float) -> Text:
    """A part of one as a bar."""
    full = round(BAR * max(0.0, min(1.0, part)))
    return Text("━" * full, style="blue").append(" " * (BAR - full))


def short(number: float | None) -> str:
    """Three digits: 1,234 12.3k 4.56M."""
    if number is None:
        return "-"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= unit:
            return f"{number / (1e3 if name == 'k' else unit):.3g}{name}"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
