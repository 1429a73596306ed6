"""A tiny random LLM of each architecture family, with a tokenizer that treats special tokens as that family does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.helpers import WORDS

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
PAD, BOS, EOS, UNK = range(4)
VOCABULARY = {token: number for number, token in enumerate([*SPECIALS, *WORDS, "no", *"0123456789abcdefgh"])}
_COMMON = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 1, "head_dim": 8}


@dataclass(frozen=True)
class Family:
    """How to make an LLM of a family."""

    name: str
    config: Callable[[Any], Any]
    """From the transformers module to the configuration"""
    template: str = "<s> $A </s>"
    """Special tokens around a text"""
    decoder: bool = False
    final_norm: bool = False
    padding_side: str = "right"

    @property
    def leaves_first_out(self) -> bool:
        """Whether mean pooling leaves the first token out."""
        return self.decoder and self.template.startswith("<s>")


FAMILIES = [
    Family("bert", lambda t: t.BertConfig(**_COMMON)),
    Family("roberta", lambda t: t.RobertaConfig(**{**_COMMON, "max_position_embeddings": 66})),
    Family(
        "distilbert",
        lambda t: t.DistilBertConfig(
            vocab_size=len(VOCABULARY), dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=64
        ),
    ),
    Family("mpnet", lambda t: t.MPNetConfig(**{**_COMMON, "max_position_embeddings": 66})),
    Family(
        "deberta-v2",
        lambda t: t.DebertaV2Config(**_COMMON, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    ),
    Family("modernbert", lambda t: t.ModernBertConfig(**_COMMON), final_norm=True),
    # One block shared by all layers: its hidden states cannot be taken block by block.
    Family("albert", lambda t: t.AlbertConfig(**_COMMON, embedding_size=8)),
    Family("llama", lambda t: t.LlamaConfig(**_GROUPED), "<s> $A", True, True, "left"),
    Family("qwen3", lambda t: t.Qwen3Config(**_GROUPED), "$A", True, True, "left"),
    Family("gemma3", lambda t: t.Gemma3TextConfig(**_GROUPED), "<s> $A", True, True, "left"),
    Family("mistral", lambda t: t.MistralConfig(**_GROUPED), "<s> $A", True, True, "left"),
    Family(
        "gpt2",
        lambda t: t.GPT2Config(
            vocab_size=len(VOCABULARY), n_embd=16, n_layer=3, n_head=2, n_positions=64, bos_token_id=EOS,
            eos_token_id=EOS,
        ),
        "$A", True, True,
    ),
    Family(
        "opt",
        lambda t: t.OPTConfig(
            vocab_size=len(VOCABULARY), hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=3, ffn_dim=32,
            num_attention_heads=2, max_position_embeddings=64, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        ),
        "<s> $A", True, True,
    ),
    Family(
        "t5",
        lambda t: t.T5Config(
            vocab_size=len(VOCABULARY), d_model=16, num_layers=3, num_decoder_layers=2, num_heads=2, d_kv=8, d_ff=32,
            pad_token_id=PAD, eos_token_id=EOS,
        ),
        "$A </s>", False, True,
    ),
    Family(
        "bart",
        lambda t: t.BartConfig(
            vocab_size=len(VOCABULARY), d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
            pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=EOS,
        ),
    ),
]  # fmt: skip


# Keys and values have a head for each of two processes.
TWO_HEADS = Family("llama", lambda t: t.LlamaConfig(**{**_GROUPED, "num_key_value_heads": 2}), "<s> $A", True, True)


def make_llm(family: Family, folder: Path) -> Path:
    """Save the LLM as a hub model would be."""
    import transformers

    torch.manual_seed(0)
    config = family.config(transformers)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # Norms and biases start at one and zero; here each should matter.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    save_tokenizer(folder, family.template, family.padding_side)
    return folder


def save_tokenizer(folder: Path, template: str, padding_side: str = "right") -> None:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, VOCABULARY[token]) for token in ("<s>", "</s>") if token in template]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        padding_side=padding_side, model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
