"""The HTTP service: its answers are those of the Python functions, and what is wrong is refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file

import ssna
from ssna import AdaptOptions, Dataset, adapt
from ssna.runs import open_run
from ssna.service import make_service


@pytest.fixture(scope="module")
def client(ids_run: Path) -> TestClient:
    """Of that run's service."""
    return client_of(ids_run)


def client_of(ids_run: Path) -> TestClient:
    cpu = torch.device("cpu")
    return TestClient(make_service(open_run(ids_run, cpu), cpu))


def expected(ids_run: Path, **arguments: Any) -> Any:
    answer = asdict(ssna.recommend(ids_run, **arguments))
    for item in answer["items"]:
        item["score"] = pytest.approx(item["score"], rel=1e-6)
    return answer


def test_recommendations_are_those_of_ssna_recommend(client: TestClient, ids_run: Path) -> None:
    for arguments in (
        {"history": ["i3", "i4", "i3"]},
        {"history": ["i3", "i4", "i3"], "k": 20, "allow_repeats": True},
        {"user": "u001", "k": 3},
    ):
        for answer in (client.post("/recommend", json=arguments), client.get("/recommend", params=arguments)):
            assert answer.status_code == 200
            assert answer.json() == expected(ids_run, **arguments)  # type: ignore[arg-type]


def test_similar_items_have_the_greatest_cosines(client: TestClient, ids_run: Path) -> None:
    ids = open_run(ids_run, torch.device("cpu")).items["item_id"].to_list()
    embeddings = load_file(ids_run / "model.safetensors")["sequence.item_embeddings"][1:].astype(np.float64)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    row = ids.index("i5")
    cosines = unit @ unit[row]
    best = [place for place in np.argsort(-cosines) if place != row][:4]
    answer = client.get("/similar", params={"item": "i5", "k": 4}).json()
    assert answer["item"]["item_id"] == "i5"
    assert [item["item_id"] for item in answer["items"]] == [ids[place] for place in best]
    assert [item["score"] for item in answer["items"]] == pytest.approx(cosines[best], abs=1e-5)
    everything = client.get("/similar", params={"item": "i5", "k": 100}).json()["items"]
    assert sorted([item["item_id"] for item in everything] + ["i5"]) == sorted(ids)


def test_items_are_found_by_a_part_of_their_title(client: TestClient, ids_run: Path) -> None:
    titles = open_run(ids_run, torch.device("cpu")).items["title"].to_list()
    found = [item["title"] for item in client.get("/items", params={"query": " BOOT", "k": 100}).json()]
    assert set(found) == {title for title in titles if "boot" in title}
    begins = [title.startswith("boot") for title in found]
    assert begins == sorted(begins, reverse=True)
    assert True in begins
    assert False in begins
    assert len(client.get("/items").json()) == 20
    for nothing in ("no such title", ".*"):
        assert client.get("/items", params={"query": nothing}).json() == []


def test_the_page_comes_with_the_digests_of_its_own_script_and_style(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy.pop("img-src") == "data:"
    assert policy.pop("connect-src") == "'self'"
    for name in ("script", "style"):
        content = answer.text.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}


def test_health_says_what_is_served(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "ok", "ssna": ssna.__version__, "model": "sasrec", "items": 24, "users": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "expected a user or a history, found neither; give one of them"),
        ({"user": "u001", "history": ["i1"]}, 422, "expected a user or a history, found both; give one of them"),
        ({"user": "nobody"}, 404, "there is no user 'nobody'; give a history instead"),
        ({"history": ["i1", "nothing"]}, 404, "there is no item 'nothing'"),
        ({"history": ["i1"], "k": 0}, 422, "k is 0: give a whole number from 1 to 100."),
        ({"history": ["i1"], "k": 101}, 422, "k is 101: give a whole number from 1 to 100."),
        ({"history": ["i1"], "k": "ten"}, 422, 'k is "ten": give a whole number from 1 to 100.'),
        ({"history": ["i1"], "k": None}, 422, "k is null: give a whole number from 1 to 100."),
        (
            {"history": ["i1"] * 1001},
            422,
            "history is a list of 1,001: give a list of at most 1,000 item ids, oldest first.",
        ),
        (
            {"history": ["i1", "i" * 257]},
            422,
            "item 2 of the history is a text of 257 characters: give a text of 1 to 256 characters.",
        ),
        ({"history": [""]}, 422, 'item 1 of the history is "": give a text of 1 to 256 characters.'),
        ({"history": [{}]}, 422, "item 1 of the history is an object: give a text of 1 to 256 characters."),
        ({"history": "i1"}, 422, 'history is "i1": give a list of at most 1,000 item ids, oldest first.'),
        (
            {"user": 5, "k": 0},
            422,
            'user is 5: give a text of 1 to 256 characters, such as "5". k is 0: give a whole number',
        ),
        (
            {"history": [1, 2, 3, 4]},
            422,
            'item 3 of the history is 3: give a text of 1 to 256 characters, such as "3". There is 1 more',
        ),
        ({"history": [1] * 1000}, 422, "There are 997 more like these."),
        ({"user": "u001", "allow_repeats": "perhaps"}, 422, 'allow_repeats is "perhaps": give true or false.'),
        (
            {"history": ["i1"], "top": 3},
            422,
            'there is no field "top", only user, history, k, allow_repeats: leave it out, or correct its name.',
        ),
        ([], 422, 'the body is a list of 0: give an object such as {"history": ["50"], "k": 10}.'),
    ],
)
def test_wrong_requests_are_refused(client: TestClient, body: Any, status: int, said: str) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


_AN_OBJECT = 'an object such as {"history": ["50"], "k": 10}.'


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "application/json", f"the body is empty: give {_AN_OBJECT}"),
        (b"", "application/json; charset=utf-8", f"the body is empty: give {_AN_OBJECT}"),
        (
            b"{k: 1}",
            "application/json",
            "the body is no JSON (Expecting property name enclosed in double quotes after 1 ",
        ),
        (
            b'{"k": 1',
            "application/vnd.x+json",
            "the body is no JSON (Expecting ',' delimiter after 7 characters): give",
        ),
        (b"\xff", "application/json", f"the body cannot be read as JSON in UTF-8: give {_AN_OBJECT}"),
        (
            b'{"history": ["i1"]}',
            "text/plain",
            f'the body is sent with the Content-Type "text/plain": send it with application/json, as {_AN_OBJECT}',
        ),
        (
            b"history=i1",
            "application/x-www-form-urlencoded",
            'the body is sent with the Content-Type "application/x-www-form-urlencoded": send it with application/json',
        ),
        ('{"größe": 1}'.encode(), "application/json", 'there is no field "größe", only user'),
        (b'{"user": "\\ud800"}', "application/json", 'user is "\\ud800": give a text of 1 to 256 characters.'),
    ],
)
def test_a_body_that_is_no_json_is_told_from_one_that_is_not_sent_as_such(
    client: TestClient, body: bytes, kind: str, said: str
) -> None:
    answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"].startswith(said)


def test_only_the_hosts_that_are_named_are_answered(ids_run: Path) -> None:
    cpu = torch.device("cpu")
    run = open_run(ids_run, cpu)
    named = TestClient(make_service(run, cpu, ["localhost", "[::1]"]))
    for host, status in (
        ("localhost", 200),
        ("LocalHost:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("stranger.example", 421),
        ("stranger.example:8000", 421),
        ("localhost.stranger.example", 421),
        ("localhost@stranger.example", 421),
        ("127.0.0.1", 421),
        ("", 421),
    ):
        answer = named.get("/health", headers={"Host": host})
        assert answer.status_code == status, host
    assert answer.json()["detail"] == (
        'the request is for the host "", and this machine alone is answered, as localhost, [::1]: ask for one of '
        "these, or start `ssna serve` with another --host."
    )
    assert client_of(ids_run).get("/health", headers={"Host": "stranger.example"}).status_code == 200


def test_the_description_names_every_refusal(client: TestClient, ids_run: Path) -> None:
    def statuses(asked: TestClient) -> dict[str, set[str]]:
        paths = asked.get("/openapi.json").json()["paths"]
        return {
            f"{method} {path}": set(described["responses"])
            for path, methods in paths.items()
            for method, described in methods.items()
        }

    anywhere = {
        "get /health": {"200"},
        "post /recommend": {"200", "400", "404", "413", "422"},
        "get /recommend": {"200", "404", "422"},
        "get /similar": {"200", "404", "409", "422"},
        "get /items": {"200", "422"},
    }
    assert statuses(client) == anywhere
    cpu = torch.device("cpu")
    here = TestClient(make_service(open_run(ids_run, cpu), cpu, ["testserver"]))
    assert statuses(here) == {request: {*codes, "421"} for request, codes in anywhere.items()}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/similar", 422, "item is missing: give a text of 1 to 256 characters."),
        ("/similar?item=", 422, 'item is "": give a text of 1 to 256 characters.'),
        ("/similar?item=nothing", 404, "there is no item 'nothing'"),
        ("/similar?item=i1&k=1000", 422, 'k is "1000": give a whole number from 1 to 100.'),
        ("/recommend?history=i1&k=many", 422, 'k is "many": give a whole number from 1 to 100.'),
        ("/recommend?history=i1&top=3", 422, 'there is no field "top"'),
        ("/recommend", 422, "expected a user or a history, found neither"),
        (f"/items?query={'x' * 257}", 422, "query is a text of 257 characters: give a text of at most 256 characters."),
        ("/items?k=101", 422, 'k is "101": give a whole number from 1 to 100.'),
    ],
)
def test_wrong_addresses_are_refused(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_what_is_not_served_has_a_detail_too(client: TestClient) -> None:
    lacking, wrong = client.get("/no-such-page"), client.delete("/recommend")
    assert (lacking.status_code, lacking.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\x7fELF\xf0\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"history": ["\\ud800"]}', 422),
        (b'{"history": ["i1"], "k": NaN}', 422),
        (b'{"history": ["i1"], "k": 1e999}', 422),
        (b'{"history": [' + b"1," * 100_000 + b"1]}", 422),
    ],
    ids=["empty", "half", "binary", "deep", "surrogate", "nan", "infinity", "numbers"],
)
def test_hostile_bodies_are_refused_briefly(client: TestClient, body: bytes, status: int) -> None:
    for kind in ("application/json", "text/plain"):
        answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
        assert answer.status_code == (status if kind == "application/json" else 422)
        assert isinstance(answer.json()["detail"], str)
        assert len(answer.text) < 500


def test_limits_are_inclusive(client: TestClient) -> None:
    assert client.post("/recommend", json={"history": ["i1"] * 1000, "k": 100}).status_code == 200


def test_bodies_are_limited_with_and_without_a_length(client: TestClient) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"history": ["i1"]'
        for _ in range(count):
            yield b" " * 64 * 1024
        yield b"}"

    large = b"".join(pieces(8))
    for content in (large, pieces(8)):
        answer = client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (413, {"detail": "the body has more than 524288 bytes"})
    for content in (b"".join(pieces(7)), pieces(7)):
        answer = client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200
    odd = {"Content-Type": "application/json", "Content-Length": "9" * 5000}
    assert client.post("/recommend", content=b"{}", headers=odd).status_code == 413


def test_the_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        assert "text/html" in page.headers["content-type"]
        assert "://" not in page.text.replace("http://www.w3.org", "")
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/health", "/recommend", "/similar", "/items"}


def test_a_popularity_run_recommends_but_has_no_similar_items(dataset: Dataset, tmp_path: Path) -> None:
    adapt(dataset.path, tmp_path / "run", options=AdaptOptions(model="popularity"))
    client = client_of(tmp_path / "run")
    assert client.post("/recommend", json={"history": ["i1"]}).json() == expected(tmp_path / "run", history=["i1"])
    answer = client.get("/similar", params={"item": "i1"})
    assert (answer.status_code, answer.json()["detail"]) == (
        409, "this run is a popularity baseline, whose items have no embeddings",
    )  # fmt: skip
