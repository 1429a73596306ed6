"""ssna: frozen large language models for sequential recommendation, from layer states that are extracted once.

    import ssna

    ssna.prepare("recbole-1.2.1-py3-none-any.whl", "data/ml-100k", format="recbole")
    ssna.extract("data/ml-100k", "path/to/all-MiniLM-L6-v2", name="minilm")
    ssna.adapt("data/ml-100k", "runs/text", llm="minilm", options=ssna.AdaptOptions(seed=1))
    ssna.recommend("runs/text", user="1").items

Most functions have a command of the same name (`ssna --help`). Names are imported when they are first used, so that
`import ssna` takes no time and no stage loads what only another needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ssna.api.adapt import adapt
    from ssna.api.add_items import AddedItems, add_items
    from ssna.api.caches import (
        CacheSummary,
        Verification,
        compact_cache,
        describe_cache,
        list_caches,
        remove_cache,
        verify_cache,
    )
    from ssna.api.compare import Difference, compare
    from ssna.api.download import Download, DownloadedFile, download
    from ssna.api.estimate import Estimate, estimate
    from ssna.api.evaluate import evaluate
    from ssna.api.export import Export, export
    from ssna.api.extract import extract, plan_extraction
    from ssna.api.prepare import prepare
    from ssna.api.recommend import Item, Recommendation, RecommendedItem, ScoredItem, recommend, recommend_users
    from ssna.api.report import Report, ReportGroup, report
    from ssna.api.serve import serve
    from ssna.api.similar import similar
    from ssna.api.study import study_layers
    from ssna.cache import Compaction, SegmentReport, SsnaError
    from ssna.dataset import Dataset
    from ssna.estimator import TextRecommender
    from ssna.onnx_model import OnnxCheck
    from ssna.sources import Columns
    from ssna.stage1_extract import Extraction, ExtractOptions, Plan
    from ssna.stage2_adapt import AdaptOptions, Epoch
    from ssna.vector_index import IndexCheck

__all__ = [
    "AdaptOptions",
    "AddedItems",
    "CacheSummary",
    "Columns",
    "Compaction",
    "Dataset",
    "Difference",
    "Download",
    "DownloadedFile",
    "Epoch",
    "Estimate",
    "Export",
    "ExtractOptions",
    "Extraction",
    "IndexCheck",
    "Item",
    "OnnxCheck",
    "Plan",
    "Recommendation",
    "RecommendedItem",
    "Report",
    "ReportGroup",
    "ScoredItem",
    "SegmentReport",
    "SsnaError",
    "TextRecommender",
    "Verification",
    "__version__",
    "adapt",
    "add_items",
    "compact_cache",
    "compare",
    "describe_cache",
    "download",
    "estimate",
    "evaluate",
    "export",
    "extract",
    "list_caches",
    "plan_extraction",
    "prepare",
    "recommend",
    "recommend_users",
    "remove_cache",
    "report",
    "serve",
    "similar",
    "study_layers",
    "verify_cache",
]

_HOMES = {
    "AdaptOptions": "ssna.stage2_adapt",
    "AddedItems": "ssna.api.add_items",
    "CacheSummary": "ssna.api.caches",
    "Columns": "ssna.sources",
    "Compaction": "ssna.cache",
    "Dataset": "ssna.dataset",
    "Difference": "ssna.api.compare",
    "Download": "ssna.api.download",
    "DownloadedFile": "ssna.api.download",
    "Epoch": "ssna.stage2_adapt",
    "Estimate": "ssna.api.estimate",
    "Export": "ssna.api.export",
    "ExtractOptions": "ssna.stage1_extract",
    "Extraction": "ssna.stage1_extract",
    "IndexCheck": "ssna.vector_index",
    "Item": "ssna.api.recommend",
    "OnnxCheck": "ssna.onnx_model",
    "Plan": "ssna.stage1_extract",
    "Recommendation": "ssna.api.recommend",
    "RecommendedItem": "ssna.api.recommend",
    "Report": "ssna.api.report",
    "ReportGroup": "ssna.api.report",
    "ScoredItem": "ssna.api.recommend",
    "SegmentReport": "ssna.cache",
    "SsnaError": "ssna.cache",
    "TextRecommender": "ssna.estimator",
    "Verification": "ssna.api.caches",
    "adapt": "ssna.api.adapt",
    "add_items": "ssna.api.add_items",
    "compact_cache": "ssna.api.caches",
    "compare": "ssna.api.compare",
    "describe_cache": "ssna.api.caches",
    "download": "ssna.api.download",
    "estimate": "ssna.api.estimate",
    "evaluate": "ssna.api.evaluate",
    "export": "ssna.api.export",
    "extract": "ssna.api.extract",
    "list_caches": "ssna.api.caches",
    "plan_extraction": "ssna.api.extract",
    "prepare": "ssna.api.prepare",
    "recommend": "ssna.api.recommend",
    "recommend_users": "ssna.api.recommend",
    "remove_cache": "ssna.api.caches",
    "report": "ssna.api.report",
    "serve": "ssna.api.serve",
    "similar": "ssna.api.similar",
    "study_layers": "ssna.api.study",
    "verify_cache": "ssna.api.caches",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssna' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
