"""The picture: service of each client over the engine's steps, one panel for each scheduler.

Colours are Okabe and Ito's, which people with any kind of colour vision tell apart.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from fairness.measures import service_over_time
from loadtests.bench_engine.engine import Run
from loadtests.bench_engine.load import FLOOD, MODEST

COLOURS = dict(zip((FLOOD, *MODEST), ("#D55E00", "#0072B2", "#009E73"), strict=True))
INK, RULE = "#222222", "#D9D9D9"


def draw(runs: dict[str, Run], path: Path) -> None:
    """Draw a panel for each run, by its title, and save the picture as PNG."""
    figure = Figure(figsize=(5.4 * len(runs), 3.9), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (title, run) in zip(panels, runs.items(), strict=True):
        for client, curve in service_over_time(run.deliveries, clients=COLOURS).items():
            steps, totals = (0.0, *curve.times), (0.0, *curve.totals)
            preempted = run.preemptions[client]
            panel.plot(
                steps,
                totals,
                drawstyle="steps-post",
                color=COLOURS[client],
                label=f"{client}, preempted {preempted} {'time' if preempted == 1 else 'times'}",
            )
        panel.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        panel.set_xlabel("engine steps")
        panel.grid(axis="y", color=RULE, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("service received (input tokens + 2 x output tokens)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
