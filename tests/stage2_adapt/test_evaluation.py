"""Ranks and metrics against a brute-force count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssna.stage2_adapt import Split, cases_of, evaluate_fully, leave_last
from ssna.stage2_adapt import evaluation as evaluation_module
from ssna.stage2_adapt.evaluation import NaNScoreError, popularity_groups, rank_targets
from ssna.stage2_adapt.metrics import (
    Ranks,
    bootstrap_interval,
    intervals_by_group,
    metrics_by_case,
    metrics_by_group,
    metrics_of,
    paired_p_value,
)
from tests.stage2_adapt.strategies import NUM_ITEMS, histories, pack

CPU = torch.device("cpu")


class ByLastItem:
    """Scores from a table: row of the history's last item, column of the candidate."""

    length = 3

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.tensor(table, dtype=torch.float32)
        self.num_items = self.table.shape[1]

    def candidates(self) -> tuple[Tensor]:
        return (self.table,)

    def scores(self, histories: Tensor, counts: Tensor, candidates: tuple[Tensor, ...]) -> Tensor:
        return candidates[0][histories[torch.arange(len(histories)), counts - 1]]


def brute_force(table: np.ndarray, history: list[int], targets: list[int], filter_history: bool) -> dict[str, float]:
    scores = {item: table[history[-1], item - 1] for item in range(1, NUM_ITEMS + 1)}
    if filter_history:
        scores.update(dict.fromkeys(history, -math.inf))
    ranks = [1 + sum(scores[other] >= scores[t] for other in scores if other != t) for t in targets]
    metrics = {}
    for k in (5, 10, 20):
        hits = [rank for rank in ranks if rank <= k]
        best = min(k, len(targets))
        metrics[f"recall@{k}"] = len(hits) / best
        ideal = sum(1 / math.log2(place + 1) for place in range(1, best + 1))
        metrics[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in hits) / ideal
        metrics[f"mrr@{k}"] = 1 / min(hits) if hits else 0.0
    return metrics


few_values = st.integers(0, 3)  # Many ties.
tables = st.lists(st.lists(few_values, min_size=NUM_ITEMS, max_size=NUM_ITEMS), min_size=10, max_size=10)


@given(histories, tables, st.booleans(), st.integers(1, 30), st.booleans())
def test_metrics_are_those_of_a_brute_force_count(
    drawn: list[list[int]], table: list[list[int]], filter_history: bool, chunk: int, several_targets: bool
) -> None:
    sequences = pack(drawn)
    split = leave_last(sequences)
    if several_targets:
        half = sequences.starts[:-1] + (sequences.lengths + 1) // 2
        split = Split(train_end=half, valid_end=half)
    cases = cases_of(sequences, split, "test")
    scores = np.array(table)
    expected = [
        brute_force(
            scores,
            sequences.items[start:history_end].tolist(),
            sorted(set(sequences.items[history_end:target_end].tolist())),
            filter_history,
        )
        for start, history_end, target_end in zip(cases.start, cases.history_end, cases.target_end, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_module, "_CHUNK_SCORES", {"cpu": chunk})
        patch.setattr(evaluation_module, "_FEWEST_CASES", 1)
        patch.setattr(evaluation_module, "_MOST_CASES", {"cpu": 1 + chunk % 3})
        found = metrics_of(rank_targets(ByLastItem(scores), sequences, cases, CPU, filter_history))
    assert set(found) == (set(expected[0]) if expected else set())
    for name in found:
        assert found[name] == pytest.approx(np.mean([case[name] for case in expected])), name


@pytest.mark.parametrize("filter_history", [False, True])
def test_metrics_are_those_of_ranx(filter_history: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """ranx (Bassani 2022) reads rankings of item ids, and never sees our ranks."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # Compiling it takes longer than all tests of this file.
    import ranx

    users, items = 200, 60
    rng = np.random.default_rng(0)
    drawn = [rng.integers(1, items + 1, rng.integers(2, 60)).tolist() for _ in range(users)]
    sequences = pack(drawn)
    middle = sequences.starts[:-1] + rng.integers(1, sequences.lengths)
    cases = cases_of(sequences, Split(train_end=middle, valid_end=middle), "test")
    table = rng.permuted(np.tile(np.arange(items), (items + 1, 1)), axis=1)  # No ties.
    found = metrics_by_case(rank_targets(ByLastItem(table), sequences, cases, CPU, filter_history))

    relevant, ranked = dict[str, dict[str, int]](), dict[str, dict[str, float]]()
    for user, (start, now, end) in enumerate(zip(cases.start, cases.history_end, cases.target_end, strict=True)):
        history = sequences.items[start:now].tolist()
        left_out = set(history) if filter_history else set()
        relevant[f"{user:03}"] = {str(item): 1 for item in sequences.items[now:end].tolist()}
        ranked[f"{user:03}"] = {
            str(item): float(table[history[-1], item - 1]) for item in range(1, items + 1) if item not in left_out
        }
    number_of_targets = np.array([len(targets) for targets in relevant.values()])
    assert number_of_targets.min() == 1
    assert number_of_targets.max() > 20, "users with fewer targets than the cut-off, and with more"
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr") for k in (5, 10, 20)]
    theirs = dict(ranx.evaluate(ranx.Qrels(relevant), ranx.Run(ranked), names, return_mean=False))
    for k in (5, 10, 20):  # ranx divides by all targets, also by those for which there is no place among k.
        theirs[f"recall@{k}"] *= number_of_targets / np.minimum(number_of_targets, k)
    for name in names:
        np.testing.assert_allclose(found[name], theirs[name], rtol=1e-12, err_msg=name)


def test_hand_worked_metrics() -> None:
    # Case 0: its only target ranks 3rd. Case 1: two targets, ranked 1st and 7th.
    ranks = Ranks(np.array([0, 1, 1]), np.array([3, 1, 7]), 2)
    metrics = metrics_of(ranks)
    assert metrics["recall@5"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["recall@10"] == pytest.approx((1 + 1) / 2)
    ideal = 1 + 1 / math.log2(3)
    assert metrics["ndcg@5"] == pytest.approx((1 / 2 + 1 / ideal) / 2)
    assert metrics["ndcg@10"] == pytest.approx((1 / 2 + (1 + 1 / 3) / ideal) / 2)
    assert metrics["mrr@5"] == pytest.approx((1 / 3 + 1) / 2)


def test_a_case_of_which_no_target_is_found_has_zeros() -> None:
    metrics = metrics_by_case(Ranks(np.array([0, 1]), np.array([21, 20]), 2))
    assert {name: values.tolist() for name, values in metrics.items() if name.endswith("@20")} == {
        "recall@20": [0, 1], "ndcg@20": [0, pytest.approx(1 / math.log2(21))], "mrr@20": [0, 1 / 20],
    }  # fmt: skip


def test_metrics_by_popularity_of_the_target() -> None:
    counts = np.array([0, 9, 1, 5, 0, 5, 2])  # Padding, then items 1 to 6: five of them occur in training.
    assert popularity_groups(counts)[1:].tolist() == [0, 1, 1, 2, 1, 1]
    found = metrics_by_group(
        Ranks(np.arange(3), np.array([1, 30, 4]), 3), np.array([0, 0, 2]), ("head", "tail", "unseen")
    )
    assert found["head"] == {"targets": 2, **{f"{name}@{k}": 0.5 for k in (5, 10, 20) for name in ("recall", "ndcg")}}
    assert found["tail"] == {"targets": 0}
    assert found["unseen"]["targets"] == 1
    assert found["unseen"]["ndcg@5"] == pytest.approx(1 / math.log2(5))


@given(histories, tables)
def test_coverage_is_the_share_of_items_that_anybody_is_shown(drawn: list[list[int]], table: list[list[int]]) -> None:
    sequences = pack(drawn)
    split, scores = leave_last(sequences), np.array(table) + np.linspace(0, 0.5, NUM_ITEMS)  # No ties.
    cases = cases_of(sequences, split, "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_module, "_MOST_CASES", {"cpu": 2})
        found = evaluate_fully(ByLastItem(scores), sequences, split, "test", CPU)
    if not len(cases):
        assert found.metrics == {}
        return
    last = [sequences.items[end - 1] for end in cases.history_end]
    shown = {item for row in last for item in np.argsort(-scores[row])[:5].tolist()}
    assert found.metrics["coverage@5"] == pytest.approx(len(shown) / NUM_ITEMS)
    assert found.metrics["coverage@20"] == pytest.approx(1.0)
    assert sum(group["targets"] for group in found.by_popularity.values()) == len(cases)
    plain = metrics_of(rank_targets(ByLastItem(scores), sequences, cases, CPU))
    assert {name: found.metrics[name] for name in plain} == pytest.approx(dict(plain))


def test_a_history_that_is_filtered_does_not_count_as_shown() -> None:
    sequences = pack([[1, 2, 3, 4], [2, 1, 3, 4]])  # With four of five items behind each test, one is left to show.
    table = np.tile(np.arange(5.0), (6, 1))
    split = leave_last(sequences)
    found = evaluate_fully(ByLastItem(table), sequences, split, "test", CPU, filter_history=True)
    assert found.metrics["coverage@5"] == pytest.approx(2 / 5), "items 4 and 5"


def test_the_bootstrap_interval_is_that_of_the_normal_distribution_for_many_users() -> None:
    values = np.random.default_rng(0).random(2000)
    low, high = bootstrap_interval(values, 4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)
    assert bootstrap_interval(values, 50, seed=1) == bootstrap_interval(values, 50, seed=1)


def test_intervals_by_group_are_those_of_users_with_all_their_targets_of_the_group() -> None:
    names, metrics = ("head", "tail", "unseen"), ("recall@10", "ndcg@10")
    # Of 200 users the first half has two heads that are both hit or both missed, the others a tail each.
    case = np.concatenate([np.repeat(np.arange(100), 2), np.arange(100, 200)])
    rank = np.where(np.random.default_rng(0).random(200)[case] < 0.5, 1, 30)
    group = np.where(case < 100, 0, 1)
    found = intervals_by_group(Ranks(case, rank, 200), group, names, metrics, 4000)
    assert list(found) == ["head", "tail"]
    hits = (rank == 1).astype(float)
    for name, mine in (("head", hits[:200:2]), ("tail", hits[200:])):
        assert found[name]["recall@10"] == found[name]["ndcg@10"] == bootstrap_interval(mine, 4000)
    # A user with three targets, all hit, and one with one that is missed: 0, 3 of 4 or 1, as users are drawn.
    uneven = intervals_by_group(
        Ranks(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 30]), 2), np.zeros(4, np.int64), names, metrics, 1000
    )
    assert uneven["head"]["recall@10"] == (0, 1)
    drawn = {bootstrap_interval(np.array([3.0, 0]), 1, seed, np.array([3, 1]))[0] for seed in range(20)}
    assert drawn == {0, 3 / 4, 1}


def test_the_paired_p_value_is_exact_for_few_users() -> None:
    # Of the 8 ways to sign 1, 2 and 3, two have a sum as far from 0 as all plus: p = 2 / 8.
    assert paired_p_value(np.array([1.0, 2.0, 3.0]), 20_000) == pytest.approx(0.25, abs=0.01)
    assert paired_p_value(np.zeros(5), 99) == 1.0
    assert paired_p_value(np.ones(30), 999) == pytest.approx(0.001)


def test_ties_never_favour_the_target() -> None:
    sequences = pack([[1, 2, 3]])
    cases = cases_of(sequences, leave_last(sequences), "test")
    table = np.zeros((10, NUM_ITEMS))
    assert rank_targets(ByLastItem(table), sequences, cases, CPU).rank.tolist() == [NUM_ITEMS]


def test_a_repeated_target_cannot_be_reached_when_the_history_is_filtered() -> None:
    sequences = pack([[3, 2, 3]])
    cases = cases_of(sequences, leave_last(sequences), "test")
    table = np.zeros((10, NUM_ITEMS))
    table[:, 2] = 1
    model = ByLastItem(table)
    assert rank_targets(model, sequences, cases, CPU).rank.tolist() == [1]
    assert rank_targets(model, sequences, cases, CPU, filter_history=True).rank.tolist() == [NUM_ITEMS]


def test_a_nan_score_is_an_error() -> None:
    sequences = pack([[1, 2, 3]])
    table = np.zeros((10, NUM_ITEMS))
    table[2, 7] = np.nan
    with pytest.raises(NaNScoreError, match="NaN as a score"):
        rank_targets(ByLastItem(table), sequences, cases_of(sequences, leave_last(sequences), "test"), CPU)
