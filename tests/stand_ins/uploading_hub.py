"""A hub of our own on loopback that takes uploads: the routes that huggingface_hub needs for them.

whoami, create a repository, check a card, ask how to upload, Git LFS batches with a PUT for each
object, and commits. Every body is checked as the Hub does: an object must have the size and the
SHA-256 that were announced, and a commit may only name objects that are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALLEST_LFS = 10_000
"""The size in bytes from which a file is a Git LFS object here."""


@dataclass
class UploadingHub:
    """The state of the hub, and the requests that it received."""

    token: str = "hf_right"
    user: str = "ada"
    orgs: tuple[str, ...] = ("lab",)
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each model by path."""
    private: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    """The Git LFS objects by SHA-256."""
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    messages: list[str] = field(default_factory=list)
    """The messages of the commits."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Answers with an error, by the beginning of "METHOD path"."""


@contextmanager
def serve(hub: UploadingHub) -> Iterator[str]:
    """Yields the address of the hub while it runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: UploadingHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.take()

    do_POST = do_PUT = do_HEAD = do_GET

    def take(self) -> None:
        body = self.body()
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        for beginning, code in self.hub.refuse.items():
            if line.startswith(beginning):
                return self.answer(code, {"error": "refused by the test"})
        if self.command == "PUT":  # as at an object store, whose addresses are signed
            return self.store(path.rpartition("/")[2], body)
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer(401, {"error": "Invalid credentials"})
        return self.route(path, body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, code: int, value: Any, **headers: str) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def route(self, path: str, body: bytes) -> None:
        hub, parts = self.hub, path.strip("/").split("/")
        if path == "/api/whoami-v2":
            orgs = [{"name": name, "type": "org"} for name in hub.orgs]
            return self.answer(200, {"type": "user", "name": hub.user, "orgs": orgs})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if parts[:2] in (["api", "datasets"], ["api", "spaces"]) and len(parts) == 4:
            known = parts[1] == "datasets" and "/".join(parts[2:]) in hub.datasets
            return self.answer(200, {"id": "x", "sha": COMMIT}) if known else self.absent()
        if parts[:2] != ["api", "models"] or "/".join(parts[2:4]) not in hub.models:
            return self.absent()
        return self.model("/".join(parts[2:4]), parts[4:], body)

    def absent(self) -> None:
        self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or self.hub.user}/{wanted['name']}"
        address = f"http://{self.headers['Host']}/{name}"
        if name in self.hub.models:
            return self.answer(409, {"error": "You already created this model", "url": address})
        self.hub.models[name] = {".gitattributes": b""}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.hub.private.add(name)
        return self.answer(200, {"url": address, "name": name})

    def model(self, name: str, rest: list[str], body: bytes) -> None:
        files = self.hub.models[name]
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": path} for path in files]
            private = name in self.hub.private
            about = {"id": name, "sha": COMMIT, "private": private, "tags": []}
            return self.answer(200, about | {"siblings": siblings})
        if rest[0] == "tree":
            entries = [
                {"type": "file", "path": path, "oid": "1" * 40, "size": len(content)}
                for path, content in files.items()
            ]
            return self.answer(200, entries)
        if rest[0] == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= SMALLEST_LFS else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": modes})
        if rest[0] == "commit":
            return self.commit(name, body)
        return self.absent()

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                href = f"http://{self.headers['Host']}/store/{item['size']}/{item['oid']}"
                entry["actions"] = {"upload": {"href": href}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str, body: bytes) -> None:
        size = int(urlsplit(self.path).path.split("/")[-2])
        if hashlib.sha256(body).hexdigest() != oid or len(body) != size:
            return self.answer(400, {"error": "the object is not the one that was announced"})
        self.hub.objects[oid] = body
        return self.answer(200, {})

    def commit(self, name: str, body: bytes) -> None:
        files = dict(self.hub.models[name])
        for line in body.decode().splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                self.hub.messages.append(value["summary"])
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.answer(400, {"error": f"no object {value['oid']}"})
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"])
            else:
                return self.answer(400, {"error": f"unknown operation {key}"})
        self.hub.models[name] = files
        address = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        return self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": address})
