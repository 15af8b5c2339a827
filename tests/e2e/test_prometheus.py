"""The real things: node exporter -> Prometheus (1 s scrapes, remote_write) -> Tidalite for about a minute; then the same
questions to both, instant and over a range: same labels, time stamps and values (1e-9 relative).

Windows are at most 30 s and lie wholly inside the recording; evaluation times keep a distance from every scrape's time
stamp: Prometheus 2.42 closes ranges on the left, later versions do not, and a sample on the border would tell."""
import math
import os
import signal
import subprocess
import sys
import time
import unittest

import support

RECORD_S = int(os.environ.get("E2E_RECORD_S", "62"))
WINDOW_S = 30
BORDER_MS = 40

# Questions whose answer has data in every recording.
QUERIES = """
up
up == 1
{job="node",__name__="up"}
node_cpu_seconds_total
node_cpu_seconds_total{mode="user"}
node_cpu_seconds_total{mode!="user",cpu="0"}
node_cpu_seconds_total{mode=~"user|system"}
node_cpu_seconds_total{mode=~"i.*",cpu!~"1+"}
{__name__=~"node_memory_Mem.*"}
{job="prometheus",__name__=~"prometheus_tsdb_head_.+_total"}
node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes
1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes
-node_memory_MemFree_bytes
node_memory_MemTotal_bytes / 1024 / 1024
node_memory_MemTotal_bytes / 2 ^ 20 % 1000
2 ^ 3 ^ 2 + -node_load1 * 0
node_cpu_seconds_total > 0
node_cpu_seconds_total >= bool 1
node_memory_MemTotal_bytes != bool node_memory_MemFree_bytes
node_memory_MemFree_bytes < node_memory_MemTotal_bytes
node_time_seconds - node_boot_time_seconds
up * on (instance) node_memory_MemTotal_bytes
sum(up)
sum by (mode) (node_cpu_seconds_total)
sum without (cpu, mode) (node_cpu_seconds_total)
avg by (cpu) (rate(node_cpu_seconds_total[20s]))
min(node_cpu_seconds_total)
max by (job, instance) (scrape_samples_scraped)
count by (__name__) ({job="node"})
count({__name__=~".+"})
topk(3, node_cpu_seconds_total{mode="idle"} + 0)
topk by (cpu) (1, node_cpu_seconds_total)
rate(node_cpu_seconds_total[20s])
rate(prometheus_tsdb_head_samples_appended_total[17s])
irate(node_cpu_seconds_total{mode="idle"}[10s])
increase(node_context_switches_total[30s])
delta(node_memory_MemFree_bytes[20s])
sum(rate(node_cpu_seconds_total{mode!="idle"}[15s])) by (cpu) * 100
sum_over_time(up[10s])
avg_over_time(node_memory_MemFree_bytes[15s])
min_over_time(node_load1[30s])
max_over_time(node_load1[30s])
count_over_time(node_time_seconds[30s])
last_over_time(node_time_seconds[5s])
histogram_quantile(0.9, prometheus_http_request_duration_seconds_bucket)
histogram_quantile(0.5, sum by (le) (prometheus_tsdb_compaction_chunk_range_seconds_bucket))
histogram_quantile(0.99, sum by (le, handler) (prometheus_http_response_size_bytes_bucket))
node_time_seconds offset 7s
rate(node_cpu_seconds_total[10s] offset 12s)
sum_over_time(node_load1[10s] offset 3s) / count_over_time(node_load1[10s] offset 3s)
time() - node_time_seconds
scalar(sum(up)) + vector(1)
vector(scalar(node_load1))
abs(node_load1 - 100)
clamp_min(node_load1, 1000)
clamp_max(node_memory_MemTotal_bytes, 5)
12.5 * 4 - 1
time()
"""
# Questions with an empty answer on both sides.
EMPTY = """
no_such_metric
up == 2
node_cpu_seconds_total{mode="nonsense"}
rate(node_load1{job="other"}[20s])
"""
# Only as instant queries.
INSTANT = """
node_cpu_seconds_total{cpu="0"}[20s]
up[10s] offset 5s
{__name__=~"node_network_.*_bytes_total"}[13s]
"""


def lines(text):
    return [line for line in text.split("\n") if line]


def same(a, b):
    x, y = float(a), float(b)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or math.isclose(x, y, rel_tol=1e-9, abs_tol=0)


def points(data):
    """An answer as {labels: [(time in ms, text)…]}."""
    kind = data["resultType"]
    if kind in ("scalar", "string"):
        return kind, {(): [(round(data["result"][0] * 1000), data["result"][1])]}
    out = {}
    for series in data["result"]:
        key = tuple(sorted(series["metric"].items()))
        if key in out:
            raise AssertionError(f"a label set stands twice: {key}")
        out[key] = [(round(t * 1000), v) for t, v in (series["values"] if "values" in series else [series["value"]])]
    return kind, out


class PrometheusTest(unittest.TestCase):
    def setUp(self):
        directory = support.Directory()
        self.directory = directory.__enter__()
        self.addCleanup(directory.__exit__)
        self.children = []
        self.addCleanup(self.stop_children)
        self.server = self.start_receiver()
        self.addCleanup(self.server.close)

    def start_receiver(self):
        return support.Server(os.path.join(self.directory, "data"))

    def start(self, *command):
        with open(os.path.join(self.directory, os.path.basename(command[0]) + ".log"), "wb") as log:
            self.children.append(subprocess.Popen(command, stdout=log, stderr=log))  # pylint: disable=consider-using-with

    def stop_children(self):
        for child in self.children:
            child.kill()  # orderly, it would wait a minute for the receiver
        for child in self.children:
            child.wait()

    def start_prometheus(self):
        node, self.port = support.free_port(), support.free_port()
        config = os.path.join(self.directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"""
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:{node}"]}}]
  - job_name: prometheus
    static_configs: [{{targets: ["127.0.0.1:{self.port}"]}}]
remote_write:
  - url: {self.server.url}/api/v1/write
    queue_config: {{batch_send_deadline: 1s, min_shards: 1}}
""")
        self.start(support.peer("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}")
        self.start(support.peer("prometheus"), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self.port}",
                   f"--storage.tsdb.path={os.path.join(self.directory, 'prometheus')}")

    def ask(self, path, **parameters):
        """The same question to both: (Prometheus' answer, Tidalite's)."""
        return (support.api_data("127.0.0.1", self.port, path, **parameters),
                support.api_data("127.0.0.1", self.server.port, path, **parameters))

    def compare(self, path, query, **parameters):
        theirs, ours = self.ask(path, query=query, **parameters)
        kind, want = points(theirs)
        self.assertEqual(ours["resultType"], kind)
        have = points(ours)[1]
        self.assertEqual(sorted(have), sorted(want), "labels differ")
        for key, values in want.items():
            self.assertEqual([t for t, _ in have[key]], [t for t, _ in values], f"time stamps differ: {key}")
            for (when, mine), (_, expected) in zip(have[key], values):
                self.assertTrue(same(mine, expected), f"{key} at {when}: {mine}, Prometheus has {expected}")
        return len(want)

    def wait_for_samples(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if all(len(d["result"]) == 2 for d in self.ask("/api/v1/query", query="up == 1")):
                    return
            except (OSError, AssertionError, KeyError):
                pass
            time.sleep(0.2)
        self.fail("no samples of both targets within 60 s")

    def pick_fraction_ms(self, now_s):
        """The part of a second that is farthest from every scrape's time stamp."""
        data = support.api_data("127.0.0.1", self.port, "/api/v1/query", query=f"up[{WINDOW_S}s]", time=now_s)
        taken = {round(t * 1000) % 1000 for series in data["result"] for t, _ in series["values"]}

        def distance(fraction):
            return min(min((fraction - t) % 1000, (t - fraction) % 1000) for t in taken)

        best = max(range(1, 1000), key=distance)
        self.assertGreater(distance(best), BORDER_MS, f"scrapes come at {sorted(taken)} ms of a second")
        return best

    def test_same_answers(self):
        starting = time.time()
        self.start_prometheus()
        self.wait_for_samples()
        began = time.time()
        print(f"recording after {began - starting:.1f} s", file=sys.stderr)
        time.sleep(5)
        for _ in range(5):  # something for the HTTP histograms
            support.api_data("127.0.0.1", self.port, "/api/v1/query", query="up")
        time.sleep(max(0, RECORD_S - 5))
        # Nothing more is scraped and what is queued has gone out when the newest samples are the same.
        end_s = int(time.time()) - 3
        fraction = self.pick_fraction_ms(end_s)
        at = end_s + fraction / 1000
        time.sleep(3)
        deadline = time.monotonic() + 30
        while True:
            theirs, ours = self.ask("/api/v1/query", query='{__name__=~".+"}[30s]', time=f"{at:.3f}")
            if points(theirs) == points(ours):
                break
            if time.monotonic() > deadline:
                break  # the comparison below says where
            time.sleep(0.5)

        # Ranges: 20 s of steps at the end, so that every step's 30 s window is inside the recording.
        start = at - 20
        self.assertGreater(start - WINDOW_S, began - 1, "the recording is too short")
        with_data = 0
        for query in lines(QUERIES):
            found = 0
            with self.subTest(query=query, kind="instant"):
                found = self.compare("/api/v1/query", query, time=f"{at:.3f}")
            with self.subTest(query=query, kind="range"):
                self.compare("/api/v1/query_range", query, start=f"{start:.3f}", end=f"{at:.3f}", step="1s")
                self.compare("/api/v1/query_range", query, start=f"{start:.3f}", end=f"{at:.3f}", step="7s")
            with_data += found > 0
        for query in lines(INSTANT):
            with self.subTest(query=query, kind="instant"):
                with_data += self.compare("/api/v1/query", query, time=f"{at:.3f}") > 0
        for query in lines(EMPTY):
            with self.subTest(query=query, kind="empty"):
                self.assertEqual(self.compare("/api/v1/query", query, time=f"{at:.3f}"), 0)
                self.compare("/api/v1/query_range", query, start=f"{start:.3f}", end=f"{at:.3f}", step="1s")
        self.assertGreaterEqual(with_data, 35, "too few queries had data")

        # What dashboards ask for besides.
        period = {"start": f"{start:.3f}", "end": f"{at:.3f}"}
        for path, parameters in (("/api/v1/labels", {}), ("/api/v1/label/__name__/values", {}),
                                 ("/api/v1/label/mode/values", {}), ("/api/v1/label/job/values", {"match[]": "up"}),
                                 ("/api/v1/labels", {"match[]": "node_cpu_seconds_total"})):
            with self.subTest(path=path, **parameters):
                theirs, ours = self.ask(path, **period, **parameters)
                self.assertTrue(theirs)
                self.assertEqual(ours, theirs)
        with self.subTest(path="/api/v1/series"):
            theirs, ours = self.ask("/api/v1/series", **{"match[]": ["up", 'node_cpu_seconds_total{cpu="0"}']}, **period)
            self.assertTrue(theirs)
            self.assertEqual(sorted(map(sorted, map(dict.items, ours))), sorted(map(sorted, map(dict.items, theirs))))
        print(f"\nprometheus: {len(lines(QUERIES + INSTANT + EMPTY))} queries, {with_data} with data")
        self.assertEqual(self.server.stop(signal.SIGTERM), 0, self.server.log())


if __name__ == "__main__":
    unittest.main()
