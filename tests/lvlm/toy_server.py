"""A real HTTP server that serves a local LVLM by the protocol of vLLM's chat endpoint, with faults on demand.

It shares no code with the client: text and image go through the processor's own chat template, the model makes full
logits, and the entries are read off their log-softmax.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image

Fault = Callable[[int, dict[str, Any]], str | None]
"""(number of the request, its body) -> what goes wrong with it, or None."""


class ToyServer:
    def __init__(self, lvlm: Any, name: str = "toy", *, key: str | None = None) -> None:
        self.lvlm, self.name, self.key = lvlm, name, key
        self.fault: Fault = lambda n, body: None
        self.twist: Callable[[dict[str, Any], dict[str, Any]], Any] = lambda body, reply: reply
        self.models: Any = {"object": "list", "data": [{"id": name, "object": "model"}]}
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.most = 0
        self._flying = 0
        self._count = 0
        self._lock, self._model_lock = threading.Lock(), threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def address(self) -> str:
        return f"openai:{self.name}@{self.url}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    # -- the model ------------------------------------------------------------------------------------------------

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        processor, model = self.lvlm.processor, self.lvlm.model
        messages, images = [], []
        for message in body["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else []
            for part in [] if isinstance(content, str) else content:
                if part["type"] == "image_url":
                    data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
                    images.append(Image.open(io.BytesIO(data)).convert("RGB"))
                    parts.append({"type": "image"})
                else:
                    parts.append(part)
            messages.append({"role": message["role"], "content": parts})
        text = processor.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        bos = processor.tokenizer.bos_token
        special = not (bos and text.startswith(bos))
        inputs = processor(
            text=[text], images=[images] if images else None, return_tensors="pt", add_special_tokens=special
        )
        with self._model_lock, torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[0].float()
            new = []
            if body["max_tokens"] > 1:
                ends = model.generation_config.eos_token_id
                out = model.generate(**inputs, max_new_tokens=body["max_tokens"], do_sample=False)
                new = out[0, inputs["input_ids"].shape[1] :].tolist()
                ended = new[-1] in ([ends] if isinstance(ends, int) else ends)
        ids = inputs["input_ids"][0].tolist()
        reply: dict[str, Any] = {"object": "chat.completion", "model": body["model"]}
        if body["max_tokens"] > 1:
            shown = processor.tokenizer.decode(new, skip_special_tokens=True)
            choice = {
                "message": {"role": "assistant", "content": shown},
                "finish_reason": "stop" if ended else "length",
            }
        else:
            choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
        reply["choices"] = [{"index": 0, **choice}]
        reply["usage"] = {"prompt_tokens": len(ids), "completion_tokens": max(1, len(new))}
        if body.get("prompt_logprobs") is not None:
            values = logits.log_softmax(-1)
            entries: list[Any] = [None]
            for place, token in enumerate(ids[1:], 1):
                decoded = processor.tokenizer.decode([token])
                entries.append(
                    {str(token): {"logprob": float(values[place - 1, token]), "rank": 1, "decoded_token": decoded}}
                )
            reply["prompt_logprobs"] = entries
            if body.get("return_token_ids"):
                reply["prompt_token_ids"] = ids
        return reply

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _handler(server: ToyServer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: int = 0) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data) + cut))
                self.end_headers()
                self.wfile.write(data)
                if cut:
                    self.close_connection = True

            def _allowed(self) -> bool:
                if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                    self._send(401, json.dumps({"error": {"message": f"bad key, not {server.key}"}}).encode())
                    return False
                return True

            def do_GET(self) -> None:
                if not self._allowed():
                    return
                if self.path == "/v1/models":
                    self._send(200, json.dumps(server.models).encode())
                elif self.path == "/version":
                    self._send(200, b'{"version": "0.0.toy"}')
                else:
                    self._send(404, b'{"detail": "Not Found"}')

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if not self._allowed():
                    return
                body = json.loads(data)
                with server._lock:
                    server._count += 1
                    server._flying += 1
                    server.most = max(server.most, server._flying)
                    server.bodies.append(body)
                    fault = server.fault(server._count, body)
                try:
                    self._answer(body, fault)
                finally:
                    with server._lock:
                        server._flying -= 1

            def _answer(self, body: dict[str, Any], fault: str | None) -> None:
                server.seen[fault or "fine"] += 1
                if fault == "429":
                    self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.01"})
                elif fault == "500":
                    self._send(500, b"Internal Server Error")
                elif fault == "400":
                    self._send(400, b'{"error": {"message": "the prompt is too long\\u001b[2J"}}')
                elif fault == "dropped":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    if fault == "slow":
                        time.sleep(0.2)
                    reply = server.twist(body, server.complete(body))
                    if fault == "wrong count" and reply.get("prompt_logprobs"):
                        reply["prompt_logprobs"].pop()
                    data = json.dumps(reply).encode()
                    if fault == "truncated":
                        self._send(200, data[: len(data) // 2])
                    elif fault == "cut short":
                        self._send(200, data[: len(data) // 2], cut=len(data) - len(data) // 2)
                    else:
                        self._send(200, data)

        return Handler


@contextmanager
def serving(lvlm: Any, name: str = "toy", **options: Any) -> Iterator[ToyServer]:
    server = ToyServer(lvlm, name, **options)
    try:
        yield server
    finally:
        server.close()
