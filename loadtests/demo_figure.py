"""The demo's picture: what each client received, and how long bob waited, policy by policy.

Panels of one row share their axis, so that policies can be compared by eye. Colours are Okabe and
Ito's, which people with any kind of colour vision tell apart; lines are labelled where they end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from loadtests.demo import DemoLoad, PolicyRun

COLOURS = {"alice": "#D55E00", "bob": "#0072B2"}
INK, FAINT, RULE = "#222222", "#6B6B6B", "#D9D9D9"
TITLES = {"vtc": "Fair sharing (VTC)", "fcfs": "First come, first served"}
_POINTS = 400


def draw(runs: Sequence[PolicyRun], load: DemoLoad, path: Path) -> None:
    """Draw the runs side by side and save the picture as PNG."""
    figure = Figure(figsize=(5.6 * len(runs) + 0.6, 6.6), dpi=160, facecolor="white")
    axes = figure.subplots(
        2, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1.0)
    )
    figure.subplots_adjust(
        left=0.09 if len(runs) > 1 else 0.14,
        right=0.94 if len(runs) > 1 else 0.9,
        top=0.81, bottom=0.155, wspace=0.16, hspace=0.14,
    )  # fmt: skip
    for column, run in enumerate(runs):
        _service(axes[0][column], run, first=column == 0)
        _ttft(axes[1][column], run, first=column == 0)
    figure.align_ylabels(axes[:, 0])
    _shared_limits(axes[0][0], axes[1][0], runs)
    left = figure.subplotpars.left
    figure.text(left, 0.955, _headline(runs), fontsize=15, fontweight="bold", color=INK, va="top")
    figure.text(left, 0.025, _footer(runs[0], load), fontsize=7.5, color=FAINT, va="bottom")
    figure.savefig(path)


def _headline(runs: Sequence[PolicyRun]) -> str:
    if len(runs) == 1:
        return "A flooder and a client that is polite at first"
    return "Alice floods. Bob is polite, then wants all he can get: what does each receive?"


def _footer(run: PolicyRun, load: DemoLoad) -> str:
    return (
        f"alice: {load.alice_connections} requests open at all times, prompts of "
        f"{load.alice_prompt_bytes} bytes.  bob: first a request every {load.bob_interval_s:g} s "
        f"({load.bob_prompt_bytes} bytes), then {load.bob_connections} open "
        f"({load.alice_prompt_bytes} bytes).\n"
        f"Answers of {load.max_tokens} tokens; {run.seconds:g} s per policy, the same server. "
        "Service = input + 2 x output tokens, as received."
    )


def _service(axes: Any, run: PolicyRun, *, first: bool) -> None:
    _plain(axes)
    grid = [run.seconds * k / _POINTS for k in range(_POINTS + 1)]
    ends = {}
    for name, curve in run.curves.items():
        values = [curve.at(t) for t in grid]
        axes.plot(grid, values, color=COLOURS[name], linewidth=2.2, solid_capstyle="round")
        ends[name] = values[-1]
    for name, end in ends.items():
        axes.annotate(
            name, (run.seconds, end), xytext=(6, 0), textcoords="offset points", va="center",
            color=COLOURS[name], fontsize=10.5, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    _halves(axes, run, labels=True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
    if first:
        axes.set_ylabel("service received (tokens)", color=INK)
    axes.set_title(
        f"{TITLES.get(run.policy, run.policy)}\n", loc="left", fontsize=12, fontweight="bold",
        color=INK, pad=10,
    )  # fmt: skip
    axes.text(
        0, 1.035, f"when both want all, alice receives {run.alice_over_bob:.1f} times bob's",
        transform=axes.transAxes, fontsize=10, color=FAINT, va="bottom",
    )  # fmt: skip


def _ttft(axes: Any, run: PolicyRun, *, first: bool) -> None:
    from loadtests.demo import seconds_text

    _plain(axes)
    if run.bob_ttft:
        times, waits = zip(*run.bob_ttft, strict=True)
        axes.scatter(times, waits, s=11, color=COLOURS["bob"], alpha=0.65, linewidths=0)
    _halves(axes, run, labels=False)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _wait(value)))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xlim(0, run.seconds)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("seconds", color=INK)
    if first:
        axes.set_ylabel("bob's wait for\nthe first token", color=INK)
    median = run.polite[1].ttft_p50
    if median is not None:
        axes.plot([0, run.seconds / 2], [median, median], color=INK, linewidth=1, dashes=(4, 3))
        axes.annotate(
            f"median {seconds_text(median)}", (0, median), xytext=(5, 4),
            textcoords="offset points", fontsize=9, color=INK, va="bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip


def _shared_limits(service: Any, ttft: Any, runs: Sequence[PolicyRun]) -> None:
    """Give both rows limits that hold every run, with room for the words at the top."""
    most = max(curve.at(run.seconds) for run in runs for curve in run.curves.values())
    service.set_ylim(0, 1.14 * most or 1.0)
    waits = [wait for run in runs for _, wait in run.bob_ttft]
    if waits:
        # At least from one power of ten to the next, so that the scale has two labels.
        ttft.set_ylim(
            10 ** math.floor(math.log10(min(waits))), 10 ** math.ceil(math.log10(1.05 * max(waits)))
        )


def _halves(axes: Any, run: PolicyRun, *, labels: bool) -> None:
    """Mark where bob changes his habits."""
    axes.axvline(run.seconds / 2, color=FAINT, linewidth=0.9, dashes=(2, 3), zorder=0)
    if labels:
        for share, text in ((0.015, "bob asks now and then"), (0.515, "bob wants all he can get")):
            axes.text(
                share, 0.965, text, transform=axes.transAxes, fontsize=9, color=FAINT, va="top"
            )


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(colors=INK, labelsize=9, length=3, color=RULE, which="both")
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _thousands(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value else "0"


def _wait(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"
