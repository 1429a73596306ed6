"""`ssna download` against a server on this machine that answers as the publishers' do."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from ssna import download, prepare
from ssna.api import download as module
from ssna.api.download import PUBLISHED, Published
from ssna.errors import DownloadError, OutputError
from ssna.sources import FORMATS
from tests.helpers import ssna_in_process


def made_up_zip() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("ml-made-up/ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.0,4\n")
        archive.writestr("ml-made-up/movies.csv", "movieId,title,genres\n2,Heat,Action\n")
        archive.writestr("ml-made-up/tags.csv", bytes(range(256)) * 300)
    return content.getvalue()


ZIP = made_up_zip()
MD5 = hashlib.md5(ZIP).hexdigest()
SHA256 = hashlib.sha256(ZIP).hexdigest()


@dataclass
class Server:
    """What is served, how it breaks, and what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tag: str = '"v1"'
    break_after: int | None = None
    status: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(files={"/ml.zip": ZIP, "/ml.zip.md5": f"MD5 (ml.zip) = {MD5}\n".encode()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path)
            if content is None or state.status:
                self.send_error(state.status or 404)
                return
            start = 0
            if wanted and self.headers.get("If-Range") == state.tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", state.tag)
            self.end_headers()
            self.wfile.write(content[start:] if state.break_after is None else content[start : state.break_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(
        module,
        "PUBLISHED",
        {
            "ml": Published("movielens", (f"{state.url}/ml.zip",), "https://example.org", ".md5"),
            "shop-CATEGORY": Published("amazon", (f"{state.url}/{{}}.gz", f"{state.url}/meta_{{}}.gz"), "https://x"),
        },
    )
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_downloaded_is_checked_and_can_be_prepared(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    result = download("ml", tmp_path / "raw", on_progress=lambda *values: seen.append(values))
    (file,) = result.files
    assert (file.path, file.bytes, file.sha256) == (tmp_path / "raw" / "ml.zip", len(ZIP), SHA256)
    assert file.agrees_with == ("publisher",)
    assert not file.was_there
    assert file.path.read_bytes() == ZIP
    assert left(tmp_path / "raw") == {"ml.zip", "ml.zip.sha256"}
    assert seen[-1] == ("ml.zip", len(ZIP), len(ZIP))
    assert len(prepare(file.path, tmp_path / "out", format=result.format).interactions()) == 1
    assert (tmp_path / "raw" / "ml.zip.sha256").read_text() == f"{SHA256}  ml.zip\n"  # For `sha256sum --check`.
    again = download("ml", tmp_path / "raw").files[0]
    assert (again.sha256, again.was_there, again.agrees_with) == (SHA256, True, ("publisher", "note"))
    assert [path for path, _ in server.asked] == ["/ml.zip.md5", "/ml.zip", "/ml.zip.md5"]


def test_progress_is_told_in_a_terminal_and_not_when_quiet(server: Server, tmp_path: Path) -> None:
    outcomes = []
    for name, options in (("loud", []), ("quiet", ["--quiet"])):
        (tmp_path / name).mkdir()
        outcomes.append(
            ssna_in_process("download", "ml", *options, cwd=tmp_path / name, FORCE_COLOR="1", COLUMNS="300")
        )
    loud, quiet = outcomes
    assert (loud.returncode, quiet.returncode) == (0, 0)
    assert "ml.zip" in loud.stderr
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_a_file_that_is_there_is_held_against_its_publishers_digest(server: Server, tmp_path: Path) -> None:
    """Also one that was put there by hand, and not by way of what an earlier call noted."""
    (tmp_path / "ml.zip").write_bytes(ZIP[:-1])
    truncated = hashlib.md5(ZIP[:-1]).hexdigest()
    expected = rf"ml\.zip was there, but its digest is {truncated}, not {MD5}, which its publisher gives\. Remove it"
    with pytest.raises(DownloadError, match=expected):
        download("ml", tmp_path)
    assert left(tmp_path) == {"ml.zip"}
    assert (tmp_path / "ml.zip").read_bytes() == ZIP[:-1], "what is the user's is left alone"
    (tmp_path / "ml.zip").unlink()
    assert download("ml", tmp_path).files[0].agrees_with == ("publisher",)


def test_without_a_publishers_digest_a_file_is_held_against_that_of_the_first_call(
    server: Server, tmp_path: Path
) -> None:
    del server.files["/ml.zip.md5"]
    assert download("ml", tmp_path).files[0].agrees_with == ()
    assert download("ml", tmp_path).files[0].agrees_with == ("note",)
    changed = ZIP[:-1] + b"x"
    (tmp_path / "ml.zip").write_bytes(changed)
    expected = rf"is {hashlib.sha256(changed).hexdigest()}, not {SHA256}, which .*ml\.zip\.sha256 gives"
    with pytest.raises(DownloadError, match=f"was there, but its digest {expected}"):
        download("ml", tmp_path)
    (tmp_path / "ml.zip").unlink()
    server.files["/ml.zip"] = changed  # At the publisher too.
    with pytest.raises(DownloadError, match=f"what came {expected}; it was removed.*remove .*ml.zip.sha256 to accept"):
        download("ml", tmp_path)
    (tmp_path / "ml.zip.sha256").write_text("nothing")
    with pytest.raises(DownloadError, match=r"ml\.zip\.sha256 holds no SHA-256; expected what an earlier download"):
        download("ml", tmp_path)
    (tmp_path / "ml.zip.sha256").unlink()
    assert download("ml", tmp_path).files[0].path.read_bytes() == changed


def test_a_digest_that_is_known_beforehand_is_compared(server: Server, tmp_path: Path) -> None:
    module.PUBLISHED["ml"] = replace(module.PUBLISHED["ml"], sha256=SHA256)
    assert download("ml", tmp_path).files[0].agrees_with == ("publisher", "ssna")
    other = "0" * 64
    module.PUBLISHED["ml"] = replace(module.PUBLISHED["ml"], sha256=other)
    with pytest.raises(DownloadError, match=rf"was there, but its digest is {SHA256}, not {other}, which ssna gives"):
        download("ml", tmp_path)
    with pytest.raises(DownloadError, match=f"what came is {SHA256}, not {other}, .*from https://example.org yourself"):
        download("ml", tmp_path / "new")
    assert left(tmp_path / "new") == set()


def test_a_file_that_is_there_is_enough_where_the_publisher_is_not_reached(server: Server, tmp_path: Path) -> None:
    download("ml", tmp_path / "raw")
    server.status = 503
    file = download("ml", tmp_path / "raw").files[0]
    assert (file.agrees_with, file.publisher_reached, file.was_there) == (("note",), False, True)
    done = ssna_in_process("download", "ml", "raw", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{SHA256}   the last call, publisher not reached" in done.stdout
    assert "SHA-256 of each is noted beside it (.sha256)" in done.stdout


def test_a_download_that_never_began_leaves_nothing(server: Server, tmp_path: Path) -> None:
    del server.files["/ml.zip"]
    with pytest.raises(DownloadError, match="the server answered 404"):
        download("ml", tmp_path)
    assert left(tmp_path) == set()


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = 50_000
    with pytest.raises(DownloadError, match=rf"connection ended after 50,000 of {len(ZIP):,} bytes. Run the same"):
        download("ml", tmp_path)
    assert not (tmp_path / "ml.zip").exists()
    server.break_after = None
    assert download("ml", tmp_path).files[0].sha256 == SHA256
    assert server.asked[-1] == ("/ml.zip", "bytes=50000-")
    assert left(tmp_path) == {"ml.zip", "ml.zip.sha256"}


def test_a_part_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.break_after = 50_000
    with pytest.raises(DownloadError):
        download("ml", tmp_path)
    server.break_after, server.tag = None, '"v2"'
    changed = bytes(reversed(ZIP))
    server.files["/ml.zip"] = changed
    server.files["/ml.zip.md5"] = hashlib.sha256(changed).hexdigest().encode()
    assert download("ml", tmp_path).files[0].path.read_bytes() == changed


@pytest.mark.parametrize("tag", ["", 'W/"v1"'], ids=["none", "weak"])
def test_without_a_version_the_file_is_fetched_anew(server: Server, tmp_path: Path, tag: str) -> None:
    server.break_after, server.tag = 50_000, tag
    with pytest.raises(DownloadError):
        download("ml", tmp_path)
    server.break_after = None
    assert download("ml", tmp_path).files[0].sha256 == SHA256
    assert server.asked[-1] == ("/ml.zip", None)


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".ml.zip.part").write_bytes(ZIP)
    (tmp_path / ".ml.zip.version").write_text(server.tag)
    assert download("ml", tmp_path).files[0].sha256 == SHA256
    assert left(tmp_path) == {"ml.zip", "ml.zip.sha256"}


def test_content_that_is_not_what_its_publisher_says_is_removed(server: Server, tmp_path: Path) -> None:
    server.files["/ml.zip.md5"] = b"0" * 32
    with pytest.raises(DownloadError, match=f"digest of what came is {MD5}, not {'0' * 32}, which its publisher"):
        download("ml", tmp_path)
    assert "ml.zip" not in left(tmp_path)
    server.files["/ml.zip.md5"] = f"{SHA256}  ml.zip\n".encode()
    assert download("ml", tmp_path).files[0].agrees_with == ("publisher",)
    server.files["/ml.zip.md5"] = b"<html>"
    with pytest.raises(DownloadError, match="holds neither an MD5 nor a SHA-256"):
        download("ml", tmp_path / "other")


def test_a_file_of_which_nothing_is_known_is_said_to_be_unchecked(server: Server, tmp_path: Path) -> None:
    del server.files["/ml.zip.md5"]
    done = ssna_in_process("download", "ml", "raw", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"raw/ml\.zip\s.*{SHA256}\s+nothing known yet", done.stdout)
    assert "Next: ssna prepare raw/ml.zip ml --format movielens" in done.stdout
    printed = json.loads(ssna_in_process("download", "ml", "raw", "--json", cwd=tmp_path).stdout)
    assert printed["files"][0]["was_there"]
    assert printed["prepare"] == ["ssna", "prepare", "raw/ml.zip", "ml", "--format", "movielens"]


def test_categories_are_part_of_the_name(server: Server, tmp_path: Path) -> None:
    server.files |= {"/Toys_and_Games.gz": b"r", "/meta_Toys_and_Games.gz": b"m"}
    files = download("shop-Toys_and_Games", tmp_path).files
    assert [file.path.read_bytes() for file in files] == [b"r", b"m"]
    for name in ("shop-CATEGORY", "shop-", "shop-../x", "ml-9", "ml1", "yelp"):
        with pytest.raises(DownloadError, match=r"no public dataset is called '.*'; expected one of ml, shop-CATEGORY"):
            download(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_network_no_file_and_no_folder_are_one_sentence_each(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/None\.gz: the server answered 404 .* publisher's page yourself"):
        download("shop-None", tmp_path)
    server.status = 503
    with pytest.raises(DownloadError, match=r"answered 503 \(Service Unavailable\). Run the same command again later"):
        download("ml", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; expected the name of a new or empty folder"):
        download("ml", tmp_path / "file")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound but not listening: every connection is refused.
        module.PUBLISHED["ml"] = Published("movielens", (f"http://127.0.0.1:{unused.getsockname()[1]}/a",), "https://x")
        done = ssna_in_process("download", "ml", "raw", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: http://127.* cannot be reached \(.*refused\)\. Check the network, .*\n", done.stderr)


def test_a_second_process_does_not_write_between(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no such locks on this system")
    with (tmp_path / ".ml.zip.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match=r"another process is fetching .*ml\.zip"):
            download("ml", tmp_path)
    assert download("ml", tmp_path).files[0].sha256 == SHA256


def test_every_published_dataset_has_a_format_and_secure_addresses() -> None:
    for name, published in PUBLISHED.items():
        assert published.format in FORMATS
        assert published.page.startswith("https://")
        for url in published.urls:
            assert url.startswith("https://")
            assert ("{}" in url) == ("CATEGORY" in name) == (published.example is not None)
        if published.sha256 is not None:
            assert re.fullmatch("[0-9a-f]{64}", published.sha256)
            assert len(published.urls) == 1
            assert "latest" not in name, "it changes"
