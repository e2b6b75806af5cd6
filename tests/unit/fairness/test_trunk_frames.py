"""Frames of a trunk: what is written is read, however it is cut; nonsense is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.trunk.frames import (
    MAX_PAYLOAD,
    Frame,
    FrameError,
    FrameReader,
    Kind,
    header,
    read_head,
    write_head,
)

FRAMES = st.lists(
    st.tuples(
        st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), st.binary(max_size=40)
    ),
    max_size=20,
)  # fmt: skip


def written(frames: list[Frame]) -> bytes:
    return b"".join(header(kind, stream, len(data)) + data for kind, stream, data in frames)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 1200)))
def test_frames_come_as_they_were_written_however_the_bytes_are_cut(
    frames: list[Frame], cuts: list[int]
) -> None:
    data = written(frames)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = FrameReader()
    read = [
        frame for a, b in itertools.pairwise(edges) for frame in reader.feed(data[a:b])
    ]  # fmt: skip
    assert read == frames


def test_the_largest_frame_passes_and_a_larger_one_does_not() -> None:
    frame = (Kind.DATA, 1, b"x" * MAX_PAYLOAD)
    assert list(FrameReader().feed(written([frame]))) == [frame]
    with pytest.raises(FrameError):
        list(FrameReader().feed(header(Kind.DATA, 1, MAX_PAYLOAD + 1)))


@pytest.mark.parametrize("data", [b"POST /v1/chat/completions HTTP/1.1\r\n", b"\x00" * 13])
def test_what_is_no_frame_is_refused_at_its_head(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(data))


def test_a_head_is_read_as_written() -> None:
    pairs = [("content-type", "text/event-stream"), ("x", "\u00e9")]
    assert read_head(write_head(200, pairs), int) == (200, pairs)
    assert read_head(write_head("/v1/models", []), str) == ("/v1/models", [])


@pytest.mark.parametrize("payload", [b"", b"{}", b"[200]", b'["/", []]', b"[200, [[1]]]", b"\xff"])
def test_an_unreadable_head_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        read_head(payload, int)


def test_headers_beyond_a_frame_are_refused() -> None:
    with pytest.raises(FrameError):
        write_head("/", [("x", "y" * MAX_PAYLOAD)])
