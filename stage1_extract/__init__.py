"""Stage one: item texts to pooled layer states of a frozen LLM, written to the cache.

Imports `transformers` only when there are texts that the cache lacks.
"""

from ssna.stage1_extract.extraction import (
    Extraction,
    NonFiniteStatesError,
    Plan,
    cache_fingerprint,
    extract_texts,
    plan_texts,
)
from ssna.stage1_extract.llm_files import LLMError, find_config
from ssna.stage1_extract.planning import llm_size, loading_seconds, measured_seconds_a_token
from ssna.stage1_extract.pooling import POOLINGS
from ssna.stage1_extract.settings import (
    COMPUTE_DTYPES,
    EXTRACT_OPTIONS,
    ExtractOptions,
    NameTakenError,
    differences,
    resolve_batch_tokens,
    resolve_dtype,
    resolve_layers,
    resolve_max_tokens,
)

__all__ = [
    "COMPUTE_DTYPES",
    "EXTRACT_OPTIONS",
    "POOLINGS",
    "ExtractOptions",
    "Extraction",
    "LLMError",
    "NameTakenError",
    "NonFiniteStatesError",
    "Plan",
    "cache_fingerprint",
    "differences",
    "extract_texts",
    "find_config",
    "llm_size",
    "loading_seconds",
    "measured_seconds_a_token",
    "plan_texts",
    "resolve_batch_tokens",
    "resolve_dtype",
    "resolve_layers",
    "resolve_max_tokens",
]
