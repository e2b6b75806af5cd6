"""Pictures of runs: service, service difference, gap and waits, as SVG that sits in the page.

Text stays text and colours are the page's own (`report.css`), so a picture is sharp on a phone and
follows the reader's dark or light. One panel per axes: the page lays them out.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter

from loadtests.measures.delivered import service_curves
from loadtests.measures.difference import service_difference
from loadtests.measures.gap import gap
from loadtests.measures.latency import ttft_by_client
from loadtests.outcome import Run
from loadtests.report.document import Figure, Panel

# What is drawn in these colours gets the page's (custom properties of report.css).
_INK, _FAINT, _RULE = "#010101", "#020202", "#030303"
_LINES = tuple(f"#0400{k:02x}" for k in range(8))
_ON_PAGE = {_INK: "var(--ink)", _FAINT: "var(--faint)", _RULE: "var(--rule)"} | {
    line: f"var(--c{k})" for k, line in enumerate(_LINES)
}
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
_POINTS = 240
_SMALL, _WIDE = (4.6, 3.0), (8.6, 3.6)
_numbers = itertools.count()


def service_over_time(
    runs: Sequence[Run],
    *,
    names: Sequence[str] | None = None,
    clients: Collection[str] | None = None,
    most: int = 6,
) -> Figure:
    """Draw what each client received, a panel per run; of many clients, those that asked for most.

    names: titles of the panels, by default the systems'.
    """
    chosen = sorted(clients) if clients is not None else _largest(runs[0], most)
    end = max(run.makespan for run in runs)
    moments = np.linspace(0, end, _POINTS)
    lines = [
        {name: curve.at(moments) for name, curve in service_curves(run, clients=chosen).items()}
        for run in runs
    ]
    top = max(float(line.max()) for each in lines for line in each.values())
    panels = []
    for title, each in zip(names or [run.system for run in runs], lines, strict=True):
        drawing, axes = _axes(_SMALL, "seconds", "service received (tokens)")
        for k, (name, line) in enumerate(each.items()):
            axes.plot(moments, line, label=name, **_style(k))
        axes.set_xlim(0, end)
        axes.set_ylim(0, 1.05 * top or 1.0)
        axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
        _legend(axes)
        ends = ", ".join(f"{name} {line[-1]:,.0f}" for name, line in each.items())
        says = f"Service received over time under {title}. At the end: {ends}."
        panels.append(Panel(_svg(drawing), says, title))
    of = f" The {len(chosen)} clients that ask for most." if clients is None else ""
    return Figure(tuple(panels), f"Service received: input + 2 × output tokens.{of}")


def difference_over_time(runs: Sequence[Run], *, names: Sequence[str] | None = None) -> Figure:
    """Draw the paper's service difference at each of its ticks, a line per run."""
    drawing, axes = _axes(_WIDE, "seconds", "service difference (per s)")
    means = []
    for k, (run, name) in enumerate(zip(runs, names or [r.system for r in runs], strict=True)):
        difference = service_difference(run)
        axes.plot(difference.ticks, difference.series, label=name, marker="o", ms=3, **_style(k))
        means.append(f"{name} {difference.average:,.0f}")
    axes.set_ylim(bottom=0)
    _legend(axes)
    says = f"Service difference over time. Averages: {', '.join(means)}."
    return Figure(
        (Panel(_svg(drawing), says),),
        "How much less clients got than the one that got most, or than they asked for, whichever "
        "is less: summed over clients, in windows of a minute. Lower is fairer.",
    )


def gap_over_time(
    runs: Sequence[Run],
    clients: Collection[str],
    *,
    names: Sequence[str] | None = None,
    bound: float | None = None,
) -> Figure:
    """Draw the gap between clients that all wait, and the bound on it where there is one.

    The scale is logarithmic, since gaps with and without fairness are powers of ten apart.
    """
    drawing, axes = _axes(_WIDE, "seconds", "gap (service)")
    largest = []
    for k, (run, name) in enumerate(zip(runs, names or [r.system for r in runs], strict=True)):
        found = gap(run, clients)
        if found is None:
            continue
        # The largest of each stretch: a line through every jump would be a smear.
        stretch = np.array_split(np.arange(found.times.size), min(_POINTS, found.times.size))
        times = [found.times[part[-1]] for part in stretch]
        tops = [max(float(found.series[part].max()), 1.0) for part in stretch]
        axes.plot(times, tops, label=name, **_style(k))
        largest.append(f"{name} {found.largest:,.0f}")
    axes.set_yscale("log")
    if bound is not None:
        axes.axhline(bound, color=_INK, linewidth=1.2, dashes=(6, 3))
        axes.annotate(
            f"bound {bound:,.0f}", (0.99, bound), xycoords=("axes fraction", "data"),
            xytext=(0, 4), textcoords="offset points", ha="right", color=_INK, fontsize=9,
        )  # fmt: skip
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    _legend(axes)
    limit = f" The bound is {bound:,.0f}." if bound is not None else ""
    says = f"Gap over time between clients that all wait. Largest: {', '.join(largest)}.{limit}"
    return Figure(
        (Panel(_svg(drawing), says),),
        "Largest difference in service between clients that all wait, counted from when they all "
        "began to. Logarithmic scale.",
    )


def ttft_of_clients(
    runs: Sequence[Run], *, names: Sequence[str] | None = None, percentile: float = 99
) -> Figure:
    """Draw a percentile of each client's time to first token, clients in order of what they ask."""
    order = _largest(runs[0], len(runs[0].workload.clients))
    drawing, axes = _axes(_WIDE, "clients, the largest first", "seconds to first token")
    worst = []
    offsets = np.linspace(-0.25, 0.25, len(runs)) if len(runs) > 1 else np.zeros(1)
    for k, (run, name) in enumerate(zip(runs, names or [r.system for r in runs], strict=True)):
        waits = ttft_by_client(run)
        places = [i for i, client in enumerate(order) if waits[client].size]
        values = [float(np.percentile(waits[order[i]], percentile)) for i in places]
        where = np.array(places) + offsets[k]
        axes.plot(where, values, label=name, linestyle="none", marker="osD^vP*X"[k % 8], ms=5,
                  color=_LINES[k % len(_LINES)])  # fmt: skip
        if values:
            worst.append(f"{name} {max(values):,.1f} s")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(range(len(order)), [_short(name) for name in order], fontsize=8)
    if max(len(_short(name)) for name in order) > 3:
        axes.tick_params(axis="x", labelrotation=35)
    axes.grid(axis="x", color=_RULE, linewidth=0.4)
    _legend(axes)
    says = f"Time to first token by client, percentile {percentile:g}. Worst: {', '.join(worst)}."
    return Figure(
        (Panel(_svg(drawing), says),),
        f"Percentile {percentile:g} of each client's time to first token; logarithmic scale.",
    )


def steps_over_time(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    caption: str,
) -> Figure:
    """Draw what stays the same from one moment to the next: lines by name, as (moments, values)."""
    drawing, axes = _axes(_WIDE, x, y)
    tops = []
    for k, (name, (moments, values)) in enumerate(lines.items()):
        axes.step(moments, values, where="post", label=name, **_style(k, width=1.3))
        tops.append(f"{name} {max(values, default=0):,.1f}")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _legend(axes)
    return Figure((Panel(_svg(drawing), f"{y} by {x}. Most: {', '.join(tops)}."),), caption)


def _largest(run: Run, count: int) -> list[str]:
    asked: dict[str, int] = dict.fromkeys(run.workload.clients, 0)
    for request in run.workload.requests:
        asked[request.client] += request.input_tokens + 2 * request.output_tokens
    return sorted(asked, key=lambda name: (-asked[name], name))[:count]


def _short(name: str) -> str:
    """A client's label at an axis: names of many clients are mostly a word and a number."""
    return re.sub(r"^(client|tenant)0*(?=\d)", "", name)


def _style(k: int, width: float = 1.9) -> Mapping[str, Any]:
    """Colour and dashes of the k-th line: they differ without colour, too."""
    dashes = _DASHES[(k // 2) % len(_DASHES)]
    return {"color": _LINES[k % len(_LINES)], "linewidth": width, "linestyle": dashes}


def _axes(size: tuple[float, float], x: str, y: str) -> tuple[Drawing, Any]:
    drawing = Drawing(figsize=size, layout="constrained")
    drawing.patch.set_alpha(0)
    axes = drawing.subplots()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_RULE)
    axes.tick_params(colors=_INK, labelsize=9, length=3, color=_RULE, which="both")
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=_INK, fontsize=9)
    axes.set_ylabel(y, color=_INK, fontsize=9)
    return drawing, axes


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.figure.legend(
            handles, labels, loc="outside upper left", ncols=min(4, len(labels)), frameon=False,
            fontsize=9, labelcolor=_INK, handlelength=2.4, columnspacing=1.2,
        )  # fmt: skip


def _svg(drawing: Drawing) -> str:
    """Return the drawing as an SVG element in the page's colours, its ids its own."""
    own = f"f{next(_numbers)}-"
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fairlane"}):
        drawing.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r"url\(#", f"url(#{own}", svg)
    svg = re.sub(r'href="#', f'href="#{own}', svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for drawn, shown in _ON_PAGE.items():
        svg = svg.replace(drawn, shown)
    # The page says how large it is; its own size only keeps the shape.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def _thousands(value: float, _: object = None) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e3:
        return f"{value / 1e3:g}k"
    return f"{value:g}"
