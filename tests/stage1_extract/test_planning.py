"""What an extraction costs, from the configuration alone: of every architecture family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssna.stage1_extract import llm_size, measured_seconds_a_token
from ssna.stage1_extract.llm_files import LLMError, find_config
from ssna.stage1_extract.loading import base_config, random_model
from tests.stage1_extract.families import FAMILIES, Family

CPU = torch.device("cpu")


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Holds a configuration and nothing else."""
    import transformers

    family: Family = request.param
    config = family.config(transformers)
    config.architectures = [type(transformers.AutoModel.from_config(config)).__name__]
    config.save_pretrained(tmp_path)
    return tmp_path


def test_size_and_time_of_every_family(folder: Path) -> None:
    files = find_config(str(folder))
    size = llm_size(files)
    model = random_model(files, base_config(files))
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.blocks == 3
    assert (size.block_parameters < size.parameters) == (files.config["model_type"] != "albert")
    seconds = measured_seconds_a_token(files, size, 7, 64, "float32", CPU)
    assert 0 < seconds < 1


def test_flop_of_a_text_are_those_that_are_counted(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertConfig(
        vocab_size=50, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
        architectures=["BertModel"],
    ).save_pretrained(tmp_path)  # fmt: skip
    size = llm_size(find_config(str(tmp_path)))
    config = BertConfig.from_pretrained(tmp_path, attn_implementation="eager")
    counter = FlopCounterMode(display=False)
    with counter:
        BertModel(config, add_pooling_layer=False)(input_ids=torch.ones(2, 10, dtype=torch.long))
    # Biases and norms count as weights here, and take part in no product.
    assert 2 * size.flop(10) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_a_configuration_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match=r"holds no model: config\.json is missing"):
        find_config(str(tmp_path))
    with pytest.raises(LLMError, match="there is no no/such/folder; expected the folder of a model"):
        find_config("no/such/folder")
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of", "num_hidden_layers": 2, "hidden_size": 8}')
    with pytest.raises(LLMError, match="the configuration of .* cannot be loaded by transformers"):
        llm_size(find_config(str(tmp_path)))
