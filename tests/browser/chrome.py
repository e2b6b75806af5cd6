"""Headless Chromium over its DevTools protocol: what these tests need of it, without a driver.

https://chromedevtools.github.io/devtools-protocol/ ; a page is one WebSocket of JSON messages.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_S = 60.0
ANSWER_S = 60.0
BINARIES = ("chromium", "chromium-browser", "google-chrome")


def binary() -> str | None:
    """Path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, BINARIES)), None)


class Page:
    """One tab. problems: what it logged as an error, and what its policy forbade."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())
        self.problems: list[str] = []
        self.requests: list[str] = []

    async def open(self) -> None:
        """Listen to what goes on."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **params: Any) -> Any:
        """The result of a command. Raises RuntimeError where Chromium refuses it."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_S):
            return await answer

    async def goto(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def js(self, expression: str) -> Any:
        """The value of an expression (awaited), as JSON. Raises RuntimeError as it throws."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", str(details)))
        return result["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 60.0) -> None:
        """Return as soon as the expression is true. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with contextlib.suppress(RuntimeError):  # between two documents
                        if await self.js(f"Boolean({expression})"):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"never true: {expression}; {self.problems}") from None

    async def type(self, selector: str, text: str) -> None:
        """Into a field, as by keyboard."""
        await self.until(f"document.querySelector({json.dumps(selector)})")
        await self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.send("Input.insertText", text=text)

    async def key(self, key: str) -> None:
        """Press one: Tab, Enter, ArrowRight."""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "Escape": 27, " ": 32}
        told = {"key": key, "windowsVirtualKeyCode": codes[key], "code": key}
        if key == "Enter":
            told["text"] = "\r"
        await self.send("Input.dispatchKeyEvent", type="keyDown", **told)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **told)

    async def click(self, selector: str) -> None:
        await self.js(f"document.querySelector({json.dumps(selector)}).click()")

    async def screen(self, width: int, height: int, *, phone: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip

    async def theme(self, name: str) -> None:
        """`light` or `dark`, as the system would have it."""
        feature = {"name": "prefers-color-scheme", "value": name}
        await self.send("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Of what is seen, or of the whole page, as PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                answer = self._answers.pop(content["id"])
                if answer.done():
                    continue
                if "error" in content:
                    answer.set_exception(RuntimeError(content["error"]["message"]))
                else:
                    answer.set_result(content["result"])
            else:
                self._heed(content["method"], content["params"])

    def _heed(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                thrown = details.get("exception", {}).get("description", details["text"])
                self.problems.append(thrown)
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                entry = params["entry"]
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.problems.append(str(params["args"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """A browser with a new profile, and its first tab."""
    program = binary()
    if program is None:
        raise FileNotFoundError("no Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--lang=en-GB"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = await answer.json()
                url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                page = Page(await http.ws_connect(url, max_msg_size=0))
                await page.open()
                try:
                    yield page
                finally:
                    await page.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(OSError, IndexError, ValueError):
                return int((await asyncio.to_thread(file.read_text)).split()[0])
            await asyncio.sleep(0.05)
