"""Headless Chromium by its DevTools protocol, over the WebSocket client that Jupyter brings: what our tests need."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-breakpad --disable-dev-shm-usage --no-proxy-server "
    "--hide-scrollbars --window-size=1300,1000 --remote-debugging-port=0"
).split()
FETCH = build_opener(ProxyHandler({})).open  # no proxy between us and this machine


@contextmanager
def process(command, log: Path, **options):
    """A process with all its children, which end with the block; what it says is in the log."""
    with open(log, "wb") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        yield running
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(running.pid, number)
                running.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def until(found, seconds: float, what: str):
    """What `found()` returns once that is something; TimeoutError with the question after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.1)
    return value


@contextmanager
def browser(folder: Path):
    """A page of a Chromium of its own, whose profile lies in the folder."""
    import websocket

    with process([BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"], folder / "chromium.log") as running:
        file = folder / "DevToolsActivePort"

        def pages():
            assert running.poll() is None, (folder / "chromium.log").read_text()[-1000:]
            if not file.is_file() or "\n" not in file.read_text():
                return []
            listed = json.load(FETCH(f"http://127.0.0.1:{file.read_text().split()[0]}/json/list", timeout=30))
            return [page["webSocketDebuggerUrl"] for page in listed if page["type"] == "page"]

        address = until(pages, 90, "Chromium has started")[0]
        connection = websocket.create_connection(address, timeout=120, suppress_origin=True, http_no_proxy=["*"])
        try:
            yield Page(connection)
        finally:
            connection.close()


class Page:
    """A tab. JavaScript is evaluated in it; clicks and keys are events as of a person."""

    def __init__(self, connection):
        self.connection, self.number = connection, 0
        self.call("Page.enable")

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        self.connection.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (answer := json.loads(self.connection.recv())).get("id") != self.number:
            if answer.get("method") == "Page.javascriptDialogOpening":  # leave a page with unsaved changes? yes
                leave = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                self.connection.send(json.dumps(leave))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 120):
        """The expression's value once it is true."""

        def value():
            try:
                return self.evaluate(expression)
            except RuntimeError as error:  # the page is on its way to another
                if "context" in str(error) or "navigat" in str(error):
                    return None
                raise

        return until(value, seconds, expression)

    def goto(self, address: str) -> None:
        error = self.call("Page.navigate", url=address).get("errorText")
        assert not error, f"{address}: {error}"
        place = json.dumps(address.partition("?")[0].partition("#")[0])
        self.wait(f"document.readyState == 'complete' && location.href.split(/[?#]/)[0] == {place}")

    def click(self, element: str, seconds: float = 60) -> None:
        """Click in the middle of what the expression finds, once it is there and in sight."""
        box = f"(e => {{ e?.scrollIntoView({{block: 'center'}}); return e?.getClientRects()[0] }})({element})"
        x, y = self.wait(f"(b => b?.width > 0 && [b.x + b.width / 2, b.y + b.height / 2])({box})", seconds)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
