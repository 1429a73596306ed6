"""The HTTP service of a run (docs/serving.md): what it answers, and what it refuses."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made here.

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Annotated, Any, Literal

import polars as pl
import torch
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor
from torch.nn import functional

from ssna import __version__
from ssna.api.recommend import Item, Recommendation, ScoredItem, described_items, recommendation_of, scored_items
from ssna.columns import ITEM, TITLE
from ssna.content_security import source_hash
from ssna.errors import RunError
from ssna.runs import Run
from ssna.stage2_adapt import SequenceRecommender, nearest_items, top_items

MOST_ITEMS = 100
"""k, at most"""
LONGEST_HISTORY = 1000
LONGEST_ID = 256
"""Characters of an id or of a search"""
LARGEST_BODY = 512 * 1024
"""Bytes; more than a history of that many ids takes, of which few letters are escaped"""

_SHOWN_MISTAKES = 3
_SHOWN_LETTERS = 60
_BODY = 'an object such as {"history": ["50"], "k": 10}'
_AN_ID = f"a text of 1 to {LONGEST_ID} characters"
_EXPECTED = {
    "user": _AN_ID,
    "item": _AN_ID,
    "history": f"a list of at most {LONGEST_HISTORY:,} item ids, oldest first",
    "k": f"a whole number from 1 to {MOST_ITEMS}",
    "allow_repeats": "true or false",
    "query": f"a text of at most {LONGEST_ID} characters",
}
"""Of each field that a request may have"""

_Id = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]
_K = Annotated[int, Field(ge=1, le=MOST_ITEMS, description="How many items.")]


class RecommendRequest(BaseModel):
    """For whom, and how many."""

    model_config = ConfigDict(extra="forbid")

    user: _Id | None = Field(None, description="A user of the run. Either this or a history.")
    history: list[_Id] = Field([], max_length=LONGEST_HISTORY, description="Item ids, oldest first.")
    k: _K = 10
    allow_repeats: bool = Field(False, description="Whether items of the history may be recommended again.")


@dataclass(frozen=True)
class Similar:
    """The items most like one."""

    item: Item
    items: list[ScoredItem]
    """By cosine of their embeddings, most alike first"""


@dataclass(frozen=True)
class Health:
    """What is served."""

    status: Literal["ok"]
    ssna: str
    model: str
    items: int
    users: int


class Catalogue:
    """A run, and what is computed once for all requests."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device = run, device
        self.searched = run.items.select(pl.col(TITLE).str.to_lowercase())
        self.number_of = {item: number for number, item in enumerate(run.items[ITEM], start=1)}
        self.unit_vectors: Tensor | None = None  # (N + 1, d); a popularity run has none.
        with torch.no_grad():
            self.candidates = run.recommender.candidates()
            if isinstance(run.recommender, SequenceRecommender):
                self.unit_vectors = functional.normalize(run.recommender.item_embeddings, dim=1)

    def items(self, numbers: Sequence[int]) -> list[Item]:
        """The items with these indices, from 1."""
        return [Item(*item) for item in described_items(self.run, numbers)]

    def number(self, item: str) -> int:
        """An item's index, from 1; an unknown one ends the request."""
        if item not in self.number_of:
            raise HTTPException(404, f"there is no item '{item}'; /items finds items by their titles")
        return self.number_of[item]

    def history(self, request: RecommendRequest) -> list[int]:
        """Item indices, oldest first; an unknown user or item ends the request."""
        if (request.user is None) == (not request.history):
            found = "neither" if request.user is None else "both"
            raise HTTPException(422, f"expected a user or a history, found {found}; give one of them")
        if request.user is None:
            return [self.number(item) for item in request.history]
        try:
            return self.run.history_of(request.user)
        except RunError as error:  # Its own text names the folder, which is nobody's business here.
            raise HTTPException(404, f"there is no user '{request.user}'; give a history instead") from error

    def recommend(self, request: RecommendRequest) -> Recommendation:
        """As `ssna.recommend`, with no more than the last items of a user's history in the answer."""
        history = self.history(request)
        model = self.run.recommender
        best = top_items(model, history, request.k, self.device, request.allow_repeats, self.candidates)
        answer = recommendation_of(self.run, history, *best)
        return replace(answer, history=answer.history[-LONGEST_HISTORY:])

    def similar(self, item: str, k: int) -> Similar:
        """The k items whose embeddings have the greatest cosine with an item's, without itself."""
        number = self.number(item)
        if self.unit_vectors is None:
            raise HTTPException(409, "this run is a popularity baseline, whose items have no embeddings")
        if not self.unit_vectors[number].any():
            raise HTTPException(409, f"this run learned IDs only, and the item '{item}' does not occur in training")
        (itself,) = self.items([number])
        return Similar(itself, scored_items(self.run, *nearest_items(self.unit_vectors, number, k)))

    def search(self, query: str, k: int) -> list[Item]:
        """The first k items whose titles hold the query, those that begin with it first."""
        title, wanted = pl.col(TITLE), query.strip().lower()
        found = (
            self.searched.with_row_index("row")
            .filter(title.str.contains(wanted, literal=True))
            .sort(title.str.starts_with(wanted), descending=True, maintain_order=True)
            .head(k)
        )
        return self.items((found["row"] + 1).to_list())


def make_service(run: Run, device: torch.device, hosts: Collection[str] | None = None) -> FastAPI:
    """The service of a run, whose recommender is on the device.

    Args:
        run: what is served.
        device: of the run.
        hosts: names under which it is asked, in lower case and without a port; None means any.
    """
    catalogue = Catalogue(run, device)
    demo = (files("ssna") / "demo.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _policy_of(demo), "X-Content-Type-Options": "nosniff"}
    service: FastAPI = FastAPIOffline(
        title="ssna",
        version=__version__,
        description="Recommendations from one run folder.",
        redoc_url=None,
        responses={} if hosts is None else _responses(421),
    )
    service.add_middleware(_BodyLimit)
    if hosts is not None:
        service.add_middleware(_HostCheck, hosts=hosts)
    service.add_exception_handler(RequestValidationError, _refuse)
    service.add_exception_handler(400, _refuse_unreadable)

    @service.get("/", include_in_schema=False, response_class=HTMLResponse)
    def page() -> HTMLResponse:
        return HTMLResponse(demo, headers=headers)

    @service.get("/health")
    def health() -> Health:
        """What is served."""
        return Health("ok", __version__, run.options.model, len(run.items), len(run.user_ids))

    @service.post("/recommend", responses=_responses(400, 404, 413, 422))
    def recommend(request: RecommendRequest) -> Recommendation:
        """The items that come next for a user, or for a history."""
        return catalogue.recommend(request)

    @service.get("/recommend", responses=_responses(404, 422))
    def recommend_by_query(request: Annotated[RecommendRequest, Query()]) -> Recommendation:
        """The same, for short histories: `history` is repeated."""
        return catalogue.recommend(request)

    @service.get("/similar", responses=_responses(404, 409, 422))
    def similar(item: _Id, k: _K = 10) -> Similar:
        """The items most like an item, by the cosine of their embeddings."""
        return catalogue.similar(item, k)

    @service.get("/items", responses=_responses(422))
    def items(query: Annotated[str, Query(max_length=LONGEST_ID)] = "", k: _K = 20) -> list[Item]:
        """Items whose titles hold the query, in upper or lower case."""
        return catalogue.search(query, k)

    return service


def _policy_of(page: str) -> str:
    """What a browser may do for the page: run its own script and style, ask this service, and show it in no frame."""
    hashes = dict[str, str]()
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        hashes[element] = source_hash(content)
    return (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class _Refusal(BaseModel):
    detail: str


def _refuse(request: Request, error: Exception) -> JSONResponse:
    """One sentence for each of the first things that are wrong; FastAPI's own answer repeats the whole request."""
    assert isinstance(error, RequestValidationError)
    mistakes = error.errors()
    said = [_sentence(each, request.headers.get("content-type")) for each in mistakes[:_SHOWN_MISTAKES]]
    if (more := len(mistakes) - len(said)) > 0:
        said.append(f"There {'is' if more == 1 else 'are'} {more:,} more like {'this' if more == 1 else 'these'}.")
    return JSONResponse({"detail": " ".join(said)}, status_code=422)


def _refuse_unreadable(request: Request, error: Exception) -> JSONResponse:
    """Of a body that is not even text, or nested too deeply; only FastAPI gives this status."""
    return JSONResponse({"detail": f"the body cannot be read as JSON in UTF-8: give {_BODY}."}, status_code=400)


def _sentence(mistake: Mapping[str, Any], content_type: str | None) -> str:
    """What is wrong with one part of a request, and what to give instead."""
    kind, (where, *place), found = mistake["type"], mistake["loc"], mistake["input"]
    if where == "body" and (kind == "json_invalid" or not place):
        if not re.fullmatch(r"application/(.+\+)?json", (content_type or "").partition(";")[0].strip().lower()):
            sent = "without a Content-Type" if content_type is None else f"with the Content-Type {_shown(content_type)}"
            return f"the body is sent {sent}: send it with application/json, as {_BODY}."
        if kind == "json_invalid":
            return f"the body is no JSON ({mistake['ctx']['error']} after {place[0]} characters): give {_BODY}."
        return f"the body is {'empty' if kind == 'missing' else _shown(found)}: give {_BODY}."
    field, *numbers = place
    if kind == "extra_forbidden":
        known = ", ".join(RecommendRequest.model_fields)
        return f"there is no field {_shown(field)}, only {known}: leave it out, or correct its name."
    expected = _AN_ID if numbers else _EXPECTED[field]
    if kind == "string_type" and isinstance(found, int) and not isinstance(found, bool):
        expected += f', such as "{found}"'
    name = f"item {numbers[0] + 1} of the {field}" if numbers else field
    return f"{name} is {'missing' if kind == 'missing' else _shown(found)}: give {expected}."


def _shown(value: Any) -> str:
    """A part of a request as its sender knows it, never long."""
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str) and len(value) > _SHOWN_LETTERS:
        return f"a text of {len(value):,} characters"
    # Half of a surrogate pair could not be sent back as it is.
    written = json.dumps(value, default=str, ensure_ascii=False).encode(errors="backslashreplace").decode()
    return written if len(written) <= 2 * _SHOWN_LETTERS else f"{written[:_SHOWN_LETTERS]}…"


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "The body is not UTF-8, or nested too deeply",
        404: "There is no such user or item",
        409: "The run's items have no embeddings",
        413: f"The body has more than {LARGEST_BODY} bytes",
        421: "The request is for a host that is not served",
        422: "The request is not as described",
    }
    return {status: {"model": _Refusal, "description": said[status]} for status in statuses}


class _HostCheck:
    """Refuses requests for other hosts.

    Else a stranger's page, whose own name is made to mean this machine once it is loaded (DNS rebinding), could ask a
    service that answers this machine alone, and read the answers.
    """

    # Not starlette's TrustedHostMiddleware: it does not say what to do, and older ones take no IPv6 address.
    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if re.sub(r":\d*$", "", host).lower() not in self.hosts:
                detail = (
                    f"the request is for the host {_shown(host)}, and this machine alone is answered, as "
                    f"{', '.join(self.hosts)}: ask for one of these, or start `ssna serve` with another --host."
                )
                await JSONResponse({"detail": detail}, status_code=421)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class _BodyLimit:
    """Refuses larger bodies, as they are announced or as they come, before anything reads them whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = JSONResponse({"detail": f"the body has more than {LARGEST_BODY} bytes"}, status_code=413)
        announced = Headers(scope=scope).get("content-length", "0")
        if not re.fullmatch("[0-9]{1,12}", announced) or int(announced) > LARGEST_BODY:
            await refusal(scope, receive, send)
            return
        messages, length, more = list[Message](), 0, True
        while more:  # A body without a length is read here, up to the limit.
            message = await receive()
            messages.append(message)
            length += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
            if length > LARGEST_BODY:
                await refusal(scope, receive, send)
                return
        waiting = iter(messages)

        async def again() -> Message:
            return next(waiting, None) or await receive()

        await self.app(scope, again, send)
