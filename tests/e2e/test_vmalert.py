"""Rules evaluated beside the server: Debian's vmalert asks Tidalite, writes recorded series and the state of alerts back to it, reads that
state after a restart, and fills in the past. What it stored is then read from Tidalite."""
import datetime
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

import support

RULES = """
groups:
  - name: rooms
    interval: 1s
    rules:
      - record: room:temperature:avg
        expr: avg by (room) (temperature)
        labels: {unit: celsius}
      - record: temperature:max
        expr: max(room:temperature:avg)
      - alert: Hot
        expr: temperature > 30
        for: 2s
        labels: {severity: page}
        annotations: {summary: "{{ $labels.room }} has {{ $value }}"}
      - alert: Warm
        expr: room:temperature:avg > 15
        for: 1h
"""

REPLAYED = """
groups:
  - name: past
    interval: 30s
    rules:
      - record: requests:rate1m
        expr: sum by (code) (rate(requests_total[1m]))
      - record: requests:share
        expr: sum(rate(requests_total{code="500"}[1m])) / sum(rate(requests_total[1m]))
"""


class Notifier:
    """An Alertmanager that only remembers what it is told."""

    def __init__(self):
        self.alerts = alerts = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def unix_s(text):
    """RFC 3339 in UTC, nanoseconds cut off."""
    return datetime.datetime.fromisoformat(text[:19] + "+00:00").timestamp()


class VmalertTest(unittest.TestCase):
    def setUp(self):
        directory = support.Directory()
        self.directory = directory.__enter__()
        self.addCleanup(directory.__exit__)
        self.start_server()

    def start_server(self):
        self.server = support.Server(os.path.join(self.directory, "data"))
        self.addCleanup(self.server.close)

    def stop_server(self):
        code, log = self.server.stop(signal.SIGTERM), self.server.log()
        self.assertEqual(code, 0, log)
        self.assertNotIn("Sanitizer", log)
        self.assertNotIn("runtime error", log)

    def command(self, rules, *flags):
        path = os.path.join(self.directory, "rules.yml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(rules)
        return [support.peer("vmalert"), f"-rule={path}", f"-datasource.url={self.server.url}", f"-remoteWrite.url={self.server.url}",
                "-remoteWrite.flushInterval=100ms", "-loggerLevel=WARN", *flags]

    def start_vmalert(self):
        port = support.free_port()
        self.vmalert_url = f"http://127.0.0.1:{port}"
        self.log_path = os.path.join(self.directory, f"vmalert-{port}.log")
        with open(self.log_path, "wb") as log:
            process = subprocess.Popen(  # pylint: disable=consider-using-with
                self.command(RULES, f"-remoteRead.url={self.server.url}", f"-notifier.url={self.notifier.url}",
                             f"-httpListenAddr=127.0.0.1:{port}", "-rule.resendDelay=0s"), stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def stop_vmalert(self, process):
        """Orderly, so that what it evaluated has been written; it may have complained of nothing."""
        process.terminate()
        self.assertEqual(process.wait(timeout=30), 0)
        with open(self.log_path, encoding="utf-8") as f:
            self.assertEqual(f.read(), "")

    def wait_for(self, what, look, timeout_s=30):
        """look() until it answers something true."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                with open(self.log_path, encoding="utf-8") as f:
                    self.fail(f"not within {timeout_s} s: {what}\n{f.read()}")
            time.sleep(0.05)

    def write_temperatures(self, south):
        now_ms = int(time.time() * 1000)
        status, reply = self.server.write([({"__name__": "temperature", "room": room, "sensor": sensor}, [(now_ms, value)])
                                           for room, sensor, value in (("north", "1", 10), ("north", "2", 20), ("south", "1", south))])
        self.assertEqual(status, 204, reply)

    def values(self, query):
        """{the labels' values but the name's, sorted by name: value} at this moment."""
        return {tuple(v for k, v in sorted(s["metric"].items()) if k != "__name__"): float(s["value"][1])
                for s in self.server.data("/api/v1/query", query=query)["result"]}

    def history(self, selector):
        """[(time, value)…] of the one series that is meant."""
        result = self.server.data("/api/v1/query", query=selector + "[1h]")["result"]
        self.assertEqual(len(result), 1, result)
        return [(t, float(v)) for t, v in result[0]["values"]]

    def alerts(self):
        """What vmalert itself says of its alerts, by name; {} while it starts."""
        try:
            with urllib.request.urlopen(self.vmalert_url + "/api/v1/alerts", timeout=10) as reply:
                return {a["name"]: a for a in json.load(reply)["data"]["alerts"] or ()}
        except urllib.error.URLError:
            return {}

    def check_recorded(self):
        """Once a second, and nothing but the averages."""
        for room, average in (("north", 15), ("south", 40)):
            points = self.history(f'room:temperature:avg{{room="{room}",unit="celsius"}}')
            self.assertGreaterEqual(len(points), 3)
            self.assertEqual({v for _, v in points}, {average})
            times = [t for t, _ in points]
            self.assertEqual([b - a for a, b in zip(times, times[1:])], [1] * (len(times) - 1))
        # A rule that reads what another rule of its group stored.
        self.assertEqual(self.values("temperature:max"), {(): 40})

    def check_alert_series(self):
        since = int(self.values('ALERTS_FOR_STATE{alertname="Hot"}')[("rooms", "Hot", "south", "1", "page")])
        pending, firing = (self.history(f'ALERTS{{alertname="Hot",alertstate="{state}"}}') for state in ("pending", "firing"))
        self.assertEqual({v for _, v in pending + firing}, {1})
        self.assertEqual(pending[0][0], since)
        self.assertLess(pending[-1][0], firing[0][0])
        self.assertGreaterEqual(firing[0][0], since + 2)
        # The pending one ended in a stale marker: it is not seen for another five minutes.
        self.assertEqual(list(self.values('ALERTS{alertname="Hot"}')), [("rooms", "Hot", "firing", "south", "1", "page")])
        self.assertEqual(list(self.values('ALERTS{alertname="Warm"}')), [("rooms", "Warm", "pending", "south", "celsius")])

    def test_rules_restart_and_resolve(self):
        self.notifier = Notifier()
        self.addCleanup(self.notifier.close)
        self.write_temperatures(40)
        vmalert = self.start_vmalert()
        self.wait_for("three recorded samples and a firing alert", lambda: (
            self.values('ALERTS{alertstate="firing"}') and self.values('count_over_time(temperature:max[1h]) >= 3')
            and self.values('ALERTS{alertname="Warm"}')))
        self.wait_for("a message to the notifier", lambda: self.notifier.alerts)
        told = self.notifier.alerts[0]
        self.assertEqual(told["labels"], {"alertgroup": "rooms", "alertname": "Hot", "room": "south", "sensor": "1", "severity": "page"})
        self.assertEqual(told["annotations"], {"summary": "south has 40"})
        self.assertFalse(any(a["restored"] for a in self.alerts().values()))
        self.stop_vmalert(vmalert)
        self.check_recorded()
        self.check_alert_series()

        # Both are gone, the server without a warning; what the alerts had been waiting for comes from what it kept.
        states = self.values("ALERTS_FOR_STATE")
        self.assertEqual(len(states), 2)
        samples = self.values("sum(count_over_time(ALERTS_FOR_STATE[1h]))")
        self.server.stop(signal.SIGKILL)
        self.start_server()
        vmalert = self.start_vmalert()
        restored = self.wait_for("both alerts", lambda: len(self.alerts()) == 2 and self.alerts())
        self.assertEqual({(a["name"], a["restored"], unix_s(a["activeAt"])) for a in restored.values()},
                         {(key[1], True, since) for key, since in states.items()})
        self.wait_for("new samples of the state", lambda: self.values("sum(count_over_time(ALERTS_FOR_STATE[1h]))")[()] >= samples[()] + 4)
        self.assertEqual(self.values("ALERTS_FOR_STATE"), states)

        self.write_temperatures(5)
        self.wait_for("no alert", lambda: not self.values("ALERTS"))
        self.assertEqual(self.values("ALERTS_FOR_STATE"), {})
        self.wait_for("the last message to say that it is over", lambda: (
            unix_s(self.notifier.alerts[-1]["endsAt"]) < time.time()))
        self.stop_vmalert(vmalert)
        self.stop_server()

    def test_replay(self):
        """Rules over the past, by range queries; what they give is late by the time it is written."""
        end_s = int(time.time()) // 60 * 60 - 3600
        start_s = end_s - 1200
        per_second = {"200": 8, "500": 2}
        status, reply = self.server.write(
            [({"__name__": "requests_total", "code": code},
              [(t * 1000, (t - start_s) * rate) for t in range(start_s - 120, end_s + 1, 10)]) for code, rate in per_second.items()]
            + [({"__name__": "later"}, [((end_s + 3000) * 1000, 1)])])
        self.assertEqual(status, 204, reply)

        def text(time_s):
            return datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

        done = subprocess.run(self.command(REPLAYED, f"-replay.timeFrom={text(start_s)}", f"-replay.timeTo={text(end_s)}",
                                           "-datasource.queryStep=0s", "-replay.rulesDelay=0s", "-replay.disableProgressBar",
                                           "-replay.maxDatapointsPerQuery=15",
                                           f"-httpListenAddr=127.0.0.1:{support.free_port()}"),
                              check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for selector, value in (*((f'requests:rate1m{{code="{code}"}}', rate) for code, rate in per_second.items()), ("requests:share", 0.2)):
            result = self.server.data("/api/v1/query", query=selector + "[1h]", time=end_s)["result"]
            self.assertEqual(len(result), 1, selector)
            self.assertEqual([t for t, _ in result[0]["values"]], list(range(start_s, end_s + 1, 30)), selector)
            for when, stored in result[0]["values"]:
                self.assertAlmostEqual(float(stored), value, places=12, msg=f"{selector} at {when}")
        # The same question now: the samples are bit for bit what was answered.
        asked, stored = (self.server.data("/api/v1/query_range", query=query, start=start_s, end=end_s, step=30)["result"]
                         for query in ("sum by (code) (rate(requests_total[1m]))", "requests:rate1m"))
        for series in stored:
            self.assertEqual(series["metric"].pop("__name__"), "requests:rate1m")
        self.assertEqual(stored, asked)
        print(f"replayed {len(result[0]['values'])} steps of {text(start_s)}", file=sys.stderr)
        self.stop_server()


if __name__ == "__main__":
    unittest.main()
