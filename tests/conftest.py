"""Fixtures for all folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from ssna.dataset import Dataset
from tests.helpers import Catalogue, make_catalogue, make_tiny_llm

# How long an example takes is the machine's business.
settings.register_profile("ssna", deadline=None)
settings.load_profile("ssna")
# As `tests.helpers.ssna` runs the command; and the matrices here are so small that a second thread only costs.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT: 3 layers of width 16."""
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny-bert")


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """60 users, 24 items."""
    return make_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue) -> Dataset:
    """The catalogue as a dataset folder; not to be changed."""
    from ssna import prepare

    output = tmp_path_factory.mktemp("dataset") / "made-up"
    return prepare([catalogue.users, catalogue.items], output, format="sequences")


@pytest.fixture(scope="session")
def shared_cache_root(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path, dataset: Dataset) -> Path:
    """A cache root with the dataset's states of all three layers, under the name `tiny-bert`; not to be changed."""
    from ssna import extract

    root = tmp_path_factory.mktemp("caches")
    extract(dataset.path, tiny_llm, cache_root=root, device="cpu")
    return root


@pytest.fixture(scope="session")
def ids_run(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A finished run of item IDs; not to be changed."""
    from ssna import AdaptOptions, adapt

    folder = tmp_path_factory.mktemp("runs") / "ids"
    options = AdaptOptions(side="none", width=16, length=6, batch_size=16, epochs=3, learning_rate=0.01)
    adapt(dataset.path, folder, options=options, device="cpu")
    return folder
