"""The same kind of chats from Locust, for people who have it and like its web page.

    pip install locust    # in an environment of its own: it is no dependency of Fairlane
    PYTHONPATH=. locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --keys keys.csv

Locust's users wait for their answers, so this is a **closed loop**: a slow server is asked less.
What it shows is how a server feels to so many people; for comparisons take `fairlane loadtest`.

Each user is one of the clients in the file of keys, in turn, so ``--users 20`` with two clients is
ten each. Per client there are three rows: ``chat`` (whole answers), ``TTFT`` (to the first event)
and ``token`` (mean time between tokens of an answer); in the last two, "requests" are answers
counted once more, so leave the row of totals alone.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from loadtests.client_keys import ClientKeys, read_keys
from loadtests.prompts import prompt
from loadtests.sse import EventCounter, StreamEnd

try:
    from locust import HttpUser, constant, events, task
except ImportError:
    raise SystemExit(
        "locust is not installed; `pip install locust` in an environment of its own, then\n"
        "PYTHONPATH=. locust -f loadtests/locustfile.py --host http://127.0.0.1:8000"
    ) from None

DEVELOPMENT_KEYS = ClientKeys({"alice": ("sk-local-alice",), "bob": ("sk-local-bob",)})
_numbers = itertools.count()
_turns = itertools.count()


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.add_argument("--keys", default="", help="client,key as CSV, or JSON; else local.yaml's")
    parser.add_argument("--model", default="tiny", help="the model to ask")
    parser.add_argument("--prompt-bytes", type=int, default=256, help="of each prompt")
    parser.add_argument("--output-tokens", type=int, default=96, help="of each answer")


class Chatter(HttpUser):
    """One person who asks, listens to the end, and asks again at once."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Become one of the clients."""
        options = self.environment.parsed_options
        keys = read_keys(Path(options.keys)) if options.keys else DEVELOPMENT_KEYS
        names = keys.clients
        self.name = names[next(_turns) % len(names)]
        self._headers = {"Authorization": f"Bearer {keys.key(self.name)}"}

    @task
    def chat(self) -> None:
        """Ask for one streamed answer."""
        options = self.environment.parsed_options
        body = {
            "model": options.model,
            "messages": [
                {
                    "role": "user",
                    "content": prompt(f"{time.time_ns()} {next(_numbers)}", options.prompt_bytes),
                }
            ],
            "max_tokens": options.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        counter = EventCounter()
        first: float | None = None
        sent = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            json=body,
            headers=self._headers,
            stream=True,
            catch_response=True,
            name=f"chat {self.name}",
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return
            # What has arrived, as it arrives: iter_content would wait for a full buffer.
            for data in answer.raw.stream(decode_content=True):
                if counter.feed(data) and first is None:
                    first = time.perf_counter()
            end = counter.end()
            # Locust's own time stops at the headers of a streamed answer.
            now = time.perf_counter()
            answer.request_meta["response_time"] = 1000 * (now - sent)
            if end.error or not end.complete:
                answer.failure(end.error or "the stream ended without [DONE]")
        if first is not None:
            self._tell("TTFT", first - sent)
            self._tell_per_token(end, now - first)

    def _tell_per_token(self, end: StreamEnd, seconds: float) -> None:
        if end.output_tokens and end.output_tokens > 1:
            self._tell("token", seconds / (end.output_tokens - 1))

    def _tell(self, what: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=what,
            name=f"{what} {self.name}",
            response_time=1000 * seconds,
            response_length=0,
            exception=None,
            context={},
        )
