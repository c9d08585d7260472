"""Predictions over HTTP: what a request may hold, who answers it, and how an answer looks."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from nlpmeta.data.labels import words_of
from nlpmeta.errors import UnknownUserError
from nlpmeta.serve.batching import Batcher, Target
from nlpmeta.serve.guard import Limits, Refused
from nlpmeta.serve.light import LightServed
from nlpmeta.serve.models import Models

if TYPE_CHECKING:
    from nlpmeta.serve.learning import Served, UsersHeads

T = TypeVar("T")
UNSURE = 0.5
"""The probability below which a label counts as unsure where label sets are not known."""
MOST_TEXTS, _MOST_CHARACTERS = 20_000, 20_000  # of the schema; the limits of the server may be lower

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
Description = Annotated[str, StringConstraints(max_length=2000)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=_MOST_CHARACTERS, pattern=r"\S")]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
Coverage = Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False)]


class Body(BaseModel):
    """A request: unknown fields are refused, so that a typing error is not an option that is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PredictBody(Body):
    """Texts to label."""

    texts: Texts
    top: Annotated[int, Field(ge=1, le=1000)] = 1
    abstain: Coverage | None = None
    why: bool = False
    user: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class ClassifyBody(Body):
    """Texts to label by the names and descriptions of labels alone."""

    texts: Texts
    labels: Annotated[list[Label], Field(min_length=2, max_length=1000)]
    descriptions: dict[Label, Description] = {}
    top: Annotated[int, Field(ge=1, le=1000)] = 1
    abstain: Coverage | None = None


class Service:
    """What the routes work with."""

    def __init__(self, models: Models, batcher: Batcher, limits: Limits, users: "UsersHeads | None") -> None:
        self.models, self.batcher, self.limits, self.users = models, batcher, limits, users

    async def answers(self, request: Request, target: Target, texts: list[str], owner: str = "") -> list[object]:
        """The answers of a model, together with what others ask at the time; nothing is computed for who went away."""
        job = self.batcher.submit(target, texts, owner)
        answered: asyncio.Future[list[object]] = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_gone(request))
        waited: set[asyncio.Future[object]] = {answered, gone}  # type: ignore[arg-type]  # futures are invariant
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise Refused(400, "The client went away.")
            return answered.result()
        finally:
            answered.cancel()
            gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """The service of the application."""
    found: Service = request.app.state.service
    return found


ForService = Annotated[Service, Depends(service_of)]
ModelName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The name of a model.")]
router = APIRouter(prefix="/v1")


def within(limit: int, given: int, field: str) -> None:
    """Refuse more than the limit."""
    if given > limit:
        raise Refused(413, f"{field}: at most {limit:,} are taken at a time.", field=field, value=given)


def check_texts(texts: list[str], limits: Limits) -> None:
    """Refuse too many texts, and too long ones."""
    within(limits.texts, len(texts), "texts")
    longest = max(map(len, texts))
    if longest > limits.characters:
        raise Refused(413, f"texts: a text may have {limits.characters:,} characters.", field="texts", value=longest)


async def away(work: Callable[[], T]) -> T:
    """Work that takes time or waits for the disk, in a thread of its own."""
    return await asyncio.to_thread(work)


@router.post("/models/{name}/predict")
async def predict(request: Request, name: ModelName, body: PredictBody, service: ForService) -> JSONResponse:
    """Labels and probabilities of texts by a model, or by the head of a user."""
    check_texts(body.texts, service.limits)
    if body.user is not None:
        return await _predict_for_user(request, name, body, service)
    full = body.why or body.abstain is not None
    served = service.models.loaded(name, full=full)
    if served is None:
        served = await away(lambda: service.models.answering(name, full=full))
    if body.why:
        within(service.limits.explained, len(body.texts), "texts")
    rows = await service.answers(request, served, body.texts)
    found = _answers(served, rows, top=body.top, abstain=body.abstain)
    if body.why:
        for each, text in zip(found, body.texts, strict=True):
            each["why"] = await asyncio.to_thread(_explained, served, text)
    return JSONResponse({"model": name, "version": served.version, "answers": found})


def _explained(served: "Served | LightServed", text: str) -> object:
    from nlpmeta.classifier.explaining import explain

    assert not isinstance(served, LightServed)  # noqa: S101  # reasons are requested of models that are loaded in full
    with served.embedder.embedding():
        return explain(served.fitted, text).json()


async def _predict_for_user(request: Request, name: str, body: PredictBody, service: Service) -> JSONResponse:
    from nlpmeta.users import Scored

    heads, user = service.users, str(body.user)
    if heads is None or name != "users":
        raise Refused(409, "Heads of users are asked as the model 'users', of a server started with --users.")
    if body.why or body.abstain is not None:
        raise Refused(422, "user goes without why and abstain.", field="user", value=user)
    if not await away(lambda: user in heads.store):
        raise UnknownUserError(user)
    rows = await service.answers(request, heads, body.texts, user)
    answers = list[dict[str, object]]()
    for row in rows:
        assert isinstance(row, Scored)  # noqa: S101  # what UsersHeads gives
        order = np.argsort(-np.asarray(row.probabilities), kind="stable")[: body.top].tolist()
        top = [{"label": str(row.labels[i]), "probability": round(row.probabilities[i], 6)} for i in order]
        answers.append({**top[0], "top": top, "unsure": row.probability < UNSURE})
    return JSONResponse({"model": name, "user": user, "answers": answers})


@router.post("/classify")
async def classify(request: Request, body: ClassifyBody, service: ForService) -> JSONResponse:
    """Labels and probabilities of texts from the names of the labels: no model, no example."""
    check_texts(body.texts, service.limits)
    within(service.limits.classes, len(body.labels), "labels")
    for label, n in ((label, body.labels.count(label)) for label in body.labels):
        if n > 1:
            raise Refused(422, f"labels: {label!r} is there {n} times.", field="labels", value=label)
    for label in body.descriptions:
        if label not in body.labels:
            raise Refused(422, "descriptions: it is none of the labels.", field="descriptions", value=label)
    described = dict.fromkeys(body.labels, "") | body.descriptions
    served = await away(lambda: service.models.zero_shot(described, full=body.abstain is not None))
    rows = await service.answers(request, served, body.texts)
    return JSONResponse({"answers": _answers(served, rows, top=body.top, abstain=body.abstain)})


def _answers(
    served: "Served | LightServed", rows: list[object], *, top: int, abstain: float | None
) -> list[dict[str, object]]:
    """For each text its label, the most probable ones, and whether the model is unsure."""
    read, names = served.read(rows, abstain), words_of(served.classes)
    found = list[dict[str, object]]()
    for place, row in enumerate(read.probabilities):
        order = np.argsort(-row, kind="stable")[:top].tolist()
        best = [{"label": names[i], "probability": round(float(row[i]), 6)} for i in order]
        each: dict[str, object] = {**best[0], "top": best, "unsure": bool(row.max() < UNSURE)}
        if read.least is not None:
            each["labels"] = [names[i] for i in np.flatnonzero(row >= read.least).tolist()]
            each["unsure"] = False
        elif read.sets is not None:
            each |= {"labels": list(read.sets[place].labels), "unsure": read.sets[place].label is None}
        found.append(each)
    return found
