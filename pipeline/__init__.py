"""ssna: frozen large language models for sequential recommendation, from layer states that are extracted once.

    import ssna

    ssna.prepare("recbole-1.2.1-py3-none-any.whl", "data/ml-100k", format="recbole")
    ssna.extract("data/ml-100k", "path/to/all-MiniLM-L6-v2", name="minilm")
    ssna.adapt("data/ml-100k", "runs/text", llm="minilm", options=ssna.AdaptOptions(seed=1))
    ssna.recommend("runs/text", user="1").items

Each function is a command of the same name (`ssna --help`). Names are imported when they are first used, so that
`import ssna` takes no time and no stage loads what only another needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ssna.api.adapt import adapt
    from ssna.api.evaluate import evaluate
    from ssna.api.extract import extract
    from ssna.api.prepare import prepare
    from ssna.api.recommend import Item, Recommendation, ScoredItem, recommend
    from ssna.cache import SsnaError
    from ssna.dataset import Dataset
    from ssna.sources import Columns
    from ssna.stage1_extract import Extraction
    from ssna.stage2_adapt import AdaptOptions

__all__ = [
    "AdaptOptions",
    "Columns",
    "Dataset",
    "Extraction",
    "Item",
    "Recommendation",
    "ScoredItem",
    "SsnaError",
    "__version__",
    "adapt",
    "evaluate",
    "extract",
    "prepare",
    "recommend",
]

_HOMES = {
    "AdaptOptions": "ssna.stage2_adapt",
    "Columns": "ssna.sources",
    "Dataset": "ssna.dataset",
    "Extraction": "ssna.stage1_extract",
    "Item": "ssna.api.recommend",
    "Recommendation": "ssna.api.recommend",
    "ScoredItem": "ssna.api.recommend",
    "SsnaError": "ssna.cache",
    "adapt": "ssna.api.adapt",
    "evaluate": "ssna.api.evaluate",
    "extract": "ssna.api.extract",
    "prepare": "ssna.api.prepare",
    "recommend": "ssna.api.recommend",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssna' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
