"""The global queue: who is granted next, over all routers and replicas of a pool.

`contract` says what the queue does and promises; `redis_store` keeps it in Redis or Valkey
(`lua/`, one file a verb); `coalescer` lets the many requests of one router share round trips.

`locate` opens the queue wherever it is: `settings` and `address` say where, `locators` find the one
server (its Sentinels or its Cluster are asked), `connection` and `credentials` get in, `link` keeps
the connection behind a `breaker`.
"""
