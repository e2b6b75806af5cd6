"""Counting the events of a stream that arrives in arbitrary pieces."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from loadtests.sse import EventCounter


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


USAGE = event(choices=[], usage={"prompt_tokens": 26, "completion_tokens": 6})
DONE = b"data: [DONE]\n\n"


def count(*pieces: bytes) -> EventCounter:
    counter = EventCounter()
    for piece in pieces:
        counter.feed(piece)
    return counter


def test_feed_says_how_many_events_began() -> None:
    counter = EventCounter()
    assert counter.feed(event(a=1) + event(a=2)) == 2
    assert counter.feed(b"da") == 0
    assert counter.feed(b"ta: {}\n\n") == 1
    assert counter.events == 3


def test_what_looks_like_an_event_inside_one_is_not_counted() -> None:
    assert count(event(content='data: \ndata: "data:')).events == 1


def test_comments_and_other_fields_are_not_counted() -> None:
    assert count(b": keep-alive\n\nevent: x\ndata: {}\n\nid: 3\n\n").events == 1


def test_crlf_lines_are_counted() -> None:
    counter = count(b'data: {"usage": {"completion_tokens": 3}}\r\n\r\ndata: [DONE]\r\n\r\n')
    assert counter.events == 2
    assert counter.end().complete
    assert counter.end().output_tokens == 3


@given(st.integers(0, 40), st.lists(st.integers(0, 4000), max_size=30))
def test_cuts_change_nothing(chunks: int, cuts: list[int]) -> None:
    stream = b"".join(event(n=n, text="data:\n" * n) for n in range(chunks)) + USAGE + DONE
    edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    counter = count(*pieces)
    assert counter.events == chunks + 2
    end = counter.end()
    assert (end.complete, end.input_tokens, end.output_tokens) == (True, 26, 6)


def test_a_long_stream_keeps_only_its_end() -> None:
    counter = EventCounter()
    for _ in range(10_000):
        counter.feed(event(choices=["x" * 100]))
    counter.feed(USAGE + DONE)
    assert counter.events == 10_002
    assert counter.end().output_tokens == 6


def test_a_stream_cut_in_the_middle_is_not_complete() -> None:
    end = count(event(a=1), b'data: {"choices": [{"del').end()
    assert not end.complete
    assert end.output_tokens is None
    assert end.error is None


def test_an_error_event_is_reported() -> None:
    end = count(event(a=1), event(error={"message": "the replica died", "code": 502}), DONE).end()
    assert end.error == "the replica died"


def test_a_stream_of_nothing() -> None:
    assert count(b"").end().complete is False
    assert count(b"").events == 0


def test_an_error_has_a_type_where_it_is_shaped_as_openais() -> None:
    def type_of(error: object) -> str | None:
        return count(event(error=error), DONE).end().error_type

    assert type_of({"message": "gone", "type": "server_error"}) == "server_error"
    assert type_of({"message": "gone"}) is None
    assert type_of({"type": "server_error"}) is None
    assert type_of({"message": "gone", "type": 500}) is None
    assert type_of("gone") is None
    assert count(USAGE, DONE).end().error_type is None
