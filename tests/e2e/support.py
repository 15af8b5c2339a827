"""What the end-to-end tests share: a server in a process of its own, remote-write bodies made by hand, plain HTTP.

Bodies are spelled here from the protocol's text (remote write 1.0; snappy's block format with literals only), not with the
code under test."""
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse

BINARY = os.environ.get("TIDALITE_BIN", "")
BUILD = os.environ.get("TIDALITE_BUILD", "")
SANITIZE = os.environ.get("TIDALITE_SANITIZE", "")
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
WRITE_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy",
                 "X-Prometheus-Remote-Write-Version": "0.1.0"}


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, data):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def label_bytes(labels):
    """Labels of a TimeSeries, sorted by name."""
    return b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items()))


def sample_bytes(time_ms, value):
    return field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms))


def write_request(series):
    """series: [(labels dict or label bytes, [(time_ms, value)…])…] -> protobuf."""
    out = []
    for labels, samples in series:
        if isinstance(labels, dict):
            labels = label_bytes(labels)
        out.append(field(1, labels + b"".join(sample_bytes(t, v) for t, v in samples)))
    return b"".join(out)


def snappy(data):
    """The block format with literals only: valid, not smaller."""
    out = [varint(len(data))]
    for i in range(0, len(data), 65536):
        piece = data[i:i + 65536]
        out.append(b"\xf4" + struct.pack("<H", len(piece) - 1) + piece)
    return b"".join(out)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def request(port, method, path, body=None, headers=None, timeout=60):
    """Status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def post_write(port, series):
    """A remote write; status and body."""
    code, _, body = request(port, "POST", "/api/v1/write", snappy(write_request(series)), WRITE_HEADERS)
    return code, body


class Ended(RuntimeError):
    """The server ended before it was ready; returncode is negative if a signal did it."""

    def __init__(self, returncode, log):
        super().__init__(f"the server ended with {returncode}:\n{log}")
        self.returncode = returncode


class Server:
    """tidalite serve in `data_dir`, its log in self.log_path. Stopped by close() at the latest."""

    def __init__(self, data_dir, *flags, prefix=(), env=None, binary=None, ready_s=60):
        self.data_dir = data_dir
        self.port = free_port()
        self.log_path = data_dir + f".log-{self.port}"
        self.url = f"http://127.0.0.1:{self.port}"
        prefix_at = flags.index("--path-prefix") + 1 if "--path-prefix" in flags else 0
        ready = (flags[prefix_at] if prefix_at else "") + "/-/ready"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [*prefix, binary or BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", data_dir, *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        deadline = time.monotonic() + ready_s
        while True:
            if self.process.poll() is not None:
                raise Ended(self.process.returncode, self.log())
            try:
                if self.get(ready, timeout=5)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"the server is not ready after {ready_s} s:\n{self.log()}")
            time.sleep(0.01)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def request(self, method, path, body=None, headers=None, timeout=60):
        code, _, body = request(self.port, method, path, body, headers, timeout)
        return code, body

    def get(self, path, timeout=60, **parameters):
        if parameters:
            path += "?" + urllib.parse.urlencode(parameters, doseq=True)
        return self.request("GET", path, timeout=timeout)

    def data(self, path, **parameters):
        """`data` of a successful API answer."""
        return api_data("127.0.0.1", self.port, path, **parameters)

    def write(self, series):
        return post_write(self.port, series)

    def child_pid(self):
        """The server's own pid, also where it runs under strace."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children, encoding="utf-8") as f:
            pids = f.read().split()
        return int(pids[0]) if pids else self.process.pid

    def stop(self, number=signal.SIGTERM, timeout=60, pid=None):
        """Sends the signal and returns the exit code (negative: killed by that signal)."""
        os.kill(pid or self.process.pid, number)
        return self.process.wait(timeout=timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def api_data(host, port, path, timeout=120, **parameters):
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path + ("?" + urllib.parse.urlencode(parameters, doseq=True) if parameters else ""))
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise AssertionError(f"{path} {parameters}: {reply.status} {body[:500]!r}")
    answer = json.loads(body)
    if answer["status"] != "success":
        raise AssertionError(f"{path} {parameters}: {answer}")
    return answer["data"]


class Directory:
    """A temporary directory in the build folder (a real disk, not memory), removed at the end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="e2e-", dir=BUILD or None)
        return self.path

    def __exit__(self, *exc):
        shutil.rmtree(self.path, ignore_errors=True)


class Writer:
    """One keep-alive connection for writes, without the weight of http.client."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, body):
        self.socket.sendall(b"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                            b"Content-Encoding: snappy\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def status(self):
        """The status of the next response; 0 if the connection ended before it was whole."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(4096)
            if not piece:
                return 0
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(rest) < length:
            piece = self.socket.recv(4096)
            if not piece:
                return 0
            rest += piece
        return int(head[9:12])

    def close(self):
        self.socket.close()


def peer(name):
    """A program of scripts/peers, unpacked if need be."""
    folder = os.environ.get("TIDALITE_PEERS") or os.path.join(ROOT, "build/peers")
    path = os.path.join(folder, "usr/bin", name)
    if not os.access(path, os.X_OK):
        folder = subprocess.run(["sh", os.path.join(ROOT, "scripts/peers")], check=True, capture_output=True,
                                text=True).stdout.strip()
        path = os.path.join(folder, "usr/bin", name)
    return path


class Prometheus:
    """Debian's Prometheus on a free port, its files in `folder`, taking remote writes. Killed by close()."""

    def __init__(self, folder, *flags, config="global: {}\n"):
        self.port = free_port()
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "prometheus.yml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(config)
        with open(os.path.join(folder, "log"), "wb") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [peer("prometheus"), f"--config.file={path}", f"--web.listen-address=127.0.0.1:{self.port}",
                 f"--storage.tsdb.path={os.path.join(folder, 'data')}", "--web.enable-remote-write-receiver", *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self.ready():
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError("Prometheus does not start")
            time.sleep(0.05)

    def ready(self):
        try:
            return api_data("127.0.0.1", self.port, "/api/v1/query", query="1") is not None
        except (AssertionError, OSError, http.client.HTTPException):
            return False

    def close(self):
        self.process.kill()
        self.process.wait()
