"""How fair and how fast a run was, from its outcomes alone: one code for simulated and real runs.

`difference`: the VTC paper's service difference. `backlog`: who waits when. `gap`: how far apart
the service of clients that all wait gets. `latency`: time to first token, small clients, isolation.
`summary`: all of a run's numbers at once. `delivered` has the arrays beneath them. What a single
client or a live system needs of this is in `fairness.measures`, without NumPy.
"""
