"""One case against a router: say it, listen, and judge what came back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

import h11

from loadtests.fuzz.case import Case

PATIENCE_S = 120.0  # for an answer that is owed; twice what a body may take by default
MOST_BYTES = 16 * 2**20  # of an answer; requests here are small
GRACE_S = 0.05  # where none is
PAUSE_S = 0.005
FIELDS = {"message", "type", "param", "code"}
ID = b"x-fairlane-request-id"


@dataclass(slots=True)
class Answer:
    """What came over the connection for one request."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    whole: bool = False


@dataclass(slots=True)
class Bars:
    """secrets: what no answer may hold. others: nor any to a client, their names. ids: of requests,
    each seen once."""

    secrets: tuple[bytes, ...]
    others: tuple[bytes, ...] = ()
    ids: set[bytes] = field(default_factory=set)


class Address:
    """Where the router is."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    async def ask(self, case: Case) -> tuple[list[Answer], str]:
        """The answers, and how the conversation ended: `closed`, `reusable`, `silent`,
        `hung` or `unreadable`."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            # Both at once: a server may answer, and stop reading, before all is said.
            saying = asyncio.create_task(_say(writer, case))
            try:
                return await _listen(reader, case)
            finally:
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _say(writer: asyncio.StreamWriter, case: Case) -> None:
    with contextlib.suppress(OSError):  # what the server thinks of it, `_listen` hears
        for part in case.parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(PAUSE_S)
        if case.half_close:
            writer.write_eof()


async def _listen(reader: asyncio.StreamReader, case: Case) -> tuple[list[Answer], str]:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    # The parser of answers wants to know the method, and nothing else of what was asked.
    method = "HEAD" if case.method == "HEAD" else "GET"
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "fuzz")]))
    parser.send(h11.EndOfMessage())
    answers: list[Answer] = []
    patience = PATIENCE_S if case.owed else GRACE_S
    ended = False
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            return answers, "closed" if ended else "unreadable"
        if event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(patience):
                    data = await reader.read(65536)
            except TimeoutError:
                return answers, "hung" if case.owed else "silent"
            except OSError:  # reset: it ended
                return answers, "closed"
            ended = not data
            parser.receive_data(data)
        elif isinstance(event, h11.Response):
            answers.append(Answer(event.status_code, dict(event.headers)))
        elif isinstance(event, h11.Data):
            answers[-1].body += bytes(event.data)
            if len(answers[-1].body) > MOST_BYTES:
                return answers, "endless"
        elif isinstance(event, h11.EndOfMessage):
            answers[-1].whole = True
            return answers, "reusable" if parser.their_state is h11.DONE else "closed"
        elif isinstance(event, h11.ConnectionClosed):
            return answers, "closed"


def judge(case: Case, answers: list[Answer], end: str, bars: Bars) -> list[str]:
    """What is wrong with the answers; nothing, if nothing is."""
    wrong = {
        "hung": ["no answer came, nor an end"],
        "unreadable": ["what came is not HTTP"],
        "endless": [f"the answer is larger than {MOST_BYTES} bytes"],
    }.get(end, [])
    if case.kind == "sound" and [answer.status for answer in answers] != [200]:
        wrong.append(f"a sound request was not served: {answers}")
    hidden = bars.secrets if case.kind == "admin" else bars.secrets + bars.others
    for answer in answers:
        whole = answer.body + b" ".join(answer.headers.values())
        wrong += ["a secret is in the answer" for secret in hidden if secret in whole]
        if answer.status >= 500 and not _overload(answer):
            wrong.append(f"the input caused a {answer.status}: {answer.body[:200]!r}")
        if not answer.whole:  # HAProxy stops for who says that no more will come
            wrong += [] if case.half_close else [f"the answer is cut off: {answer}"]
        elif answer.status >= 400 and case.method != "HEAD" and not _error(answer):
            own_words = _server(answer) and case.broken
            if not own_words:
                wrong.append(f"{answer.status} is no OpenAI error: {answer.body[:200]!r}")
        identity = answer.headers.get(ID)
        if identity is not None:
            wrong += ["the id of a request came twice"] if identity in bars.ids else []
            bars.ids.add(identity)
    return wrong


def _overload(answer: Answer) -> bool:
    return answer.status == 503 and b"retry-after" in answer.headers


def _error(answer: Answer) -> bool:
    """Is it shaped like OpenAI's?"""
    try:
        error = json.loads(answer.body)["error"]
        return set(error) >= FIELDS and bool(error["message"]) and bool(error["type"])
    except (ValueError, KeyError, TypeError):
        return False


def _server(answer: Answer) -> bool:
    """uvicorn (or HAProxy and Ray Serve before it) on what is not HTTP, on web sockets, and on
    `DELETE *`; the router never sees them."""
    json_said = b"json" in answer.headers.get(b"content-type", b"")
    known = answer.status in (400, 403, 404, 408, 413, 414, 431, 501, 505)
    return known and not json_said and ID not in answer.headers
