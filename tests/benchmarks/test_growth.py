"""The made-up cases of the benchmark of growth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def test_extracted_states_are_those_that_the_llm_gives_for_the_cases_texts(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="needs the [benchmarks] extra")
    import growth
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setitem(growth.SHAPES, "MiniLM", (2, 64))
    monkeypatch.setattr(growth, "USERS", 2)
    case, cpu = growth.Case(items=30, tokens=5, layers=1), torch.device("cpu")
    growth.make_up(case, growth.EXTRACTED, tiny_llm, tmp_path)
    problem = growth.made_up_problem(case)
    (states,) = growth.extracted_states(case, problem, cpu, tmp_path).between(0, 30)
    assert states.shape == (1, 30, 64)
    llm = AutoModel.from_pretrained(tmp_path / "MiniLM").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "MiniLM")
    item = int(problem.sequences.items[0]) - 1
    with torch.no_grad():
        expected = llm(**tokenizer(problem.texts[item], return_tensors="pt")).last_hidden_state[0].mean(0)
    torch.testing.assert_close(states[0, item], expected, rtol=2e-3, atol=2e-3)
    training = growth.make_training(case, growth.EXTRACTED, cpu, tmp_path)
    assert training.trainable_parameters == growth.make_training(case, "ssna", cpu, tmp_path).trainable_parameters
