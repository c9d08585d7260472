"""A Hugging Face Hub on this machine for tests: repositories in memory behind the Hub's HTTP interface, with faults.

Only what the interface says is written here; the tests drive it with the real ``huggingface_hub`` client.
"""

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "tokenOfTheTests" * 2  # noqa: S105  # opens nothing but this server
LARGE = (".safetensors", ".png", ".bin")  # uploaded apart, as .gitattributes of a new model says
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "other"}


@dataclass
class Repository:
    private: bool
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)  # (commit, message)
    requests: list[dict[str, object]] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, bytes], message: str) -> str:
        content = repr(sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items()))
        oid = hashlib.sha1(f"{ref}{len(self.log)}{message}{content}".encode(), usedforsecurity=False).hexdigest()
        self.trees[oid] = dict(files)
        self.refs[ref] = oid
        self.log.append((oid, message))
        return oid

    def at(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.trees else None)


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose method and path match ``where``.

    ``status`` answers with it; ``cut`` closes the connection unanswered; ``late`` does the work and then closes it;
    ``slow`` waits so many seconds and goes on; ``body`` answers with it; ``redirect`` sends the client elsewhere;
    ``echo`` says back, with ``status``, the token that came.
    """

    where: str
    times: int = 1
    status: int | None = None
    cut: bool = False
    late: bool = False
    slow: float = 0.0
    body: object = None
    redirect: str | None = None
    echo: bool = False
    before: object = None  # called first, for what somebody else does at that moment


class HubState:
    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.url = ""
        self.lock = threading.RLock()

    def fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, line):
                    fault.times -= 1
                    return fault
        return None

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit("main", files, "initial commit")


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", body: object = None) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body


class _Cut(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubState

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        line = f"{self.command} {self.path}"
        self.hub.seen.append(line)
        fault = self.hub.fault(line)
        try:
            if fault is not None:
                if callable(fault.before):
                    fault.before()
                time.sleep(fault.slow)
                if fault.cut:
                    raise _Cut
                if fault.redirect is not None:
                    return self.send(307, b"", {"Location": fault.redirect})
                if fault.body is not None:
                    return self.send(fault.status or 200, fault.body)
                if fault.echo:
                    token = str(self.headers.get("Authorization"))
                    return self.send(
                        fault.status or 500,
                        {"error": f"not for {token}"},
                        {"X-Error-Message": f"no: {token}", "X-HF-Warning": f"note; {token}", "X-Request-Id": token},
                    )
                if fault.status is not None:
                    raise Refusal(fault.status, message="a fault of the test")
            with self.hub.lock:
                answer = self.answer_to()
            if fault is not None and fault.late:
                raise _Cut
            self.send(*answer)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            body = refusal.body if refusal.body is not None else {"error": refusal.message}
            self.send(refusal.status, body, {k: v for k, v in headers.items() if v})
        except _Cut:
            self.close_connection = True
            self.connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def send(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        named = {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    # ---- the interface -------------------------------------------------------------------------

    def answer_to(self) -> tuple[object, ...]:
        for method, pattern, work in ROUTES:
            found = re.fullmatch(pattern, self.route)
            if found and self.command in method:
                return work(self, *(unquote(part) for part in found.groups()))
        raise Refusal(404, message=f"no such route: {self.command} {self.route}")

    def may_write(self) -> None:
        given = self.headers.get("Authorization")
        if given is None:
            raise Refusal(401, message="Invalid username or password.")
        if given != f"Bearer {TOKEN}":
            raise Refusal(401, message="Invalid credentials in Authorization header")

    def repository(self, name: str) -> Repository:
        found = self.hub.repositories.get(name)
        knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not knows):
            raise Refusal(404 if knows else 401, "RepoNotFound", "Repository not found")
        return found

    def tree(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(name)
        oid = repository.at(revision)
        if oid is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repository.trees[oid]

    def create(self) -> tuple[object, ...]:
        self.may_write()
        asked = json.loads(self.body)
        owner = asked.get("organization") or "user"
        if owner == "stranger":
            raise Refusal(403, message="You don't have the rights to create a model under the namespace")
        name = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            raise Refusal(409, message="You already created this model repo", body={"url": url, "error": "exists"})
        self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
        self.hub.repositories[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return 200, {"url": url, "name": name}

    def info(self, name: str, revision: str = "main") -> tuple[object, ...]:
        oid, files = self.tree(name, revision)
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        repository = self.repository(name)
        return 200, {"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": siblings}

    def listing(self, name: str, revision: str) -> tuple[object, ...]:
        _, files = self.tree(name, revision)
        return 200, [self.entry(path, data) for path, data in sorted(files.items())]

    def entry(self, path: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        if path.endswith(LARGE):
            sha = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 134}
        return entry

    def preupload(self, name: str, revision: str) -> tuple[object, ...]:
        self.may_write()
        _, files = self.tree(name, revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            there = files.get(file["path"])
            is_large = file["path"].endswith(LARGE)
            oid = None
            if there is not None:
                oid = hashlib.sha256(there).hexdigest() if is_large else git_hash(there)
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large else "regular",
                    "shouldIgnore": False,
                    "oid": oid,
                }
            )
        return 200, {"files": answers}

    def large_batch(self, name: str) -> tuple[object, ...]:
        self.may_write()
        self.repository(name)
        objects = []
        for each in json.loads(self.body)["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}
            actions["verify"] = {"href": f"{self.hub.url}/verify"}
            objects.append(each if each["oid"] in self.hub.large else {**each, "actions": actions})
        return 200, {"transfer": "basic", "objects": objects}

    def large_put(self, oid: str) -> tuple[object, ...]:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, message="the content is not what it was said to be")
        self.hub.large[oid] = self.body
        return 200, {}

    def verify(self) -> tuple[object, ...]:
        asked = json.loads(self.body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, message="not uploaded")
        return 200, {}

    def commit(self, name: str, revision: str) -> tuple[object, ...]:
        self.may_write()
        repository = self.repository(name)
        head, files = self.tree(name, revision)
        files = dict(files)
        items = [json.loads(line) for line in self.body.splitlines()]
        header = items[0]["value"]
        if header.get("parentCommit") not in (None, head):
            raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
        for item in items[1:]:
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise Refusal(400, message=f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif item["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
        if "create_pr" in self.query:
            number = len(repository.requests) + 1
            oid = repository.commit(f"refs/pr/{number}", files, header["summary"])
            request = {"num": number, "title": header["summary"], "status": "open", "isPullRequest": True}
            request |= {"author": {"name": "user"}, "createdAt": "2026-01-01T00:00:00.000Z"}
            request |= {"repo": {"name": name, "type": "model"}}
            repository.requests.append(request)
        else:
            oid, number = repository.commit(revision, files, header["summary"]), None
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}
        return 200, {**answer, "pullRequestUrl": number and f"{self.hub.url}/{name}/discussions/{number}"}

    def discussions(self, name: str) -> tuple[object, ...]:
        requests = self.repository(name).requests
        return 200, {"discussions": requests, "count": len(requests), "start": 0}

    def branch(self, name: str, branch: str) -> tuple[object, ...]:
        self.may_write()
        repository = self.repository(name)
        if branch in repository.refs:
            raise Refusal(409, message="Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        return 200, {}

    def resolve(self, name: str, revision: str, path: str) -> tuple[object, ...]:
        oid, files = self.tree(name, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        data = files[path]
        etag = hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else git_hash(data)
        return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Content-Type": "application/octet-stream"}

    def validate(self) -> tuple[object, ...]:
        """The rules of the Hub for the metadata of a model that can be told without it: kinds and known values."""
        errors = card_errors(json.loads(self.body)["content"])
        if errors:
            body = {"errors": [{"message": each} for each in errors], "warnings": []}
            raise Refusal(400, message="; ".join(errors), body=body)
        return 200, {"errors": [], "warnings": []}


_NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate),
    (("GET",), rf"/api/models/{_NAME}", Handler.info),
    (("GET",), rf"/api/models/{_NAME}/revision/([^/]+)", Handler.info),
    (("GET",), rf"/api/models/{_NAME}/tree/([^/]+)", Handler.listing),
    (("GET",), rf"/api/models/{_NAME}/discussions", Handler.discussions),
    (("POST",), rf"/api/models/{_NAME}/preupload/([^/]+)", Handler.preupload),
    (("POST",), rf"/api/models/{_NAME}/commit/([^/]+)", Handler.commit),
    (("POST",), rf"/api/models/{_NAME}/branch/([^/]+)", Handler.branch),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", Handler.large_batch),
    (("PUT",), r"/large/([0-9a-f]{64})", Handler.large_put),
    (("POST",), r"/verify", Handler.verify),
    (("GET", "HEAD", "POST"), r"/elsewhere", lambda handler: (200, {})),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def card_errors(content: str) -> list[str]:
    block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if block is None:
        return ["there is no metadata"]
    data = yaml.safe_load(block.group(1))
    errors = []
    if "license" in data and data["license"] not in LICENCES:  # the Hub takes cards without one
        errors.append(f'"license" must be one of {sorted(LICENCES)}')
    if data.get("license") == "other" and not data.get("license_name"):
        errors.append('"license_name" is required for other licenses')
    for key in ("language", "tags", "datasets", "metrics"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            errors.append(f'"{key}" must be an array of strings')
    errors += [
        f"{each} is no language code" for each in data.get("language", []) if not re.fullmatch("[a-z]{2,3}", each)
    ]
    for key in ("base_model", "pipeline_tag", "library_name"):
        if key in data and not isinstance(data[key], str):
            errors.append(f'"{key}" must be a string')
    for model in data.get("model-index", []):
        for result in model["results"]:
            for need in ("task", "dataset", "metrics"):
                if need not in result:
                    errors.append(f'"model-index[0].results[0].{need}" is required')
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", result["dataset"]["type"]):
                errors.append('"model-index[0].results[0].dataset.type" must be a valid dataset id')
    return errors


@contextmanager
def running_hub():
    """A hub at a free port of this machine."""
    state = HubState()
    handler = type("BoundHandler", (Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
