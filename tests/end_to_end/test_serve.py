"""`ssna serve` as a process: what it loads, how it ends, and its page in Chromium."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

import ssna
from ssna.api.serve import LONGEST_HEAD
from tests.chromium import Page, chromium_page
from tests.helpers import ssna_in_process

CHROMIUM = shutil.which("chromium")
# As the installed command, and at its end which modules it had loaded that it should not: an LLM's, and what trains.
SCRIPT = """
import re, sys
from ssna.cli import main
try:
    main()
finally:
    print([m for m in sys.modules if re.match(
        "transformers|ssna.stage1_extract|ssna.api.(adapt|extract|add_items)|ssna.inputs|ssna.estimator|"
        "ssna.stage2_adapt.(training|side_network|item_encoder|losses|optimization|batches)", m)])
"""


class Serving:
    """A process that serves the run, and its address."""

    def __init__(self, ids_run: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "serve", str(ids_run), "--port", "0", "--device", "cpu", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Quiet, it tells its address with --json only.
        self.said = (self.process.stdout if "--quiet" in options else self.process.stderr).readline()
        found = re.search(r"http://[\d.]+:\d+", self.said)
        assert found is not None, self.said + self.process.stderr.read()
        self.url = found[0]

    def stop(self, by: signal.Signals = signal.SIGINT) -> tuple[str, str]:
        """End it, as Ctrl-C does if not said otherwise; what it printed after its address."""
        self.process.send_signal(by)
        return self.process.communicate(timeout=60)


@contextmanager
def started(ids_run: Path, *options: str) -> Iterator[Serving]:
    """The service on a free port."""
    made = Serving(ids_run, *options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.communicate()


@pytest.fixture
def serving(ids_run: Path) -> Iterator[Serving]:
    """With its defaults."""
    with started(ids_run) as made:
        yield made


def test_it_answers_loads_nothing_that_trains_and_ends_quietly(serving: Serving, ids_run: Path) -> None:
    assert serving.said == f"serving at {serving.url}, OpenAPI page at {serving.url}/docs; Ctrl-C ends it\n"
    assert httpx2.get(f"{serving.url}/health").json()["status"] == "ok"
    answer = httpx2.post(f"{serving.url}/recommend", json={"history": ["i3", "i4"], "k": 3}).json()
    assert [i["item_id"] for i in answer["items"]] == [
        item.item_id for item in ssna.recommend(ids_run, history=["i3", "i4"], k=3).items
    ]
    printed, said = serving.stop()
    assert (serving.process.returncode, printed, said) == (0, "[]\n", "")


def test_whatever_supervises_it_ends_it_as_quietly(serving: Serving) -> None:
    assert httpx2.get(f"{serving.url}/health").status_code == 200
    printed, said = serving.stop(signal.SIGTERM)
    assert (serving.process.returncode, printed, said) == (0, "[]\n", "")


def test_only_requests_for_this_machine_are_answered(serving: Serving) -> None:
    port = serving.url.rpartition(":")[2]
    for host, status in (("stranger.example", 421), (f"localhost:{port}", 200), (f"[::1]:{port}", 200)):
        assert httpx2.get(f"{serving.url}/items", headers={"Host": host}).status_code == status
    assert httpx2.get(f"{serving.url}/items").status_code == 200


def test_addresses_and_headers_of_any_length_are_not_read(serving: Serving) -> None:
    host, port = serving.url.removeprefix("http://").split(":")
    for head in (
        f"GET /items?query={'a' * LONGEST_HEAD} HTTP/1.1",
        f"GET /health HTTP/1.1\r\nX-Any: {'a' * LONGEST_HEAD}",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 400 "), "before the head has ended"
    assert httpx2.get(f"{serving.url}/health").status_code == 200


def test_whoever_listens_to_others_answers_them_by_any_name(ids_run: Path) -> None:
    with started(ids_run, "--host", "0.0.0.0") as serving:
        port = serving.url.rpartition(":")[2]
        answer = httpx2.get(f"http://127.0.0.1:{port}/health", headers={"Host": "shop.example"})
        assert answer.status_code == 200


def test_scripts_wait_for_one_line_of_json(ids_run: Path) -> None:
    with started(ids_run, "--json") as serving:
        assert serving.process.stdout is not None
        line = serving.process.stdout.readline()
        assert json.loads(line) == {"url": serving.url}
        assert httpx2.get(f"{json.loads(line)['url']}/health").json()["status"] == "ok"
        assert httpx2.post(f"{serving.url}/recommend", content=b"{").status_code == 422
        assert serving.stop() == ("[]\n", "")


def test_nothing_is_said_when_quiet(ids_run: Path) -> None:
    with started(ids_run, "--json", "--quiet") as serving:
        assert json.loads(serving.said) == {"url": serving.url}
        assert httpx2.get(f"{serving.url}/health").json()["status"] == "ok"
        assert serving.stop() == ("[]\n", "")


def test_mistakes_end_in_one_sentence(ids_run: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, status, message in (
            ([tmp_path / "missing"], 1, "does not exist; expected a folder made by `ssna adapt`."),
            (
                [ids_run, "--port", port],
                1,
                f"cannot listen at 127.0.0.1, port {port} (Address already in use). Give an address",
            ),
            ([ids_run, "--host", "no such host"], 1, "at no such host, port 8000 (no such name or address). Give"),
            ([ids_run, "--host", ""], 1, "host '': expected an address, such as 127.0.0.1 for this machine alone, or"),
            ([ids_run, "--host", " "], 1, "host ' ': expected an address, such as"),
            ([ids_run, "--port", "70000"], 2, "70000 is not in the range 0<=x<=65535. See `ssna serve --help`."),
        ):
            done = ssna_in_process("serve", *arguments)
            assert (done.returncode, done.stdout) == (status, "")
            assert message in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_a_missing_package_is_named(ids_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == "uvicorn" else there(asked))
    assert ssna_in_process("serve", ids_run).stderr == (
        "Error: the service needs the package uvicorn, which is not installed. Install it: pip install 'ssna[serve]'.\n"
    )


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    with chromium_page(CHROMIUM, tmp_path / "profile") as opened:
        yield opened


def until(true: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to be")


def test_the_page_searches_clicks_and_recommends_in_chromium(serving: Serving, browser: Page, ids_run: Path) -> None:
    items = {item.item_id: item.title for item in ssna.recommend(ids_run, user="u000", k=100, allow_repeats=True).items}
    browser.open(serving.url)
    until(lambda: browser.texts("#about") == ["sasrec, 24 items"])
    browser.type("#search", items["i7"])
    until(lambda: browser.texts("#found .title") == [items["i7"]])
    browser.click("#found .title")
    until(lambda: browser.texts("#history .title") == [items["i7"]])

    def shows(*history: str) -> bool:
        expected = ssna.recommend(ids_run, history=history, k=10).items
        shown = zip(browser.texts("#items .title"), browser.texts("#items .score"), strict=True)
        return list(shown) == [(item.title, f"{item.score:.3f}") for item in expected]

    until(lambda: shows("i7"))
    second = browser.value("document.querySelector('#items li').dataset.item")
    browser.click("#items .title")  # What is recommended joins the history.
    until(lambda: shows("i7", second))
    browser.click("#history li:last-child button:last-child")
    until(lambda: shows("i7"))
    browser.click("#history .title")
    until(lambda: browser.texts("#heading") == [f"Similar to {items['i7']}"])
    alike = httpx2.get(f"{serving.url}/similar", params={"item": "i7"}).json()["items"]
    assert browser.texts("#items .title") == [item["title"] for item in alike]
    browser.click("#clear")
    until(lambda: browser.texts("#items .title") == [])
    assert browser.texts("#problem") == [""]
    assert browser.complaints == []
    serving.stop()
    browser.type("#search", "x")
    until(lambda: browser.texts("#problem")[0].startswith("This did not work"))


def test_the_page_fits_a_phone_and_its_errors_can_be_read_in_the_dark(serving: Serving, browser: Page) -> None:
    browser.resize(360)
    browser.open(serving.url)
    until(lambda: len(browser.texts("#found .title")) == 20)
    browser.click("#found .title")
    until(lambda: len(browser.texts("#items .title")) == 10)
    assert browser.value("document.documentElement.scrollWidth") <= 360
    colours = []
    for scheme in ("light", "dark"):
        browser.media(prefers_color_scheme=scheme)
        colours += browser.values("#problem", "getComputedStyle(e).color")
    assert colours == ["rgb(179, 38, 30)", "rgb(255, 138, 128)"]


# From here on each request of the page waits until the test answers it: `waiting[n]` is [its arguments, ok, no].
HOLD = """
window.real = fetch;
window.waiting = [];
fetch = (...asked) => new Promise((...ends) => waiting.push([asked, ...ends]));
"""
ANSWER = "(async () => waiting[{0}][1](await real(...waiting[{0}][0])))()"


def test_an_error_of_a_request_that_is_no_longer_wanted_is_not_shown(serving: Serving, browser: Page) -> None:
    browser.open(serving.url)
    until(lambda: len(browser.texts("#found .title")) == 20)
    browser.value(HOLD)
    browser.type("#search", "no 1")
    browser.type("#search", "7")
    until(lambda: browser.value("waiting.length") == 2)
    browser.value(ANSWER.format(1))
    until(lambda: len(browser.texts("#found .title")) == 1)
    browser.value("waiting[0][2](new Error('too late'))")
    browser.click("#found .title")
    browser.click("#found .title")
    until(lambda: browser.value("waiting.length") == 4)
    browser.value("waiting[2][2](new Error('too late'))")
    browser.value(ANSWER.format(3))
    until(lambda: len(browser.texts("#items .title")) == 10)
    assert browser.texts("#problem") == [""]


def test_a_search_leaves_what_is_said_of_a_recommendation(serving: Serving, browser: Page) -> None:
    browser.open(serving.url)
    until(lambda: len(browser.texts("#found .title")) == 20)
    browser.value(HOLD)
    browser.click("#found .title")
    until(lambda: browser.value("waiting.length") == 1)
    browser.value("waiting[0][2](new Error('no luck'))")
    until(lambda: browser.texts("#problem") == ["This did not work: no luck"])
    browser.value("fetch = real")
    browser.type("#search", "no 17")
    until(lambda: len(browser.texts("#found .title")) == 1)
    assert browser.texts("#problem") == ["This did not work: no luck"]
    browser.click("#found .title")  # The next recommendation takes it away.
    until(lambda: len(browser.texts("#items .title")) == 10)
    assert browser.texts("#problem") == [""]


def test_the_page_runs_no_other_script(serving: Serving, browser: Page) -> None:
    browser.open(serving.url)
    until(lambda: len(browser.texts("#found .title")) == 20)
    assert browser.complaints == []
    browser.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.injected = 1'}))"
    )
    assert browser.value("window.injected === undefined")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


def test_the_openapi_page_works_in_chromium_without_a_network(serving: Serving, browser: Page) -> None:
    browser.open(f"{serving.url}/docs")
    until(lambda: "/recommend" in json.dumps(browser.texts(".opblock-summary-path")).replace("\\u200b", ""))
    assert browser.complaints == []
    loaded = browser.value("performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith((serving.url, "data:"))] == []
