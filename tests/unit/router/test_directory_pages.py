"""Pages of two lists together are the whole list, in order, each name once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.directory.pages import Names, page

names = st.sets(st.text("abcÅ/", min_size=1, max_size=3))


@given(names, names, st.integers(1, 4), st.integers(1, 5))
def test_pages_together_are_everything(
    fixed: set[str], stored: set[str], limit: int, looked_at: int
) -> None:
    """The store looks at a few names at a time, and may stop early."""
    after, shown = "", []
    for _ in range(100):
        behind = sorted(name for name in stored if name > after)
        some = behind[:looked_at]
        found = Names(tuple(some), some[-1] if len(behind) > len(some) else None)
        part = page(fixed, found, after, limit)
        assert len(part.names) <= limit
        shown += part.names
        if part.reached is None:
            break
        assert part.reached > after
        after = part.reached
    assert shown == sorted(fixed | stored)
