"""The order that proves the promise, as the kernel saw it: the request's bytes are written to the log, the log is synced,
and only then does the 204 leave. Under strace with --io=syscall; the same order with io_uring is proved by the
recorder in storage/io (its unit tests)."""
import glob
import os
import re
import signal
import time
import unittest

import support

REQUESTS = 25
CALLS = "pwrite64,pwritev,pwritev2,fdatasync,fsync,write,writev,sendto,sendmsg"
# LeakSanitizer cannot work under ptrace; leaks are looked for in test_stop.py.
ENV = {"ASAN_OPTIONS": "detect_leaks=0"}


def begin_and_end(path):
    """[(call, arguments, index of the line where it began, where it ended or infinity)…] in order of beginning."""
    calls = []
    open_calls = {}
    with open(path, encoding="utf-8", errors="replace") as f:
        for index, line in enumerate(f):
            match = re.match(r"(\d+) +(.*)", line)
            if not match:
                continue
            pid, rest = match.groups()
            resumed = re.match(r"<\.\.\. (\w+) resumed>", rest)
            if resumed:
                if pid in open_calls:
                    open_calls.pop(pid)[3] = index
                continue
            match = re.match(r"(\w+)\((.*)", rest)
            if match:
                call = [match.group(1), match.group(2), index, index]
                calls.append(call)
                if "<unfinished ...>" in rest:
                    call[3] = float("inf")
                    open_calls[pid] = call
    return calls


class OrderTest(unittest.TestCase):
    def trace(self, directory, inject=()):
        """A server under strace; returns it and the trace's path."""
        out = os.path.join(directory, "trace")
        server = support.Server(os.path.join(directory, "data"), "--io", "syscall", env=ENV,
                                prefix=("strace", "-f", "-y", "-qq", "-s", "1000000", "-o", out, "-e", f"trace={CALLS}", *inject))
        return server, out

    def finish(self, server):
        self.assertEqual(server.stop(signal.SIGTERM, pid=server.child_pid()), 0, server.log())

    def synced(self, calls, marker):
        """Where the sync ended that began after the write of the marker had: the earliest honest moment for a 204."""
        writes = [c for c in calls if c[0].startswith("pwrite") and marker in c[1]]
        self.assertTrue(writes, f"{marker} was never written to the log")
        write = writes[0]
        log = re.match(r"\d+<([^>]*)>", write[1]).group(1)
        for call in calls:
            if call[0] in ("fdatasync", "fsync") and call[2] > write[3] and f"<{log}>" in call[1]:
                return call[3]
        self.fail(f"{marker} was written to {log} and never synced")
        return None

    def acknowledgements(self, calls):
        return [c[2] for c in calls if c[0] in ("write", "writev", "sendto", "sendmsg") and "HTTP/1.1 204" in c[1]]

    def test_each_request(self):
        """One request at a time, each with labels of its own, so that its bytes are found in the trace."""
        with support.Directory() as directory:
            server, out = self.trace(directory)
            try:
                now = int(time.time() * 1000)
                for i in range(REQUESTS):
                    # Twice, should the boundary of two frames cut one.
                    labels = {"__name__": "order_test", "a": f"first-marker-{i:04d}", "b": "x" * 50, "c": f"again-marker-{i:04d}"}
                    status, body = server.write([(labels, [(now, float(i))])])
                    self.assertEqual(status, 204, body)
                self.finish(server)
            finally:
                server.close()
            calls = begin_and_end(out)
            acknowledged = self.acknowledgements(calls)
            self.assertEqual(len(acknowledged), REQUESTS)
            for i, moment in enumerate(acknowledged):
                marker = f"marker-{i:04d}"
                self.assertLess(self.synced(calls, marker), moment, f"request {i} was acknowledged before its sync ended")

    def test_known_series(self):
        """The same for samples of a series that the log knows already: between two answers there is a write and then a sync."""
        with support.Directory() as directory:
            server, out = self.trace(directory)
            try:
                now = int(time.time() * 1000) - 60000
                for i in range(REQUESTS):
                    status, body = server.write([({"__name__": "order_test"}, [(now + i, float(i))])])
                    self.assertEqual(status, 204, body)
                self.finish(server)
            finally:
                server.close()
            calls = begin_and_end(out)
            acknowledged = self.acknowledgements(calls)
            self.assertEqual(len(acknowledged), REQUESTS)
            for before, after in zip(acknowledged, acknowledged[1:]):
                between = [c for c in calls if before < c[2] and c[3] < after]
                writes = [c for c in between if c[0].startswith("pwrite")]
                self.assertTrue(any(s[0] in ("fdatasync", "fsync") and s[2] > w[3] for w in writes for s in between),
                                "an answer without a write and a sync before it")

    def test_twin_waits(self):
        """Syncs take 300 ms. The same request on a second connection, while the first's is not synced, is a duplicate of
        samples that are not durable yet: it must wait as the first does."""
        with support.Directory() as directory:
            server, out = self.trace(directory, ("-e", "inject=fdatasync,fsync:delay_enter=300000"))
            try:
                now = int(time.time() * 1000)
                body = support.snappy(support.write_request([({"__name__": "order_twin", "a": "twin-marker-1", "b": "y" * 50,
                                                               "c": "twin-marker-1"}, [(now, 1.5)])]))
                first, second = support.Writer(server.port), support.Writer(server.port)
                first.send(body)
                time.sleep(0.1)
                second.send(body)
                self.assertEqual(first.status(), 204)
                self.assertEqual(second.status(), 204)
                first.close()
                second.close()
                self.finish(server)
            finally:
                server.close()
            calls = begin_and_end(out)
            acknowledged = self.acknowledgements(calls)
            self.assertEqual(len(acknowledged), 2)
            self.assertLess(self.synced(calls, "twin-marker-1"), min(acknowledged), "a 204 left before the sync ended")

    def test_files_reach_their_directory(self):
        """A log file that holds acknowledged data has a name that survives: its directory was synced."""
        with support.Directory() as directory:
            server, out = self.trace(directory)
            try:
                status, body = server.write([({"__name__": "order_dir", "a": "dir-marker-1", "c": "dir-marker-1"},
                                              [(int(time.time() * 1000), 1.0)])])
                self.assertEqual(status, 204, body)
                self.finish(server)
            finally:
                server.close()
            calls = begin_and_end(out)
            moment = self.acknowledgements(calls)[0]
            write = [c for c in calls if c[0].startswith("pwrite") and "dir-marker-1" in c[1]][0]
            folder = os.path.dirname(re.match(r"\d+<([^>]*)>", write[1]).group(1))
            self.assertTrue(glob.glob(os.path.join(glob.escape(folder), "*")), folder)
            self.assertTrue([c for c in calls if c[0] in ("fsync", "fdatasync") and f"<{folder}>" in c[1] and c[3] < moment],
                            f"{folder} was not synced before the first answer")


if __name__ == "__main__":
    unittest.main()
