"""A disk that is really full: a small tmpfs as the data directory, down to its last byte.

Deletes and retention work, writes are refused with 503 and Retry-After once the log has used up what it made ready,
questions are answered all the while, nothing acknowledged is lost when the server is killed and starts again on the full
disk, and all goes on by itself when there is room.

The tmpfs is mounted in a namespace of mounts of its own, so that it is gone with the test however that ends: `unshare -m`
as root, or `unshare -rm` as anybody. Where neither is permitted the test is skipped, or fails if CI=true."""
import http.client
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import support

INSIDE = "FULL_DISK_INSIDE"
WAYS = (["unshare", "-m"], ["unshare", "-rm"])
DISK_BYTES = 160 << 20
FLAGS = ("--enable-admin-api", "--log-segment-bytes", "33MiB")
DAY_MS = 24 * 3600 * 1000
SERIES = 20


def mount(path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", path], check=True, capture_output=True)


def way_in():
    """The first command in whose namespace a tmpfs can be mounted, and why not by those before it."""
    refused = []
    probe = tempfile.mkdtemp(prefix="e2e-mount-")
    try:
        for way in WAYS:
            try:
                done = subprocess.run([*way, "mount", "-t", "tmpfs", "-o", "size=1m", "none", probe], capture_output=True,
                                      text=True, check=False)
            except OSError as error:
                return None, str(error)
            if done.returncode == 0:
                return way, ""
            refused.append(f"{' '.join(way)}: {done.stderr.strip()}")
    finally:
        os.rmdir(probe)
    return None, "; ".join(refused)


def bits(value):
    return struct.pack("<d", value)


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="e2e-", dir=support.BUILD or None)
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.disk = os.path.join(self.base, "disk")
        os.mkdir(self.disk)
        mount(self.disk)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=False)
        self.rng = random.Random(5)
        self.now_ms = int(time.time() * 1000) - 600_000
        self.acked = {}  # (metric, i) -> {time_ms: bits}
        self.server = None
        self.addCleanup(lambda: self.server and self.server.close())

    def start(self, *flags):
        self.server = support.Server(self.disk, *FLAGS, *flags)

    def series(self, metric, time_ms, count):
        return [({"__name__": metric, "i": str(i)}, [(time_ms + k, self.rng.random()) for k in range(count)])
                for i in range(SERIES)]

    def write(self, metric, time_ms, count=1):
        return self.send(self.series(metric, time_ms, count))

    def send(self, series, body=None):
        """(status, Retry-After) of one request; what is acknowledged is noted."""
        body = body or support.snappy(support.write_request(series))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request("POST", "/api/v1/write", body, support.WRITE_HEADERS)
            reply = connection.getresponse()
            reply.read()
        finally:
            connection.close()
        if reply.status == 204:
            for labels, samples in series:
                self.acked.setdefault((labels["__name__"], labels["i"]), {}).update({t: bits(v) for t, v in samples})
        return reply.status, reply.getheader("Retry-After")

    def found(self, metric):
        result = self.server.data("/api/v1/query", query=f"{metric}[10d]")["result"]
        return {(metric, one["metric"]["i"]): {round(float(t) * 1000): bits(float(v)) for t, v in one["values"]}
                for one in result}

    def check(self, *gone):
        for metric in sorted({key[0] for key in self.acked}):
            want = {key: samples for key, samples in self.acked.items() if key[0] == metric and metric not in gone}
            self.assertEqual(self.found(metric), want, metric)

    def metric(self, name):
        for line in self.server.get("/metrics")[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(name)

    def wait(self, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), deadline, self.server.log()[-2000:])
            time.sleep(0.05)

    def fill(self):
        path = os.path.join(self.disk, "filler")
        with open(path, "ab", buffering=0) as file:
            for piece in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * piece)
                except OSError:
                    pass
        self.assertEqual(os.statvfs(self.disk).f_bavail, 0)

    def refused(self):
        """Writes until one is refused; then several more are. A repetition takes room in the log, too."""
        large = self.series("fill", self.now_ms + 1, 1000)
        self.now_ms += 1000
        body = support.snappy(support.write_request(large))
        for _ in range(2000):
            status, after = self.send(large, body)
            if status != 204:
                break
        for _ in range(5):
            self.assertEqual(status, 503)
            self.assertGreater(int(after), 0)
            time.sleep(0.2)
            self.now_ms += 1
            status, after = self.write("fill", self.now_ms)
        self.assertEqual(self.metric("tidalite_wal_writable"), 0)

    def test_full(self):
        self.start()
        self.assertEqual(self.write("old", self.now_ms - 3 * DAY_MS, 500)[0], 204)
        self.assertEqual(self.write("gone", self.now_ms, 10)[0], 204)
        self.wait(lambda: self.metric("tidalite_blocks") == 1)
        self.wait(lambda: os.path.exists(os.path.join(self.disk, "ballast")))
        for _ in range(100):
            self.now_ms += 1
            self.assertEqual(self.write("fill", self.now_ms)[0], 204)

        self.fill()
        status, body = self.server.request("POST", "/api/v1/admin/tsdb/delete_series?match[]=gone")
        self.assertEqual(status, 204, body)
        self.check("gone")
        status, body = self.server.request("POST", "/api/v1/admin/tsdb/snapshot")
        self.assertEqual(status, 507, body)
        self.assertEqual(os.listdir(os.path.join(self.disk, "snapshots")), [])
        self.assertEqual(self.metric("tidalite_copy_failures_total"), 1)
        self.refused()
        self.check("gone")
        status, body = self.server.request("POST", "/api/v1/admin/tsdb/delete_series?match[]=fill")
        self.assertEqual(status, 503, body)  # it could not be made durable
        status, body = self.server.request("POST", "/api/v1/admin/tsdb/snapshot")
        self.assertGreaterEqual(status, 500, body)
        self.check("gone")

        for flags in ((), ("--retention", "1d")):
            self.server.stop(signal.SIGKILL)
            self.start(*flags)
            if flags:  # what is too old goes, on a full disk too
                self.wait(lambda: self.metric("tidalite_blocks") == 0)
                self.check("gone", "old")
                self.fill()  # with what that made room for
            else:
                self.check("gone")
            self.refused()

        os.remove(os.path.join(self.disk, "filler"))

        def writes():
            self.now_ms += 1
            return self.write("fill", self.now_ms)[0] == 204
        self.wait(writes, 30)
        self.wait(lambda: self.metric("tidalite_wal_writable") == 1)
        self.check("gone", "old")
        self.server.stop(signal.SIGKILL)
        self.start("--retention", "1d")
        self.check("gone", "old")
        self.assertEqual(self.server.stop(), 0)


if __name__ == "__main__":
    if INSIDE in os.environ:
        unittest.main()
    WAY, REFUSED = way_in()
    if WAY is None:
        print(f"skipped: no tmpfs can be mounted here: {REFUSED}")
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    os.environ[INSIDE] = "1"
    os.execvp(WAY[0], [*WAY, sys.executable, *sys.argv])
