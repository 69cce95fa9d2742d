"""An OpenAI-compatible endpoint on loopback, for the tests of the agents. It has no model: it repeats the question.

The test controls it: a question with the text `hold` waits until `release`, `once` has errors to return, `streams`
says whether it streams, and `break_off` ends an answer early. `asked` has all questions.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub:
    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.once: list[tuple[int, dict, str]] = []
        self.streams = True
        self.break_off = False
        self.hold = ""
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.waiting = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        self._released.set()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        question = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        question["path"], question["key"] = handler.path, handler.headers.get("Authorization")
        with self._lock:
            self.asked.append(question)
            refusal = self.once.pop(0) if self.once else None
        if refusal is not None:
            self.send(handler, *refusal)
            return
        text = str(question["messages"][-1]["content"])
        if self.hold and self.hold in text:
            with self._lock:
                self.waiting += 1
            self._released.wait()
        reply = f"You said: {text}"
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        if question.get("stream") and self.streams:
            self.stream(handler, question, reply, usage)
            return
        message = {"role": "assistant", "content": reply}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        self.send(handler, 200, {}, json.dumps({**head(question, "chat.completion"), **body}))

    def send(self, handler: BaseHTTPRequestHandler, code: int, headers: dict, body: str) -> None:
        data = body.encode()
        handler.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def stream(self, handler: BaseHTTPRequestHandler, question: dict, reply: str, usage: dict) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()

        def event(**fields: object) -> None:
            data = json.dumps({**head(question, "chat.completion.chunk"), **fields})
            handler.wfile.write(f"data: {data}\n\n".encode())

        for word in reply.split(" "):
            space = "" if word == reply.split(" ", maxsplit=1)[0] else " "
            event(choices=[{"index": 0, "delta": {"content": space + word}, "finish_reason": None}])
            if self.break_off:
                return
        event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        event(choices=[], usage=usage)
        handler.wfile.write(b"data: [DONE]\n\n")


def head(question: dict, kind: str) -> dict:
    return {"id": "stub", "object": kind, "created": 1, "model": question["model"]}
