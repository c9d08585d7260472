"""What every request passes: who may ask, from where, how much; and errors as problem details (RFC 9457)."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError, WorkFailedError, visible
from nlpmeta.serve.batching import QueueFullError
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    from starlette.responses import Response

log = logging.getLogger("nlpmeta.serve")
TITLES = {
    400: "The request cannot be read", 401: "A token is needed", 403: "Not from this origin", 404: "Not found",
    405: "Not allowed here", 408: "The request took too long", 409: "Not possible with this model",
    413: "The request is too large", 415: "The request is not JSON", 421: "Not a name of this server",
    422: "A value cannot be used", 500: "The server failed", 503: "Too busy",
}  # fmt: skip
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/healthz", "/readyz")
"""What is answered without a token; so is the page, which holds nothing of anybody."""
_GUARDED = ("/v1/", "/metrics", "/openapi.json")
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """How large a request may be, and how much may wait.

    Args:
        body_bytes: of one request.
        body_seconds: in which it has to have arrived.
        texts: of one request.
        characters: of one text.
        kept_texts: unlabelled texts of a model.
        classes: of a model.
        examples: of a model.
        explained: texts that are explained in one request; each costs a pass for each of its words.
        waiting: texts in the queue.
    """

    body_bytes: int = 8 << 20
    body_seconds: float = 20.0
    texts: int = 2000
    characters: int = 20_000
    kept_texts: int = 20_000
    classes: int = 500
    examples: int = 20_000
    explained: int = 8
    waiting: int = 20_000


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """The digests of the tokens in a file, one a line.

    Raises:
        NLPMetaError: if there is none, or one can be guessed.
    """
    tokens = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not tokens:
        raise NLPMetaError(
            f"{path} holds no token. Make one with: python -c 'import secrets; print(secrets.token_hex())'"
        )
    if any(len(token) < _SHORTEST_TOKEN for token in tokens):
        raise NLPMetaError(f"A token in {path} has fewer than {_SHORTEST_TOKEN} characters.")
    return tuple(_digest(token) for token in tokens)


def problem(
    status: int, detail: str, *, errors: Sequence[Mapping[str, str]] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as RFC 9457 has it; ``errors`` name field and value."""
    content: dict[str, object] = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status}
    content |= {"detail": detail} | ({"errors": list(errors)} if errors else {})
    return JSONResponse(content, status, dict(headers or {}), media_type="application/problem+json")


class Refused(Exception):  # noqa: N818  # it is an answer
    """A request that is answered with a problem."""

    def __init__(self, status: int, detail: str, *, field: str = "", value: object = None) -> None:
        """Say what is wrong with the value of a field, if it is one that is wrong."""
        self.status, self.detail = status, detail
        self.errors = [{"field": field, "value": visible(str(value), 100), "detail": detail}] if field else []
        super().__init__(detail)


def add_problems(app: FastAPI) -> None:
    """Let every error be a problem; none says more of this machine than it must."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> "Response":
        return problem(error.status, error.detail, errors=error.errors)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> "Response":
        errors = [_named(each) for each in error.errors()[:20]]
        first = errors[0]
        return problem(
            422, f"{first['field']}: {first['detail']}" if first["field"] else first["detail"], errors=errors
        )

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> "Response":
        return problem(503, str(error), headers={"retry-after": str(error.seconds)})

    @app.exception_handler(NLPMetaError)
    async def known(_: Request, error: NLPMetaError) -> "Response":
        if isinstance(error, WorkFailedError):
            log.error("%s", error)  # it may name a path, which is nothing for a client
            return problem(500, "The work failed here; the log of the server says why.")
        if isinstance(error, UnknownNameError):
            errors = [{"field": error.kind, "value": visible(error.name, 100), "detail": str(error)}]
            return problem(404, str(error), errors=errors)
        return problem(422 if isinstance(error, DataError) else 409, str(error))

    @app.exception_handler(ModuleNotFoundError)
    async def absent(_: Request, error: ModuleNotFoundError) -> "Response":
        log.error("A request needs a package that is not installed: %s", error.name)
        return problem(409, "This server is installed without PyTorch: it answers by compiled models and cannot teach.")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> "Response":
        return problem(error.status_code, visible(str(error.detail)), headers=error.headers)

    @app.exception_handler(404)
    async def nothing(request: Request, _: Exception) -> "Response":
        return problem(404, f"There is nothing at {visible(request.url.path)}.")

    @app.exception_handler(405)
    async def method(request: Request, _: Exception) -> "Response":
        return problem(405, f"{visible(request.method, 20)} is not possible at {visible(request.url.path)}.")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> "Response":
        log.error("A request failed", exc_info=error)
        return problem(500, "The server failed; its log says why.")


def _named(error: Mapping[str, object]) -> dict[str, str]:
    """Field, value and detail of what pydantic found."""
    place = error.get("loc")
    parts = [str(part) for part in place] if isinstance(place, Sequence) else []
    where = ".".join(
        visible(part, 60) for part in (parts[1:] if parts[:1] in (["body"], ["path"], ["query"]) else parts)
    )
    value = error.get("input")
    shown = "" if isinstance(value, dict | list) else visible(str(value), 100)
    return {"field": where, "value": shown, "detail": visible(str(error.get("msg", "")), 200)}


class Guard:
    """Lets through what has a token, comes from no other site, is JSON, and is neither too large nor too slow."""

    def __init__(self, app: ASGIApp, *, limits: Limits, tokens: Sequence[bytes], hosts: Sequence[str]) -> None:
        """Stand before ``app``.

        Args:
            app: what answers.
            limits: of a request.
            tokens: digests of those that are accepted; none are needed if it is empty.
            hosts: the names by which the server may be asked; any if it is empty.
        """
        self._app, self._limits, self._tokens, self._hosts = app, limits, tuple(tokens), tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        api = str(scope["path"]).startswith(_GUARDED)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {**HEADERS, "cache-control": "no-store" if api else "no-cache"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in more.items())]
            await send(message)

        refused = self._refusal(scope, headers, api=api)
        if refused is None and scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
            body = await self._body(receive)
            if isinstance(body, bytes):
                await self._app(scope, _once(body, receive), sending)
                return
            refused = body
        if refused is not None:
            await refused(scope, receive, sending)
            return
        await self._app(scope, receive, sending)

    def _refusal(self, scope: Scope, headers: Mapping[str, str], *, api: bool) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            return problem(421, f"This server is not called {visible(host, 100)!r}.")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return problem(403, "Requests from pages of other origins are not answered.")
        if api and self._tokens and not self._is_known(headers.get("authorization", "")):
            detail = "Send the header Authorization: Bearer TOKEN with a token of this server."
            return problem(401, detail, headers={"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self._limits.body_bytes:
            return self._too_large()
        has_body = scope["method"] in ("POST", "PUT", "PATCH")
        if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(415, "Send JSON, with the header Content-Type: application/json.")
        return None

    def _is_known(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        found = [hmac.compare_digest(digest, known) for known in self._tokens]  # all of them, whichever it is
        return scheme.lower() == "bearer" and any(found)

    async def _body(self, receive: Receive) -> bytes | JSONResponse:
        try:
            return await asyncio.wait_for(self._arrived(receive), self._limits.body_seconds)
        except asyncio.TimeoutError:
            detail = f"The body did not arrive within {self._limits.body_seconds:g} s."
            return problem(408, detail, headers={"connection": "close"})

    async def _arrived(self, receive: Receive) -> bytes | JSONResponse:
        parts, size = list[bytes](), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return problem(400, "The request ended too early.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body_bytes:
                return self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> JSONResponse:
        return problem(413, f"A request may have {self._limits.body_bytes:,} bytes.", headers={"connection": "close"})


def _once(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then what else comes: that the client went away."""
    told = False

    async def receiving() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _netloc(url: str) -> str:
    """The host of an origin, empty if it has none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
