"""The HTTP service of a run (docs/serving.md): what it answers, and what it refuses."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made here.

import re
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
from ssna.api.recommend import Item, Recommendation, ScoredItem, recommendation_of
from ssna.columns import ITEM, TITLE
from ssna.runs import Run
from ssna.stage2_adapt import SequenceRecommender, top_items

MOST_ITEMS = 100
"""k, at most"""
LONGEST_HISTORY = 1000
LONGEST_ID = 256
"""Characters of an id or of a search"""
LARGEST_BODY = 512 * 1024
"""Bytes; more than a history of that many ids takes, of which few letters are escaped"""

_SHOWN_MISTAKES = 3

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
        self.ids: list[str] = run.items[ITEM].to_list()
        self.titles: list[str] = run.items[TITLE].to_list()
        self.searched = run.items.select(pl.col(TITLE).str.to_lowercase())
        self.number_of = {item: number for number, item in enumerate(self.ids, start=1)}
        self.embeddings: Tensor | None = None  # (N, d), of length one; a popularity run has none.
        with torch.no_grad():
            self.candidates = run.recommender.candidates()
            if isinstance(run.recommender, SequenceRecommender):
                self.embeddings = functional.normalize(run.recommender.item_embeddings[1:], dim=1)

    def item(self, number: int) -> Item:
        """The item with an index, from 1."""
        return Item(self.ids[number - 1], self.titles[number - 1])

    def scored(self, numbers: list[int], scores: list[float]) -> list[ScoredItem]:
        """Items with these indices, from 1."""
        pairs = zip(numbers, scores, strict=True)
        return [ScoredItem(self.ids[number - 1], self.titles[number - 1], score) for number, score in pairs]

    def number(self, item: str) -> int:
        """An item's index, from 1; an unknown one ends the request."""
        if item not in self.number_of:
            raise HTTPException(404, f"there is no item '{item}'; /items finds items by their titles")
        return self.number_of[item]

    def history(self, request: RecommendRequest) -> list[int]:
        """Item indices, oldest first; an unknown user or item ends the request."""
        if (request.user is None) == (not request.history):
            found = "neither" if request.user is None else "both"
            raise HTTPException(422, f"expected a user or a history, found {found}")
        if request.user is None:
            return [self.number(item) for item in request.history]
        place = self.run.user_ids.index_of(request.user)
        if place is None:
            raise HTTPException(404, f"there is no user '{request.user}'")
        start, end = self.run.sequences.starts[place : place + 2]
        history: list[int] = self.run.sequences.items[start:end].tolist()
        return history

    def recommend(self, request: RecommendRequest) -> Recommendation:
        """As `ssna.recommend`, with no more than the last items of a user's history in the answer."""
        history = self.history(request)
        model = self.run.recommender
        best = top_items(model, history, request.k, self.device, request.allow_repeats, self.candidates)
        answer = recommendation_of(self.run, history, *best)
        return replace(answer, history=answer.history[-LONGEST_HISTORY:])

    @torch.no_grad()
    def similar(self, item: str, k: int) -> Similar:
        """The k items whose embeddings have the greatest cosine with an item's, without itself."""
        number = self.number(item)
        if self.embeddings is None:
            raise HTTPException(409, "this run is a popularity baseline, whose items have no embeddings")
        if not self.embeddings[number - 1].any():
            raise HTTPException(409, f"this run learned IDs only, and the item '{item}' does not occur in training")
        cosines = self.embeddings @ self.embeddings[number - 1]  # (N,)
        cosines[number - 1] = -torch.inf
        best = cosines.topk(min(k, len(cosines) - 1))
        return Similar(self.item(number), self.scored((best.indices + 1).tolist(), best.values.tolist()))

    def search(self, query: str, k: int) -> list[Item]:
        """The first k items whose titles hold the query, those that begin with it first."""
        title, wanted = pl.col(TITLE), query.strip().lower()
        found = (
            self.searched.with_row_index("row")
            .filter(title.str.contains(wanted, literal=True))
            .sort(title.str.starts_with(wanted), descending=True, maintain_order=True)
            .head(k)
        )
        return [self.item(row + 1) for row in found["row"]]


def make_service(run: Run, device: torch.device) -> FastAPI:
    """The service of a run, whose recommender is on the device."""
    catalogue = Catalogue(run, device)
    demo = (files("ssna") / "demo.html").read_text(encoding="utf-8")
    service: FastAPI = FastAPIOffline(
        title="ssna", version=__version__, description="Recommendations from one run folder.", redoc_url=None
    )
    service.add_middleware(_BodyLimit)
    service.add_exception_handler(RequestValidationError, _refuse)

    @service.get("/", include_in_schema=False, response_class=HTMLResponse)
    def page() -> str:
        return demo

    @service.get("/health")
    def health() -> Health:
        """What is served."""
        return Health("ok", __version__, run.options.model, len(run.items), len(run.user_ids))

    @service.post("/recommend", responses=_responses(404, 413, 422))
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


class _Refusal(BaseModel):
    detail: str


def _refuse(request: Request, error: Exception) -> JSONResponse:
    """One sentence for each of the first things that are wrong; FastAPI's own answer repeats the whole request."""
    assert isinstance(error, RequestValidationError)
    wrong = [
        f"{'.'.join(str(part) for part in found['loc'][1:]) or 'the body'}: {found['msg']}"
        for found in error.errors()[:_SHOWN_MISTAKES]
    ]
    return JSONResponse({"detail": "; ".join(wrong)}, status_code=422)


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        404: "There is no such user or item",
        409: "The run's items have no embeddings",
        413: f"The body has more than {LARGEST_BODY} bytes",
        422: "The request is not as described",
    }
    return {status: {"model": _Refusal, "description": said[status]} for status in statuses}


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
