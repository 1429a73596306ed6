"""`ssna report`: the command, and its page in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import ssna
from ssna import recommend
from ssna.reports import group_of, read_run
from ssna.reports.charts import COLOURS
from ssna.reports.page import render
from ssna.runs import open_run
from ssna.terminal import size
from tests.chromium import Page, chromium_page
from tests.helpers import Outcome, make_catalogue, ssna_in_process

CPU = torch.device("cpu")
CHROMIUM = shutil.which("chromium")
TINY = ["--width", "16", "--length", "6", "--batch-size", "16", "--learning-rate", "0.01", "--epochs", "3"]
HOSTILE = "</script><script>alert(1)</script>"
LONG = "sasrec_minilm_gate_lr0.001_wd0.1_seed0_and_more_words_up_to_64_x"
RUNS = ["study", f"runs/{LONG}", "runs/ids", "runs/popularity"]
NAMES = ["layers-1", "layers-3", LONG, "ids", "popularity"]


def run(folder: Path, *arguments: str | Path) -> Outcome:
    return ssna_in_process(*arguments, cwd=folder, SSNA_CACHE="caches")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A study, other runs, one of another split, and their report; a title and a name are hostile, another is long."""
    folder = tmp_path_factory.mktemp("workplace")
    catalogue = make_catalogue(folder / "source")
    items = catalogue.items.read_text().splitlines()
    catalogue.items.write_text("\n".join([f"i0\t{HOSTILE}", *items[1:]]) + "\n")
    adapt = ["adapt", "data", "--llm", "tiny", *TINY]
    for arguments in (
        ["prepare", catalogue.users, catalogue.items, "data", "--format", "sequences"],
        ["extract", "data", "--llm", tiny_llm, "--name", "tiny"],
        [*adapt, "--layers", "1,3", "--output", "study"],
        [*adapt, "--side", "gate", "--output", f"runs/{LONG}"],
        ["adapt", "data", "--side", "none", *TINY, "--output", "runs/ids"],
        ["adapt", "data", "--model", "popularity", "--output", "runs/popularity"],
        ["adapt", "data", "--model", "popularity", "--split", "leave-last-2", "--output", "runs/<b>"],
        ["report", *RUNS],  # Into report.html, as it is not said otherwise.
    ):
        done = run(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


class Reader(HTMLParser):
    """Counts elements by tag, and keeps the text of table cells and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_the_page_shows_the_metrics_that_evaluate_prints_with_its_intervals(workplace: Path) -> None:
    texts = read(workplace / "report.html").texts
    for folder in ("study/layers-3", "runs/popularity"):
        done = run(workplace, "evaluate", folder, "--bootstrap", "1000", "--json")
        found = json.loads(done.stdout)
        for name, (low, high) in found["intervals"].items():
            at = [number for number, text in enumerate(texts) if text == f"{found['test'][name]:.4f}"]
            assert f"{low:.4f}\N{EN DASH}{high:.4f}" in [texts[number + 1] for number in at]


def test_metrics_by_popularity_have_the_intervals_that_their_charts_show(workplace: Path) -> None:
    page = read(workplace / "report.html")
    opened = open_run(workplace / "runs" / "ids", CPU)
    found = read_run(opened, "ids", group_of(opened), CPU)
    done = json.loads(run(workplace, "evaluate", "runs/ids", "--json").stdout)["test_by_popularity"]
    assert set(found.intervals_by_popularity) == {name for name in done if done[name]["targets"]}
    for name, metrics in found.intervals_by_popularity.items():
        for key, (low, high) in metrics.items():
            value = f"{done[name][key]:.4f}"
            at = [number for number, text in enumerate(page.texts) if text == value]
            assert f"{low:.4f}\N{EN DASH}{high:.4f}" in [page.texts[number + 1] for number in at]
            label = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}[key]
            assert f"ids, {name}: {label} {value} ({low:.4f} to {high:.4f})" in page.texts


def test_the_cost_of_each_run_is_what_it_noted(workplace: Path) -> None:
    page = (workplace / "report.html").read_text(encoding="utf-8")
    (table,) = re.findall(r"<caption>What training took</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    rows = [Reader(row).texts for row in table.split("</tr>")[:-1]]
    folders = ["study/layers-1", "study/layers-3", *RUNS[1:]]
    assert [name for name, *_ in rows] == NAMES
    for folder, (_, *shown) in zip(folders, rows, strict=True):
        read_json = ((workplace / folder / f"{name}.json").read_text() for name in ("results", "config"))
        results, config = map(json.loads, read_json)
        trained = results["epochs"]
        expected = [
            f"{results['trainable_parameters']:,}",
            *([str(trained), str(results["best_epoch"]), f"{results['epoch_seconds']:.2f}"] if trained else ["-"] * 3),
            f"{results['total_seconds']:.1f}",
            size(results["peak_memory_bytes"]),
            config["device"],
            config["precision"],
            str(config["threads"]),
        ]
        assert shown == expected


def test_the_values_of_curves_at_the_best_and_last_epochs_are_beside_them(workplace: Path) -> None:
    page = (workplace / "report.html").read_text(encoding="utf-8")
    (table,) = re.findall(r"<caption>Best and last epochs</caption>(.*?)</table>", page, re.DOTALL)
    head, *rows = [Reader(row).texts for row in table.split("</tr>")[:-1]]
    assert head == ["run", "epoch", "Training loss", "Validation NDCG@10"]
    expected = []
    for name, folder in zip(NAMES, ["study/layers-1", "study/layers-3", *RUNS[1:3]], strict=False):
        best = json.loads((workplace / folder / "results.json").read_text())["best_epoch"]
        lines = [json.loads(line) for line in (workplace / folder / "metrics.jsonl").read_text().splitlines()]
        shown = [(3, "3 (best and last)")] if best == 3 else [(best, f"{best} (best)"), (3, "3 (last)")]
        expected += [
            [name, label, f"{lines[number - 1]['loss']:.4f}", f"{lines[number - 1]['valid']['ndcg@10']:.4f}"]
            for number, label in shown
        ]
    assert rows == expected


def test_titles_and_names_are_text(workplace: Path) -> None:
    assert run(workplace, "report", "runs/<b>", "--output", "hostile.html").returncode == 0
    for page in ("report.html", "hostile.html"):
        tags = read(workplace / page).tags
        assert tags.count("script") == 2
        assert "b" not in (tags if page == "hostile.html" else [])
    assert HOSTILE in read(workplace / "report.html").texts


def test_the_page_names_the_hash_of_its_own_script(workplace: Path) -> None:
    page = (workplace / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page


def test_sample_users_have_the_recommendations_and_the_ranks_of_the_run(workplace: Path) -> None:
    """Against `recommend` over the history before the test, and the metrics of all users, who are more than 20."""

    folder = workplace / "runs" / "ids"
    opened = open_run(folder, CPU)
    group = group_of(opened)
    ids = opened.items["item_id"].to_list()
    found = read_run(opened, "ids", group, CPU)
    assert len(group.users) == len(found.recommended) == 20
    for user, shown in zip(group.users, found.recommended, strict=True):
        whole = opened.history_of(user.user_id)
        assert [*user.history, *user.targets] == whole
        expected = recommend(folder, history=[ids[item - 1] for item in user.history], k=10, allow_repeats=True)
        assert [ids[item - 1] for item in shown.top] == [item.item_id for item in expected.items]
        if user.targets[0] in shown.top:
            assert shown.top[shown.rank - 1] == user.targets[0]
        else:
            assert shown.rank > 10


def test_as_many_users_are_shown_as_asked_for(workplace: Path) -> None:
    """They are the first of those drawn for more, and the rest of the page stays as it is."""
    users = open_run(workplace / "runs" / "ids", CPU).user_ids.to_list()
    for number in (0, 1, 1000):
        output = f"users-{number}.html"
        done = run(workplace, "report", *RUNS, "--users", str(number), "--output", output)
        assert done.returncode == 0, done.stderr
        page = (workplace / output).read_text()
        shown = [user for user in users if f"User {user}<" in page or f">{user}<" in page]
        assert len(shown) == min(number, 60)
        assert page.count("Sample users") == (number > 0)
        assert page.count('href="#part1-users"') == (number > 0)
        assert page.partition('id="data">')[2] == (workplace / "report.html").read_text().partition('id="data">')[2]
        assert ("1 user drawn at random," in page) == (number == 1)
    assert "60 users drawn at random, which are all," in page
    done = run(workplace, "report", "runs/ids", "--users", "-1", "--output", "x.html")
    assert (done.returncode, done.stderr) == (1, "Error: --users -1: expected a whole number, 0 for none.\n")
    assert not (workplace / "x.html").exists()


def test_a_number_of_users_may_be_one_of_numpy(workplace: Path) -> None:
    pages = []
    for number in (2, np.int64(2)):
        ssna.report(workplace / "runs/ids", workplace / "numpy.html", users=number, overwrite=True)  # type: ignore[arg-type]
        pages.append((workplace / "numpy.html").read_text())
    assert pages[0] == pages[1]
    with pytest.raises(ssna.SsnaError, match="--users True: expected a whole number, 0 for none"):
        ssna.report(workplace / "runs/ids", workplace / "numpy.html", users=True)


def test_runs_that_do_not_compare_are_shown_apart(workplace: Path) -> None:
    done = run(workplace, "report", "runs/popularity", "runs/<b>", "--output", "apart.html")
    assert "were not tested on the same" in done.stdout
    page = read(workplace / "apart.html")
    assert page.tags.count("h1") == 2
    assert any("do not compare" in text for text in page.texts)
    assert read(workplace / "report.html").tags.count("h1") == 1


def test_what_is_missing_is_said_in_a_sentence(workplace: Path) -> None:
    assert run(workplace, "report", "runs/popularity", "--output", "alone.html").returncode == 0
    text = " ".join(read(workplace / "alone.html").texts)
    assert "popularity: no epochs in metrics.jsonl, so no curve." in text
    assert "This model has no side network." in text
    assert "popularity: no item vectors to map." in text
    assert "This takes runs that adapt different numbers of layers" in text


@pytest.mark.parametrize(
    ("newcomer_from", "missing"),
    [
        (10, "There were no users to test on, so there are no metrics."),
        (9, "There were no users to validate on."),
    ],
)
def test_a_split_that_leaves_nobody_to_test_or_to_validate_has_a_page(
    workplace: Path, newcomer_from: int, missing: str
) -> None:
    # The last of ten interactions tests and the one before validates; who is new in either has no history to go by.
    rows = [f"{'new' if time == newcomer_from else 'u'},i{1 + time % 3},{time}" for time in range(1, 11)]
    name = f"timed-{newcomer_from}"
    (workplace / f"{name}.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (workplace / "three.csv").write_text("item_id,title\ni1,one\ni2,two\ni3,three\n")
    for arguments in (
        ["prepare", f"{name}.csv", "three.csv", name, "--format", "table"],
        ["adapt", name, "--side", "none", *TINY, "--split", "time", "--output", f"runs/{name}"],
        ["report", f"runs/{name}", "--output", f"{name}.html"],
    ):
        done = run(workplace, *arguments)
        assert done.returncode == 0, done.stderr
    assert missing in " ".join(read(workplace / f"{name}.html").texts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing", "--output", "out.html"], "missing does not exist"),
        (["data", "--output", "out.html"], "has no config.json"),
        (["old", "--output", "out.html"], "old/results.json lacks epochs;"),
        (["study", "study/layers-1", "--output", "out.html"], "study/layers-1 is named twice"),
        (["runs/ids"], "report.html exists. Give another --output, or --overwrite to replace it."),
        (["runs/ids", "--output", "runs"], "runs is a folder"),
        (["runs/ids", "--output", "pyproject.toml", "--overwrite"], "no report of ours"),
        (["runs/ids", "--output", "pyproject.toml/report.html"], "pyproject.toml"),
        (["--output", "out.html"], "Missing argument 'RUN…'"),
    ],
)
def test_mistakes_end_in_one_sentence(workplace: Path, arguments: list[str], expected: str) -> None:
    (workplace / "pyproject.toml").write_text("mine")
    shutil.copytree(workplace / "runs" / "ids", workplace / "old", dirs_exist_ok=True)
    results = json.loads((workplace / "old" / "results.json").read_text())
    (workplace / "old" / "results.json").write_text(
        json.dumps({name: results[name] for name in results if name != "epochs"})
    )
    before = (workplace / "report.html").read_bytes()
    done = run(workplace, "report", *arguments)
    assert done.returncode != 0
    *_, line = done.stderr.splitlines()  # Perhaps after notes on what is going on.
    assert line.startswith("Error: ")
    assert expected in line
    assert not (workplace / "out.html").exists()
    assert (workplace / "report.html").read_bytes() == before
    assert (workplace / "pyproject.toml").read_text() == "mine"


def test_a_report_is_replaced_when_asked_and_says_so_as_json(workplace: Path) -> None:
    (workplace / "again.html").write_bytes((workplace / "report.html").read_bytes())
    done = run(workplace, "report", "runs/ids", "--output", "again.html", "--overwrite", "--json")
    size = (workplace / "again.html").stat().st_size
    group = {"dataset": "source", "split": "leave-one-out", "users": 60, "items": 24, "runs": ["ids"]}
    assert json.loads(done.stdout) == {"output": "again.html", "groups": [group], "num_bytes": size}


def test_parts_are_named_by_dataset_and_those_of_one_dataset_follow_each_other(workplace: Path) -> None:
    """Here one of another shop comes between them; and one has the same data under another name."""
    other = make_catalogue(workplace / "other-source", seed=1)
    sources = [workplace / "source" / "users.tsv", workplace / "source" / "items.tsv"]
    named = ["--format", "sequences", "--name"]
    for arguments in (
        ["prepare", other.users, other.items, "other", *named, "garden"],
        ["prepare", *sources, "renamed", *named, "kitchen"],
        ["adapt", "other", "--model", "popularity", "--output", "runs/other"],
        ["adapt", "renamed", "--model", "popularity", "--output", "runs/renamed"],
    ):
        done = run(workplace, *arguments)
        assert done.returncode == 0, done.stderr
    runs = ["runs/popularity", "runs/other", "runs/<b>"]
    done = run(workplace, "report", *runs, "--output", "shops.html")
    rows = [line.split() for line in done.stdout.splitlines() if "leave-" in line]
    assert rows == [
        ["source", "leave-one-out", "60", "24", "popularity"],
        ["source", "leave-last-2", rows[1][2], "24", "<b>"],
        ["garden", "leave-one-out", "60", "24", "other"],
    ]
    page = read(workplace / "shops.html")
    texts = page.texts
    first = [number for number, text in enumerate(texts) if text in ("source", "garden")][:3]
    assert [texts[number] for number in first] == ["source", "source", "garden"]
    assert texts[first[2] + 1] == ", split leave-one-out, 60 users, 24 items: other"
    assert page.tags.count("h1") == 3
    assert run(workplace, "report", "runs/ids", "runs/renamed", "--output", "one.html").returncode == 0
    page = read(workplace / "one.html")
    assert page.tags.count("h1") == 1
    assert "source, kitchen" in page.texts
    assert {"dataset", "source", "kitchen"} <= set(page.texts)


def test_progress_is_shown_in_a_terminal_alone(workplace: Path) -> None:
    command = ["report", "runs/ids", "runs/popularity", "--overwrite", "--output", "progress.html"]
    assert run(workplace, *command).stderr == ""
    shown = ssna_in_process(*command, cwd=workplace, SSNA_CACHE="caches", FORCE_COLOR="1")
    assert "ranking" in shown.stderr
    assert "2/2" in shown.stderr
    quiet = ssna_in_process(*command, "--quiet", cwd=workplace, SSNA_CACHE="caches", FORCE_COLOR="1")
    assert (quiet.returncode, quiet.stderr) == (0, "")


@pytest.fixture(scope="module")
def page(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report in headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    with chromium_page(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        opened.open(workplace / "report.html")
        yield opened
        assert opened.complaints == []  # Of anything that the tests did with the page.


VISIBLE = "e.getClientRects().length > 0"


def test_it_opens_without_a_word_of_complaint_and_asks_for_nothing_else(page: Page, workplace: Path) -> None:
    assert page.complaints == []
    assert page.requests == [(workplace / "report.html").as_uri()]


def test_every_chart_and_map_is_drawn(page: Page) -> None:
    marks = page.values("svg.chart", "e.querySelectorAll('.mark').length")
    # Loss and validation, best epochs of 4 runs; 5 runs at 3 cut-offs; 3 with layers; 5 in the head and the tail.
    assert marks[:6] == [4, 4, 15, 15, 3, 3]
    assert len(marks) == 8
    assert min(marks[6:]) >= 10
    assert page.values("svg.chart", "e.querySelectorAll('polyline').length") == [4, 4, 0, 0, 2, 2, 0, 0]
    assert page.values("svg.chart", "e.querySelectorAll('.whisker').length") == [0, 0, *marks[2:]]
    painted = "e.getContext('2d').getImageData(0, 0, e.width, e.height).data.filter((a, i) => i % 4 == 3 && a).length"
    assert page.values("canvas", "e.getAttribute('aria-label')") == [
        f"Map of the items of {n}, arrow keys go from item to item" for n in NAMES[:4]
    ]
    assert min(page.values("canvas", painted)) > 24 * 5
    assert page.values(".bars", "e.rows.length - 1") == [1, 3, 3]
    assert min(page.values(".bar span", "e.clientWidth")) > 0


def test_a_user_can_be_picked(page: Page) -> None:
    shown = page.values(".user", VISIBLE)
    assert shown == [True] + [False] * 19
    before = page.value("document.querySelector('main').innerText")
    page.value("const s = document.querySelector('select'); s.value = '7'; s.dispatchEvent(new Event('change'))")
    assert page.values(".user", VISIBLE).index(True) == 7
    assert sum(page.values(".user", VISIBLE)) == 1
    picked = page.values("select option", "e.textContent")[7]
    (article,) = [text for text in page.values(".user", f"{VISIBLE} ? e.innerText : ''") if text]
    assert article.startswith(f"User {picked}")
    assert article not in before


def test_pointing_at_an_item_shows_its_title_as_text_on_each_map(page: Page) -> None:
    """And pointing at nothing shows none."""
    item = page.value(f"maps[1].part.titles.indexOf({json.dumps(HOSTILE)})")
    page.value("document.querySelectorAll('canvas')[1].scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y = page.value(
        f"(() => {{ const box = maps[1].canvas.getBoundingClientRect(), [x, y] = placeOf(maps[1], {item});"
        " return [box.x + x, box.y + y]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert page.values(".tip", "e.innerText.split(' · ')[0]") == [HOSTILE] * 4
    assert all(page.values(".tip", VISIBLE))
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert not any(page.values(".tip", VISIBLE))


def press(page: Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)


def test_arrow_keys_lead_to_the_nearest_item_in_their_direction_and_it_is_said(page: Page) -> None:
    titles, xs, ys = (page.value(f"maps[1].{name}") for name in ("part.titles", "x", "y"))
    page.value("maps[1].canvas.focus()")
    before = page.value("window.scrollY")
    press(page, "ArrowDown")
    assert page.value("window.scrollY") == before
    at = page.value("maps[1].shown")
    assert at == min(range(24), key=lambda i: (xs[i] - 500) ** 2 + (ys[i] - 500) ** 2)
    for key, dx, dy in [("ArrowLeft", -1, 0), ("ArrowUp", 0, 1), ("ArrowRight", 1, 0), ("ArrowDown", 0, -1)] * 3:
        ahead = {
            i: math.hypot(xs[i] - xs[at], ys[i] - ys[at])
            for i in range(24)
            if (xs[i] - xs[at]) * dx + (ys[i] - ys[at]) * dy > 0
        }
        straight = {
            i: far
            for i, far in ahead.items()
            if (xs[i] - xs[at]) * dx + (ys[i] - ys[at]) * dy >= far * math.sqrt(0.5) * (1 - 1e-9)
        }
        at = min(straight or ahead or {at: 0}, key=lambda i: (straight or ahead or {at: 0})[i])
        press(page, key)
        count = page.value(f"maps[1].part.counts[{at}]")
        assert page.texts(".tip") == [f"{titles[at]} · {count}"] * 4
        assert page.values(".said", "e.textContent") == [f"{titles[at]} · {count} interactions"]
    assert page.values(".said", "e.getAttribute('aria-live')") == ["polite"]
    press(page, "Escape")
    assert not any(page.values(".tip", VISIBLE))
    press(page, "ArrowUp")
    assert all(page.values(".tip", VISIBLE))
    page.value("document.activeElement.blur()")
    assert not any(page.values(".tip", VISIBLE))


def test_page_keys_lead_through_all_items_and_round(page: Page) -> None:
    page.value("maps[0].canvas.focus()")
    press(page, "ArrowUp")
    first = page.value("maps[0].shown")
    gone = [first]
    for _ in range(24):
        press(page, "PageDown")
        gone.append(page.value("maps[3].shown"))
    assert sorted(gone[1:]) == list(range(24))
    assert gone[-1] == first
    press(page, "PageUp")
    assert page.value("maps[0].shown") == gone[-2]


def test_the_page_is_never_wider_than_a_phone(page: Page) -> None:
    page.resize(360)
    page.value("document.querySelector('details').open = true")
    assert page.value("document.documentElement.scrollWidth") <= 360
    assert max(page.values("canvas, svg.chart, select", "e.getBoundingClientRect().right")) <= 360
    page.value("document.querySelector('details').open = false")
    page.send("Emulation.clearDeviceMetricsOverride")


def test_it_is_dark_where_that_is_preferred_and_its_text_can_be_read(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.media(prefers_color_scheme=scheme)
        background, texts = (
            set(page.values(selector, f"getComputedStyle(e).{name}"))
            for selector, name in (("body, section", "backgroundColor"), ("p:not(.tip), td, th, li, h2", "color"))
        )
        bright = [luminance(colour) for colour in background]
        assert (max(bright) < 0.1) if scheme == "dark" else (min(bright) > 0.8)
        # WCAG 2.2, 1.4.3: text of this size has a contrast of at least 4.5 to 1.
        assert min(contrast(one, other) for one in background for other in texts) >= 4.5
        # 1.4.11: graphics at least 3 to 1. And the more interactions, the more a dot of the map stands out.
        (card,) = set(page.values("section", "getComputedStyle(e).backgroundColor"))
        dots, runs = (
            [contrast(colour_of(page, f"--{letter}{number}"), card) for number in range(count)]
            for letter, count in (("p", 5), ("c", COLOURS))
        )
        assert min(*dots, *runs) >= 3
        assert dots == sorted(set(dots))
    page.media()


def colour_of(page: Page, variable: str) -> str:
    """A colour of page.css, as `rgb(…)`."""
    made = "const e = document.createElement('i'); document.body.append(e)"
    found: str = page.value(
        f"(() => {{ {made}; e.style.color = 'var({variable})'; const c = getComputedStyle(e).color; e.remove();"
        " return c; })()"
    )
    return found


def contrast(one: str, other: str) -> float:
    """Of two colours `rgb(…)`, from 1 to 21, as WCAG defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(…)`, as WCAG defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_in_print_everything_is_there_without_controls_on_white(page: Page) -> None:
    page.media("print", prefers_color_scheme="dark")
    assert all(page.values(".user", VISIBLE))
    assert page.values("details table", "e.checkVisibility()") == [True]
    assert not any(page.values("nav, select, summary", VISIBLE))
    assert {
        luminance(colour) > 0.9 for colour in page.values("body, section", "getComputedStyle(e).backgroundColor")
    } == {True}
    page.media()


@pytest.mark.parametrize(("count", "options", "columns"), [(1, 4, 2), (2, 17, 3), (8, 17, 9), (12, 5, 6)])
def test_tables_of_many_runs_or_options_fit_on_paper_and_the_page_on_a_phone(
    page: Page, workplace: Path, count: int, options: int, columns: int
) -> None:
    """What there is less of, runs or options, stands side by side, and paper (A4 is 718 pixels) shows all of it."""
    opened = open_run(workplace / "runs" / "ids", CPU)
    group = group_of(opened)
    one = read_run(opened, "ids", group, CPU)
    numbers = {
        "seed": 1, "width": 64, "length": 50, "blocks": 2, "heads": 2, "negatives": 2048, "batch_size": 128,
        "learning_rate": 0.001, "weight_decay": 0.01, "warmup": 100, "clip": 1.0, "averaging": 3.0, "patience": 20,
    }  # fmt: skip
    differing = list(numbers)[: options - 4]  # Model, side, LLM and layers are always there.
    runs = [
        replace(
            one,
            name=f"{LONG}{number}" if number else "short",
            options=replace(
                one.options, **{name: type(numbers[name])(numbers[name] * (number + 1)) for name in differing}
            ),
        )
        for number in range(count)
    ]
    file = workplace / f"many-{count}-{options}.html"
    file.write_text(render([replace(group, runs=runs)]), encoding="utf-8")
    page.open(file)
    size = page.value("(t => [t.rows.length, t.rows[0].cells.length])(document.querySelector('.runs'))")
    assert size == [1 + max(count, options), columns]
    assert columns == 1 + min(count, options)
    page.resize(360)
    assert page.value("document.documentElement.scrollWidth") <= 360
    page.resize(718)
    page.media("print")
    assert page.value("document.documentElement.scrollWidth") <= 718
    assert max(page.values("table", "e.getBoundingClientRect().right")) <= 718
    page.media()
    page.send("Emulation.clearDeviceMetricsOverride")
    page.open(workplace / "report.html")
