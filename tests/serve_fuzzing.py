"""Requests that no client should send: wrong types and sizes, broken encodings, deep JSON, tricks in paths."""

import json
import random

PATHS = [
    "/v1/models/{}/predict", "/v1/models/{}/examples", "/v1/models/{}/undo", "/v1/models/{}/suggest", "/v1/models/{}",
    "/v1/models/{}/texts", "/v1/models/{}/classes/{}", "/v1/models/{}/examples/{}", "/v1/classify", "/v1/models",
    "/v1/models/{}/report", "/v1/models/{}/download", "/page/{}", "/{}", "/v1/{}",
]  # fmt: skip
NAMES = [
    "..", "..%2f..%2fetc%2fpasswd", "%00", "topics%00", "a" * 300, "-", ".hidden", "%ff%fe", "topics/..", "CON", "ünï",
    "topics;x", "'; DROP TABLE models; --", "%0d%0aset-cookie:x", "\\..\\", "nobody", "999999999999999999999999", "-1",
    "1e9", "%",
]  # fmt: skip
VALUES = [
    None, True, -1, 0, 10**400, 1e308, "", " ", "\x00", "\u202e", "\ud800", "a" * 30_000, [], {}, [[]], [None], [1],
    {"a": 1}, [""], ["\x07"], ["a"] * 3000, "ball", ["ball"], [{"text": "ball"}], [{"text": 1, "label": "x"}],
    [{"label": "0"}], [{"label": "x" * 300}], float("nan"), float("inf"), 0.5, 2, 10**7,
]  # fmt: skip
FIELDS = [
    "texts",
    "labels",
    "descriptions",
    "examples",
    "classes",
    "top",
    "abstain",
    "why",
    "user",
    "name",
    "most",
    "x",
]
BODIES = [
    b"", b"{", b"[", b"null", b"0", b'"a"', b"\xff\xfe{}", b"{}" * 2, b"[" * 50_000, b'{"texts":' * 20_000,
    b"\x00" * 100,
    b'{"texts": ["\xed\xa0\x80"]}', b'{"texts": ["\\ud800"]}', b'{"texts": ["a"], "texts": 3}', b"{'texts': ['a']}",
    "{\"texts\": [\"a\"]}".encode("utf-16"), b'{"texts": [1e9999]}', b'{"top": ' + b"9" * 10_000 + b"}", b"NaN",
]  # fmt: skip
TYPES = ["application/json", "text/plain", "", "application/json; charset=utf-16", "multipart/form-data", "x" * 5000]


def requests(seed, n):
    """``n`` requests as keyword arguments of a client: the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(n):
        path = draw.choice(PATHS)
        while "{}" in path:
            path = path.replace("{}", draw.choice([*NAMES, "topics", "topics", "topics"]), 1)
        if draw.random() < 0.1:
            path += draw.choice(["?x=%ff", "?" + "a=b&" * 500, "#", "//", "/.", "?name=../x"])
        headers = {"content-type": draw.choice([*TYPES, *["application/json"] * 6])}
        if draw.random() < 0.1:
            name, value = draw.choice([("origin", "null"), ("content-length", "-5"), ("authorization", "Bearer é")])
            headers[name] = value.encode("utf-8")
        method = draw.choice(["POST", "POST", "POST", "PUT", "DELETE", "GET", "PATCH", "OPTIONS", "HEAD"])
        yield {"method": method, "url": path, "headers": headers, "content": _body(draw)}


def _body(draw):
    if draw.random() < 0.3:
        return draw.choice(BODIES)
    fields = {draw.choice(FIELDS): draw.choice(VALUES) for _ in range(draw.randint(1, 4))}
    content = json.dumps(fields).encode()
    if draw.random() < 0.2:
        place = draw.randrange(len(content))
        content = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    return content


def complaint(request, answer, seconds):
    """What is wrong with an answer to such a request; empty if nothing is."""
    if answer.status_code >= 500 and not (answer.status_code == 503 and "retry-after" in answer.headers):
        return f"{answer.status_code} to {request}"
    if answer.status_code >= 400 and request["method"] != "HEAD":
        kind = answer.headers.get("content-type", "")
        if kind != "application/problem+json" or answer.json().get("status") != answer.status_code:
            return f"no problem but {kind} to {request}"
    return f"{seconds:.1f} s for {request}" if seconds > 20 else ""
