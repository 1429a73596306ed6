"""Item texts as tokens, and how a step's texts become batches with as little padding as stage one's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssna.stage1_extract.batching import TokenIds, batch_size, longest_first
from ssna.stage1_extract.frozen_llm import TextTokenizer


@dataclass(frozen=True)
class ItemTokens:
    """The distinct texts of items 1 to N, tokenised once, before training begins."""

    token_ids: Sequence[TokenIds]
    """Of each distinct text"""
    text_of_item: npt.NDArray[np.int64]
    """(N,): the place of each item's text among them"""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: TextTokenizer) -> ItemTokens:
        """Those of all items' texts, in order of the items."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        token_ids, _ = tokenizer(list(places))
        return cls(token_ids, np.array([places[text] for text in texts], np.int64))

    def distinct(self, items: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The texts of these items, each once, and where among them each item's is ``(n,)``.

        Args:
            items: numbers ``(n,)``, from 1.
        """
        texts, back = np.unique(self.text_of_item[items - 1], return_inverse=True)
        return texts, back

    def batches(self, texts: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[npt.NDArray[np.intp]]:
        """Positions in `texts` in batches of similar length, longest first, as stage one makes them."""
        lengths = np.array([len(self.token_ids[text]) for text in texts])
        order, start = longest_first(lengths), 0
        while start < len(order):
            batch = order[start : start + batch_size(int(lengths[order[start]]), batch_tokens)]
            yield batch
            start += len(batch)
