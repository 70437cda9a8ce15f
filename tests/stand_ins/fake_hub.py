"""A hub of our own on loopback: the few routes that listing and reading a repository need.

The one repository that it has is the dataset ``owner/set``, or the model ``owner/net``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOVED = "89abcdef0123456789abcdef0123456789abcdef"


class Hub:
    """What the hub holds and what was asked of it."""

    def __init__(self, files: dict[str, bytes], *, kind: str = "dataset") -> None:
        self.files = files
        self.is_model = kind == "model"
        self.name = "net" if self.is_model else "set"
        self.branches = {"main": COMMIT}
        self.asked: list[str] = []
        self.busy: list[tuple[int, dict[str, str]]] = []
        """Answers to give before any other: (code, headers)."""
        self.refuse: tuple[int, dict[str, str]] | None = None
        """The answer to everything, where set."""


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The address of the hub while it runs."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_POST(self):
            size = int(self.headers.get("Content-Length", 0))
            self.rfile.read(size)
            self.answer(404)

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            told = hub.refuse or (hub.busy.pop(0) if hub.busy else None)
            if told is not None:
                return self.answer(told[0], b"{}", **told[1])
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models" if hub.is_model else "datasets"]:
                return self.api(parts[2:])
            if hub.is_model and parts[:2] == ["owner", hub.name] and parts[2] == "resolve":
                return self.file(parts[3], "/".join(parts[4:]))
            if parts[0] == "datasets" and parts[3] == "resolve":
                return self.file(parts[4], "/".join(parts[5:]))
            return self.answer(404)

        def api(self, parts: list[str]) -> None:
            known = {*hub.branches, *hub.branches.values()}
            revision = parts[3] if len(parts) > 3 else "main"
            if parts[:2] != ["owner", hub.name]:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if revision not in known:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            if len(parts) > 2 and parts[2] == "tree":
                return self.tree("/".join(parts[4:]))
            sha = hub.branches.get(revision, revision)
            files = [{"rfilename": name} for name in sorted(hub.files)] if hub.is_model else []
            body = {"id": f"owner/{hub.name}", "sha": sha, "private": False, "tags": []}
            body["siblings"] = files
            return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

        def tree(self, inside: str) -> None:
            names = sorted(n for n in hub.files if not inside or n.startswith(f"{inside}/"))
            folders = sorted({str(f) for n in names for f in Path(n).parents if str(f) != "."})
            found = [{"type": "directory", "path": f, "oid": "1" * 40, "size": 0} for f in folders]
            for name in names:
                size = len(hub.files[name])
                found.append({"type": "file", "path": name, "oid": "2" * 40, "size": size})
            if inside and not names:
                return self.answer(404, X_Error_Code="EntryNotFound")
            return self.answer(200, json.dumps(found).encode(), Content_Type="application/json")

        def file(self, revision: str, name: str) -> None:
            if revision not in hub.branches.values() or name not in hub.files:
                return self.answer(404, X_Error_Code="EntryNotFound")
            data, asked = hub.files[name], self.headers.get("Range")
            if asked is None:
                tag = f'"{hashlib.sha1(data).hexdigest()}"' if hub.is_model else '"x"'
                return self.answer(200, data, ETag=tag, X_Repo_Commit=revision)
            first, _, last = asked.removeprefix("bytes=").partition("-")
            low, high = int(first), min(int(last or len(data) - 1), len(data) - 1)
            where = f"bytes {low}-{high}/{len(data)}"
            return self.answer(206, data[low : high + 1], Content_Range=where)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
