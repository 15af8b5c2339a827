"""The README's examples work as printed, against a server started as scripts/run starts it."""
import json
import os
import re
import subprocess
import time
import unittest

import support

ADDRESS = "127.0.0.1:9201"


def examples():
    with open(os.path.join(support.ROOT, "README.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```sh\n(.*?)^```", f.read(), re.M | re.S)
    return [line for block in blocks for line in block.split("\n") if line.strip()]


class ReadmeTest(unittest.TestCase):
    def run_query(self, command, server):
        command = command.replace("build/release/tidalite", support.BINARY) + " --server " + server.url
        run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertTrue(run.stdout)

    def test_examples(self):
        commands = examples()
        self.assertGreaterEqual(len(commands), 8)
        with support.Directory() as directory:
            server = support.Server(os.path.join(directory, "data"), "--self-scrape", "5s")
            try:
                deadline = time.monotonic() + 30
                while True:
                    result = server.data("/api/v1/query", query="count_over_time(up[1m])")["result"]
                    if result and float(result[0]["value"][1]) >= 2:
                        break
                    self.assertLess(time.monotonic(), deadline, "no self scrape within 30 s")
                    time.sleep(0.5)
                for command in commands:
                    with self.subTest(command=command):
                        if command.startswith("build/release/tidalite query "):
                            self.run_query(command, server)
                            continue
                        self.assertIn(ADDRESS, command)
                        run = subprocess.run(["sh", "-c", command.replace(ADDRESS, f"127.0.0.1:{server.port}").replace(
                            "curl -s", "curl -sf", 1)], capture_output=True, text=True, timeout=60, check=False)
                        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
                        self.assertTrue(run.stdout)
                        if "/api/v1/" in command:
                            answer = json.loads(run.stdout)
                            self.assertEqual(answer["status"], "success")
                            data = answer["data"]
                            self.assertTrue(data["result"] if isinstance(data, dict) and "result" in data else data, run.stdout)
                        if command.endswith("/metrics'"):
                            self.assertIn("tidalite_samples_stored_total", run.stdout)
                self.assertEqual(server.stop(), 0)
            finally:
                server.close()


if __name__ == "__main__":
    unittest.main()
