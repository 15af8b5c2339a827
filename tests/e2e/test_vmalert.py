"""Debian's vmalert evaluates rules against Tidalite, writes their results back, and finds its alerts' state again after a restart."""
import http.server
import json
import os
import subprocess
import threading
import time
import unittest

import support

RULES = """
groups:
  - name: test
    interval: 1s
    rules:
      - record: job:load:sum
        expr: sum by (job) (vmalert_load)
      - alert: LoadHigh
        expr: vmalert_load > 10
        for: 3s
        labels:
          severity: page
        annotations:
          summary: "{{ $labels.instance }} has {{ $value }}"
"""


class Notifier(http.server.BaseHTTPRequestHandler):
    """Takes alerts as an Alertmanager does."""
    alerts = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Notifier.alerts.extend(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Vmalert(unittest.TestCase):
    def setUp(self):
        directory = support.Directory()
        self.path = directory.__enter__()
        self.addCleanup(directory.__exit__)
        self.server = support.Server(os.path.join(self.path, "data"))
        self.addCleanup(self.server.close)
        self.rules = os.path.join(self.path, "rules.yml")
        with open(self.rules, "w", encoding="utf-8") as f:
            f.write(RULES)
        Notifier.alerts.clear()
        self.notifier = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notifier)
        threading.Thread(target=self.notifier.serve_forever, daemon=True).start()
        self.addCleanup(self.notifier.server_close)
        self.addCleanup(self.notifier.shutdown)
        self.stop_feeding = threading.Event()
        feeder = threading.Thread(target=self.feed)
        feeder.start()
        self.addCleanup(feeder.join)
        self.addCleanup(self.stop_feeding.set)

    def feed(self):
        while not self.stop_feeding.wait(0.5):
            now_ms = int(time.time() * 1000)
            self.server.write([({"__name__": "vmalert_load", "job": "a", "instance": "one"}, [(now_ms, 20.0)]),
                               ({"__name__": "vmalert_load", "job": "a", "instance": "two"}, [(now_ms, 3.0)])])

    def start_vmalert(self):
        log = open(os.path.join(self.path, "vmalert.log"), "ab")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        url = self.server.url
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            [support.peer("vmalert"), f"-rule={self.rules}", f"-datasource.url={url}", f"-remoteWrite.url={url}", f"-remoteRead.url={url}",
             "-remoteWrite.flushInterval=500ms",
             f"-notifier.url=http://127.0.0.1:{self.notifier.server_port}", f"-httpListenAddr=127.0.0.1:{support.free_port()}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def log(self):
        with open(os.path.join(self.path, "vmalert.log"), encoding="utf-8") as f:
            return f.read()[-4000:]

    def wait_for(self, what, condition, seconds=40):
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                self.fail(f"{what} did not come:\n{self.log()}")
            time.sleep(0.1)

    def query(self, text):
        return self.server.data("/api/v1/query", query=text)["result"]

    def test_rules(self):
        process = self.start_vmalert()
        recorded = self.wait_for("the recorded series", lambda: self.query("job:load:sum"))
        self.assertEqual([(r["metric"]["job"], r["value"][1]) for r in recorded], [("a", "23")])
        firing = self.wait_for("ALERTS", lambda: self.query('ALERTS{alertstate="firing"}'))
        self.assertEqual([(r["metric"]["alertname"], r["metric"]["instance"], r["metric"]["severity"]) for r in firing], [("LoadHigh", "one", "page")])
        sent = self.wait_for("the notification", lambda: list(Notifier.alerts))
        self.assertEqual(sent[0]["labels"]["alertname"], "LoadHigh")
        self.assertEqual(sent[0]["annotations"]["summary"], "one has 20")
        since = {r["value"][1] for r in self.query('ALERTS_FOR_STATE{alertname="LoadHigh"}')}
        self.assertEqual(len(since), 1)

        # What is written back says since when; a new vmalert goes on from there, and fires without waiting again.
        process.terminate()
        process.wait(timeout=20)
        time.sleep(1)
        self.start_vmalert()
        began = time.time()
        self.wait_for("ALERTS again", lambda: any(float(r["value"][1]) > began for r in self.query('timestamp(ALERTS{alertstate="firing"})')))
        after = {r["value"][1] for r in self.query('ALERTS_FOR_STATE{alertname="LoadHigh"}')}
        self.assertEqual(after, since)


if __name__ == "__main__":
    unittest.main()
