"""What the VTC paper's server was recorded to do, to stand beside what ours does.

Each number was computed from the recorded runs of Ying1123/VTC-artifact (commit
192c2e2014c69c8c6c699d7113c3822e4db632e6, Apache-2.0) by the paper's definitions, and those in its
tables 2 to 6 (Sheng et al., OSDI 2024, arXiv 2401.00588v2) equal the printed ones. One NVIDIA
A10G, a 7B model, a pool of 10,000 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded run. Service differences in service/s, throughput in tokens/s.

    seconds: of arrivals, where not the suite's own.
    """

    max_diff: float
    avg_diff: float
    var_diff: float
    throughput: float
    seconds: float | None = None


RUNS: dict[tuple[str, str], Recorded] = {
    ("arena", "fcfs"): Recorded(759.97, 433.53, 32112.0, 776.9),
    ("arena", "lcf"): Recorded(750.49, 323.82, 29088.9, 778.4),
    ("arena", "vtc"): Recorded(368.40, 251.66, 6549.16, 778.8),
    ("arena", "vtc-predicted"): Recorded(365.47, 240.33, 5321.62, 773.4),
    ("arena", "vtc-oracle"): Recorded(329.46, 227.51, 4475.76, 780.6),
    ("arena", "rpm5"): Recorded(143.86, 83.58, 1020.46, 340.4),
    ("arena", "rpm20"): Recorded(446.76, 195.71, 7449.79, 694.4),
    ("arena", "rpm30"): Recorded(693.66, 309.45, 24221.31, 747.3),
    ("overload", "fcfs"): Recorded(447.37, 439.00, 30.62, 875.5, seconds=600),
    ("overload", "vtc"): Recorded(192.88, 103.77, 6981.24, 893.1),
    ("overload", "vtc-noisy-oracle"): Recorded(33.98, 12.54, 111.94, 904.2),
    ("overload", "vtc-oracle"): Recorded(5.87, 0.51, 1.71, 895.0),
    ("overload-multi", "fcfs"): Recorded(247.88, 230.81, 1083.63, 874.9),
    ("overload-multi", "vtc"): Recorded(322.16, 162.20, 5151.49, 875.2),
    ("overload-multi", "vtc-noisy-oracle"): Recorded(99.43, 66.32, 487.1, 875.5),
    ("overload-multi", "vtc-oracle"): Recorded(43.23, 36.34, 56.52, 875.2),
    ("proportional", "fcfs"): Recorded(157.23, 145.32, 70.36, 856.4),
    ("proportional", "vtc"): Recorded(25.72, 9.91, 41.48, 883.4),
    ("increase", "fcfs"): Recorded(89.83, 28.45, 839.56, 743.2),
    ("increase", "vtc"): Recorded(23.20, 6.50, 55.44, 743.9),
    ("on_off_less", "fcfs"): Recorded(276.06, 115.84, 6774.44, 875.0),
    ("on_off_less", "vtc"): Recorded(69.46, 56.08, 248.29, 877.4),
    ("on_off_overload", "fcfs"): Recorded(1317.14, 433.48, 127849.3, 875.9),
    ("on_off_overload", "vtc"): Recorded(222.74, 109.53, 4990.0, 879.3),
    ("poisson_on_off_overload", "fcfs"): Recorded(409.55, 140.38, 10644.15, 870.6),
    ("poisson_on_off_overload", "vtc"): Recorded(106.29, 62.25, 887.56, 870.1),
    ("poisson_short_long", "fcfs"): Recorded(354.87, 209.31, 8468.67, 1475.5),
    ("poisson_short_long", "vtc"): Recorded(132.69, 33.82, 839.27, 1444.6),
    ("poisson_short_long_2", "fcfs"): Recorded(1063.12, 693.26, 50766.27, 1923.1, seconds=300),
    ("poisson_short_long_2", "vtc"): Recorded(47.19, 13.67, 204.14, 1670.7),
    ("dist_shift", "lcf"): Recorded(185.96, 114.31, 3331.89, 898.7),
    ("dist_shift", "vtc"): Recorded(108.25, 33.45, 1095.86, 903.2),
}

PROFILED_RUNS: dict[tuple[str, str], Recorded] = {
    ("arena", "fcfs"): Recorded(743.23, 457.29, 26645.42, 777),
    ("arena", "lcf"): Recorded(709.35, 384.78, 23299.2, 778),
    ("arena", "vtc"): Recorded(527.28, 303.4, 8408.0, 778.8),
    ("arena", "vtc-profiled"): Recorded(707.35, 368.74, 21918.67, 780),
    ("arena", "rpm5"): Recorded(230.78, 151.0, 823.15, 340),
    ("arena", "rpm20"): Recorded(445.34, 270.51, 5938.52, 694),
    ("arena", "rpm30"): Recorded(801.16, 377.22, 25980.39, 747),
    ("overload", "fcfs"): Recorded(323.18, 317.13, 15.98, 876, seconds=600),
    ("overload", "vtc"): Recorded(139.34, 70.71, 3427.59, 893.1),
    ("overload", "vtc-profiled"): Recorded(137.27, 74.87, 2819.4, 900),
}
"""With service by the profiled cost (`loadtests.cost`), so in ms/s: tables 3 and 4."""


def beside(workload: str, system: str, *, profiled: bool = False) -> Recorded | None:
    """Return what was recorded of this workload at its full length, None where nothing was."""
    found = (PROFILED_RUNS if profiled else RUNS).get((workload, system))
    return found if found is not None and found.seconds is None else None
