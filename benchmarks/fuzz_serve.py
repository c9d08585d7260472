"""5,000 malformed requests to a server in this process: each gets a problem in JSON, none a failure (make fuzz)."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import serve_fuzzing
from conftest import TOPICS, make_encoder
from starlette.testclient import TestClient

from nlpmeta.learners.base import learners
from nlpmeta.serve import Settings, create_app


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    statuses, wrong = Counter[int](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(Path(folder), engine="torch"), learner=learners["auto"](make_encoder()).eval())
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            client.app.state.service.models.create("topics", TOPICS, [])
            for request in serve_fuzzing.requests(asked.seed, asked.requests):
                begun = time.monotonic()
                answer = client.request(**request)
                statuses[answer.status_code] += 1
                wrong += filter(None, [serve_fuzzing.complaint(request, answer, time.monotonic() - begun)])
    print(dict(sorted(statuses.items())))
    print(*wrong[:20], f"{len(wrong)} of {asked.requests} answers are wrong", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
