"""The admin API: clients, groups, keys, the queue's state and policy, usage, and what was
changed.

`guard` lets only admin keys in, whatever is asked; behind it is a FastAPI application (`app`), one
module a resource. It is served under /admin of the ingress, or on a port of its own (`port`).
"""
