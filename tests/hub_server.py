"""The Hugging Face Hub on loopback: real HTTP, storage in memory, the routes that huggingface_hub 2.4 calls.

Written from that client's source. It stores what it is sent, checks tokens, and spoils what `fault` tells it to.

KERAS_PREACT_LIVE_HUB names a user or an organization of the live Hub instead, in which the tests make and delete
repositories with the token that is in HF_TOKEN.
"""
import atexit
import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS = (".h5", ".npz", ".png", ".safetensors")
FAULTS = ("flip", "truncate", "short", "reset")
API = r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)"


@dataclasses.dataclass(frozen=True)
class Blob:
    """A file of a commit; of one whose bytes went to another storage, xet, only sha256 and size are known."""

    lfs: bool
    size: int
    sha256: str
    content: bytes | None

    @classmethod
    def of(cls, path, content):
        return cls(path.endswith(LFS), len(content), hashlib.sha256(content).hexdigest(), content)

    @property
    def oid(self):
        if self.lfs:
            return self.sha256
        return hashlib.sha1(b"blob %d\0" % self.size + self.content).hexdigest()


class Repository:
    def __init__(self, private=False):
        self.private, self.gated, self.readers = private, False, set()
        self.branches, self.commits, self.stored = {}, {}, {}
        self.commit("main", {".gitattributes": Blob.of(".gitattributes", b"*.h5 filter=lfs\n")})

    def commit(self, branch, files):
        number = f"{id(self)} {len(self.commits)}".encode()
        sha = hashlib.sha1(number).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def head(self, branch="main"):
        """The files of the last commit of a branch."""
        return self.commits[self.branches[branch]]

    def put(self, changes, branch="main"):
        """Commits other content for files, as {path: bytes}, None for no such file."""
        files = {path: blob for path, blob in self.head(branch).items() if path not in changes}
        files |= {path: Blob.of(path, content) for path, content in changes.items() if content is not None}
        return self.commit(branch, files)


@dataclasses.dataclass
class Fault:
    kind: str
    method: str
    path: str
    times: float
    headers: dict


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        # A host that is not the Hub's, as that of its content network.
        self.content_url = f"http://localhost:{self.server_port}"
        self.repositories, self.tokens, self.faults, self.requests = {}, {"hf_owner": "owner"}, [], []
        self.xet_storage, self.xet_hashes = None, {}
        self.lock = threading.Lock()

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @contextlib.contextmanager
    def fault(self, kind, path, method="GET", times=float("inf"), **headers):
        """Spoils the answers to requests whose path matches: one of FAULTS, or a status with headers."""
        fault = Fault(kind, method, path, times, {name.replace("_", "-"): text for name, text in headers.items()})
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def take_fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.times and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request, client_address):
        pass  # connections that a fault cut


class _Answer(Exception):
    """Ends a request."""

    def __init__(self, status, body=b"", **headers):
        self.status, self.headers = status, {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def _error(status, code=None, message="", **headers):
    if code:
        headers["X_Error_Code"] = code
    return _Answer(status, {"error": message}, X_Error_Message=message, **headers)


def _route(method, pattern):
    def note(function):
        _ROUTES.append((method, re.compile(pattern), function))
        return function
    return note


_ROUTES = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _serve(self):
        # Every body is read, or what is left of it would be taken for the next request of the connection.
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.server.requests.append((self.command, url.path))
        fault = self.server.take_fault(self.command, url.path)
        try:
            if fault and fault.kind not in FAULTS:
                raise _Answer(int(fault.kind), {"error": "as told"}, **fault.headers)
            for method, pattern, function in _ROUTES:
                match = pattern.fullmatch(url.path)
                if match and self.command in method.split():
                    # A revision with slashes is sent quoted.
                    function(self, **{name: unquote(text) for name, text in match.groupdict().items() if text})
            raise _error(404, message=f"no route {self.command} {url.path}")
        except _Answer as answer:
            self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _send(self, answer, fault):
        body, kind = answer.body, fault.kind if fault else None
        if kind == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
        if kind == "short":
            body = body[:len(body) // 2]
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind in ("truncate", "reset"):
            body = body[:len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        if kind == "reset":
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    @property
    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            raise _error(401, message="Invalid credentials in Authorization header")
        return self.server.tokens.get(token)

    def repository(self, name, write=False):
        found, user = self.server.repositories.get(name), self.user
        owner = user == name.split("/")[0]
        if found is None or found.private and not owner:
            raise _error(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not owner:
            raise _error(403 if user else 401, message="You have no write permission")
        return found

    def commit_of(self, repository, revision):
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def may_download(self, repository, name):
        if repository.gated and self.user not in repository.readers | {name.split("/")[0]}:
            raise _error(403 if self.user else 401, "GatedRepo", f"Access to model {name} is restricted")

    @_route("POST", "/api/repos/create")
    def create(self):
        wish = json.loads(self.body)
        user = self.user
        owner = wish["organization"] or user
        name = f"{owner}/{wish['name']}"
        if user is None or user != owner:
            raise _error(403 if user else 401, message="You have no right to create a repository there")
        answer = {"url": f"{self.server.url}/{name}", "name": name}
        if name in self.server.repositories:
            raise _Answer(409, answer | {"error": "You already created this model repo"})
        self.server.repositories[name] = Repository(wish.get("visibility") == "private")
        raise _Answer(200, answer)

    @_route("DELETE", "/api/repos/delete")
    def delete(self):
        wish = json.loads(self.body)
        name = f"{wish['organization']}/{wish['name']}"
        self.repository(name, write=True)
        del self.server.repositories[name]
        raise _Answer(200, {})

    @_route("POST", "/api/validate-yaml")
    def validate(self):
        content = json.loads(self.body)["content"]
        block = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*\r?\n", content, re.DOTALL)
        data = yaml.safe_load(block[1]) if block else {}
        errors = [
            {"message": f"{key!r} must be {kind.__name__}"}
            for key, kind in (("license", str), ("library_name", str), ("tags", list), ("model-index", list))
            if key in data and not isinstance(data[key], kind)
        ]
        raise _Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    @_route("POST", f"{API}/preupload/(?P<revision>[^/]+)")
    def preupload(self, repo, revision):
        repository = self.repository(repo, write=True)
        files = repository.commits[self.commit_of(repository, revision)]
        raise _Answer(200, {"files": [
            {
                "path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                "shouldIgnore": False, "oid": files[file["path"]].oid if file["path"] in files else None,
            }
            for file in json.loads(self.body)["files"]
        ]})

    @_route("POST", r"/(?P<repo>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
    def batch(self, repo):
        repository, place = self.repository(repo, write=True), f"{self.server.url}/{repo}.git/info/lfs"
        raise _Answer(200, {"transfer": "basic", "objects": [
            wish if wish["oid"] in repository.stored else wish | {"actions": {
                "upload": {"href": f"{self.server.content_url}/upload/{repo}/{wish['oid']}"},
                "verify": {"href": f"{place}/verify"},
            }}
            for wish in json.loads(self.body)["objects"]
        ]})

    @_route("PUT", r"/upload/(?P<repo>[\w.-]+/[\w.-]+)/(?P<oid>[0-9a-f]{64})")
    def upload(self, repo, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _error(400, message="The content does not have the sha256 it was announced with")
        self.server.repositories[repo].stored[oid] = self.body
        raise _Answer(200)

    @_route("POST", r"/(?P<repo>[\w.-]+/[\w.-]+)\.git/info/lfs/verify")
    def verify(self, repo):
        wish = json.loads(self.body)
        stored = self.repository(repo, write=True).stored
        raise _Answer(200 if len(stored.get(wish["oid"], b"")) == wish["size"] else 404, {})

    @_route("POST", f"{API}/commit/(?P<revision>[^/]+)")
    def make_commit(self, repo, revision):
        repository = self.repository(repo, write=True)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        parent = header["value"].get("parentCommit")
        before = self.commit_of(repository, revision)
        if parent not in (None, before):
            raise _error(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[before])
        for operation in operations:
            value, path = operation["value"], operation["value"]["path"]
            if operation["key"] == "file":
                files[path] = Blob.of(path, base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                content = repository.stored.get(value["oid"])
                if content is None and self.server.xet_storage is None:
                    raise _error(400, message=f"{path} was not uploaded")
                files[path] = Blob(True, value["size"], value["oid"], content)
            else:
                del files[path]
        sha = repository.commit(revision, files)
        raise _Answer(200, {"commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}"})

    @_route("POST", f"{API}/branch/(?P<branch>[^/]+)")
    def make_branch(self, repo, branch):
        repository = self.repository(repo, write=True)
        if branch in repository.branches:
            raise _error(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        raise _Answer(200, {})

    @_route("GET", f"{API}(/revision/(?P<revision>[^/]+))?")
    def info(self, repo, revision="main"):
        repository = self.repository(repo)
        sha = self.commit_of(repository, revision)
        raise _Answer(200, {
            "id": repo, "sha": sha, "private": repository.private, "gated": repository.gated, "downloads": 0,
            "tags": [], "siblings": [{"rfilename": path} for path in repository.commits[sha]],
        })

    @_route("GET", f"{API}/tree/(?P<revision>[^/]+)")
    def tree(self, repo, revision):
        repository = self.repository(repo)
        raise _Answer(200, self._listed(repository.commits[self.commit_of(repository, revision)]))

    @_route("POST", f"{API}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, repo, revision):
        repository = self.repository(repo)
        files, paths = repository.commits[self.commit_of(repository, revision)], self._paths()
        raise _Answer(200, self._listed({path: blob for path, blob in files.items() if path in paths}))

    def _paths(self):
        if "json" in (self.headers.get("Content-Type") or ""):
            return json.loads(self.body)["paths"]
        return parse_qs(self.body.decode())["paths"]

    def _listed(self, files):
        return [
            {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
            | ({"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}} if blob.lfs else {})
            | ({"xetHash": self.server.xet_hashes[blob.sha256]} if blob.sha256 in self.server.xet_hashes else {})
            for path, blob in files.items()
        ]

    @_route("GET", f"{API}/xet-(read|write)-token/(?P<revision>[^/]+)")
    def xet_token(self, repo, revision):
        self.repository(repo)
        if self.server.xet_storage is None:
            raise _error(404, message="There is no xet storage here")
        place, token, expiry = self.server.xet_storage, "xet", 4_000_000_000
        raise _Answer(
            200, {"casUrl": place, "accessToken": token, "exp": expiry},
            X_Xet_Cas_Url=place, X_Xet_Access_Token=token, X_Xet_Token_Expiration=expiry,
        )

    @_route("GET HEAD", r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, repo, revision, path):
        repository = self.repository(repo)
        sha = self.commit_of(repository, revision)
        self.may_download(repository, repo)
        blob = repository.commits[sha].get(path)
        if blob is None:
            raise _error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=sha)
        headers = {"X_Repo_Commit": sha, "ETag": f'"{blob.oid}"'}
        if not blob.lfs:
            self._content(blob, headers)
        headers |= {"X_Linked_Etag": f'"{blob.sha256}"', "X_Linked_Size": blob.size}
        if blob.sha256 in self.server.xet_hashes:
            auth = f"{self.server.url}/api/models/{repo}/xet-read-token/{sha}"
            headers |= {"X_Xet_Hash": self.server.xet_hashes[blob.sha256], "Link": f'<{auth}>; rel="xet-auth"'}
        place = f"{self.server.content_url}/content/{repo}/{sha}/{path}?Signature=signed"
        raise _Answer(302, Location=place, **headers)

    @_route("GET", r"/content/(?P<repo>[\w.-]+/[\w.-]+)/(?P<sha>[0-9a-f]{40})/(?P<path>.+)")
    def content(self, repo, sha, path):
        if self.query.get("Signature") != ["signed"] or self.headers.get("Authorization"):
            raise _error(403, message="This host takes signed addresses, and no tokens")
        self._content(self.server.repositories[repo].commits[sha][path], {})

    def _content(self, blob, headers):
        wish = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wish:
            start = int(wish[1])
            headers |= {"Content_Range": f"bytes {start}-{blob.size - 1}/{blob.size}"}
            raise _Answer(206, blob.content[start:], **headers)
        raise _Answer(200, blob.content, **headers)


LIVE = os.environ.get("KERAS_PREACT_LIVE_HUB")
SERVER = None if LIVE else HubServer()
# huggingface_hub reads these once, when it is imported.
os.environ |= {
    "HF_HOME": tempfile.mkdtemp(prefix="hub-"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
}
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
if SERVER:
    os.environ |= {"HF_ENDPOINT": SERVER.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_owner"}
    SERVER.start()
