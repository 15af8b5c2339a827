"""examples/: the programs they are for take them, and what they ask gives answers."""
import json
import os
import re
import subprocess
import time
import unittest

import support

EXAMPLES = os.path.join(support.ROOT, "examples")

# What a Tidalite exports that is well, in promtool's notation of series: for an hour, a sample a minute.
SAME = "x60"
WELL = {
    "tidalite_build_info{}": "1" + SAME,
    "tidalite_wal_writable{}": "1" + SAME,
    "tidalite_block_damage_total{}": "0" + SAME,
    "tidalite_blocks_damaged_total{}": "0" + SAME,
    "tidalite_scrub_damage_total{}": "3" + SAME,
    "tidalite_chunklog_damage_total{}": "0" + SAME,
    "tidalite_snapshot_damage_total{}": "0" + SAME,
    "tidalite_wal_corrupt_frames_total{}": "0" + SAME,
    "tidalite_ballast_used_total{}": "1" + SAME,
    'tidalite_samples_refused_total{reason="conflict"}': "5" + SAME,
    'tidalite_series_dropped_total{reason="duplicate_label"}': "7" + SAME,
    'tidalite_write_requests_total{code="204"}': "0+60x60",
    'tidalite_write_requests_total{code="503"}': "2" + SAME,
    "tidalite_write_queue_bytes{}": "5e6" + SAME,
    'tidalite_wal_commit_duration_seconds_bucket{le="0.1"}': "0+100x60",
    'tidalite_wal_commit_duration_seconds_bucket{le="1"}': "0+100x60",
    'tidalite_wal_commit_duration_seconds_bucket{le="10"}': "0+100x60",
    'tidalite_wal_commit_duration_seconds_bucket{le="+Inf"}': "0+100x60",
    "tidalite_maintenance_errors_total{}": "1" + SAME,
    "tidalite_compaction_errors_total{}": "0" + SAME,
    "tidalite_queries_refused_total{}": "3" + SAME,
    "tidalite_samples_stored_total{}": "0+6000x60",
}
# What is amiss when just this alert fires: other values of these series, or none.
AMISS = {
    "TidaliteGone": ({"tidalite_build_info{}": None}, ),
    "TidaliteCannotWrite": ({"tidalite_wal_writable{}": "0x60"}, ),
    "TidaliteDamage": tuple({name: "0x55 1x5"} for name in WELL if "damage" in name or "corrupt" in name),
    "TidaliteDiskFull": ({"tidalite_ballast_used_total{}": "1x55 2x5"}, ),
    "TidaliteRefusesSamples": ({'tidalite_samples_refused_total{reason="conflict"}': "0+1x60"}, ),
    "TidaliteDropsSeries": ({'tidalite_series_dropped_total{reason="duplicate_label"}': "0+1x60"}, ),
    "TidaliteWritesMustRepeat": ({'tidalite_write_requests_total{code="503"}': "0+1x60"}, ),
    "TidaliteWriteQueueLong": ({"tidalite_write_queue_bytes{}": "2e8x60"}, ),
    "TidaliteSyncSlow": ({f'tidalite_wal_commit_duration_seconds_bucket{{le="{le}"}}': "0+95x60" for le in ("0.1", "1")}, ),
    "TidaliteMaintenanceFails": ({"tidalite_maintenance_errors_total{}": "0+1x60"}, {"tidalite_compaction_errors_total{}": "0+1x60"}),
    "TidaliteQueriesRefused": ({"tidalite_queries_refused_total{}": "0+1x60"}, ),
}


def read(*path):
    with open(example(*path), encoding="utf-8") as f:
        return f.read()


def rule_test(amiss, firing):
    """One test of promtool's: an hour of these series, then just these alerts fire."""
    series = [{"series": name.replace("{", '{job="tidalite",instance="a",').replace(",}", "}"), "values": values}
              for name, values in {**WELL, **amiss}.items() if values]
    return {"interval": "1m", "input_series": series, "promql_expr_test": [
        {"expr": 'group by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "1h",
         "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing]}]}


def example(*path):
    return os.path.join(EXAMPLES, *path)


class Examples(unittest.TestCase):
    def run_ok(self, *command):
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(run.returncode, 0, f"{command}: {run.stdout}{run.stderr}")

    def test_prometheus(self):
        self.run_ok(support.peer("promtool"), "check", "config", example("prometheus.yml"))
        self.run_ok(support.peer("promtool"), "check", "rules", example("tidalite.rules.yml"))

    def test_vmagent(self):
        with support.Directory() as path:
            self.run_ok(support.peer("vmagent"), "-dryRun", f"-promscrape.config={example('vmagent.yml')}", f"-remoteWrite.tmpDataPath={path}",
                        "-remoteWrite.url=http://127.0.0.1:9/api/v1/write")

    def test_vmalert(self):
        self.run_ok(support.peer("vmalert"), "-dryRun", f"-rule={example('tidalite.rules.yml')}")

    def test_alerts(self):
        """Each fires for what it tells of, and for nothing else; none of a server that is well."""
        names = re.findall(r"^ +- alert: (.*)$", read("tidalite.rules.yml"), re.M)
        self.assertEqual(sorted(AMISS), sorted(names))
        tests = [rule_test({}, [])] + [rule_test(amiss, [name]) for name, causes in AMISS.items() for amiss in causes]
        with support.Directory() as path:
            # JSON is YAML.
            with open(os.path.join(path, "test.yml"), "w", encoding="utf-8") as f:
                json.dump({"rule_files": [example("tidalite.rules.yml")], "evaluation_interval": "1m", "tests": tests}, f)
            self.run_ok(support.peer("promtool"), "test", "rules", os.path.join(path, "test.yml"))

    def test_grafana_alerts(self):
        """Grafana's own alerts are those of the rules."""
        def alerts(text, title):
            return [(name, re.search(r"expr: (.*)", part).group(1), (re.findall(r"\bfor: (.*)", part) or ["0s"])[0],
                     re.search(r"severity: (.*)", part).group(1)) for name, part in
                    re.findall(rf"^ +(?:- )?{title}: (\w+)$((?:\n(?! +- (?:alert|uid|record):).*)*)", text, re.M)]

        want = alerts(read("tidalite.rules.yml"), "alert")
        self.assertGreater(len(want), 5)
        self.assertEqual(alerts(read("grafana", "provisioning", "alerting", "tidalite.yml"), "title"), want)

    def test_listed(self):
        text = read("README.md")
        for name in os.listdir(EXAMPLES):
            self.assertTrue(name == "README.md" or f"]({name}" in text or name == "grafana", f"{name} is not in examples/README.md")

    def test_expressions(self):
        """All parse; those of the dashboard give data, where something happened that they tell of."""
        panels = json.loads(read("grafana", "tidalite-dashboard.json"))["panels"]
        shown = [target["expr"] for panel in panels for target in panel["targets"]]
        rules = re.findall(r"^ +expr: (.*)$", read("tidalite.rules.yml"), re.M)
        self.assertGreater(len(shown), 12)
        self.assertGreater(len(rules), 5)
        with support.Directory() as path:
            server = support.Server(os.path.join(path, "data"), "--self-scrape", "1s")
            self.addCleanup(server.close)
            now_ms = int(time.time() * 1000)
            for i in range(40):
                self.assertEqual(server.write([({"__name__": "m", "i": str(i)}, [(now_ms + i, 1.0)])])[0], 204)
                if i % 4 == 0:
                    server.write([({"__name__": "m", "i": "0"}, [(now_ms, 7.0 + i)])])  # refused: another value is there
                server.data("/api/v1/query", query="m")
                time.sleep(0.1)
            missing = []
            for text in shown:
                text = text.replace("$__rate_interval", "1m").replace("$instance", ".*")
                if not server.data("/api/v1/query", query=text)["result"]:
                    missing.append(text)
            self.assertEqual(missing, [])
            # Nothing is wrong with it but the samples it was made to refuse.
            told = [text for text in rules if server.data("/api/v1/query", query=text)["result"]]
            self.assertEqual([re.search(r"tidalite_\w+_total", text).group() for text in told],
                             ["tidalite_samples_refused_total", "tidalite_samples_stored_total"])
            names = {name for text in shown + rules for name in re.findall(r"\b(?:tidalite|process)_[a-z0-9_]+", text)}
            known = set(server.data("/api/v1/label/__name__/values"))
            self.assertEqual(names - known - {"tidalite_samples_stored"}, set())


if __name__ == "__main__":
    unittest.main()
