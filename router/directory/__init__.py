"""The directory: clients, groups and keys that change while the application runs.

Theory. The store has the truth (`lua/state.lua` describes its keys, `store` reads and writes it,
one script a verb). Every router keeps what it has looked up (`cache`). Every change is an entry in
one log, written by the very script that makes the change; the log is at once what routers follow
and what auditors read. `follower` says, from the log alone, what a router may go on believing:

- A router reads the log twice a second, from the last entry it has seen, and forgets what the new
  entries name.
- If the last entry it has seen is not there any more (the log was trimmed beyond it, or the store
  has lost its last second, or everything), it forgets all it knows. So no message can be lost
  unnoticed: nothing is ever sent, it is read.
- A lookup says which entry was the last when it was made. One that is older than what the router
  has read since is used but not kept.

While the store is away, what a router knows goes on working. `directory` puts these together.
"""
