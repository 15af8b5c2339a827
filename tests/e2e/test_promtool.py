"""Debian's `promtool query …` says the same of Tidalite as of a Prometheus with the same data."""
import os
import subprocess
import unittest

import promql_data
import support

INSTANT = ["load1", "sum(load1)", "sum by (job) (requests_total)", "1 + 1", '"text"', "nothing", "load1 +", "rate(bytes_total)",
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
        """What is printed for each of the two, and the exit codes. Ports and the order of a vector's lines are no difference."""
        out = []
        for url in self.urls:
            words = list(command)
            words.insert(server_at, url)
            run = subprocess.run([support.peer("promtool"), "query", *words], capture_output=True, text=True, timeout=60, check=False)
            out.append((run.returncode, sorted(run.stdout.splitlines()), run.stderr.replace(url, "URL")))
        theirs, ours = out
        self.assertEqual(theirs[:2], ours[:2], command)
        # query_range of 2.42 did not say which parameter was wrong; 3.x does.
        self.assertEqual(theirs[2], ours[2].replace('invalid parameter "query": ', "") if words[0] == "range" else ours[2], command)
        return theirs

    def test_instant(self):
        answers = [self.both("instant", f"--time={promql_data.AT_S}", expression, server_at=2) for expression in INSTANT]
        self.assertGreater(sum(code == 0 and len(lines) > 1 for code, lines, _ in answers), 2)
        self.assertGreater(sum(code != 0 for code, _, _ in answers), 1)

    def test_range(self):
        for expression in RANGE:
            self.both("range", f"--start={promql_data.START_S + 600}", f"--end={promql_data.START_S + 1800}", "--step=60s", expression, server_at=4)

    def test_series(self):
        for matches in MATCHES:
            self.both("series", *[f"--match={m}" for m in matches], f"--start={promql_data.START_S}", f"--end={promql_data.AT_S}",
                      server_at=3 + len(matches))

    def test_labels(self):
        for name in LABELS:
            code, lines, _ = self.both("labels", f"--start={promql_data.START_S}", f"--end={promql_data.AT_S}", name, server_at=3)
            self.assertEqual(code, 0)
            self.assertEqual(bool(lines), name != "no_such")


if __name__ == "__main__":
    unittest.main()
