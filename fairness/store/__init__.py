"""The global queue: who is granted next, over all routers and replicas of a pool.

`contract` says what the queue does and promises; `redis_store` keeps it in Redis or Valkey
(`lua/`, one file a verb); `coalescer` lets the many requests of one router share round trips.
"""
