"""One server for all tests of a class, asked byte by byte where that matters."""
import os
import re
import time
import unittest

import support
from lib.raw_http import RawClient, wait_until


def now_ms():
    return int(time.time() * 1000)


def series(name="http_test", value=1.0, time_ms=None, **labels):
    return [({"__name__": name, **labels}, [(time_ms or now_ms(), value)])]


def body_of(request):
    return support.snappy(support.write_request(request))


class ServerCase(unittest.TestCase):
    """One server for all tests of a class."""
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.directory = support.Directory()
        cls.path = cls.directory.__enter__()
        cls.server = support.Server(os.path.join(cls.path, "data"), *cls.flags)

    @classmethod
    def tearDownClass(cls):
        try:
            code = cls.server.stop()
            log = cls.server.log()
        finally:
            cls.server.close()
            cls.directory.__exit__()
        if code != 0 or "Sanitizer" in log or "runtime error" in log:
            raise AssertionError(f"the server ended with {code}:\n{log[-8000:]}")

    def client(self):
        client = RawClient(self.server.port)
        self.addCleanup(client.close)
        return client

    def ask(self, data):
        with RawClient(self.server.port) as client:
            client.send(data if isinstance(data, bytes) else data.encode())
            return client.reply()

    def post(self, body, headers=None, path="/api/v1/write"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n"
        for name, value in (support.WRITE_HEADERS if headers is None else headers).items():
            head += f"{name}: {value}\r\n"
        return self.ask(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def metric(self, name):
        text = self.server.get("/metrics")[1].decode()
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        return float(match.group(1)) if match else None


class HeavyCase(ServerCase):
    """The server has data, and cls.heavy is a query over it that takes seconds."""
    HEAVY = ("/api/v1/query_range?query=sum(count_over_time(heavy%5B1h%5D)%2Bcount_over_time(heavy%5B59m%5D))"
             "&start={}&end={}&step=1")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.begin = now_ms() // 1000 * 1000 - 7200000
        for first in range(0, 2000, 500):
            rows = [({"__name__": "heavy", "n": str(n)}, [(cls.begin + i * 60000, float(i)) for i in range(100)])
                    for n in range(first, first + 500)]
            if cls.server.write(rows)[0] != 204:
                raise AssertionError("the samples were not taken")
        cls.heavy = cls.HEAVY.format(cls.begin // 1000, cls.begin // 1000 + 10000)

    def start_heavy(self, extra=""):
        client = self.client()
        client.socket.settimeout(120)
        client.send(f"GET {self.heavy}{extra} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client

    def idle(self):
        return wait_until(lambda: self.metric("tidalite_queries_active") == 0, 60)
