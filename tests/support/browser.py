"""A headless Chromium, driven over its own protocol (DevTools), where there is one."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0

Message = dict[str, Any]


class Browser:
    """One browser with one page. Remembers every address that the page asked for, and what it complained of."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self.requested: list[str] = []
        self.complaints: list[str] = []

    async def __aenter__(self) -> Self:
        assert PROGRAM is not None
        async with AsyncExitStack() as stack:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--remote-debugging-port=0", "--window-size=1400,1000", f"--user-data-dir={self._profile}",
                "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            stack.push_async_callback(self._kill)
            async with asyncio.timeout(START_SECONDS):
                await self._attach(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open(self, url: str) -> None:
        """Begin to load a page."""
        await self.send("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, what it settles to."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait_for(self, script: str, *, seconds: float = 30.0) -> Any:
        """The value of an expression as soon as it is true."""
        value = None
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.evaluate(script)):  # noqa: ASYNC110 - pages have no such event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never true: {script}; complaints: {self.complaints}") from None
        return value

    async def click(self, element: str) -> None:
        """Click, as a hand does, into the middle of what an expression selects, as soon as it is there."""
        await self.wait_for(f"Boolean({element})")
        box = await self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, **where)

    async def send(self, method: str, **parameters: Any) -> Message:
        """One command of the protocol, and its answer."""
        number = next(self._numbers)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await answered
        assert "error" not in answer, answer
        result: Message = answer["result"]
        return result

    async def _attach(self, stack: AsyncExitStack) -> None:
        address = await self._address()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with session.get(f"http://{address}/json") as response:
            (page,) = [target for target in await response.json() if target["type"] == "page"]
        self._socket = await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        listener = asyncio.create_task(self._listen())
        stack.push_async_callback(asyncio.wait_for, listener, ANSWER_SECONDS)
        stack.push_async_callback(self._socket.close)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.send(f"{domain}.enable")

    async def _address(self) -> str:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if line.startswith(b"DevTools listening on ws://"):
                return line.decode().split("/")[2]
        raise AssertionError("the browser ended before it listened")

    async def _listen(self) -> None:
        async for message in self._socket:
            event = message.json()
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
            else:
                self._note(event["method"], event["params"])

    def _note(self, method: str, about: Message) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(about["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requested.append(about["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["exception"].get("description", "an exception"))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("warning", "error"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.complaints.append(" ".join(str(each.get("value", each)) for each in about["args"]))

    async def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
