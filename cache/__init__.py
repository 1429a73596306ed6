"""The layer-state cache: where the two stages meet.

`stage1_extract` writes rows of pooled layer states with a `SegmentWriter`; `stage2_adapt` reads them through a
`Selection`. Nothing here knows of LLMs or recommenders. The format is described in docs/cache-format.md.
"""

from ssna.cache.compaction import Compaction, compact
from ssna.cache.errors import CacheError, DiskFullError, SsnaError
from ssna.cache.file_hashes import MEMORY as HASH_MEMORY
from ssna.cache.file_hashes import sha256_of_files
from ssna.cache.files import (
    check_writable,
    fsync_file,
    fsync_folder,
    lock,
    replacing,
    sha256_of_file,
    sweep_leftovers,
    telling_when_full,
    temporary_sibling,
    write_atomically,
)
from ssna.cache.keys import Keys, keys_of_texts, slices, split_key
from ssna.cache.locate import clean_name, default_name, find_cache, resolve_cache_root
from ssna.cache.precision import STORED_DTYPES, StoredDtype, row_bytes
from ssna.cache.prefetch import ahead
from ssna.cache.selection import Selection
from ssna.cache.store import (
    MANIFEST,
    Cache,
    Manifest,
    fingerprint_of,
    folder_name,
    folders_below,
    foreign_entries,
    manifests_below,
    read_manifest,
)
from ssna.cache.verification import SegmentReport, set_aside, verify, verify_index
from ssna.cache.writer import SegmentWriter

__all__ = [
    "HASH_MEMORY",
    "MANIFEST",
    "STORED_DTYPES",
    "Cache",
    "CacheError",
    "Compaction",
    "DiskFullError",
    "Keys",
    "Manifest",
    "SegmentReport",
    "SegmentWriter",
    "Selection",
    "SsnaError",
    "StoredDtype",
    "ahead",
    "check_writable",
    "clean_name",
    "compact",
    "default_name",
    "find_cache",
    "fingerprint_of",
    "folder_name",
    "folders_below",
    "foreign_entries",
    "fsync_file",
    "fsync_folder",
    "keys_of_texts",
    "lock",
    "manifests_below",
    "read_manifest",
    "replacing",
    "resolve_cache_root",
    "row_bytes",
    "set_aside",
    "sha256_of_file",
    "sha256_of_files",
    "slices",
    "split_key",
    "sweep_leftovers",
    "telling_when_full",
    "temporary_sibling",
    "verify",
    "verify_index",
    "write_atomically",
]
