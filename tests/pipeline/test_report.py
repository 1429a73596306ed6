"""What a report computes, against hand-worked cases and references."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssna import AdaptOptions, Dataset, adapt
from ssna.errors import RunError
from ssna.reports import Group, digest_of_test, group_of, read_run
from ssna.reports.charts import Line, Point, chart, ticks
from ssna.reports.contents import MAP_SIZE, RunReport
from ssna.reports.layers import layer_shares
from ssna.reports.page import _differing_options, _map_classes
from ssna.runs import open_run
from ssna.stage2_adapt.side_network import SideNetwork

CPU = torch.device("cpu")
CACHES = [{"name": "llm", "layers": [9, 8, 7]}]


def shares_of(options: AdaptOptions, network: SideNetwork) -> list[float]:
    """Top layer first."""
    tensors = {f"sides.0.{name}": tensor for name, tensor in network.state_dict().items()}
    ((only,), meaning) = layer_shares(options, CACHES, tensors)
    assert only.llm == "llm"
    assert meaning.startswith("A bar is ")
    assert [layer for layer, _ in only.shares] == [9, 8, 7]
    return [share for _, share in only.shares]


def network_of(side: str) -> SideNetwork:
    torch.manual_seed(0)
    return SideNetwork(3, 5, 4, integration=side)


def test_gates_give_the_weights_that_the_integration_gives_each_layer() -> None:
    network = network_of("gate")
    network.integration.gate.data = torch.logit(torch.tensor([0.5, 0.25]))
    expected = [0.75, 0.125, 0.125]
    assert shares_of(AdaptOptions(side="gate"), network) == pytest.approx(expected)
    one_hot = torch.eye(3)[:, None]  # Each layer's adapter made its own dimension.
    assert network.integration(one_hot)[0].flip(0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("side", ["gru", "residual", "mean"])
def test_shares_are_those_of_the_norms_of_the_down_projections(side: str) -> None:
    network = network_of(side)
    network.down.data = torch.ones(3, 5, 4) * torch.tensor([1.0, 2.0, 5.0])[:, None, None]  # Lowest layer first
    assert shares_of(AdaptOptions(side=side), network) == pytest.approx([5 / 8, 2 / 8, 1 / 8])


def test_each_llm_has_its_own_shares() -> None:
    networks = [network_of("mean"), network_of("mean")]
    networks[1].down.data *= torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    tensors = {
        f"sides.{number}.{name}": tensor
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    caches = [*CACHES, {"name": "llm", "layers": [3, 2, 1], "text": "{title}"}]
    first, second = layer_shares(AdaptOptions(side="mean"), caches, tensors)[0]
    assert [share for _, share in first.shares] == pytest.approx([1 / 3] * 3, abs=0.1)
    assert (second.llm, second.shares) == ("llm, text '{title}'", [(3, 0), (2, 0), (1, 1)])


def test_shares_of_concat_are_those_of_what_each_layer_alone_adds() -> None:
    """The squared norm of a linear map is the sum of those of what it makes of each unit vector."""
    network = network_of("concat")
    norms = []
    for layer in range(3):
        states = torch.zeros(3, 5, 5)
        states[layer] = torch.eye(5)
        added = network.integration(torch.bmm(states, network.down)) - network.integration.mix.bias
        norms.append(float(added.detach().square().sum().sqrt()))
    assert shares_of(AdaptOptions(side="concat"), network) == pytest.approx([norm / sum(norms) for norm in norms[::-1]])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (AdaptOptions(side="none"), "no side network"),
        (AdaptOptions(model="popularity"), "no side network"),
        (AdaptOptions(side="frozen"), "adapts no layer"),
        (AdaptOptions(preparation="none"), "weights do not compare"),
    ],
)
def test_where_no_share_is_honest_there_is_a_reason(options: AdaptOptions, reason: str) -> None:
    shares, said = layer_shares(options, CACHES, {})
    assert shares == []
    assert reason in said


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.013, 0.087, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (1, 5, [1, 2, 3, 4, 5]),
        (0, 0, [0, 0.25, 0.5, 0.75, 1]),
        (-3, -3, [-3, -2, -1, 0]),
    ],
)
def test_ticks_are_round_and_span_what_is_shown(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high)
    assert found == pytest.approx(expected)


def test_a_chart_puts_values_where_the_axes_have_them() -> None:
    drawn = chart("<name>", [Line(0, [(1, 0), (3, 1)])], [Point(9, 2, 0.5, "<label>", (0.25, 1))], [(2, "two")], "x")
    assert "&lt;name&gt;" in drawn
    assert "<title>&lt;label&gt;</title>" in drawn
    assert 'points="46.0,192.0 350.0,10.0"' in drawn  # 360 x 230 less margins
    assert "translate(198.0 101.0)" in drawn
    assert 'd="M0 45.5V-91.0"' in drawn
    assert 'class="mark s1"' in drawn  # The tenth run has the second colour.


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ids"
    adapt(dataset.path, folder, options=AdaptOptions(side="none", width=8, epochs=2), device="cpu")
    return folder


def report_of(folder: Path) -> tuple[Group, RunReport]:
    opened = open_run(folder, CPU)
    group = group_of(opened)
    return group, read_run(opened, "ids", group, CPU)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "config.json",
            {"device": None},
            r"config\.json lacks device; expected what `ssna adapt` writes\. Run that again",
        ),
        ("config.json", {"caches": None}, r"config\.json lacks caches;"),
        ("config.json", {"caches": [{"name": "x", "fingerprint": "x", "path": "x"}]}, r"lacks caches\[0\]\.layers;"),
        (
            "config.json",
            {"caches": {}},
            r"config\.json: caches is not as it should be; expected what `ssna adapt` writes",
        ),
        ("config.json", {"dataset": {}}, r"config\.json lacks dataset\.name;"),
        ("config.json", {"dataset": "shop"}, r"config\.json: dataset is not as it should be;"),
        ("results.json", {"epochs": None}, r"results\.json lacks epochs;"),
        ("results.json", {"epochs": "two"}, r"results\.json: epochs is not as it should be;"),
    ],
)
def test_what_is_missing_in_a_runs_files_is_named(
    ids: Path, tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(ids, tmp_path / "run"))
    content = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(RunError, match=message):
        report_of(folder)


def test_the_map_has_the_two_directions_of_most_variance(ids: Path) -> None:
    group, found = report_of(ids)
    vectors = open_run(ids, CPU).recommender.item_embeddings[1:].double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, axes = np.linalg.eigh(np.cov(vectors.numpy().T))
    assert found.map is not None
    assert found.map.explained == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-4)
    expected = (vectors.numpy() - vectors.numpy().mean(axis=0)) @ axes[:, [-1, -2]]
    for places, axis in zip((found.map.x, found.map.y), expected.T, strict=True):
        assert len(places) == 24
        assert abs(np.corrcoef(places, axis)[0, 1]) > 0.999
    assert max(np.ptp(found.map.x), np.ptp(found.map.y)) == MAP_SIZE
    assert min(*found.map.x, *found.map.y) >= 0
    assert group.mapped.tolist() == list(range(1, 25))


def test_runs_of_the_same_test_are_known_by_it(ids: Path, tmp_path: Path, dataset: Dataset) -> None:
    for name, split in (("same", "leave-one-out"), ("other", "leave-last-2")):
        adapt(dataset.path, tmp_path / name, options=AdaptOptions(model="popularity", split=split), device="cpu")
    same, other, first = (
        digest_of_test(open_run(folder, CPU)) for folder in (tmp_path / "same", tmp_path / "other", ids)
    )
    assert same == first != other


def test_classes_of_popularity_are_quarters_of_the_training_items(ids: Path) -> None:
    group, _ = report_of(ids)
    counts = np.array([0, 1, 1, 1, 1, 1, 2, 3, 9])  # A quarter of eight: 1, a half: 1, three quarters: 2.
    group = replace(group, counts=counts)
    assert _map_classes(group) == [(0, "0"), (1, "1"), (3, "2"), (4, "3 to 9")]


def test_options_are_shown_where_runs_differ(ids: Path) -> None:
    _, one = report_of(ids)
    other = replace(one, options=replace(one.options, seed=1))
    popularity = replace(one, options=AdaptOptions(model="popularity"))
    shown = dict(_differing_options([one, other, popularity]))
    assert list(shown) == ["model", "side", "llm", "layers", "seed"]
    assert shown["seed"] == ["0", "1", "-"]
    assert shown["model"] == ["sasrec", "sasrec", "popularity"]
