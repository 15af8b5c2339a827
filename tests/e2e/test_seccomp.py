"""Where io_uring is denied (as in a container with Docker's default profile) the server runs on plain system calls, and says
so; asked for io_uring by name it refuses to start."""
import os
import subprocess
import time
import unittest

import support

DENY = os.path.join(support.BUILD, "tests/deny_uring")


class SeccompTest(unittest.TestCase):
    def test_falls_back(self):
        with support.Directory() as directory:
            server = support.Server(os.path.join(directory, "data"), prefix=(DENY,))
            try:
                now = int(time.time() * 1000)
                status, body = server.write([({"__name__": "denied"}, [(now, 4.25)])])
                self.assertEqual(status, 204, body)
                answer = server.data("/api/v1/query", query="denied", time=f"{now / 1000:.3f}")
                self.assertEqual(answer["result"][0]["value"][1], "4.25")
                self.assertEqual(server.stop(), 0, server.log())
                log = server.log()
                self.assertRegex(log, r"level=\"?warn.*io_uring", "no warning that io_uring is denied")
                self.assertRegex(log, r"syscall", "the log does not say which backend runs")
            finally:
                server.close()

    def test_by_name_is_an_error(self):
        with support.Directory() as directory:
            run = subprocess.run([DENY, support.BINARY, "serve", "--listen", "127.0.0.1:0", "--io", "uring", "--data-dir",
                                  os.path.join(directory, "data")], capture_output=True, text=True, timeout=60, check=False)
            self.assertGreater(run.returncode, 0, run.stderr)
            self.assertIn("io_uring", run.stderr)


if __name__ == "__main__":
    unittest.main()
