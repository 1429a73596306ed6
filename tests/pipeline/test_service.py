"""The HTTP service: its answers are those of the Python functions, and what is wrong is refused."""

from __future__ import annotations

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


def test_health_says_what_is_served(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "ok", "ssna": ssna.__version__, "model": "sasrec", "items": 24, "users": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "expected a user or a history, found neither"),
        ({"user": "u001", "history": ["i1"]}, 422, "expected a user or a history, found both"),
        ({"user": "nobody"}, 404, "there is no user 'nobody'"),
        ({"history": ["i1", "nothing"]}, 404, "there is no item 'nothing'"),
        ({"history": ["i1"], "k": 0}, 422, "greater than or equal to 1"),
        ({"history": ["i1"], "k": 101}, 422, "less than or equal to 100"),
        ({"history": ["i1"] * 1001}, 422, "at most 1000 items"),
        ({"history": ["i" * 257]}, 422, "at most 256 characters"),
        ({"history": [""]}, 422, "at least 1 character"),
        ({"history": "i1"}, 422, "valid list"),
        ({"history": ["i1"], "top": 3}, 422, "Extra inputs are not permitted"),
        ([], 422, "valid dictionary"),
    ],
)
def test_wrong_requests_are_refused(client: TestClient, body: Any, status: int, said: str) -> None:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == status
    assert said in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/similar", 422),
        ("/similar?item=nothing", 404),
        ("/similar?item=i1&k=1000", 422),
        ("/recommend?history=i1&k=many", 422),
        ("/recommend", 422),
        (f"/items?query={'x' * 257}", 422),
        ("/items?k=101", 422),
        ("/no-such-page", 404),
    ],
)
def test_wrong_addresses_are_refused(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert "detail" in answer.json()


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
