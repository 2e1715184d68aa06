"""A web server of this machine alone, which serves bytes with ranges and may break off."""

import contextlib
import http.server
import math
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        served = self.server.served
        served.requests.append((self.command, self.path, self.headers))
        data = served.files.get(self.path)
        if data is None:
            self.send_response(404)
            for name, value in {"Content-Length": "0", **served.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range", served.tag) == served.tag:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        for name, value in {"Content-Length": len(data) - start, "ETag": served.tag, **served.headers}.items():
            self.send_header(name, str(value))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[start:][: served.most_bytes if served.breaks > 0 else None])
            served.breaks -= 1
        self.close_connection = True

    def log_message(self, *_):
        pass


class Served:
    """What is served: path -> bytes; the first `breaks` answers break off after `most_bytes`."""

    def __init__(self, address: str):
        self.address, self.files, self.requests = address, {}, []
        self.tag, self.headers, self.most_bytes, self.breaks = '"one"', {}, None, math.inf


@contextlib.contextmanager
def serving():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
