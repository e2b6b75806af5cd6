"""The model replicas: one engine each, with the fair scheduler inside its batch.

``scheduler``, ``waiting_queue`` and ``ledger`` run in the engine's process; vLLM finds the
scheduler by the name ``replicas.scheduler.FairScheduler``, so this package must be
importable there. Nothing is imported here: vLLM takes ten seconds.
"""
