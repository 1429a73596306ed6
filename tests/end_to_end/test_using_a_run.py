"""What a finished run is good for: its recommendations for all users, what is near to what, and new items."""

from __future__ import annotations

import json
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import httpx2
import huggingface_hub
import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

import ssna
import ssna.api.add_items as api_of_add_items
import ssna.stage2_adapt.new_items as new_items
import ssna.stage2_adapt.recommendation as recommendation
from ssna import AdaptOptions
from ssna.cache import Cache, Selection, find_cache, fingerprint_of, keys_of_texts, read_manifest
from ssna.errors import RunError
from ssna.runs import open_run, read_added
from tests.end_to_end.test_serve import started
from tests.helpers import Catalogue, make_catalogue, make_tiny_llm, ssna_in_process, ssna_in_terminal

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    root: Path
    data: Path
    llm: Path
    lonely: str
    """An item that nobody interacted with"""

    @property
    def caches(self) -> Path:
        return self.root / "caches"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    made: Catalogue = make_catalogue(root / "source")
    with made.items.open("a") as file:
        file.write("lonely\tfiddle lamp boot\n")
    ssna.prepare([made.users, made.items], root / "data", format="sequences")
    llm = make_tiny_llm(root / "tiny-bert")
    ssna.extract(root / "data", llm, cache_root=root / "caches", device="cpu")
    for name, options in (
        ("text", AdaptOptions(width=8, epochs=2, candidates="all", components=9, preparation="whiten", item_id=True)),
        ("ids", AdaptOptions(side="none", width=8, epochs=1, candidates="all")),
        ("popularity", AdaptOptions(model="popularity")),
    ):
        llms = "tiny-bert" if options.needs_states else None
        ssna.adapt(root / "data", root / name, llm=llms, options=options, cache_root=root / "caches")
    return Place(root, root / "data", llm, "lonely")


@pytest.fixture
def run(place: Place, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(place.root / "text", tmp_path / "run"))


def write_csv(path: Path, *rows: str, header: str = "item_id,title") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("allow_repeats", [False, True])
@pytest.mark.parametrize("name", ["text", "popularity"])
def test_all_users_get_what_each_alone_would(place: Place, name: str, allow_repeats: bool) -> None:
    rows = ssna.recommend_users(place.root / name, k=5, allow_repeats=allow_repeats)
    users = open_run(place.root / name, CPU).user_ids.to_list()
    assert rows["user_id"].unique(maintain_order=True).to_list() == users
    for user in (users[0], users[17], users[-1]):
        mine = rows.filter(pl.col("user_id") == user)
        alone = ssna.recommend(place.root / name, user=user, k=5, allow_repeats=allow_repeats).items
        assert mine["item_id"].to_list() == [item.item_id for item in alone]
        assert mine["rank"].to_list() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(mine["score"], [item.score for item in alone], atol=1e-4)


def test_ids_may_stand_in_a_series_or_an_array(place: Place) -> None:
    ids = ["i3", "i5"]
    expected = ssna.recommend(place.root / "text", history=ids)
    for given in (pl.Series(ids), np.array(ids), iter(ids)):
        assert ssna.recommend(place.root / "text", history=given) == expected
    users = ssna.recommend_users(place.root / "text", ["u003", "u001"])
    assert ssna.recommend_users(place.root / "text", np.array(["u003", "u001"])).equals(users)


def test_users_who_have_nearly_all_items_get_fewer(place: Place) -> None:
    rows = ssna.recommend_users(place.root / "text", k=100)
    histories = pl.read_parquet(place.root / "text/histories.parquet")
    seen = dict(zip(histories["user_id"], histories["history"].list.n_unique(), strict=True))
    got = dict(rows.group_by("user_id").len().iter_rows())
    assert got == {user: 25 - count for user, count in seen.items()}


def test_all_users_go_into_a_parquet_file(place: Place, tmp_path: Path) -> None:
    command = ["recommend", place.root / "text", "--all-users", "--top", "3", "--output", "out/all.parquet"]
    done = ssna_in_process(*command, cwd=tmp_path)
    assert done.stdout == "out/all.parquet: 180 rows, the next 3 items of 60 users\n"
    frame = pl.read_parquet(tmp_path / "out/all.parquet")
    assert frame.equals(ssna.recommend_users(place.root / "text", k=3))
    again = ssna_in_process(*command, cwd=tmp_path)
    assert again.returncode == 1
    assert "out/all.parquet exists. Give another --output, or --overwrite to replace it." in again.stderr
    counted = ssna_in_process(*command, "--overwrite", "--json", cwd=tmp_path)
    assert json.loads(counted.stdout) == {"output": "out/all.parquet", "users": 60, "rows": 180}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all-users"], "--all-users writes a Parquet file. Name it with --output."),
        (["--all-users", "--user", "u000", "--output", "x"], "--all-users goes with neither --user nor --history."),
        (["--user", "u000", "--output", "x"], "--output and --overwrite go with --all-users and"),
        (["--histories", "x.csv"], "--histories writes a Parquet file. Name it with --output."),
        (["--histories", "x.csv", "--history", "i1", "--output", "x"], "--histories goes with neither --user nor"),
        (["--histories", "x.csv", "--all-users", "--output", "x"], "found --all-users and --histories. Give one of"),
        (["--histories", "x.csv", "--output", "x.parquet"], "x.csv: there is no such file; expected a table of hist"),
        (
            ["--all-users", "--output", "x.csv"],
            "x.csv: recommendations are written as Parquet; expected a name that ends",
        ),
        (["--all-users", "--output", "."], ". is a folder; expected the name of a file to write."),
        (["--all-users", "--output", "x.parquet", "--top", "0"], "--top 0: expected at least 1."),
    ],
)
def test_all_users_refuses_what_does_not_fit(place: Place, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = ssna_in_process("recommend", place.root / "text", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert not any(tmp_path.iterdir())


HISTORIES = {"new": ["i3", "i4", "i3"], "8": ["i20"], "u000": ["i1", "i9"]}


def write_histories(folder: Path, ending: str) -> Path:
    """Those above, the users' rows mixed, oldest first."""
    rows = [("new", "i3"), ("8", "i20"), ("u000", "i1"), ("new", "i4"), ("u000", "i9"), ("new", "i3")]
    frame, path = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row"), folder / f"new{ending}"
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_csv(path, separator="\t" if ending == ".tsv" else ",")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_users_of_a_table_get_what_each_history_alone_would(place: Place, tmp_path: Path, ending: str) -> None:
    run, table = place.root / "text", write_histories(tmp_path, ending)
    command = ["recommend", run, "--histories", table, "--top", "3", "--explain", "--output", "out.parquet"]
    done = ssna_in_process(*command, cwd=tmp_path)
    assert done.stdout == "out.parquet: 9 rows, the next 3 items of 3 users\n"
    rows = pl.read_parquet(tmp_path / "out.parquet")
    assert rows.schema == ssna.recommend_users(run, k=3, explain=True).schema
    assert rows["user_id"].unique(maintain_order=True).to_list() == list(HISTORIES)
    for user, history in HISTORIES.items():
        mine, alone = rows.filter(user_id=user), ssna.recommend(run, history=history, k=3).items
        assert mine["item_id"].to_list() == [item.item_id for item in alone]
        np.testing.assert_allclose(mine["score"], [item.score for item in alone], atol=1e-4)
        assert mine["nearest_item_ids"].to_list() == [[near.item_id for near in item.nearest] for item in alone]
    assert ssna_in_process(*command, "--overwrite", cwd=tmp_path).returncode == 0
    for given in (HISTORIES, pl.read_parquet(write_histories(tmp_path, ".parquet"))):
        assert ssna.recommend_users(run, histories=given, k=3, explain=True).equals(rows)  # type: ignore[arg-type]


def test_histories_with_times_may_stand_in_any_order(place: Place, tmp_path: Path) -> None:
    expected = ssna.recommend_users(place.root / "text", histories={"a": ["i3", "i9", "i1"], "b": ["i5"]}, k=4)
    for first, second, third in (("9", "10", "11"), ("2020-01-09", "2020-01-10", "2020-02-01")):
        rows = (f"a,i1,{third}", f"b,i5,{first}", f"a,i9,{second}", f"a,i3,{first}")
        table = write_csv(tmp_path / "new.csv", *rows, header="user_id,item_id,timestamp")
        assert ssna.recommend_users(place.root / "text", histories=table, k=4).equals(expected)


def test_items_that_were_added_stand_in_histories_and_numbers_are_ids(run: Path, tmp_path: Path) -> None:
    ssna.add_items(run, write_csv(tmp_path / "new.csv", "77,boot camera"))
    expected = ssna.recommend_users(run, histories={"1": ["77", "i3"], "2": ["77"]}, k=4)
    assert "77" not in expected["item_id"]
    assert ssna.recommend_users(run, histories={1: [77, "i3"], 2: [77]}, k=4).equals(expected)  # type: ignore[list-item]
    frame = pl.DataFrame({"user_id": [2.0], "item_id": [77.0]})
    alone = ssna.recommend_users(run, histories=frame, k=4)
    assert alone["user_id"].to_list() == ["2"] * 4
    assert alone["item_id"].to_list() == expected.filter(user_id="2")["item_id"].to_list()


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ("user_id,item_id\na,i1\na,x1\nb,x2\nc,x1\n", "have 2 items that .*text has not .x1, x2.. Leave these rows"),
        (
            "user_id,item_id\na,x1\n",
            "have 1 item that .*text has not .x1.. Leave these rows out, or add",
        ),
        ("".join(["user_id,item_id\n", *(f"a,x{i}\n" for i in range(2005))]), "2,005 items .*x3, x4 and 2,000 more"),
        ("user,item_id\na,i1\n", "new.csv has no column 'user_id' .found: user, item_id.. Rename its own"),
        ("user_id,item_id\na,i1\na,\n", "new.csv: found 1 row without item_id .the first is row 2.. Compl"),
        ("user_id,item_id\n", "new.csv: there is no row"),
        ("user_id,item_id\na,i1,i2\n", "new.csv cannot be read as a table: .*line 2 has 3 fields, its header 2"),
        ("user_id,item_id\na,\xe9\n".encode("latin-1"), "new.csv is no UTF-8 text .*Convert it to UTF-8"),
        ("user_id,item_id,timestamp\na,i1,5\na,i2,\n", "new.csv: the column timestamp has values that are missing"),
        ({}, "the histories: there is no row"),
        ({"a": []}, "the history of user 'a' is empty; expected a list of item ids, oldest first"),
        ({"a": "i1"}, "the history of user 'a' is the text 'i1'; expected a list"),
        ({"a": 1}, "the history of user 'a' is 1; expected a list"),
        (pl.DataFrame({"user_id": ["a"]}), "the frame of histories has no column 'item_id'"),
        ([["i1"]], "the histories are of type list; expected a file, a frame of polars or a mapping"),
    ],
)
def test_histories_with_a_mistake_are_refused(place: Place, tmp_path: Path, histories: Any, message: str) -> None:
    if isinstance(histories, str | bytes):
        content, histories = histories, tmp_path / "new.csv"
        histories.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ssna.SsnaError, match=message):
        ssna.recommend_users(place.root / "text", histories=histories)
    with pytest.raises(RunError, match="expected users or histories, found both"):
        ssna.recommend_users(place.root / "text", ["u000"], histories=histories)


def test_only_recommendations_are_replaced(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("not to be lost")
    command = ["recommend", place.root / "text", "--all-users", "--output", "mine.parquet", "--overwrite"]
    done = ssna_in_process(*command, cwd=tmp_path)
    assert "mine.parquet is no file of recommendations of ours, so --overwrite does not touch it" in done.stderr
    assert (tmp_path / "mine.parquet").read_text() == "not to be lost"


def test_similar_items_are_those_of_highest_cosine(place: Place) -> None:
    opened = open_run(place.root / "text", CPU)
    vectors = opened.recommender.item_embeddings[1:].double().numpy()  # type: ignore[union-attr]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[4]
    order = [place for place in np.argsort(-cosines) if place != 4]
    found = ssna.similar(place.root / "text", opened.items["item_id"][4], k=24)
    assert [item.item_id for item in found] == [opened.items["item_id"][int(place)] for place in order]
    np.testing.assert_allclose([item.score for item in found], cosines[order], atol=1e-5)
    assert len(ssna.similar(place.root / "text", "i3", k=1000)) == 24


LONG_HISTORY = ["i1", "i5", "i9", "i1", "i4", "i5", "i1"]


@pytest.mark.parametrize(("history", "count"), [(LONG_HISTORY, 3), (["i9", "i1", "i9"], 2)])
def test_each_recommendation_names_the_nearest_items_of_the_history(
    place: Place, history: list[str], count: int
) -> None:
    for item in ssna.recommend(place.root / "text", history=history, k=4).items:
        similar = [each for each in ssna.similar(place.root / "text", item.item_id, k=24) if each.item_id in history]
        assert [(near.item_id, near.title) for near in item.nearest] == [
            (each.item_id, each.title) for each in similar[:count]
        ]
        assert [near.score for near in item.nearest] == pytest.approx(
            [near.score for near in similar[:count]], abs=1e-5
        )
    assert ssna.recommend(place.root / "popularity", history=history).items[0].nearest == []


def test_no_item_is_named_as_near_to_itself(place: Place) -> None:
    repeated = ssna.recommend(place.root / "text", history=["i1"], k=25, allow_repeats=True).items
    assert {item.item_id: len(item.nearest) for item in repeated} == {
        item.item_id: item.item_id != "i1" for item in repeated
    }


def test_the_nearest_items_stand_below_each_other(place: Place) -> None:
    run, given = place.root / "text", [part for item in LONG_HISTORY for part in ("--history", item)]
    table = ssna_in_process("recommend", run, *given, "--explain", "--top", "2").stdout
    rows = [re.split("  +", line.strip()) for line in table.splitlines() if line.strip()]
    expected = list[list[str]]()
    for item in ssna.recommend(run, history=LONG_HISTORY, k=2).items:
        near = [[each.title, f"{each.score:.3f}"] for each in item.nearest]
        expected += [[item.item_id, item.title, f"{item.score:.3f}", *near[0]], near[1], near[2]]
    assert rows[-6:] == expected
    lonely = ["recommend", place.root / "ids", "--user", "u000", "--explain", "--top", "25"]
    assert re.search(rf"\n {place.lonely} +fiddle lamp boot +\S+ +\n", ssna_in_process(*lonely).stdout)


def test_in_a_narrow_terminal_the_nearest_items_stay_with_what_they_are_near_to(place: Place) -> None:
    given = [part for item in LONG_HISTORY for part in ("--history", item)]
    shown = ssna_in_terminal(
        "recommend", "text", *given, "--explain", "--top", "2", cwd=place.root, columns=30, NO_COLOR="1"
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    of_one = ["item", "recommended", "score", *["nearest", "cosine"] * 3]
    assert re.findall("^ (item|recommended|score|nearest|cosine)", plain, re.MULTILINE) == ["item", *of_one, *of_one]


def test_recommendations_for_all_are_explained_as_those_for_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["recommend", place.root / "text", "--all-users", "--explain", "--top", "25", "--allow-repeats"]
    done = ssna_in_process(*command, "--output", "all.parquet", cwd=tmp_path)
    assert done.stdout == "all.parquet: 1,500 rows, the next 25 items of 60 users\n"
    rows = pl.read_parquet(tmp_path / "all.parquet")
    assert rows.columns == ["user_id", "item_id", "score", "rank", "nearest_item_ids", "nearest_cosines"]
    assert rows.schema.dtypes()[4:] == [pl.List(pl.String), pl.List(pl.Float32)]
    for user, mine in rows.group_by("user_id"):
        alone = ssna.recommend(place.root / "text", user=user[0], k=25, allow_repeats=True).items
        expected = {item.item_id: item.nearest for item in alone}
        assert [] not in expected.values()
        found = {item: (near, cosines) for _, item, _, _, near, cosines in mine.iter_rows()}
        assert {len(near) for near, _ in found.values()} <= {2, 3}
        for item, nearest in expected.items():
            assert found[item][0] == [near.item_id for near in nearest]
            assert found[item][1] == pytest.approx([near.score for near in nearest], abs=1e-5)
    monkeypatch.setattr(recommendation, "_NUMBERS_AT_ONCE", 1)  # One user at a time
    again = ssna.recommend_users(place.root / "text", k=25, allow_repeats=True, explain=True)
    assert again.drop("nearest_cosines").equals(rows.drop("nearest_cosines"))
    overwritten = ssna_in_process(*command, "--output", "all.parquet", "--overwrite", cwd=tmp_path)
    assert overwritten.returncode == 0


def test_an_item_without_a_vector_is_near_to_nothing(place: Place) -> None:
    rows = ssna.recommend_users(place.root / "ids", ["u000", "u001"], k=25, explain=True)
    lonely = rows.filter(pl.col("item_id") == place.lonely)
    assert lonely["nearest_item_ids"].to_list() == lonely["nearest_cosines"].to_list() == [[], []]
    assert rows.filter(pl.col("item_id") != place.lonely)["nearest_item_ids"].list.len().min() == 3
    alone = ssna.recommend(place.root / "ids", user="u000", k=25).items
    assert [item.nearest for item in alone if item.item_id == place.lonely] == [[]]


@pytest.mark.parametrize("whom", [["--user", "u000"], ["--all-users", "--output", "all.parquet"]])
def test_what_has_no_vectors_is_not_explained(place: Place, tmp_path: Path, whom: list[str]) -> None:
    done = ssna_in_process("recommend", place.root / "popularity", *whom, "--explain", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {place.root / 'popularity'} ranks by popularity and has no item vectors. Give a run with a side "
        "network or IDs, or leave --explain out.\n"
    )
    assert not any(tmp_path.iterdir())


def test_that_there_are_fewer_than_asked_for_is_said(place: Place, tmp_path: Path) -> None:
    run = place.root / "text"
    seen = len({item.item_id for item in ssna.recommend(run, user="u000").history})
    done = ssna_in_process("recommend", run, "--user", "u000", "--top", "1000")
    assert done.stderr == (
        f"--top 1,000: found only {25 - seen} items to recommend besides those of the history (--allow-repeats).\n"
    )
    done = ssna_in_process("recommend", run, "--history", "i1", "--top", "1000", "--allow-repeats", "--json")
    assert done.stderr == "--top 1,000: found only 25 items to recommend.\n"
    assert len(json.loads(done.stdout)["items"]) == 25
    assert ssna_in_process("similar", run, "i1", "--top", "1000").stderr == "--top 1,000: found only 24 other items.\n"
    for command in (["similar", run, "i1", "--top", "24"], ["recommend", run, "--history", "i1", "--top", "24"]):
        assert ssna_in_process(*command).stderr == ""
    counts = pl.read_parquet(run / "histories.parquet")["history"].list.n_unique()
    command = ["recommend", run, "--all-users", "--output", "all.parquet", "--top", "1000"]
    assert ssna_in_process(*command, cwd=tmp_path).stdout == (
        f"all.parquet: {60 * 25 - counts.sum():,} rows, the next {25 - counts.max()} to {25 - counts.min()} items of "
        "60 users (fewer than --top 1,000 where there are no more)\n"
    )


def test_models_without_vectors_have_no_similar_items(place: Place) -> None:
    with pytest.raises(RunError, match="ranks by popularity and has no item vectors"):
        ssna.similar(place.root / "popularity", "i1")
    with pytest.raises(RunError, match="has no vector of the item 'lonely': it learned IDs only"):
        ssna.similar(place.root / "ids", place.lonely)
    with pytest.raises(RunError, match="no item 'i99'"):
        ssna.similar(place.root / "text", "i99")
    for wrong in ("3", 3.0, True):
        with pytest.raises(RunError, match=f"--top {wrong!r}: expected a whole number"):
            ssna.recommend(place.root / "text", user="u000", k=wrong)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="--top .*0.*: expected at least 1"):
        ssna.similar(place.root / "text", "i1", k=np.int64(0))  # type: ignore[arg-type]
    for ask in (
        lambda k: ssna.recommend(place.root / "text", user="u000", k=k).items,
        lambda k: ssna.recommend_users(place.root / "text", ["u000"], k=k).rows(),
        lambda k: ssna.similar(place.root / "text", "i1", k=k),
    ):
        assert len(ask(np.int64(2))) == 2
        assert ask(np.int64(2)) == ask(2)


def test_a_new_item_gets_the_vector_of_an_untrained_item_of_that_text(place: Place, run: Path, tmp_path: Path) -> None:
    before = open_run(run, CPU)
    untrained = before.recommender.item_embeddings[before.index_of(place.lonely)]  # type: ignore[union-attr]
    done = ssna.add_items(run, write_csv(tmp_path / "new.csv", "twin,fiddle lamp boot"))
    assert (done.added, done.extracted, done.candidates) == (1, 0, 26)
    np.testing.assert_allclose(read_added(run, 8)["vector"][0], untrained, atol=1e-6)
    scores = {item.item_id: item.score for item in ssna.recommend(run, history=["i1", "i2"], k=26).items}
    assert scores["twin"] == pytest.approx(scores[place.lonely], abs=1e-5)
    assert ssna.similar(run, "twin", k=1)[0].item_id == place.lonely
    assert ssna.recommend(run, history=["twin"], k=3).history[0].title == "fiddle lamp boot"
    assert "twin" in ssna.recommend_users(run, k=26)["item_id"].unique()


def test_metrics_stay_those_of_the_items_that_were_trained_with(run: Path, tmp_path: Path) -> None:
    before = ssna.evaluate(run)
    ssna.add_items(run, write_csv(tmp_path / "new.csv", *(f"n{i},boot camera no {i}" for i in range(9))))
    after = ssna.evaluate(run)
    assert after["test"] == before["test"]
    assert after["candidates"] == before["candidates"] == 25


def test_only_new_texts_are_read_and_each_item_is_counted(place: Place, run: Path, tmp_path: Path) -> None:
    rows = ["n1,desk engine", "n2,ink kettle", "i3,another title", "empty,"]
    first = ssna.add_items(run, write_csv(tmp_path / "new.csv", *rows))
    assert first == ssna.AddedItems(
        added=2, replaced=0, known=1, without_text=1, extracted=2, candidates=27,
        notes=("The first item without text is empty.",),
    )  # fmt: skip
    assert ssna.recommend(run, history=["i3"]).history[0].title != "another title"
    second = ssna.add_items(run, write_csv(tmp_path / "more.csv", "n2,guitar hammer", "n3,jacket ink"))
    assert second == ssna.AddedItems(added=1, replaced=1, known=0, without_text=0, extracted=2, candidates=28)
    assert read_added(run, 8)["item_id"].to_list() == ["n1", "n2", "n3"]
    assert ssna.recommend(run, history=["n2"]).history[0].title == "guitar hammer"
    nothing = ssna.add_items(run, write_csv(tmp_path / "known.csv", "i3,x"))
    assert nothing == ssna.AddedItems(added=0, replaced=0, known=1, without_text=0, extracted=0, candidates=28)


def test_of_many_new_items_few_states_are_held_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_csv(tmp_path / "new.csv", *(f"n{number},boot camera {number}" for number in range(7)))
    ssna.add_items(run, new)
    whole, read, held = read_added(run, 8), Selection.read, list[int]()

    def counting(rows: Selection, places: Any, into: Any) -> Any:
        held.append(len(rows.row[places]))
        return read(rows, places, into)

    monkeypatch.setattr(new_items, "_BYTES_AT_ONCE", 3 * 3 * 16 * 4)  # Of three items
    monkeypatch.setattr(Selection, "read", counting)
    ssna.add_items(run, new)
    assert held == [3, 3, 1]
    assert read_added(run, 8)["item_id"].equals(whole["item_id"])
    np.testing.assert_allclose(read_added(run, 8)["vector"].to_list(), whole["vector"].to_list(), atol=1e-6)


def test_new_items_come_from_a_dataset_folder_too(place: Place, run: Path, tmp_path: Path) -> None:
    (tmp_path / "users.tsv").write_text("u1\tk1 k2 k1\n")
    (tmp_path / "items.tsv").write_text("k1\tlamp alpine\nk2\tboot ink\n")
    ssna.prepare([tmp_path / "users.tsv", tmp_path / "items.tsv"], tmp_path / "other", format="sequences")
    assert ssna.add_items(run, tmp_path / "other").added == 2
    assert ssna.recommend(run, history=["k1"]).history[0].title == "lamp alpine"


def test_whoever_gives_a_title_is_told_the_id(ids_run: Path) -> None:
    (item, *_) = ssna.recommend(ids_run, user="u000", k=1).items
    with pytest.raises(
        RunError, match=rf"has no item '{item.title}' .* It is a title: give the item's id, {item.item_id}\.$"
    ):
        ssna.recommend(ids_run, history=[item.title])


def test_the_template_of_the_dataset_is_used_for_new_items(place: Place, tmp_path: Path) -> None:
    interactions = [f"u{u},m{(u + step) % 6}" for u in range(6) for step in range(5)]
    write_csv(tmp_path / "log.csv", *interactions, header="user_id,item_id")
    films = write_csv(tmp_path / "films.csv", *(f"m{i},lamp no {i},ink" for i in range(6)), header="item_id,title,kind")
    ssna.prepare([tmp_path / "log.csv", films], tmp_path / "data", format="table", text="{title}. {kind}")
    ssna.extract(tmp_path / "data", place.llm, cache_root=tmp_path / "caches")
    options = AdaptOptions(width=8, epochs=1)
    ssna.adapt(tmp_path / "data", tmp_path / "run", llm="tiny-bert", options=options, cache_root=tmp_path / "caches")
    ssna.add_items(tmp_path / "run", write_csv(tmp_path / "new.csv", "n,desk,boot", header="item_id,title,kind"))
    assert read_added(tmp_path / "run", 8).row(0)[:3] == ("n", "desk", "desk. boot")
    bare = write_csv(tmp_path / "bare.csv", "n,desk", header="item_id,name")
    for text, what in (
        (None, "the template '{title}. {kind}' of the run's dataset (--text gives another)"),
        ("{title}", "--text '{title}'"),
    ):
        with pytest.raises(ssna.SsnaError) as caught:
            ssna.add_items(tmp_path / "run", bare, text=text)
        assert str(caught.value) == f"{what} names the field 'title', which is not in {bare} (found: item_id, name)."
    shutil.move(tmp_path / "caches", tmp_path / "elsewhere")
    new = write_csv(tmp_path / "two.csv", "n2,desk,ink", header="item_id,title,kind")
    with pytest.raises(RunError, match="the cache .*caches/tiny-bert-.* of this run is gone.* --name tiny-bert`"):
        ssna.add_items(tmp_path / "run", new)
    with pytest.raises(RunError, match="there is no cache of this run in .*nowhere; its cache has the fingerprint"):
        ssna.add_items(tmp_path / "run", new, cache_root=tmp_path / "nowhere")
    assert ssna.add_items(tmp_path / "run", new, cache_root=tmp_path / "elsewhere").added == 1


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("ids", "new.csv", "reads no item texts"),
        ("popularity", "new.csv", "reads no item texts"),
        ("text", "missing.csv", "there is no such file; expected a table of items"),
        ("text", "new.txt", "unknown table format '.txt'"),
        ("text", "other.csv", "has no column 'item_id' .found: id, title.. Name the right one with --item-column"),
        ("text", ".", "is no dataset folder"),
        ("text", "data", "is a dataset folder, whose items have ids and texts. Leave --text"),
        ("nowhere", "new.csv", "does not exist"),
    ],
)
def test_items_that_cannot_be_added_are_refused(
    place: Place, tmp_path: Path, name: str, items: str, message: str
) -> None:
    for file in ("new.csv", "new.txt"):
        write_csv(tmp_path / file, "n1,desk")
    write_csv(tmp_path / "other.csv", "n1,desk", header="id,title")
    given, text = (place.data, "{title}") if items == "data" else (tmp_path / items, None)
    with pytest.raises(ssna.SsnaError, match=message):
        ssna.add_items(place.root / name, given, text=text)


def test_another_llm_than_the_runs_own_is_refused(place: Place, run: Path, tmp_path: Path) -> None:
    other = make_tiny_llm(tmp_path / "other-bert", seed=1)
    new = write_csv(tmp_path / "new.csv", "n1,desk hammer lamp")
    with pytest.raises(RunError, match="other-bert is not the LLM that .* was extracted from"):
        ssna.add_items(run, new, llm=str(other))
    with pytest.raises(RunError, match="found 2 × --llm; expected 1, one for each LLM of the run"):
        ssna.add_items(run, new, llm=[str(other), str(other)])
    for nothing_to_read in ("n1,fiddle lamp boot", "i3,known"):
        new = write_csv(tmp_path / "new.csv", nothing_to_read)
        with pytest.raises(RunError, match="other-bert is not the LLM that .* was extracted from.*with --llm.$"):
            ssna.add_items(run, new, llm=str(other))
    assert len(list(place.caches.glob("*/manifest.json"))) == 1
    assert not len(read_added(run, 8))


def test_the_revision_that_the_cache_was_made_with_is_read_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, commit, asked = "a" * 40, "b" * 40, list[str | None]()
    shutil.copytree(make_tiny_llm(tmp_path / "newer", seed=1), tmp_path / "snapshots" / main)
    shutil.copytree(place.llm, tmp_path / "snapshots" / commit)

    def download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(revision)
        return str(tmp_path / "snapshots" / (main if revision in (None, "main") else commit))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    root, run = tmp_path / "caches", tmp_path / "run"
    made = ssna.extract(place.data, "org/tiny", options=ssna.ExtractOptions(revision="v2"), cache_root=root)
    assert read_manifest(Path(made.cache)).llm["revision"] == commit
    (tmp_path / "users.tsv").write_text("u\ta b a b\n")
    (tmp_path / "items.tsv").write_text("a\tnew words\nb\tboot\n")
    other = ssna.prepare([tmp_path / "users.tsv", tmp_path / "items.tsv"], tmp_path / "other", format="sequences")
    with pytest.raises(ssna.SsnaError, match=f"ssna extract .* --llm org/tiny .*--revision {commit}"):
        ssna.adapt(other.path, run, llm="tiny", cache_root=root)
    ssna.adapt(place.data, run, llm="tiny", options=AdaptOptions(width=8, epochs=1), cache_root=root)
    asked.clear()
    assert ssna.add_items(run, write_csv(tmp_path / "1.csv", "n1,desk ink")).extracted == 1
    assert ssna.add_items(run, write_csv(tmp_path / "2.csv", "n2,ink desk"), llm="org/tiny").extracted == 1
    assert set(asked) == {commit}
    new = write_csv(tmp_path / "3.csv", "n3,desk desk")
    with pytest.raises(RunError, match="org/tiny is not the LLM .* Give that one with --llm and its --revision."):
        ssna.add_items(run, new, revision="main")
    assert ssna.add_items(run, new, revision="v2").extracted == 1
    with pytest.raises(RunError, match="found 2 × --revision; expected 1, one for each LLM of the run"):
        ssna.add_items(run, new, revision=["v1", "v2"])


def test_new_texts_are_read_as_the_command_says(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract, given = api_of_add_items.extract_texts, list[ssna.ExtractOptions]()

    def noting(*arguments: Any) -> Any:
        given.append(arguments[4])
        return extract(*arguments)

    monkeypatch.setattr(api_of_add_items, "extract_texts", noting)
    write_csv(tmp_path / "new.csv", "n1,lamp lamp desk")
    command = ["add-items", run, "new.csv", "--batch-tokens", "96", "--device-map", "auto", "--device", "cpu"]
    assert ssna_in_process(*command, cwd=tmp_path).returncode == 0
    assert [(options.batch_tokens, options.device_map) for options in given] == [(96, "auto")]


def test_code_of_an_llm_is_not_run_unasked(place: Place, run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    cache = Path(shutil.copytree(config["caches"][0]["path"], tmp_path / "caches" / "tiny-bert-copied"))
    manifest = json.loads((cache / "manifest.json").read_text())
    manifest["settings"]["remote_code"] = {"modeling.py": "0" * 64}
    manifest["fingerprint"] = fingerprint_of(manifest["settings"])
    (cache / "manifest.json").write_text(json.dumps(manifest))
    config["caches"][0]["fingerprint"] = manifest["fingerprint"]
    (run / "config.json").write_text(json.dumps(config))
    new = write_csv(tmp_path / "new.csv", "n1,desk hammer ink")
    with pytest.raises(RunError, match="comes with Python code of its own.* --trust-remote-code if it may be run"):
        ssna.add_items(run, new, cache_root=tmp_path / "caches")
    with pytest.raises(ssna.SsnaError, match="tiny-bert brings no Python code"):
        ssna.add_items(run, new, cache_root=tmp_path / "caches", trust_remote_code=True)


def test_items_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    ssna.add_items(run, write_csv(tmp_path / "new.csv", "n1,desk"))
    other = read_added(run, 8).with_columns(pl.col("vector").list.head(4))
    other.write_parquet(run / "added_items.parquet")
    with pytest.raises(RunError, match="added_items.parquet is not of this run; remove it and add the items again"):
        ssna.recommend(run, history=["i1"])
    assert ssna.evaluate(run)["candidates"] == 25


def test_a_run_that_is_trained_again_meanwhile_gets_no_items(
    place: Place, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = api_of_add_items.encode_new_items

    def slowly(*arguments: Any) -> torch.Tensor:
        ssna.adapt(place.data, run, options=AdaptOptions(side="none", width=8, epochs=1), overwrite=True)
        return encode(*arguments)

    def still_training(*arguments: Any) -> torch.Tensor:
        (run / "results.json").unlink()
        return encode(*arguments)

    for meanwhile in (slowly, still_training):
        monkeypatch.setattr(api_of_add_items, "encode_new_items", meanwhile)
        shutil.rmtree(run)
        shutil.copytree(place.root / "text", run)
        with pytest.raises(RunError, match="was trained again while the texts were read"):
            ssna.add_items(run, write_csv(tmp_path / "new.csv", "n1,desk"))
        assert not len(read_added(run, 8))


def test_of_two_that_add_items_at_once_neither_loses_any(
    place: Place, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done = api_of_add_items.write_parquet, dict[str, ssna.AddedItems]()

    def add(name: str) -> None:
        done[name] = ssna.add_items(run, write_csv(tmp_path / f"{name}.csv", f"{name},desk lamp", "both,ink"))

    second = threading.Thread(target=add, args=("second",))

    def write_slowly(*arguments: Any) -> None:
        monkeypatch.setattr(api_of_add_items, "write_parquet", write)
        second.start()
        second.join(timeout=1)  # What it has read by now is without the first one's items, or it waits.
        write(*arguments)

    monkeypatch.setattr(api_of_add_items, "write_parquet", write_slowly)
    add("first")
    second.join()
    assert set(read_added(run, 8)["item_id"]) == {"first", "both", "second"}
    assert (done["first"].added, done["first"].replaced, done["first"].candidates) == (2, 0, 27)
    assert (done["second"].added, done["second"].replaced, done["second"].candidates) == (1, 1, 28)


def test_new_items_are_in_the_template_of_each_cache(place: Place, tmp_path: Path) -> None:
    header = "item_id,title,description"
    log = [f"u{user},m{(user + step) % 6}" for user in range(6) for step in range(5)]
    write_csv(tmp_path / "log.csv", *log, header="user_id,item_id")
    films = write_csv(tmp_path / "films.csv", *(f"m{i},lamp {i},a boot" for i in range(6)), header=header)
    ssna.prepare([tmp_path / "log.csv", films], tmp_path / "data", format="table", text="{title}. {description}")
    template = "{title} / {description}"
    for text in (None, template):
        ssna.extract(tmp_path / "data", place.llm, text=text, cache_root=tmp_path / "caches")
    options = AdaptOptions(width=8, epochs=1, text=(None, template))
    ssna.adapt(
        tmp_path / "data", tmp_path / "run", llm=["tiny-bert"] * 2, options=options, cache_root=tmp_path / "caches"
    )
    new = write_csv(tmp_path / "new.csv", "n1,,only words", "n2,desk,ink", header=header)
    assert ssna.add_items(tmp_path / "run", new).extracted == 4
    bare = write_csv(tmp_path / "bare.csv", "n3,desk", header="item_id,title")
    with pytest.raises(ssna.SsnaError) as caught:
        ssna.add_items(tmp_path / "run", bare, text="{title}")
    assert str(caught.value) == (
        f"the run's --text '{template}' names the field 'description', which is not in {bare} (found: item_id, text, "
        "title)."
    )
    cache = Cache.open(find_cache(tmp_path / "caches", "tiny-bert"))
    read = [". only words", "/ only words", "desk. ink", "desk / ink"]
    assert cache.has(keys_of_texts(pl.Series(read)), 1).all()
    assert read_added(tmp_path / "run", 8)["title"].to_list() == [". only words", "desk"]


def test_a_run_that_is_replaced_forgets_its_new_items(place: Place, run: Path, tmp_path: Path) -> None:
    ssna.add_items(run, write_csv(tmp_path / "new.csv", "n1,desk"))
    options = AdaptOptions(side="none", width=8, epochs=1)
    ssna.adapt(place.data, run, options=options, overwrite=True)
    assert not len(read_added(run, 8))


@pytest.fixture
def grown(run: Path, tmp_path: Path) -> Path:
    """A run with two items that came after training, one of them like the lonely one."""
    ssna.add_items(run, write_csv(tmp_path / "new.csv", "twin,fiddle lamp boot", "other,ink jacket camera"))
    return run


def test_an_export_has_the_items_that_were_added(place: Place, grown: Path, tmp_path: Path) -> None:
    done = ssna.export(grown, tmp_path / "out", formats=["npy", "parquet", "onnx", "faiss"])
    ids = json.loads((tmp_path / "out/item_ids.json").read_text())
    assert (done.num_items, ids[25:]) == (27, ["twin", "other"])
    assert pl.read_parquet(tmp_path / "out/item_vectors.parquet")["title"][26] == "ink jacket camera"
    vectors = np.load(tmp_path / "out/item_vectors.npy")
    network = onnxruntime.InferenceSession(tmp_path / "out/queries.onnx")
    history = ["twin", "i4"]
    numbers = np.array([[ids.index(item) + 1 for item in history]])
    (queries,) = network.run(None, {"histories": numbers, "counts": np.array([2])})
    expected = {item.item_id: item.score for item in ssna.recommend(grown, history=history, k=27).items}
    found = dict(zip(ids, (vectors @ queries[0]).tolist(), strict=True))
    assert {item: found[item] for item in expected} == pytest.approx(expected, abs=1e-4)
    assert "other" in expected
    _, rows = faiss.read_index(str(tmp_path / "out/item_vectors.faiss")).search(queries, 27)
    assert [ids[row] for row in rows[0] if ids[row] not in history] == list(expected)


def test_items_that_were_added_are_served(place: Place, grown: Path) -> None:
    with started(grown) as serving:
        assert httpx2.get(f"{serving.url}/health").json()["items"] == 27
        for history in (["i1", "i2"], ["twin"]):
            answer = httpx2.post(f"{serving.url}/recommend", json={"history": history, "k": 27}).json()
            expected = ssna.recommend(grown, history=history, k=27)
            assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected.items]
            assert {"other", *history} <= {item["item_id"] for item in answer["items"] + answer["history"]}
        alike = httpx2.get(f"{serving.url}/similar", params={"item": "twin", "k": 1}).json()
        assert [item["item_id"] for item in alike["items"]] == [place.lonely]
        assert httpx2.get(f"{serving.url}/items", params={"query": "ink jacket"}).json() == [
            {"item_id": "other", "title": "ink jacket camera"}
        ]


def test_a_report_is_without_the_items_that_were_added(place: Place, grown: Path, tmp_path: Path) -> None:
    ssna.report([grown], tmp_path / "with.html")
    (grown / "added_items.parquet").unlink()
    ssna.report([grown], tmp_path / "without.html")
    assert (tmp_path / "with.html").read_text() == (tmp_path / "without.html").read_text()


def test_a_finished_run_that_is_resumed_keeps_its_new_items_and_one_that_is_replaced_says_it_does_not(
    place: Place, grown: Path
) -> None:
    before = (grown / "added_items.parquet").read_bytes()
    command = [
        *("adapt", place.data, "--llm", "tiny-bert", "--output", grown, "--cache-root", place.caches, "--width", "8"),
        *("--epochs", "2", "--candidates", "all", "--preparation", "whiten", "--components", "9", "--item-id"),
    ]
    resumed = ssna_in_process(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (grown / "added_items.parquet").read_bytes() == before
    assert "twin" in [item.item_id for item in ssna.recommend(grown, history=["i1"], k=30).items]
    replaced = ssna_in_process(*command, "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    assert (
        f"{grown}: the items of `ssna add-items` go with the run that is replaced. Add them again." in replaced.stderr
    )
    assert len(ssna.recommend(grown, history=["i1"], k=30).items) == 24
    assert "add-items" not in ssna_in_process(*command, "--overwrite").stderr


def test_the_commands_say_what_was_done(run: Path, tmp_path: Path) -> None:
    rows = ("n1,desk alpine", "i3,x", "none,", "n1,ink", "n1,desk alpine")
    write_csv(tmp_path / "new.csv", *rows, header="movie,title")
    done = ssna_in_process("add-items", run, "new.csv", "--item-column", "movie", cwd=tmp_path)
    assert done.stdout == (
        f"{run}: 1 item added, 1 known already, 1 without text, passed over; 1 text read; 26 items can be recommended\n"
        "1 item is described again with other values (the first is n1). If the first description is not the right one, "
        "mend the items' file.\n"
        "The first item without text is none.\n"
    )
    write_csv(tmp_path / "empty.csv", header="movie,title")
    done = ssna_in_process("add-items", run, "empty.csv", "--item-column", "movie", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: empty.csv holds no item. Expected a row for each item, with its id and the fields of its text.\n"
    )
    nearest = json.loads(ssna_in_process("similar", run, "n1", "--top", "2", "--json").stdout)
    assert [set(each) for each in nearest] == [{"item_id", "title", "score"}] * 2
    assert "nearest to item n1" in ssna_in_process("similar", run, "n1").stdout
