"""A server of published files on loopback, which redirects as GitHub's releases do."""
import contextlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from huggingface_hub import constants

from keras_preact.zoo import releases

SILENCE, DRIPPING = "", "a byte at a time"  # instead of content, and instead of how many bytes are sent


def zipped(members, **changes):
    """A zip of {name: content}; changes are those of the only member's entry, which then lies."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for field, value in changes.items():
            setattr(archive.infolist()[0], field, value)
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, path = self.server, urlsplit(self.path).path
        server.requests.append(path)
        if path.startswith("/assets/"):
            content, cut = server.next_answer(path)
            if content is SILENCE:
                return server.stopped.wait()
            if isinstance(content, int):
                self.send_response(content)
                self.send_header("Retry-After", "60")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if cut == DRIPPING:
                for byte in content:
                    if server.stopped.wait(0.05):
                        return None
                    self.wfile.write(bytes([byte]))
            else:
                self.wfile.write(content[:cut])
            if server.hook:
                server.hook()
        else:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/assets{path}?sig=a%2Fb&x=1")
            self.send_header("Content-Length", "0")
            self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def next_answer(self, path):
        """Returns (content or status, bytes sent): of `files` by URL, or of `answers`, each once, the last for ever."""
        if url := next((url for url in self.files if path.endswith(url.partition("://")[2])), None):
            return self.files[url], None
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def serving(folder, monkeypatch):
    """Yields a server that is the mirror of every zoo; the cache is in `folder`.

    Its `requests` are the paths that were asked for; `hook` is called after each answer.
    """
    monkeypatch.setattr(constants, "HF_HOME", str(folder / "home"))
    server = _Server(("127.0.0.1", 0), _Handler)
    server.requests, server.files, server.answers, server.hook = [], {}, [(404, None)], None
    server.stopped = threading.Event()
    monkeypatch.setenv(releases.MIRROR, f"http://127.0.0.1:{server.server_port}/")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()
