"""A small real HTTP server that streams as vLLM does, for the driver and the demo."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware


class FakeServer:
    """Streams ``max_tokens`` events, one every ``step_s`` seconds, and remembers who asked."""

    def __init__(self, step_s: float = 0.001, first_s: float = 0.0) -> None:
        self.step_s = step_s
        self.first_s = first_s
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self.open = 0
        self.most_open = 0
        self.hung_up = 0
        self.refuse: dict[str, str] | None = None
        self.error: dict[str, object] = {"message": "too many requests of this client"}
        self.cut_after: int | None = None
        self.counts_bytes = False

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization"))
        if self.refuse is not None:
            return web.json_response({"error": self.error}, status=429, headers=self.refuse)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._stream(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up += 1
            raise
        finally:
            self.open -= 1

    async def _stream(self, request: web.Request, body: dict) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await asyncio.sleep(self.first_s)
        await self._event(answer, {"choices": [{"delta": {"role": "assistant"}}]})
        for made in range(body["max_tokens"]):
            if made == self.cut_after:
                assert request.transport is not None
                request.transport.close()
                return answer
            await self._event(answer, {"choices": [{"delta": {"content": "x"}}]})
            await asyncio.sleep(self.step_s)
        # As the tiny model counts: a byte is a token, and the template adds three.
        asked = len(body["messages"][0]["content"]) + 3 if self.counts_bytes else 50
        usage = {"prompt_tokens": asked, "completion_tokens": body["max_tokens"]}
        await self._event(answer, {"choices": [], "usage": usage})
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _event(self, answer: web.StreamResponse, event: dict[str, object]) -> None:
        await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@contextlib.asynccontextmanager
async def serving(server: FakeServer, middlewares: Sequence[Middleware] = ()) -> AsyncIterator[str]:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
