"""What `ssna adapt` fits and compares before it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssna import AdaptOptions, adapt, study_layers
from ssna.api.adapt import _check_same_in_every
from ssna.cache import Cache, find_cache, keys_of_texts
from ssna.corpus import load_corpus
from ssna.dataset import Dataset
from ssna.errors import RunError
from ssna.inputs import distinct_training_items
from ssna.stage2_adapt import OptionError, Processes, load_tensors


def test_a_text_counts_once_and_only_if_it_occurs_in_training() -> None:
    assert distinct_training_items(pl.Series(["b", "a", "b", "c"]), num_trained=3).tolist() == [0, 1]


def test_whitening_is_fitted_on_the_training_items(dataset: Dataset, shared_cache_root: Path, tmp_path: Path) -> None:
    options = AdaptOptions(preparation="whiten", epochs=1, width=8, candidates="all")
    adapt(dataset.path, tmp_path / "run", llm="tiny-bert", options=options, cache_root=shared_cache_root)
    tensors, _ = load_tensors(tmp_path / "run/model.safetensors")
    mean, deviation, projection = (
        tensors[f"items.sides.0.{name}"].numpy() for name in ("mean", "deviation", "projection")
    )
    corpus = load_corpus(dataset, options)
    texts = corpus.items["text"].head(corpus.num_trained).unique()
    states = Cache.open(find_cache(shared_cache_root, "tiny-bert")).select(keys_of_texts(texts), 3).read()
    top = ((states[:, 0].astype(np.float64) - mean[-1]) / deviation[-1]) @ projection[-1]
    kept = np.abs(projection[-1]).sum(axis=0) > 0
    assert kept.any()
    np.testing.assert_allclose(np.cov(top[:, kept].T, bias=True), np.eye(kept.sum()), atol=1e-2)


def test_a_warm_up_that_never_ends_is_told(dataset: Dataset, tmp_path: Path) -> None:
    said = list[str]()
    options = AdaptOptions(side="none", epochs=2, width=8, warmup=10_000)
    adapt(dataset.path, tmp_path / "run", options=options, on_note=said.append)
    assert [note for note in said if "The warm-up of 10,000 steps is longer than the training (2 epochs of" in note]
    assert "the learning rate never reaches 0.001" in said[-1]


def test_options_of_another_kind_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="options is a dict; expected ssna.AdaptOptions"):
        adapt(dataset.path, tmp_path / "run", options={"side": "none"})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="layers is the text '1,2'; expected a list of whole numbers, such as .1, 2"):
        study_layers(dataset.path, tmp_path / "run", "1,2")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="layers is 2; expected a list of whole numbers"):
        study_layers(dataset.path, tmp_path / "run", 2)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


class _Two(Processes):
    """This process, and one that says something else."""

    def __init__(self, other: dict[str, Any]) -> None:
        super().__init__(rank=0, size=2)
        object.__setattr__(self, "other", other)

    def every(self, value: Any) -> list[Any]:
        return [value, self.other]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"seed": 1}}, "process 1 has other options than process 0"),
        ({"dataset": "e"}, "process 1 has other dataset than process 0: e instead of d"),
        ({"rows of caches": ["s"]}, "process 1 has other rows of caches than process 0"),
    ],
)
def test_processes_with_other_data_do_not_train_together(change: dict[str, Any], message: str) -> None:
    config = {"options": {"seed": 0}, "dataset": {"fingerprint": "d"}, "caches": [{"rows_digest": "r"}]}
    same = {"options": {"seed": 0}, "dataset": "d", "rows of caches": ["r"]}
    _check_same_in_every(_Two(same), config)
    with pytest.raises(RunError, match=message):
        _check_same_in_every(_Two({**same, **change}), config)
