"""How a Content-Security-Policy names an inline script or style that a browser may run or apply."""

from __future__ import annotations

import base64
import hashlib


def source_hash(content: str) -> str:
    """Of what stands between the tags, as it goes between quotes: sha256-, and the SHA-256 in base64."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
