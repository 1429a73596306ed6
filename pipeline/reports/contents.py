"""What a report says of runs, read from their folders alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ssna.api.compare import RESAMPLES
from ssna.columns import ITEM, TITLE
from ssna.errors import RunError
from ssna.reports.layers import LayerShares, layer_shares, llm_of
from ssna.runs import METRICS_FILE, RESULTS_FILE, Run, check_fields, item_parameters, read_config
from ssna.stage2_adapt import (
    POPULARITY_GROUPS,
    AdaptOptions,
    Evaluation,
    SequenceRecommender,
    cases_of,
    evaluate_fully,
    intervals_by_group,
    intervals_of,
    targets_of,
    top_items,
    training_counts,
)

MAPPED_ITEMS = 5000
"""At most so many are on the map"""
SAMPLED_USERS = 20
"""By default"""
SHOWN_HISTORY = 10
TOP = 10
BY_POPULARITY = ("ndcg@10", "recall@10")
"""Metrics that are shown by popularity"""
# What the page shows of results.json
_COSTS = ("trainable_parameters", "epochs", "best_epoch", "epoch_seconds", "total_seconds", "peak_memory_bytes")
# Places on the map are whole numbers up to this.
MAP_SIZE = 1000

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampledUser:
    """A user of the test part."""

    user_id: str
    case: int
    """Position among the users that are tested"""
    history: list[int]
    """All item indices that come before the test, oldest first"""
    targets: list[int]


@dataclass(frozen=True)
class Recommended:
    """What a run recommends to a sampled user."""

    top: list[int]
    """Item indices, best first"""
    rank: int
    """Of the best target"""


@dataclass(frozen=True)
class ItemMap:
    """Where the items of a group's sample lie on the two main axes of a run's item vectors."""

    x: list[int]
    y: list[int]
    explained: float
    """Share of the variance of all item vectors that the two axes have"""


@dataclass(frozen=True)
class RunReport:
    """A run, as the page shows it."""

    name: str
    options: AdaptOptions
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    epochs: list[Mapping[str, Any]]
    """Lines of metrics.jsonl"""
    test: Mapping[str, float]
    """Metrics"""
    intervals: Mapping[str, tuple[float, float]]
    """95 % intervals of the metrics, coverage excepted"""
    by_popularity: Mapping[str, Mapping[str, float]]
    intervals_by_popularity: Mapping[str, Mapping[str, tuple[float, float]]]
    """Of `BY_POPULARITY`, for each group that has targets"""
    shares: list[LayerShares]
    meaning: str
    """Of the shares, or why there are none"""
    map: ItemMap | None
    recommended: list[Recommended]
    """To each sampled user"""

    @property
    def dataset(self) -> str:
        """Its name."""
        name: str = self.config["dataset"]["name"]
        return name

    @property
    def llms(self) -> str:
        """The LLMs, and which text they read."""
        return ", ".join(llm_of(cache) for cache in self.config["caches"])

    @property
    def layers(self) -> int | None:
        """How many layers are integrated; None if none are, or not equally many of each LLM."""
        each = {len(cache["layers"]) for cache in self.config["caches"]}
        return each.pop() if len(each) == 1 and self.options.side not in ("last", "frozen") else None


@dataclass(frozen=True)
class Group:
    """Runs that were tested on the same, and what they share."""

    split: str
    num_users: int
    """That are tested"""
    num_items: int
    titles: list[str]
    """Of all items, the first has index 1"""
    counts: Int64s
    """Training interactions, likewise"""
    mapped: Int64s
    """Indices of the items on the map, ascending"""
    users: list[SampledUser]
    runs: list[RunReport] = field(default_factory=list)

    @property
    def dataset(self) -> str:
        """The name of the runs' dataset, or their names: the same data may have been prepared with other texts."""
        return ", ".join(dict.fromkeys(run.dataset for run in self.runs))


def digest_of_test(run: Run) -> str:
    """A digest of a run's users, items, histories and split: where it is the same, metrics and item indices compare."""
    digest = hashlib.sha256(json.dumps([run.user_ids.to_list(), run.items[ITEM].to_list()]).encode())
    for array in (run.sequences.items, run.sequences.starts, run.split.train_end, run.split.valid_end):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def in_order(groups: Iterable[Group]) -> list[Group]:
    """The groups as they come, but those of the same dataset together."""
    given = list(groups)
    datasets = [group.dataset for group in given]
    return sorted(given, key=lambda group: datasets.index(group.dataset))


def group_of(run: Run, num_users: int = SAMPLED_USERS, seed: int = 0) -> Group:
    """The group of a run, without any run.

    Args:
        run: opened.
        num_users: in the sample of users, at most.
        seed: of the samples of users and items.
    """
    generator, num_items = np.random.default_rng(seed), len(run.items)
    cases = cases_of(run.sequences, run.split, "test")
    case, target = targets_of(run.sequences, cases)
    drawn = np.sort(generator.permutation(len(cases))[:num_users])
    users = [
        SampledUser(
            run.user_ids[int(cases.user[place])],
            place,
            run.sequences.items[cases.start[place] : cases.history_end[place]].tolist(),
            target[case == place].tolist(),
        )
        for place in drawn.tolist()
    ]
    return Group(
        split=run.options.split,
        num_users=len(cases),
        num_items=num_items,
        titles=[title or item for item, title in run.items.select(ITEM, TITLE).rows()],
        counts=training_counts(run.sequences, run.split, num_items)[1:],
        mapped=np.sort(generator.permutation(num_items)[:MAPPED_ITEMS]) + 1,
        users=users,
    )


def read_run(run: Run, name: str, group: Group, device: torch.device) -> RunReport:
    """What the page shows of a run.

    Args:
        run: opened.
        name: to show.
        group: the one it belongs to.
        device: of the run's model.

    Raises:
        RunError: if config.json, results.json or metrics.jsonl lack something or are damaged.
    """
    config = read_config(run.path)
    check_fields(run.path / RESULTS_FILE, run.results, dict.fromkeys(_COSTS, (int, float)))
    test = evaluate_fully(run.recommender, run.sequences, run.split, "test", device)
    shares, meaning = layer_shares(run.options, config["caches"], item_parameters(run.path))
    return RunReport(
        name=name,
        options=run.options,
        config=config,
        results=run.results,
        epochs=_epochs(run),
        test=test.metrics,
        intervals=intervals_of(test.ranks, RESAMPLES),
        by_popularity=test.by_popularity,
        intervals_by_popularity=intervals_by_group(test.ranks, test.group, POPULARITY_GROUPS, BY_POPULARITY, RESAMPLES),
        shares=shares,
        meaning=meaning,
        map=_item_map(run, group.mapped),
        recommended=[_recommended(run, user, test, device) for user in group.users],
    )


def _epochs(run: Run) -> list[Mapping[str, Any]]:
    path = run.path / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [{name: line[name] for name in ("epoch", "loss", "valid")} for line in map(json.loads, lines)]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({error}). Remove it, and the report goes without training curves."
        ) from error


def _recommended(run: Run, user: SampledUser, test: Evaluation, device: torch.device) -> Recommended:
    # As the metrics rank: items of the history are candidates.
    top, _ = top_items(run.recommender, user.history, TOP, device, allow_repeats=True)
    return Recommended(top, int(test.ranks.rank[test.ranks.case == user.case].min()))


def _item_map(run: Run, mapped: Int64s) -> ItemMap | None:
    """PCA of the item vectors as scores see them: under cosines, of length one."""
    model = run.recommender
    if not isinstance(model, SequenceRecommender) or min(model.num_items, run.options.width) < 2:
        return None
    vectors = model.factors(model.item_embeddings[1:]).detach().cpu().double()
    vectors -= vectors.mean(dim=0)
    variance, axes = torch.linalg.eigh(vectors.T @ vectors)
    variance, axes = variance.flip(0).clamp_min(0), axes.T.flip(0)[:2]
    # The sign of an axis is arbitrary: its largest part is positive.
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    places = vectors[torch.from_numpy(mapped - 1)] @ axes.T
    low, extent = places.amin(dim=0), (places.amax(dim=0) - places.amin(dim=0)).max()
    scaled = ((places - low) / extent.clamp_min(1e-12) * MAP_SIZE).round().long()
    scaled = scaled + (MAP_SIZE - scaled.amax(dim=0)) // 2
    explained = float(variance[:2].sum() / variance.sum().clamp_min(1e-12))
    return ItemMap(scaled[:, 0].tolist(), scaled[:, 1].tolist(), explained)
