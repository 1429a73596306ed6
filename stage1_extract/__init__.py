"""Stage one: item texts to pooled layer states of a frozen LLM, written to the cache.

Imports `transformers` only when there are texts that the cache lacks.
"""

from ssna.stage1_extract.extraction import (
    Extraction,
    NonFiniteStatesError,
    Plan,
    extract_texts,
    plan_texts,
)
from ssna.stage1_extract.llm_files import LLMError
from ssna.stage1_extract.pooling import POOLINGS, Pooling
from ssna.stage1_extract.settings import COMPUTE_DTYPES, ExtractOptions

__all__ = [
    "COMPUTE_DTYPES",
    "POOLINGS",
    "ExtractOptions",
    "Extraction",
    "LLMError",
    "NonFiniteStatesError",
    "Plan",
    "Pooling",
    "extract_texts",
    "plan_texts",
]
