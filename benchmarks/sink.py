"""A signing service and a store that keeps nothing, as fast as a few lines can be: `python -m benchmarks.sink`.

Prints its port, then serves until its input ends. Bodies are read into one buffer and dropped, so that what is measured
is who sends them; it speaks just enough HTTP/1.1 for the service and for curl. `GET /analytics?…` answers a URL here.
"""

import json
import socket
import sys
import threading
from urllib.parse import parse_qs, urlsplit

BUFFER_BYTES = 1 << 20


class Connection:
    """One client."""

    def __init__(self, peer: socket.socket, port: int) -> None:
        self._peer = peer
        self._port = port
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._ahead = b""

    def serve(self) -> None:
        """Answer until it hangs up."""
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while head := self._head():
                line, _, fields = head.partition("\r\n")
                method, target, _ = line.split(" ")
                if "expect: 100-continue" in fields.lower():
                    self._peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._drop(_length(fields))
                body = self._signed(target) if method == "GET" else b""
                self._peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except OSError:
            pass
        self._peer.close()

    def _head(self) -> str:
        while b"\r\n\r\n" not in self._ahead:
            data = self._peer.recv(65536)
            if not data:
                return ""
            self._ahead += data
        head, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def _drop(self, length: int) -> None:
        length -= len(self._ahead)
        self._ahead = b"" if length >= 0 else self._ahead[length:]
        while length > 0:
            received = self._peer.recv_into(self._buffer, min(length, BUFFER_BYTES))
            if not received:
                raise ConnectionResetError
            length -= received

    def _signed(self, target: str) -> bytes:
        query = parse_qs(urlsplit(target).query)
        path = f"{query['tenant'][0]}/{query['relative_file_path'][0]}".replace("%", "%25")
        url = f"http://127.0.0.1:{self._port}/objects/{path}?X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        return json.dumps({"url": url}).encode()


def _length(fields: str) -> int:
    for field in fields.lower().split("\r\n"):
        name, _, value = field.partition(":")
        if name == "content-length":
            return int(value)
    return 0


def main() -> None:
    """Listen, and serve each client in a thread."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    print(port, flush=True)

    def accept() -> None:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=Connection(peer, port).serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
