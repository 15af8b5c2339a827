"""Deletes over HTTP, beside Debian's Prometheus with --web.enable-admin-api: the same codes and texts, the same samples left;
and what Tidalite promises beyond: durable before the 204, gone from the files after clean_tombstones."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest
import urllib.parse

import support

DELETE = "/api/v1/admin/tsdb/delete_series"
CLEAN = "/api/v1/admin/tsdb/clean_tombstones"
SNAPSHOT = "/api/v1/admin/tsdb/snapshot"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Prometheus:
    """A Prometheus that scrapes nothing and takes remote writes."""

    def __init__(self, directory, *flags):
        self.port = support.free_port()
        config = os.path.join(directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write("global: {}\n")
        self.log = open(os.path.join(directory, f"prometheus-{self.port}.log"), "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [support.peer("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory}/prometheus-{self.port}",
             f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-remote-write-receiver", *flags],
            stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while True:
            try:
                if self.request("GET", "/-/ready")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.close()
                raise RuntimeError("Prometheus does not start")
            time.sleep(0.05)

    request = support.Server.request
    write = support.Server.write

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def error_of(body):
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer.get("errorType"), answer.get("error")


def post(server, path, method="POST", **parameters):
    return server.request(method, path, urllib.parse.urlencode(parameters, doseq=True), FORM)


def samples(server, selector, end_s):
    data = support.api_data("127.0.0.1", server.port, "/api/v1/query", query=f"{selector}[1000s]", time=end_s)
    return sorted((sorted(s["metric"].items()), s["values"]) for s in data["result"])


class AdminTest(unittest.TestCase):
    def setUp(self):
        directory = support.Directory()
        self.directory = directory.__enter__()
        self.addCleanup(directory.__exit__)

    def server(self, name, *flags):
        server = support.Server(os.path.join(self.directory, name), *flags)
        self.addCleanup(server.close)
        return server

    def prometheus(self, *flags):
        server = Prometheus(self.directory, *flags)
        self.addCleanup(server.close)
        return server

    def test_answers(self):
        ours, theirs = self.server("data", "--enable-admin-api"), self.prometheus("--web.enable-admin-api")
        asked = [
            (DELETE, {}), (DELETE, {"match[]": "a{"}), (DELETE, {"match[]": "sum(a)"}),
            (DELETE, {"match[]": ["a", "b{"]}), (DELETE, {"match[]": "a"}),
            (DELETE, {"match[]": "a", "start": "x"}), (DELETE, {"match[]": "a", "end": "2020"}),
            (DELETE, {"match[]": "a{", "end": "2020"}), (DELETE, {"match[]": "a", "start": "20", "end": "10"}),
            (DELETE, {"match[]": "a", "start": "2020-01-01T00:00:00Z", "end": "1600000000.5"}),
            (DELETE, {"match[]": ["a", '{__name__=~"b.*"}']}), (CLEAN, {}), (CLEAN, {"x": "y"}),
            (SNAPSHOT, {"skip_head": "x"}),
        ]
        for path, parameters in asked:
            for method in ("POST", "PUT"):
                with self.subTest(path=path, parameters=parameters, method=method):
                    have, want = (post(s, path, method, **parameters) for s in (ours, theirs))
                    self.assertEqual((have[0], error_of(have[1])), (want[0], error_of(want[1])))
        for path in (DELETE, CLEAN):
            self.assertEqual(ours.request("GET", path)[0], theirs.request("GET", path)[0])
        query = urllib.parse.urlencode({"match[]": "a"})
        self.assertEqual(ours.request("POST", f"{DELETE}?{query}")[0], theirs.request("POST", f"{DELETE}?{query}")[0])

        # The words are those of Go's library; and what is meant by this one would be everything, so that is refused.
        have, want = (post(s, DELETE, **{"match[]": 'a{b=~"("}'}) for s in (ours, theirs))
        self.assertEqual((have[0], error_of(have[1])[0]), (want[0], error_of(want[1])[0]))
        self.assertEqual(post(ours, DELETE, **{"match[]": '{a=""}'})[0], 400)

    def test_disabled(self):
        ours, theirs = self.server("data"), self.prometheus()
        for path, parameters in ((DELETE, {"match[]": "a"}), (DELETE, {}), (CLEAN, {}), (SNAPSHOT, {})):
            have, want = (post(s, path, **parameters) for s in (ours, theirs))
            self.assertEqual((have[0], error_of(have[1])), (want[0], error_of(want[1])))
            self.assertEqual(have[0], 500)

    def test_same_samples_left(self):
        ours, theirs = self.server("data", "--enable-admin-api"), self.prometheus("--web.enable-admin-api")
        now = int(time.time())
        begin = now - 400
        for t in range(begin, now - 30, 10):
            series = [({"__name__": f"m{i % 3}", "i": str(i)}, [(t * 1000 + i, float(t % 97 + i))]) for i in range(30)]
            for server in (ours, theirs):
                self.assertEqual(server.write(series)[0], 204)
        self.assertEqual(samples(ours, '{i=~".+"}', now), samples(theirs, '{i=~".+"}', now))
        deletes = [
            {"match[]": 'm0{i="3"}'}, {"match[]": ['m1{i=~"1.*"}', 'm2{i!~"2.*"}'], "start": begin + 100, "end": begin + 150},
            {"match[]": '{__name__="m1",i!="4"}', "end": begin + 45.004}, {"match[]": 'm2{i="5"}', "start": begin + 300},
            {"match[]": "m0", "start": begin + 200, "end": begin + 200}, {"match[]": "nothing"},
        ]
        for parameters in deletes:
            for server in (ours, theirs):
                self.assertEqual(post(server, DELETE, **parameters)[0], 204)
            self.assertEqual(samples(ours, '{i=~".+"}', now), samples(theirs, '{i=~".+"}', now), parameters)
        for server in (ours, theirs):
            self.assertEqual(post(server, CLEAN)[0], 204)
        self.assertEqual(samples(ours, '{i=~".+"}', now), samples(theirs, '{i=~".+"}', now))

    def test_snapshot(self):
        """A copy that another server opens: all that was acknowledged before, under load, without what was deleted."""
        ours, theirs = self.server("data", "--enable-admin-api"), self.prometheus("--web.enable-admin-api")
        now = int(time.time())
        for t in range(now - 300, now - 30, 10):
            series = [({"__name__": f"m{i % 3}", "i": str(i)}, [(t * 1000 + i, float(t % 97 + i))]) for i in range(30)]
            self.assertEqual(ours.write(series)[0], 204)
        self.assertEqual(post(ours, DELETE, **{"match[]": 'm0{i="3"}'})[0], 204)
        want = samples(ours, '{i=~".+"}', now)
        stop = threading.Event()

        def write():
            count = 0
            while not stop.is_set():
                ours.write([({"__name__": "later", "n": str(count)}, [(now * 1000 + count, 1.0)])])
                count += 1
        writer = threading.Thread(target=write)
        writer.start()
        try:
            code, body = post(ours, SNAPSHOT, skip_head="false")
        finally:
            stop.set()
            writer.join()
        self.assertEqual(code, 200)
        name = json.loads(body)["data"]["name"]
        self.assertEqual(json.loads(body), {"status": "success", "data": {"name": name}})
        theirs_name = json.loads(post(theirs, SNAPSHOT)[1])["data"]["name"]
        form = r"\d{8}T\d{6}Z-[0-9a-f]{16}"
        self.assertRegex(name, f"^{form}$")
        self.assertRegex(theirs_name, f"^{form}$")
        copy = self.server(os.path.join("data", "snapshots", name))
        self.assertEqual(samples(copy, '{i=~".+"}', now), want)
        self.assertEqual(post(ours, SNAPSHOT, skip_head="perhaps")[0], 400)
        code, body = post(ours, SNAPSHOT, skip_head="true")
        self.assertEqual(code, 200)
        blocks = json.loads(body)["data"]["name"]
        copy = self.server(os.path.join("data", "snapshots", blocks))  # everything is in the head yet
        self.assertEqual(samples(copy, '{i=~".+"}', now), [])
        snapshots = os.listdir(os.path.join(self.directory, "data", "snapshots"))
        self.assertEqual(sorted(one for one in snapshots if ".log" not in one), sorted([name, blocks]))
        self.assertEqual(samples(ours, '{i=~".+"}', now), want)

    def test_durable(self):
        server = self.server("data", "--enable-admin-api")
        now = int(time.time())
        for i in range(20):
            self.assertEqual(server.write([({"__name__": "m", "i": str(i)}, [(now * 1000, float(i))])])[0], 204)
        for i in range(0, 20, 2):
            self.assertEqual(post(server, DELETE, **{"match[]": f'm{{i="{i}"}}'})[0], 204)
            server.stop(signal.SIGKILL)
            server = self.server("data", "--enable-admin-api")
            left = {s[0][1][1] for s in samples(server, "m", now + 1)}
            self.assertEqual(left, {str(k) for k in range(20) if k % 2 or k > i})

    def test_backfilled(self):
        """Samples of an old window are in a block at once: hidden in it, then gone from it."""
        server = self.server("data", "--enable-admin-api")
        old = int(time.time()) - 5 * 86400
        secret = "a-label-value-that-nobody-may-find"
        series = [({"__name__": "m", "x": x}, [((old + i) * 1000, 1.0) for i in range(50)]) for x in (secret, "y")]
        self.assertEqual(server.write(series)[0], 204)
        self.assertEqual(server.write([({"__name__": "now"}, [(int(time.time()) * 1000, 1.0)])])[0], 204)
        blocks = os.path.join(self.directory, "data", "blocks")
        deadline = time.monotonic() + 60
        while not os.listdir(blocks) or int(server_metric(server, "tidalite_blocks")) == 0:
            self.assertLess(time.monotonic(), deadline, "no block was cut")
            time.sleep(0.1)
        self.assertEqual(len(samples(server, "m", old + 100)), 2)
        self.assertEqual(post(server, DELETE, **{"match[]": f'm{{x="{secret}"}}'})[0], 204)
        self.assertEqual(len(samples(server, "m", old + 100)), 1)
        self.assertEqual(server.data("/api/v1/label/x/values", start=0), ["y"])
        self.assertTrue(any(secret.encode() in data for data in files(blocks)))
        self.assertEqual(post(server, CLEAN)[0], 204)
        self.assertEqual(len(samples(server, "m", old + 100)), 1)
        self.assertEqual(int(server_metric(server, "tidalite_deletes_pending")), 0)
        deadline = time.monotonic() + 20
        while any(secret.encode() in data for data in files(blocks)):
            self.assertLess(time.monotonic(), deadline, "the deleted series is still in a block")
            time.sleep(0.1)


def server_metric(server, name):
    for line in server.get("/metrics")[1].decode().split("\n"):
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def files(directory):
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                with open(os.path.join(folder, name), "rb") as f:
                    yield f.read()
            except FileNotFoundError:
                pass


if __name__ == "__main__":
    unittest.main()
