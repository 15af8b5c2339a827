"""examples/: the programs they are for take them, and what they ask gives answers."""
import json
import os
import re
import subprocess
import time
import unittest

import support

EXAMPLES = os.path.join(support.ROOT, "examples")


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

    def test_listed(self):
        with open(example("README.md"), encoding="utf-8") as f:
            text = f.read()
        for name in os.listdir(EXAMPLES):
            self.assertTrue(name == "README.md" or f"]({name}" in text or name == "grafana", f"{name} is not in examples/README.md")

    def test_expressions(self):
        """All parse; those of the dashboard give data, where something happened that they tell of."""
        with open(example("grafana", "tidalite-dashboard.json"), encoding="utf-8") as f:
            panels = json.load(f)["panels"]
        shown = [target["expr"] for panel in panels for target in panel["targets"]]
        with open(example("tidalite.rules.yml"), encoding="utf-8") as f:
            rules = re.findall(r"^ +expr: (.*)$", f.read(), re.M)
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
            for text in rules:
                server.data("/api/v1/query", query=text)
            names = {name for text in shown + rules for name in re.findall(r"\b(?:tidalite|process)_[a-z0-9_]+", text)}
            known = set(server.data("/api/v1/label/__name__/values"))
            self.assertEqual(names - known - {"tidalite_samples_stored"}, set())


if __name__ == "__main__":
    unittest.main()
