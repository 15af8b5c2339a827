"""Debian's `promtool query …` says the same of Tidalite as of a Prometheus with the same data."""
import os
import subprocess
import unittest

import promql_data
import support

INSTANT = ["sort(load1)", "up", "sum(load1)", "sum by (job) (requests_total)", "1 + 1", '"text"', "nothing", "load1 +", "rate(bytes_total)",
           "topk(2, temperature)", 'special{case=~"nan|inf|neg_inf|third|e21"}']
RANGE = ["rate(requests_total[1m])", "sum by (job) (load1)", "max_over_time(temperature[2m])", "latency_seconds_bucket", "nothing", "sum(("]
MATCHES = [["load1"], ['{job="api",__name__=~"up|load1"}'], ["up", "build_info"], ["nothing"], ["{"]]
LABELS = ["job", "instance", "__name__", "le", "no_such"]


class Promtool(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = support.Directory()
        path = cls.directory.__enter__()
        cls.addClassCleanup(cls.directory.__exit__)
        prometheus = support.Prometheus(os.path.join(path, "prometheus"))
        cls.addClassCleanup(prometheus.close)
        server = support.Server(os.path.join(path, "data"), "--retention", "200000h")
        cls.addClassCleanup(server.close)
        cls.urls = [f"http://127.0.0.1:{side.port}" for side in (prometheus, server)]
        for request in promql_data.requests():
            for side in (prometheus, server):
                code, body = support.post_write(side.port, request)
                if code != 204:
                    raise AssertionError(f"write: {code} {body!r}")

    def both(self, *command, server_at):
        """(exit code, lines, error) that is the same for both; only the port is no difference."""
        out = []
        for url in self.urls:
            words = list(command)
            words.insert(server_at, url)
            run = subprocess.run([support.peer("promtool"), "query", *words], capture_output=True, text=True, timeout=60, check=False)
            out.append((run.returncode, run.stdout.splitlines(), run.stderr.replace(url, "URL")))
        theirs, ours = out
        self.assertEqual(theirs[:2], ours[:2], command)
        # query_range of 2.42 did not say which parameter was wrong; 3.x does.
        self.assertEqual(theirs[2], ours[2].replace('invalid parameter "query": ', "") if "range" in command else ours[2], command)
        return theirs

    def counted(self, answers, with_data, failed):
        """At least so many answers had data, and failed."""
        self.assertGreaterEqual(sum(code == 0 and bool(lines) for code, lines, _ in answers), with_data)
        self.assertGreaterEqual(sum(code != 0 and bool(error) for code, _, error in answers), failed)

    def test_instant(self):
        for form in "promql", "json":
            self.counted([self.both(f"--format={form}", "instant", f"--time={promql_data.AT_S}", expression, server_at=3)
                          for expression in INSTANT], len(INSTANT) - 3, 1)

    def test_range(self):
        for form in "promql", "json":
            self.counted([self.both(f"--format={form}", "range", f"--start={promql_data.START_S + 600}", f"--end={promql_data.START_S + 1800}",
                                    "--step=60s", expression, server_at=5) for expression in RANGE], len(RANGE) - 2, 1)

    def test_series(self):
        self.counted([self.both("series", *[f"--match={m}" for m in matches], f"--start={promql_data.START_S}", f"--end={promql_data.AT_S}",
                                server_at=3 + len(matches)) for matches in MATCHES], len(MATCHES) - 2, 1)

    def test_labels(self):
        for name in LABELS:
            code, lines, _ = self.both("labels", f"--start={promql_data.START_S}", f"--end={promql_data.AT_S}", name, server_at=3)
            self.assertEqual(code, 0)
            self.assertEqual(bool(lines), name != "no_such")


if __name__ == "__main__":
    unittest.main()
