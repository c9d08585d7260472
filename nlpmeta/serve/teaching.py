"""Models over HTTP: made, taught, looked at, undone and taken along."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi.responses import JSONResponse, Response
from pydantic import Field

from nlpmeta.data.labels import words_of
from nlpmeta.serve.guard import Limits, Refused
from nlpmeta.serve.models import Models
from nlpmeta.serve.routes import (
    MOST_TEXTS,
    Body,
    Description,
    ForService,
    Label,
    ModelName,
    Name,
    Text,
    Texts,
    away,
    check_texts,
    router,
    within,
)
from nlpmeta.serve.store import Changed

_WAIT_FOR_REFIT = 0.4  # seconds; the examples are on disk and confirmed whether it is done or not


class ExampleBody(Body):
    """A text and its label."""

    text: Text
    label: Label


class ClassBody(Body):
    """A class, and what is said of it."""

    label: Label
    description: Description = ""


class TeachBody(Body):
    """Examples and classes to learn; new classes are allowed, and a known text gets the label that it has here."""

    examples: Annotated[list[ExampleBody], Field(max_length=MOST_TEXTS)] = []
    classes: Annotated[list[ClassBody], Field(max_length=1000)] = []


class CreateBody(TeachBody):
    """A new model: classes by name and description, examples, or both."""

    name: Name


class TextsBody(Body):
    """Unlabelled texts that are kept with a model."""

    texts: Annotated[list[Text], Field(max_length=MOST_TEXTS)]


class SuggestBody(Body):
    """Unlabelled texts among which to look; without them those that are kept with the model."""

    texts: Texts | None = None
    most: Annotated[int, Field(ge=1, le=100)] = 10


@router.get("/models")
async def models(service: ForService) -> JSONResponse:
    """The models, by name."""
    names = await away(service.models.names)
    found = [await away(lambda name=name: _summary(service.models, name)) for name in names]  # type: ignore[misc]
    return JSONResponse({"models": found, "users": service.users is not None})


def _summary(models: Models, name: str) -> dict[str, object]:
    taught = name in models.store.names()
    found: dict[str, object] = {"name": name, "taught": taught}
    if taught:
        known = models.store.known(name)
        found |= {"version": known.version, "classes": len(known.classes), "examples": len(known.examples)}
    return found


@router.post("/models", status_code=201)
async def create(body: CreateBody, service: ForService) -> JSONResponse:
    """A new model of classes in words, of examples, or of both."""
    pairs, classes = _given(body, service.limits)
    await away(lambda: service.models.create(body.name, classes, pairs))
    headers = {"location": f"/v1/models/{body.name}"}
    return JSONResponse(await away(lambda: _model(service.models, body.name)), 201, headers)


@router.get("/models/{name}")
async def model(name: ModelName, service: ForService) -> JSONResponse:
    """Classes, examples and learning curve of a model."""
    return JSONResponse(await away(lambda: _model(service.models, name)))


def _model(models: Models, name: str) -> dict[str, object]:
    served = models.get(name)
    found: dict[str, object] = {"name": name, "version": served.version, "learning": False}
    if name not in models.store.names():
        said = served.fitted.descriptions
        classes = zip(words_of(served.fitted.classes), served.fitted.classes.tolist(), strict=True)
        described = [{"label": word, "description": ". ".join(said.get(label, ()))} for word, label in classes]
        return found | {"taught": False, "classes": described, "examples": [], "curve": [], "changes": 0}
    known = models.store.known(name)
    counts = dict.fromkeys(known.classes, 0)
    for example in known.examples:
        counts[example.label] += 1
    classes_now = [
        {"label": label, "description": said, "examples": counts[label]} for label, said in known.classes.items()
    ]
    points = models.store.curve(name)
    curve = [{"examples": each.examples, "held_out": each.held_out, "correct": each.correct} for each in points]
    examples = [{"id": each.id, "text": each.text, "label": each.label} for each in known.examples]
    found |= {"taught": True, "classes": classes_now, "examples": examples, "curve": curve, "changes": known.changes}
    failed = models.problems.get(name)
    return found | {"learning": served.version < known.version and not failed} | ({"problem": failed} if failed else {})


@router.delete("/models/{name}", status_code=204)
async def delete(name: ModelName, service: ForService) -> Response:
    """Forget what a model was taught here; a saved model stays as it is in its folder."""
    await away(lambda: service.models.delete(name))
    return Response(status_code=204)


@router.post("/models/{name}/examples")
async def teach(name: ModelName, body: TeachBody, service: ForService) -> JSONResponse:
    """Teach examples and classes: they are on disk when this answers, and the model learns them beside its work."""
    pairs, classes = _given(body, service.limits)
    changed = await away(lambda: service.models.teach(name, pairs, classes))
    answer = {
        "version": changed.version,
        "added": [{"id": each.id, "text": each.text, "label": each.label} for each in changed.added],
        "replaced": [{"id": each.id, "text": each.text, "label": each.label} for each in changed.replaced],
        "new_classes": list(changed.new_classes),
        "known": changed.known,
    }
    return JSONResponse({**answer, "learned": await _learned(service.models, name)})


def _given(body: TeachBody, limits: Limits) -> tuple[list[tuple[str, str]], dict[str, str]]:
    within(limits.examples, len(body.examples), "examples")
    classes = {each.label: each.description.strip() for each in body.classes}
    pairs = [(each.text, each.label) for each in body.examples]
    within(limits.classes, len({*classes, *(label for _, label in pairs)}), "classes")
    if not pairs and not classes:
        raise Refused(422, "Give examples, classes, or both.", field="examples", value="[]")
    return pairs, classes


async def _learned(models: Models, name: str) -> bool:
    """Whether the model has learned a change already; it goes on learning otherwise."""
    refit = asyncio.wrap_future(models.refit(name))
    try:
        await asyncio.wait_for(asyncio.shield(refit), _WAIT_FOR_REFIT)
    except asyncio.TimeoutError:
        refit.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is told in GET
        return False
    return True


@router.delete("/models/{name}/examples/{number}")
async def remove_example(name: ModelName, number: int, service: ForService) -> JSONResponse:
    """Take an example away."""
    return await _changed(service.models, name, lambda: service.models.store.remove_example(name, number))


@router.delete("/models/{name}/classes/{label:path}")
async def remove_class(name: ModelName, label: str, service: ForService) -> JSONResponse:
    """Take a class and its examples away."""
    return await _changed(service.models, name, lambda: service.models.store.remove_class(name, label))


@router.post("/models/{name}/undo")
async def undo(name: ModelName, service: ForService) -> JSONResponse:
    """Take the last change back."""
    return await _changed(service.models, name, lambda: service.models.store.undo(name))


async def _changed(models: Models, name: str, work: Callable[[], Changed]) -> JSONResponse:
    changed = await away(lambda: models.change(name, work))
    return JSONResponse({"version": changed.version, "learned": await _learned(models, name)})


@router.get("/models/{name}/report")
async def report(name: ModelName, service: ForService) -> JSONResponse:
    """Accuracy by cross-validation, classes that are confused, labels that are probably wrong."""
    await away(lambda: service.models.get(name))
    found = await asyncio.wrap_future(service.models.report(name))
    confused = [{"label": label, "predicted": rather, "examples": n} for label, rather, n in found.confused]
    wrong = [
        {"text": each.text, "label": each.label, "probability": each.probability, "rather": each.rather}
        for each in found.suspects
    ]
    accuracy = {"accuracy": found.accuracy, "held_out": found.held_out, "correct": found.correct}
    return JSONResponse({"version": found.version, **accuracy, "confused": confused, "suspects": wrong})


@router.get("/models/{name}/texts")
async def kept_texts(name: ModelName, service: ForService) -> JSONResponse:
    """The unlabelled texts that are kept with a model."""
    await away(lambda: service.models.get(name))
    return JSONResponse({"texts": await away(lambda: service.models.store.texts(name))})


@router.put("/models/{name}/texts")
async def keep_texts(name: ModelName, body: TextsBody, service: ForService) -> JSONResponse:
    """Keep unlabelled texts with a model, in place of those that were kept before."""
    within(service.limits.kept_texts, len(body.texts), "texts")
    texts = list(dict.fromkeys(body.texts))
    await away(lambda: service.models.keep_texts(name, texts))
    return JSONResponse({"kept": len(texts)})


@router.post("/models/{name}/suggest")
async def suggest(name: ModelName, body: SuggestBody, service: ForService) -> JSONResponse:
    """Which unlabelled texts to label next: those of which the model is unsure, and that differ from one another."""
    if body.texts is not None:
        check_texts(body.texts, service.limits)
    texts, places = await away(lambda: service.models.suggest(name, body.texts, most=body.most))
    return JSONResponse({"suggestions": [{"place": place, "text": texts[place]} for place in places]})


@router.get("/models/{name}/download")
async def download(name: ModelName, service: ForService) -> Response:
    """The saved model as a zip file of its folder, examples included."""
    content = await away(lambda: service.models.archive(name))
    headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
    return Response(content, media_type="application/zip", headers=headers)
