"""What the server makes of its engine: 64 clients in a closed loop, against the bulk rate in the same process.

python benchmarks/serve.py                      # make bench-serve: 60 s of predictions, 1,000 examples taught
python benchmarks/serve.py --seconds 10 --teach 50
python benchmarks/serve.py --requests 100000    # memory over so many requests
python benchmarks/serve.py --kills 20           # what was confirmed is there after each kill of the server

Clients are coroutines of another process, so that they take no time of the server's interpreter. Every text is another
one, so that no embedding is found in the server's memory, except with --requests, whose texts are few, so that the
requests are many. Texts are of mixed length: one to four sentences.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
import torch
import uvicorn

from nlpmeta.serve import Settings, create_app
from nlpmeta.serve.learning import Embedder
from nlpmeta.sources.home_assistant import StarterIntents

CLIENTS, MOST_LOOKED_AT = 64, 400
LABELS = ("alarm", "music", "weather", "lights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--teach", type=int, default=1000, help="examples taught one by one while others predict")
    parser.add_argument("--engine", default="auto", choices=["auto", "torch", "onnx", "onnx-int8"])
    parser.add_argument("--requests", type=int, default=0, help="measure memory over this many requests instead")
    parser.add_argument("--kills", type=int, default=0, help="kill the server this often while it is taught instead")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--client", help="address: be the clients (started by the benchmark itself)")
    asked = parser.parse_args()
    if asked.client:
        work = (
            requests(asked.client, asked.requests)
            if asked.requests
            else clients(asked.client, asked.seconds, asked.teach)
        )
        print(json.dumps(asyncio.run(work)))
        return
    if asked.kills:
        found = survived(asked.kills)
    else:
        found = endured(asked) if asked.requests else measured(asked)
    print(json.dumps(found, indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measured(asked: argparse.Namespace) -> dict[str, object]:
    """The figures, from a server in this process and clients in another."""
    data = StarterIntents().load("en")
    pairs = list(zip(data.texts, data.names(), strict=True))
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), asked.engine) as (url, app):
        models = app.state.service.models
        served_model = models.create("bench", dict.fromkeys(data.label_names, ""), pairs[::4])
        bulk = bulk_rate(served_model)
        before = resident()
        load = run_clients(url, asked.seconds, 0)
        wrong = wrong_answers(served_model, load.pop("answers"))
        after = resident()
        taught = run_clients(url, 1.0, asked.teach) if asked.teach else {}
        kept = {example.text for example in models.store.known("bench").examples}
        lost = [text for text in taught.get("confirmed", []) if text not in kept]
        found = {"bulk_texts_per_second": round(bulk, 1), **load, "of_the_bulk_rate": round(load["rate"] / bulk, 3)}
        found |= {"wrong_answers": wrong, "resident_mb_before": before, "resident_mb_after": after}
        if taught:
            found |= {"confirmed": len(taught["confirmed"]), "lost": len(lost), "confirmed_ms": taught["confirmed_ms"]}
        return found


def endured(asked: argparse.Namespace) -> dict[str, object]:
    """Memory of the server after each tenth of the requests."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), asked.engine) as (url, app):
        data = StarterIntents().load("en")
        app.state.service.models.create("bench", dict.fromkeys(data.label_names, ""), [])
        resident_mb, refused, begun = [resident()], 0, time.perf_counter()
        for _ in range(10):
            refused += run_clients(url, requests=asked.requests // 10)["refused"]
            resident_mb.append(resident())
    seconds = time.perf_counter() - begun
    rate = round(asked.requests / seconds, 1)
    return {"requests": asked.requests, "refused": refused, "per_second": rate, "resident_mb": resident_mb}


def survived(kills: int) -> dict[str, object]:
    """How many examples were confirmed by servers that were then killed, and how many of them are lost."""
    draw, confirmed, lost = random.Random(0), dict[str, str](), 0  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills + 1):
            with started(Path(folder)) as (process, url), httpx.Client(base_url=url, timeout=120) as client:
                if number == 0:
                    body = {"name": "bench", "classes": [{"label": each} for each in LABELS]}
                    client.post("/v1/models", json=body).raise_for_status()
                kept = {each["text"]: each["label"] for each in client.get("/v1/models/bench").json()["examples"]}
                lost += sum(kept.get(text) != label for text, label in confirmed.items())
                if number < kills:
                    threading.Timer(draw.uniform(0.2, 5), process.kill).start()
                    confirmed |= taught_until_killed(client, draw)
    return {"kills": kills, "confirmed": len(confirmed), "lost": lost}


def taught_until_killed(client: "httpx.Client", draw: random.Random) -> dict[str, str]:
    """The examples that the server confirmed before it was gone, with their labels."""
    confirmed: dict[str, str] = {}
    while True:
        text, label = mixed_texts(draw, 1)[0], draw.choice(LABELS)
        body = {"examples": [{"text": text, "label": label}]}
        try:
            client.post("/v1/models/bench/examples", json=body).raise_for_status()
        except httpx.TransportError:
            return confirmed
        confirmed[text] = label


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``nlpmeta serve`` in a process of its own, and its address."""
    command = [sys.executable, "-m", "nlpmeta", "serve", "--models", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            addresses = (re.search(r"http://[\d.]+:\d+", line) for line in process.stderr or ())
            yield process, next(found[0] for found in addresses if found)
        finally:
            process.kill()


@contextmanager
def served(folder: Path, engine: str) -> Iterator[tuple[str, object]]:
    """A server of this process in a thread: its address and application."""
    app = create_app(Settings(folder, engine=engine, port=0))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not (server.started and app.state.ready):
        time.sleep(0.1)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    server.should_exit = True
    thread.join()


def bulk_rate(model: object, n: int = 256) -> float:
    """Texts per second of one call with all texts, by the engine of the server."""
    texts = mixed_texts(random.Random(1), n)  # noqa: S311
    embedder = Embedder(model.embedder.encoder, model.embedder._engine, most_bytes=0)
    begun = time.perf_counter()
    with torch.no_grad(), embedder.embedding():
        model.answers(texts, [])
    return n / (time.perf_counter() - begun)


def wrong_answers(model: object, answers: list[tuple[str, str, float]]) -> dict[str, object]:
    """How many labels differ from those of one thread, and the largest difference of a probability."""
    embedder = Embedder(model.embedder.encoder, model.embedder._engine, most_bytes=0)
    with torch.no_grad(), embedder.embedding():
        rows = [scores.softmax(0).numpy() for scores in model.answers([text for text, _, _ in answers], [])]
    names = model.fitted.classes.tolist()
    apart = [abs(float(row[names.index(label)]) - share) for row, (_, label, share) in zip(rows, answers, strict=True)]
    near = sum(names[int(row.argmax())] != label for row, (_, label, _) in zip(rows, answers, strict=True))
    return {"compared": len(answers), "other_label": near, "apart": float(f"{max(apart):.2g}")}


def run_clients(url: str, seconds: float = 0.0, teach: int = 0, *, requests: int = 0) -> dict[str, object]:
    asked = {"--client": url, "--seconds": seconds, "--teach": teach, "--requests": requests}
    command = [sys.executable, __file__, *(str(part) for pair in asked.items() for part in pair)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


async def clients(url: str, seconds: float, teach: int) -> dict[str, object]:
    """What 64 clients saw that ask again as soon as they are answered; one more teaches, if that is asked for."""
    took: list[float] = []
    answers: list[tuple[str, str, float]] = []
    stop = asyncio.Event()
    limits = httpx.Limits(max_connections=CLIENTS + 2)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def ask(number: int) -> int:
            draw, n = random.Random(number + 10), 0  # noqa: S311
            while not stop.is_set():
                texts = mixed_texts(draw, draw.choice([1, 1, 1, 2, 4]))
                begun = time.perf_counter()
                answer = await client.post("/v1/models/bench/predict", json={"texts": texts})
                took.append(time.perf_counter() - begun)
                found = answer.raise_for_status().json()["answers"]
                n += len(texts)
                if len(answers) < MOST_LOOKED_AT:
                    answers.append((texts[0], found[0]["label"], found[0]["probability"]))
            return n

        begun = time.perf_counter()
        asking = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
        confirmed, confirmed_ms = await teaching(client, teach) if teach else ([], [])
        await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - begun)))
        stop.set()
        n_texts = sum(await asyncio.gather(*asking))
    ms = percentiles(took)
    found = {"requests": len(took), "rate": round(n_texts / (time.perf_counter() - begun), 1), "request_ms": ms}
    ratio = round(ms["p99"] / ms["p50"], 2)
    return {**found, "p99_to_median": ratio, "answers": answers, "confirmed": confirmed, "confirmed_ms": confirmed_ms}


async def requests(url: str, n: int) -> dict[str, int]:
    """``n`` requests of 64 clients with one of a thousand texts each; how many were refused."""
    texts, left, refused = mixed_texts(random.Random(3), 1000), iter(range(n)), 0  # noqa: S311
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def ask() -> None:
            nonlocal refused
            for number in left:
                body = {"texts": [texts[number % len(texts)]]}
                refused += (await client.post("/v1/models/bench/predict", json=body)).is_error

        await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return {"refused": refused}


async def teaching(client: "httpx.AsyncClient", n: int) -> tuple[list[str], dict[str, float]]:
    """Teach one example after the other; what was confirmed, and in what time."""
    draw, took, confirmed = random.Random(5), list[float](), list[str]()  # noqa: S311
    labels = [each["label"] for each in (await client.get("/v1/models/bench")).json()["classes"]]
    for _ in range(n):
        text = mixed_texts(draw, 1)[0]
        body = {"examples": [{"text": text, "label": draw.choice(labels)}]}
        begun = time.perf_counter()
        (await client.post("/v1/models/bench/examples", json=body)).raise_for_status()
        took.append(time.perf_counter() - begun)
        confirmed.append(text)
    return confirmed, percentiles(took)


def percentiles(seconds: list[float]) -> dict[str, float]:
    low, high, most = np.percentile(np.asarray(seconds) * 1000, [50, 99, 100]).round(1).tolist()
    return {"p50": low, "p99": high, "max": most}


def mixed_texts(draw: random.Random, n: int) -> list[str]:
    """Texts of one to four sentences that were never there before."""
    known = StarterIntents().load("en").texts if not _sentences else _sentences
    _sentences[:] = known
    return [f"{' '.join(draw.choices(known, k=draw.choice([1, 1, 2, 4])))} {draw.randrange(10**9)}" for _ in range(n)]


_sentences: list[str] = []


def resident() -> int:
    """Megabytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    main()
