"""Looking at a whole pool, off the request path.

- `observation.py`: what is seen, as values and as JSON;
- `comparison.py`: two looks make an observation (pure);
- `stated_bound.py`: the bound on unfairness of the pool as it is (pure);
- `history.py`: what is remembered of observations (pure);
- `board.py`: reads the pool and keeps what was seen, in the store;
- `observer.py`: the loop of one router; one is elected to look, all read what it saw.
"""
