"""Acknowledged means durable while all goes on that goes on behind the log: kill -9 at each named point (base/kill_point.h) and at
random instants, in a server whose limits are so small that it cuts windows, takes late samples, merges blocks, writes
snapshots, deletes, cleans and drops old blocks many times a second.

A directory is killed over and over, once for each point whose name stands in the sources. At each start everything that may be
asked for is compared: what was acknowledged and not deleted is there with the same bits, what was deleted is not, nor is what
was never sent. What was in flight may be there or not; it is sent again. What is older than the retention may be gone.

For each of KILL_IO (syscall,uring), at the same time: each point once when it is passed first, and as many times more as
KILL_ROUNDS (5) says at some later pass, or at a random instant if there is none; from KILL_SEED."""
import http.client
import os
import random
import re
import signal
import sys
import threading
import time
import unittest
import urllib.parse

import support
from test_kill import BACKENDS, ROUNDS, SEED, any_double, bits

SENDERS = 3
SERIES = 4  # of each sender
RETENTION_MS = 8000
LIMITS = {"window_ms": 250, "window_grace_ms": 100, "late_ms_max": 150, "snapshot_samples_max": 400, "snapshot_ms_max": 2000,
          "retention_ms": RETENTION_MS, "log_group_bytes_max": 64 << 10, "log_segment_bytes": 128 << 10, "deletes_max": 16,
          "scrub_pass_ms": 1000}
LOAD_S_MAX = 3  # some points are passed at a start or not at all: then it is killed, and started again
TRIES = 10
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FAILED = (OSError, http.client.HTTPException)


def points():
    """The names in the sources."""
    found = set()
    for folder, _, names in os.walk(os.path.join(support.ROOT, "storage")):
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                for arguments in re.findall(r"KILL_POINT\((.*?)\);", f.read()):
                    found.update(re.findall(r'"(\w+)"', arguments))
    return sorted(found)


class Sender:
    """Writes, late writes and deletes of series of its own, one request at a time, and what may be there of them."""

    def __init__(self, number, seed):
        self.number = number
        self.rng = random.Random(seed)
        self.labels = [support.label_bytes({"__name__": "kill_points", "sender": str(number), "series": str(i)})
                       for i in range(SERIES)]
        self.time_ms = 0
        self.begin_ms = int(time.time() * 1000)
        self.allowed = {}    # (series, time) -> values that it may have, None among them if it may be absent
        self.deleted = []    # (series, time) that were deleted and not written again
        self.pending = None  # the request in flight, to be sent again
        self.acked_count = self.in_flight_count = 0
        self.error = None

    # ---- requests: (what is allowed once it is acknowledged: {(series, time): bits or None}, how to send it) ----

    def write(self, samples):
        series = {}
        for (i, when), value in samples.items():
            series.setdefault(i, []).append((when, value))
        body = support.snappy(support.write_request([(self.labels[i], sorted(s)) for i, s in sorted(series.items())]))
        return {at: bits(value) for at, value in samples.items()}, body

    def scrape(self):
        self.time_ms = max(self.time_ms + 1, int(time.time() * 1000))
        return self.write({(i, self.time_ms): any_double(self.rng) for i in range(SERIES)})

    def late(self):
        """In a window that is cut, or merged already; or again what was deleted."""
        now_ms = int(time.time() * 1000)
        if self.deleted and self.rng.random() < 0.5:
            at = self.deleted.pop(self.rng.randrange(len(self.deleted)))
        else:
            at = (self.rng.randrange(SERIES), now_ms - self.rng.randrange(RETENTION_MS // 2))
        if at[1] < now_ms - RETENTION_MS // 2 or self.allowed.get(at, {None}) != {None}:
            return self.scrape()
        return self.write({at: any_double(self.rng)})

    def delete(self):
        now_ms = int(time.time() * 1000)
        begin_ms = now_ms - self.rng.randrange(RETENTION_MS)
        end_ms = begin_ms + self.rng.choice((1, 50, 1000))
        which = self.rng.choice((None, *range(SERIES)))
        series = "" if which is None else f',series="{which}"'
        parameters = {"match[]": f'kill_points{{sender="{self.number}"{series}}}',
                      "start": f"{begin_ms / 1000:.3f}", "end": f"{end_ms / 1000:.3f}"}
        gone = {at: None for at in self.allowed
                if begin_ms <= at[1] <= end_ms and which in (None, at[0])}
        return gone, "/api/v1/admin/tsdb/delete_series?" + urllib.parse.urlencode(parameters)

    def next(self):
        drawn = self.rng.random()
        if drawn < 0.06:
            return self.delete()
        if drawn < 0.08:
            return {}, "/api/v1/admin/tsdb/clean_tombstones"
        return self.late() if drawn < 0.3 else self.scrape()

    def send(self, server, writer):
        """The status; 0 if the server ended."""
        _, what = self.pending
        if isinstance(what, bytes):
            writer.send(what)
            return writer.status()
        return server.request("POST", what, headers=FORM)[0]

    def run(self, server, ends):
        writer = None
        try:
            writer = support.Writer(server.port)
            while not ends.is_set():
                if self.pending is None:
                    self.pending = self.next()
                status = self.send(server, writer)
                if status == 0:
                    break
                if status == 204:
                    self.acknowledge()
                elif status != 503 or isinstance(self.pending[1], bytes): # 503: too many deletes wait
                    self.error = f"seed {SEED}: sender {self.number}: answered {status}"
                    return
                self.pending = None
                time.sleep(0.001)
        except FAILED:
            pass
        finally:
            if writer is not None:
                writer.close()

    def acknowledge(self):
        self.acked_count += 1
        for at, value in self.pending[0].items():
            self.allowed[at] = {value}
            if value is None:
                self.deleted.append(at)

    def ended(self):
        """The server did: what was in flight may have come to be."""
        if self.pending is not None:
            self.in_flight_count += 1
            for at, value in self.pending[0].items():
                self.allowed.setdefault(at, {None}).add(value)

    def check(self, server):
        """Returns how many samples were there as they must be."""
        now_ms = int(time.time() * 1000)
        answer = server.data("/api/v1/query", time=f"{now_ms / 1000 + 1:.3f}",
                             query=f'kill_points{{sender="{self.number}"}}[{now_ms + 1000 - self.begin_ms + RETENTION_MS}ms]')
        found = {}
        for series in answer["result"]:
            for when, value in series["values"]:
                at = (int(series["metric"]["series"]), round(when * 1000))
                assert at not in found, f"seed {SEED}: sender {self.number}: {at} stands twice"
                found[at] = bits(float(value))
        for at, allowed in self.allowed.items():
            have = found.get(at)
            if have in allowed or (have is None and at[1] < now_ms - RETENTION_MS):
                continue
            what = "was deleted and is there" if allowed == {None} else "is missing" if have is None else "is changed"
            raise AssertionError(f"seed {SEED}: sender {self.number}: series {at[0]} at {at[1]}, "
                                 f"{now_ms - at[1]} ms ago: {what}")
        for at in found:
            assert at in self.allowed, f"seed {SEED}: sender {self.number}: {at} was never sent"
        return len(found)


class Directory:
    """One data directory, killed over and over."""

    def __init__(self, data, backend):
        self.data = data
        self.backend = backend
        self.rng = random.Random(f"{SEED} {backend}")
        self.senders = [Sender(n, self.rng.getrandbits(64)) for n in range(SENDERS)]
        self.compared = self.checks = self.kills = 0
        self.error = None

    def start(self, point):
        env = {"TIDALITE_LIMITS": ",".join(f"{name}={value}" for name, value in LIMITS.items())}
        if point is not None:
            env["TIDALITE_KILL_AT"] = point
        return support.Server(self.data, "--io", self.backend, "--loops", "1", "--enable-admin-api", env=env)

    def check(self, server):
        self.compared += sum(sender.check(server) for sender in self.senders)
        self.checks += 1

    def load(self, server, seconds):
        """Until the server ends by itself, or was killed after so many seconds. True if it ended by itself."""
        ends = threading.Event()
        threads = [threading.Thread(target=s.run, args=(server, ends)) for s in self.senders]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while server.process.poll() is None and time.monotonic() < deadline and not any(s.error for s in self.senders):
            time.sleep(0.005)
        itself = server.process.poll() is not None
        ends.set()
        server.close()
        for thread in threads:
            thread.join()
        for sender in self.senders:
            sender.ended()
            assert sender.error is None, f"{sender.error}\n{server.log()[-2000:]}"
        return itself

    def kill(self, point, passes, seconds):
        """Starts, compares, and goes on until the point is passed so often, which may be at any time of this, or for so many
        seconds. True if it was passed."""
        self.kills += 1
        try:
            server = self.start(f"{point}:{passes}")
        except support.Ended as error:
            assert error.returncode == -signal.SIGKILL, f"seed {SEED}: {point}: {error}"
            return True
        try:
            try:
                self.check(server)
            except FAILED:
                server.process.wait(timeout=10)
            passed = self.load(server, seconds)
            assert server.process.returncode == -signal.SIGKILL, f"seed {SEED}: {point}: {server.log()[-4000:]}"
            return passed
        finally:
            server.close()

    def round(self, point, passes):
        """A first pass there must be."""
        if passes > 1:
            self.kill(point, passes, self.rng.random())
        elif not any(self.kill(point, 1, LOAD_S_MAX) for _ in range(TRIES)):
            raise AssertionError(f"seed {SEED}: {point} is not passed")

    def run(self, rounds):
        try:
            for point, passes in rounds:
                self.round(point, passes)
            server = self.start(None)
            self.check(server)
            assert server.stop() == 0
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.error = error


class KillPointsTest(unittest.TestCase):
    def test_points(self):
        names = points()
        self.assertGreater(len(names), 25)
        with support.Directory() as path:
            directories = []
            for backend in BACKENDS:
                try:
                    support.Server(os.path.join(path, "try"), "--io", backend).close()
                    directories.append(Directory(os.path.join(path, backend), backend))
                except support.Ended as error: # io_uring is denied here
                    print(f"\nkill: --io={backend} is skipped: {str(error)[-200:]}", file=sys.stderr)
            self.assertTrue(directories)
            threads = []
            for directory in directories:
                rounds = [(name, 1) for name in names]
                rounds += [(directory.rng.choice(names), directory.rng.randrange(2, 6)) for _ in range(ROUNDS)]
                directory.rng.shuffle(rounds)
                threads.append(threading.Thread(target=directory.run, args=(rounds,)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for directory in directories:
            if directory.error is not None:
                raise directory.error
            acked = sum(s.acked_count for s in directory.senders)
            in_flight = sum(s.in_flight_count for s in directory.senders)
            self.assertGreater(directory.checks, directory.kills // 2)
            self.assertGreater(in_flight, directory.kills // 2)
            print(f"\nkill: {len(names)} points, --io={directory.backend}, seed {SEED}: {directory.kills} kills, {acked} requests "
                  f"acknowledged, {directory.compared} samples compared, {in_flight} requests in flight at the kills: nothing "
                  "lost, nothing made up, nothing deleted came back", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
