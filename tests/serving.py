"""A server of this process in a thread, or one of a process of its own, for tests and benchmarks."""

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import uvicorn

from nlpmeta.serve import Settings, create_app


@contextmanager
def served(folder, learner=None, **options):
    """The address of a server in a thread, and its application."""
    app = create_app(Settings(folder, engine=options.pop("engine", "torch"), port=0, **options), learner=learner)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def serving_process(folder, encoder, *options):
    """``nlpmeta serve`` as a user starts it: the process and its address."""
    command = [sys.executable, "-m", "nlpmeta", "serve", "--models", folder, "--encoder", encoder, "--port", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with subprocess.Popen(
        [*map(str, command), *map(str, options)], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            for line in process.stderr:
                if found := re.search(r"http://[\d.]+:\d+", line):
                    break
            else:
                raise AssertionError("the server ended before it served")
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.kill()
