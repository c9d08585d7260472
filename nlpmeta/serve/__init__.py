"""``nlpmeta serve``: models over HTTP, and a page to teach them on."""

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from nlpmeta.encoder.engines import Engine, check_engine
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError, WorkFailedError, reason_of

try:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise NLPMetaError("Serving needs FastAPI, uvicorn and prometheus-client: pip install 'nlpmeta[serve]'") from error

from nlpmeta import __version__
from nlpmeta.serve.batching import Batcher
from nlpmeta.serve.guard import LOOPBACK, Guard, Limits, add_problems, problem
from nlpmeta.serve.light import saved_models
from nlpmeta.serve.models import Models
from nlpmeta.serve.routes import Service, router
from nlpmeta.serve.store import Store
from nlpmeta.storage.files import read_text
from nlpmeta.storage.manifest import named_checkpoint

if TYPE_CHECKING:
    from nlpmeta.learners.base import Learner

log = logging.getLogger("nlpmeta.serve")
TAUGHT = "taught.sqlite"
_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DRAIN = 30  # seconds that requests under way are waited for


@dataclass(frozen=True)
class Settings:
    """What is served, and how.

    Args:
        models: the folder whose saved models are served, and that keeps what is taught.
        folders: of further models.
        users: a file of users' heads, as ``AdapterStore`` has it.
        host: the address.
        port: the port; 0 takes a free one.
        tokens: digests of the tokens that are accepted (``guard.read_tokens``); none are asked for if it is empty.
        open_to_all: whether another address than loopback may do without tokens.
        engine: what embeds.
        device: where it runs.
        encoder: of new models.
        checkpoint: that new models start from.
        limits: of requests.
        cache_bytes: of embeddings that are kept in memory.
    """

    models: Path
    folders: tuple[Path, ...] = ()
    users: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    tokens: tuple[bytes, ...] = ()
    open_to_all: bool = False
    engine: Engine = "auto"
    device: str = "auto"
    encoder: str = DEFAULT_ENCODER
    checkpoint: str = "default"
    limits: Limits = field(default_factory=Limits)
    cache_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            NLPMetaError: if others could reach the server and no token is asked for, a folder is no model, or the
                file of users is not there.
        """
        check_engine(self.engine)
        if self.host not in LOOPBACK and not self.tokens and not self.open_to_all:
            raise NLPMetaError(
                f"{self.host} can be reached by others. Give --token-file FILE with a token a line, or --no-auth "
                "if whoever reaches it may read and teach the models."
            )
        if self.users is not None and not self.users.is_file():
            raise NLPMetaError(f"There is no file {self.users}; AdapterStore(FILE) makes one and adapts users' heads.")
        for folder in self.folders:
            if folder.name not in saved_models(folder.parent):
                raise NLPMetaError(f"{folder} is not the folder of a saved model; nlpmeta adapt --out makes one.")

    @property
    def named(self) -> dict[str, Path]:
        """The saved models, by the names of their folders."""
        return saved_models(self.models) | {folder.name: folder for folder in map(Path.absolute, self.folders)}


class Metrics:
    """What Prometheus collects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nlpmeta_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram("nlpmeta_request_seconds", "Seconds to an answer.", ["route"], registry=self.registry)
        self.texts = Counter("nlpmeta_texts", "Texts answered.", registry=self.registry)
        self.passes = Histogram(
            "nlpmeta_pass_requests",
            "Requests in a forward pass.",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.waiting = Gauge("nlpmeta_waiting_texts", "Texts that wait for a pass.", registry=self.registry)

    def on_pass(self, n_requests: int, n_texts: int, _: float) -> None:
        """Note a forward pass."""
        self.passes.observe(n_requests)
        self.texts.inc(n_texts)


class Measured:
    """Counts requests by route and status, and their seconds."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = str(getattr(scope.get("route"), "path", "other"))
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(perf_counter() - begun)


def create_app(settings: Settings, *, learner: "Learner | None" = None) -> FastAPI:
    """The application; it loads the encoder beside its first answers, and ``/readyz`` says when that is done.

    Args:
        settings: what is served.
        learner: what new models start from, if it is at hand.
    """

    def start() -> "Learner":
        from nlpmeta.learners.start import starting_learner

        return learner or starting_learner(
            "auto", encoder=settings.encoder, checkpoint=settings.checkpoint, device=settings.device
        )

    metrics = Metrics()
    store = Store(settings.models / TAUGHT)
    usual = learner is None and settings.encoder == DEFAULT_ENCODER and settings.checkpoint != "none"
    models = Models(
        settings.named, store, start, engine=settings.engine, device=settings.device, cache_bytes=settings.cache_bytes,
        checkpoint=named_checkpoint(settings.checkpoint) if usual else None,
    )  # fmt: skip
    batcher = Batcher(most_waiting=settings.limits.waiting, on_pass=metrics.on_pass)
    metrics.waiting.set_function(lambda: batcher.n_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service(models, batcher, settings.limits, None)
        threading.Thread(target=_load, args=(app, settings, models), daemon=True).start()
        yield
        batcher.close()
        models.close()

    app = FastAPI(
        title="nlpmeta", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Few-shot text classification: predict, classify by names alone, teach.",
    )  # fmt: skip
    app.state.ready = app.state.failed = False
    add_problems(app)
    import nlpmeta.serve.teaching  # noqa: F401  # its routes

    app.include_router(router)
    _add_pages(app, metrics)
    hosts = LOOPBACK if settings.host in LOOPBACK and not settings.tokens else ()
    app.add_middleware(Guard, limits=settings.limits, tokens=settings.tokens, hosts=hosts)
    app.add_middleware(Measured, metrics=metrics)
    return app


def _load(app: FastAPI, settings: Settings, models: Models) -> None:
    """Load what the first requests will want."""
    try:
        for folder in settings.folders:
            models.answering(folder.name)
        models.prepare(to_teach=False)
        if settings.users is not None:
            from nlpmeta.serve.learning import UsersHeads
            from nlpmeta.users import AdapterStore

            users = AdapterStore(settings.users, device=settings.device)
            app.state.service.users = UsersHeads(users, models.embedder_of(users.learner.encoder))
        app.state.ready = True
    except (NLPMetaError, OSError, RuntimeError, ImportError) as error:
        app.state.failed = True
        log.error("The models cannot be loaded: %s", error)


def _prepare_to_teach(models: Models) -> None:
    """Load PyTorch beside what is answered: whoever opens the page is about to teach. A fault shows then."""

    def work() -> None:
        with suppress(NLPMetaError, OSError, RuntimeError, ImportError):
            models.prepare()

    threading.Thread(target=work, daemon=True).start()


def _add_pages(app: FastAPI, metrics: Metrics) -> None:
    pages = {each.name: read_text(each) for each in _PAGE.iterdir() if each.suffix in _TYPES}

    def page(name: str) -> Response:
        return Response(pages[name], media_type=_TYPES[Path(name).suffix])

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        _prepare_to_teach(request.app.state.service.models)
        return page("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page("docs.html")

    @app.get("/page/state", include_in_schema=False)
    async def state(request: Request) -> Response:
        return JSONResponse({"ready": request.app.state.ready, "failed": request.app.state.failed})

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return page(name) if name in pages else problem(404, "The page has no such part.")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("ok")

    @app.get("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> Response:
        if request.app.state.ready:
            return PlainTextResponse("ready")
        failed = "The models cannot be loaded; the log says why." if request.app.state.failed else "Loading the models."
        return problem(503, failed, headers={"retry-after": "2"})

    @app.get("/metrics", include_in_schema=False)
    async def collected() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


def serve(settings: Settings, *, on_address: Callable[[str], object] | None = None) -> None:
    """Serve until a signal asks for the end; what is under way is answered first.

    Args:
        settings: what is served.
        on_address: told where, once requests are taken.

    Raises:
        WorkFailedError: if the address cannot be used.
    """
    import uvicorn

    config = uvicorn.Config(
        create_app(settings), host=settings.host, port=settings.port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=_DRAIN, server_header=False, h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
    try:
        socket = config.bind_socket()
    except (OSError, SystemExit) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is in use or not of this machine"
        raise WorkFailedError(f"{settings.host}:{settings.port} cannot be served on: {reason}.") from error
    socket.listen(config.backlog)  # who comes at once waits for the first answer and is not turned away
    if on_address is not None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        on_address(f"http://{host}:{socket.getsockname()[1]}")
    uvicorn.Server(config).run([socket])
