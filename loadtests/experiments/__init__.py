"""The experiments: the VTC paper's again (`paper`), and systems for a cluster (`cluster`).

Both simulate (`loadtests.simulator`): seconds of computing for hours of serving, the same result
each time. `python -m loadtests.experiments.paper` and `.cluster`, or ``make paper`` and
``make cluster``.
"""
