"""Stage one: item texts to pooled layer states of a frozen LLM, written to the cache.

Imports `transformers` only when there are texts that the cache lacks.
"""

from ssna.stage1_extract.extraction import Extraction, ExtractOptions, NonFiniteStatesError, extract_texts
from ssna.stage1_extract.llm_files import LLMError

__all__ = ["ExtractOptions", "Extraction", "LLMError", "NonFiniteStatesError", "extract_texts"]
