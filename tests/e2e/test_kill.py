"""Acknowledged means durable, from outside: kill -9 with writes in flight, start again on the same directory, look.

Each round: writers on several connections send requests with values that nobody else sends; after at least 1,000
acknowledged requests the server is killed at a random instant; after the restart every acknowledged sample must be there
with the same bits, and nothing that was never sent. What was in flight may be there or not; it is sent again, as a
sender would, and must then be acknowledged.

KILL_ROUNDS (5) rounds for each of KILL_IO (syscall,uring) from KILL_SEED (random, printed)."""
import math
import os
import random
import signal
import struct
import sys
import threading
import time
import unittest

import support

ROUNDS = int(os.environ.get("KILL_ROUNDS", "5"))
BACKENDS = os.environ.get("KILL_IO", "syscall,uring").split(",")
SEED = int(os.environ.get("KILL_SEED", str(int.from_bytes(os.urandom(4), "little"))))
CONNECTIONS = 6
SERIES = 5  # of each connection, every one in every request
ACKED_MIN = 1000


def any_double(rng):
    """Every finite double is as good as another; -0 now and then."""
    if rng.random() < 0.01:
        return -0.0
    while True:
        value = struct.unpack("<d", rng.randbytes(8))[0]
        if math.isfinite(value):
            return value


def bits(value):
    return struct.pack("<d", value)


class Sender:
    """One connection's series and what is known about them."""

    def __init__(self, number, seed, time_ms):
        self.number = number
        self.rng = random.Random(seed)
        self.labels = [support.label_bytes({"__name__": "kill_test", "connection": str(number), "series": str(i)})
                       for i in range(SERIES)]
        self.time_ms = time_ms
        self.acked = {}      # time -> [bits of each series]
        self.in_flight = None  # (time, [bits], body)
        self.maybe = {}      # in flight at a kill: time -> [bits]
        self.error = None
        self.acked_count = 0

    def next(self):
        if self.in_flight is None:
            self.time_ms += self.rng.choice((1, 1, 1, 7, 1000))
            values = [any_double(self.rng) for _ in range(SERIES)]
            request = support.write_request([(l, [(self.time_ms, v)]) for l, v in zip(self.labels, values)])
            self.in_flight = (self.time_ms, [bits(v) for v in values], support.snappy(request))
        return self.in_flight

    def run(self, port, stopped):
        try:
            writer = support.Writer(port)
        except OSError as error:
            self.error = self.error if stopped.is_set() else f"connect: {error}"
            return
        try:
            while True:
                when, values, body = self.next()
                writer.send(body)
                status = writer.status()
                if status == 0:
                    break
                if status != 204:
                    self.error = f"connection {self.number}: answered {status}"
                    return
                self.acked[when] = values
                self.maybe.pop(when, None)
                self.in_flight = None
                self.acked_count += 1
        except OSError:
            pass
        finally:
            writer.close()
        if not stopped.wait(10):
            self.error = f"connection {self.number}: closed by the server before the kill"


class KillTest(unittest.TestCase):
    def check(self, server, senders, since_ms):
        """Everything acknowledged since then is there, and nothing that was never sent."""
        count = 0
        for sender in senders:
            end = sender.time_ms + 1000
            answer = server.data("/api/v1/query", time=f"{end / 1000:.3f}",
                                 query=f'kill_test{{connection="{sender.number}"}}[{end - since_ms}ms]')
            found = {}
            for series in answer["result"]:
                i = int(series["metric"]["series"])
                found[i] = {round(t * 1000): bits(float(v)) for t, v in series["values"]}
                self.assertEqual(len(found[i]), len(series["values"]), "a time stands twice")
            for when, values in sender.acked.items():
                if when <= since_ms:
                    continue
                for i, want in enumerate(values):
                    have = found.get(i, {}).get(when)
                    self.assertEqual(have, want, f"seed {SEED}: connection {sender.number} series {i} at {when}: an "
                                     f"acknowledged sample is {'missing' if have is None else 'changed'}")
                    count += 1
            for i, samples in found.items():
                for when, have in samples.items():
                    sent = sender.acked.get(when) or sender.maybe.get(when)
                    self.assertTrue(sent is not None and sent[i] == have,
                                    f"seed {SEED}: connection {sender.number} series {i} at {when}: never sent")
        return count

    def run_rounds(self, backend):
        rng = random.Random(f"{SEED} {backend}")
        with support.Directory() as directory:
            data = os.path.join(directory, "data")
            begin_ms = int(time.time() * 1000) - 6 * 3600 * 1000
            senders = [Sender(n, rng.getrandbits(64), begin_ms) for n in range(CONNECTIONS)]
            requests = samples = in_flight = 0
            server = support.Server(data, "--io", backend)
            try:
                for number in range(ROUNDS):
                    since_ms = min(s.time_ms for s in senders)
                    acked_before = sum(s.acked_count for s in senders)
                    stopped = threading.Event()
                    threads = [threading.Thread(target=s.run, args=(server.port, stopped)) for s in senders]
                    for thread in threads:
                        thread.start()
                    goal = ACKED_MIN + rng.randrange(200)
                    deadline = time.monotonic() + 120
                    while sum(s.acked_count for s in senders) - acked_before < goal:
                        self.assertLess(time.monotonic(), deadline, "1,000 requests were not acknowledged in 120 s")
                        self.assertFalse([s.error for s in senders if s.error], server.log()[-2000:])
                        time.sleep(0.002)
                    time.sleep(rng.random() * 0.02)
                    server.process.send_signal(signal.SIGKILL)
                    stopped.set()
                    server.process.wait()
                    for thread in threads:
                        thread.join()
                    self.assertFalse([s.error for s in senders if s.error])
                    for sender in senders:
                        if sender.in_flight is not None:
                            in_flight += 1
                            sender.maybe[sender.in_flight[0]] = sender.in_flight[1]
                    requests += sum(s.acked_count for s in senders) - acked_before
                    server = support.Server(data, "--io", backend)
                    # The round just ended; now and then, and at last, everything.
                    everything = number % 10 == 9 or number == ROUNDS - 1
                    samples += self.check(server, senders, begin_ms if everything else since_ms)
                self.assertGreater(in_flight, ROUNDS, "hardly a write was in flight at the kills")
                self.assertEqual(server.stop(), 0)
            finally:
                server.close()
        print(f"\nkill: {ROUNDS} rounds, --io={backend}, seed {SEED}: {requests} requests acknowledged, {samples} samples "
              f"compared, {in_flight} requests in flight at the kills: nothing lost, nothing made up", file=sys.stderr)

    def test_syscall(self):
        if "syscall" not in BACKENDS:
            self.skipTest("KILL_IO")
        self.run_rounds("syscall")

    def test_uring(self):
        if "uring" not in BACKENDS:
            self.skipTest("KILL_IO")
        with support.Directory() as directory:
            try:
                support.Server(os.path.join(directory, "data"), "--io", "uring").close()
            except RuntimeError as error:
                self.skipTest(f"io_uring is denied here: {error}")
        self.run_rounds("uring")


if __name__ == "__main__":
    unittest.main()
