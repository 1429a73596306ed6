"""Headless Chromium, driven by its DevTools protocol through two pipes: nothing else is needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
]  # fmt: skip
_SECONDS = 120


class Page:
    """A tab. Everything that its console and log said, and each request that it made, is noted."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers, self._number = commands, answers, 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """The answer to a command."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, place: Path | str) -> None:
        """Open a file, or an address, and wait until it is loaded."""
        self._loaded = False
        self.send("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        while not self._loaded:
            self._read()

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def values(self, selector: str, expression: str) -> list[Any]:
        """Of each element `e` that a selector finds."""
        found: list[Any] = self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => {expression})")
        return found

    def texts(self, selector: str) -> list[str]:
        """What the elements of a selector say."""
        return self.values(selector, "e.innerText")

    def click(self, selector: str) -> None:
        """Click the first element of a selector, as a hand would."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        ((x, y, width, height),) = self.values(
            selector, "(b => [b.x, b.y, b.width, b.height])(e.getBoundingClientRect())"
        )[:1]
        for kind in ("mousePressed", "mouseReleased"):
            self.send(
                "Input.dispatchMouseEvent", type=kind, x=x + width / 2, y=y + height / 2, button="left", clickCount=1
            )

    def type(self, selector: str, text: str) -> None:
        """Type into the first element of a selector."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def resize(self, width: int, height: int = 800) -> None:
        """Make the window as wide as a phone, say."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, kind: str = "", **features: str) -> None:
        """Show it as on this medium (`print`), or with these features, such as `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", media=kind, features=named)

    def picture(self, path: Path) -> None:
        """Write what the whole page looks like to a PNG file."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _read(self) -> Any:
        answer = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has gone."
            answer += byte
        event = json.loads(answer)
        about = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.complaints.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(about["args"]))
            case "Log.entryAdded":
                self.complaints.append(about["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
        return event


@contextmanager
def chromium_page(binary: str, profile: Path) -> Iterator[Page]:
    """A tab of a new headless Chromium with an empty profile."""
    (from_us, to_it), (from_it, to_us) = os.pipe(), os.pipe()
    # It reads from descriptor 3 and writes to 4; both may be taken here, so ours go out of the way.
    reads, writes = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (from_us, to_us))
    shell = f'exec 3<&{reads} 4>&{writes}; exec "$@"'
    command = ["bash", "-c", shell, "bash", binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL)
    for descriptor in (from_us, to_us, reads, writes):
        os.close(descriptor)
    # One that hangs shall end the test, not the patience of whoever waits for it.
    watchdog = threading.Timer(_SECONDS, process.kill)
    watchdog.start()
    with os.fdopen(to_it, "wb") as commands, os.fdopen(from_it, "rb") as answers:
        try:
            yield Page(commands, answers)
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(_SECONDS)
