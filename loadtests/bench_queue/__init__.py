"""Benchmark of the global queue on real servers; see `__main__`."""
