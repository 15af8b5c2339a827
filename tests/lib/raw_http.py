"""An HTTP client that sends exactly the bytes it is told to, for what a polite client cannot do: pipelines, half
requests, malformed heads."""
import socket
import time


class Reply:
    def __init__(self, code, headers, body):
        self.code = code
        self.headers = headers  # lower-case names; the last of several
        self.body = body

    def __repr__(self):
        return f"Reply({self.code}, {self.headers}, {self.body[:200]!r})"


class RawClient:
    def __init__(self, port, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        """More bytes; False at the end of the stream."""
        piece = self.socket.recv(65536)
        self.data += piece
        return bool(piece)

    def until(self, mark):
        while mark not in self.data:
            if not self.fill():
                raise EOFError(f"the connection ended; left: {self.data[:200]!r}")
        head, _, self.data = self.data.partition(mark)
        return head

    def exactly(self, count):
        while len(self.data) < count:
            if not self.fill():
                raise EOFError(f"the connection ended in a body; left: {self.data[:200]!r}")
        body, self.data = self.data[:count], self.data[count:]
        return body

    def reply(self, head_only=False):
        """The next response; its framing is checked on the way."""
        lines = self.until(b"\r\n\r\n").split(b"\r\n")
        version, code = lines[0].split(b" ")[:2]
        if version != b"HTTP/1.1":
            raise ValueError(f"not a response: {lines[0]!r}")
        code = int(code)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        if head_only or code in (204, 304) or code < 200:
            return Reply(code, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(self.until(b"\r\n"), 16)
                body += self.exactly(size)
                if self.exactly(2) != b"\r\n":
                    raise ValueError("a chunk without its end")
                if size == 0:
                    return Reply(code, headers, body)
        if "content-length" in headers:
            return Reply(code, headers, self.exactly(int(headers["content-length"])))
        while self.fill():
            pass
        body, self.data = self.data, b""
        return Reply(code, headers, body)

    def ended(self, within_s=10):
        """Does the server close the connection, having sent nothing more?"""
        self.socket.settimeout(within_s)
        try:
            return not self.data and not self.fill()
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


def wait_until(condition, within_s=10):
    """Polls; the condition's last value."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.02)
