"""A cluster of model servers in simulated time.

What is simulated is the hardware and the network, not the algorithm: the queue, the counters, the
ledger and the window of credits are the product's own classes. Servers are the A10G that the VTC
paper was measured on (`hardware`), with that server's loop (`engine`, `batch`).

    from loadtests.simulator import simulate
    run = simulate(workload, "fairlane", replicas=4, seed=1)

`named.SYSTEMS` lists the systems to compare: single policies (`lines`, `accounts`, `prices`), ways
to spread requests (`clusters`), what others do (`peers`), and Fairlane itself (`fairlane`, of
`router`, `network`, `replica`; its settings in `settings`). `fairlane(FairlaneSettings(...))` makes
one to measure.
"""

from loadtests.simulator.fairlane import fairlane
from loadtests.simulator.named import SYSTEMS
from loadtests.simulator.settings import FairlaneSettings
from loadtests.simulator.simulation import simulate

__all__ = ["SYSTEMS", "FairlaneSettings", "fairlane", "simulate"]
