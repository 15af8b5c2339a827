"""tidalite verify and inspect on directories that a real server made: whole ones, ones in use, and ones with a byte changed in
each kind of file; --repair; and what queries say about a damaged block."""
import os
import shutil
import signal
import subprocess
import time
import unittest

import support


def run(*arguments):
    done = subprocess.run([support.BINARY, *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def flip(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0x10]))


def metric(server, name):
    for line in server.get("/metrics")[1].decode().split("\n"):
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


class VerifyTest(unittest.TestCase):
    def setUp(self):
        directory = support.Directory()
        self.directory = directory.__enter__()
        self.addCleanup(directory.__exit__)
        self.data = os.path.join(self.directory, "data")
        self.old = (int(time.time()) - 5 * 86400) // 7200 * 7200 + 60  # all of it in one window

    def server(self, *flags):
        server = support.Server(self.data, "--enable-admin-api", *flags)
        self.addCleanup(server.close)
        return server

    def fill(self, server):
        """A block of 40 old series, and new samples in the log; a delete."""
        old = [({"__name__": "old", "i": str(i)}, [((self.old + t) * 1000, float(t * i)) for t in range(200)])
               for i in range(40)]
        self.assertEqual(server.write(old)[0], 204)
        now = int(time.time() * 1000)
        self.assertEqual(server.write([({"__name__": "new", "i": str(i)}, [(now, 1.0)]) for i in range(20)])[0], 204)
        self.assertEqual(server.request("POST", "/api/v1/admin/tsdb/delete_series?match[]=new{i=%223%22}")[0], 204)
        deadline = time.monotonic() + 60
        while metric(server, "tidalite_blocks") == 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)

    def block(self):
        (name,) = os.listdir(os.path.join(self.data, "blocks"))
        return os.path.join(self.data, "blocks", name)

    def expect_damage(self, path, kind="", repairable=False):
        code, out, err = run("verify", self.data)
        self.assertEqual(code, 1, out + err)
        lines = [line for line in out.split("\n") if line.startswith("damage: ")]
        self.assertTrue(lines)
        self.assertTrue(all(line.startswith(f"damage: {path}") for line in lines), out)
        self.assertTrue(any(kind in line and "offset" in line and "costs" in line for line in lines), out)
        if not repairable:
            return
        self.assertEqual(run("verify", self.data, "--repair")[0], 0)
        self.assertEqual(run("verify", self.data)[0], 0)

    def test_usage(self):
        self.assertEqual(run("verify")[0], 2)
        self.assertEqual(run("verify", "a", "b")[0], 2)
        self.assertEqual(run("verify", "--what")[0], 2)
        self.assertEqual(run("verify", "--help")[0], 0)
        self.assertEqual(run("inspect", "nothing")[0], 2)
        self.assertEqual(run("inspect", "--help")[0], 0)
        code, _, err = run("verify", os.path.join(self.directory, "nowhere"))
        self.assertEqual(code, 3)
        self.assertIn("nowhere", err)

    def test_in_use(self):
        server = self.server()
        self.fill(server)
        for _ in range(5):
            now = int(time.time() * 1000)
            self.assertEqual(server.write([({"__name__": "new", "i": "0"}, [(now, 1.0)])])[0], 204)
            code, out, err = run("verify", self.data)
            self.assertEqual((code, err), (0, ""), out)
        code, _, err = run("verify", self.data, "--repair")
        self.assertEqual(code, 3)
        self.assertIn("lock", err)
        code, out, _ = run("inspect", "wal", self.data)
        self.assertEqual(code, 0)
        self.assertIn('new{i="3"}', out)
        self.assertIn('{i="3",__name__="new"}', out)
        self.assertIn("20 samples", out)

    def test_blocks(self):
        """/api/v1/status/tsdb/blocks tells of them what inspect does."""
        server = self.server()
        self.assertEqual(server.data("/api/v1/status/tsdb/blocks"), {"blocks": []})
        self.fill(server)
        number = int(os.path.basename(self.block()), 16)
        digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        (block,) = server.data("/api/v1/status/tsdb/blocks")["blocks"]
        value = 0
        for digit in block["ulid"]:
            value = value * 32 + digits.index(digit)
        self.assertEqual((len(block["ulid"]), value), (26, number))
        self.assertIn(block["stats"].pop("numTombstones", 0), (0, 1))  # fill's, which may come before the block
        _, out, _ = run("inspect", "block", self.block())
        chunks = int(out.split(" chunks, ")[0].split()[-1])
        self.assertEqual(block, {
            "ulid": block["ulid"], "minTime": self.old * 1000, "maxTime": (self.old + 199) * 1000 + 1,
            "stats": {"numSamples": 8000, "numFloatSamples": 8000, "numSeries": 40, "numChunks": chunks},
            "compaction": {"level": 1, "sources": [block["ulid"]]}, "version": 1})
        self.assertEqual(server.request("POST", "/api/v1/admin/tsdb/delete_series?match[]=old{i=%223%22}")[0], 204)
        (block,) = server.data("/api/v1/status/tsdb/blocks")["blocks"]
        self.assertGreaterEqual(block["stats"]["numTombstones"], 1)

    def test_damage(self):
        server = self.server()
        self.fill(server)
        server.stop(signal.SIGKILL)
        self.assertEqual(run("verify", self.data)[0], 0)
        shutil.copytree(self.data, self.data + ".whole")

        def again():
            shutil.rmtree(self.data)
            shutil.copytree(self.data + ".whole", self.data)

        block = self.block()
        chunks = os.path.join(block, "chunks")
        flip(chunks, os.path.getsize(chunks) // 2)
        self.expect_damage(chunks)
        self.assertEqual(run("verify", self.data, "--repair")[0], 1)  # nothing to make it of
        for name, offset in (("index.mdb", 5000), ("index.sum", 41), ("meta.json", 20)):
            again()
            flip(os.path.join(block, name), offset)
            self.expect_damage(os.path.join(block, name), repairable=True)
        again()
        os.remove(os.path.join(block, "index.mdb"))
        self.expect_damage(block, repairable=True)
        again()
        shutil.rmtree(block)
        self.expect_damage(block, "missing")
        again()
        flip(os.path.join(self.data, "manifest"), 40)
        self.expect_damage(os.path.join(self.data, "manifest"), "first copy", repairable=True)
        again()
        manifest = os.path.join(self.data, "manifest")
        flip(manifest, 40)
        flip(manifest, os.path.getsize(manifest) // 2 + 40)
        code, out, err = run("verify", self.data)
        self.assertEqual(code, 1, out + err)
        again()
        log = os.path.join(self.data, "wal")
        segment = os.path.join(log, sorted(n for n in os.listdir(log) if n.endswith(".log"))[0])
        flip(segment, 8192 + 100)
        self.expect_damage(segment, "frames")
        again()
        flip(segment, 100)
        self.expect_damage(segment, "one of its two headers")

    def test_warnings(self):
        """An answer that touches what is damaged says so; another does not."""
        server = self.server()
        self.fill(server)
        query = {"query": "count_over_time(old[10m])", "time": self.old + 300}
        self.assertNotIn("warnings", support.json.loads(server.get("/api/v1/query", **query)[1]))
        server.stop(signal.SIGKILL)
        chunks = os.path.join(self.block(), "chunks")
        flip(chunks, os.path.getsize(chunks) // 2)
        server = self.server()
        answer = support.json.loads(server.get("/api/v1/query", **query)[1])
        self.assertIn("damaged", " ".join(answer.get("warnings", [])), answer)
        self.assertGreaterEqual(len(answer["data"]["result"]), 39)  # it costs what it touches
        self.assertNotIn("warnings", support.json.loads(server.get("/api/v1/query", query="new")[1]))
        # Without its index, too, the series of that chunk can't be told.
        server.stop(signal.SIGKILL)
        os.remove(os.path.join(self.block(), "index.mdb"))
        server = self.server()
        name = os.path.basename(self.block())
        for path, match in (("/api/v1/series", {"match[]": ["old", "new"]}), ("/api/v1/labels", {}),
                            ("/api/v1/label/__name__/values", {}), ("/api/v1/labels", {"match[]": "old"})):
            answer = support.json.loads(server.get(path, **match)[1])
            self.assertEqual(answer.get("warnings"), [f"samples may be missing, damaged on disk: block {name}"], path)
            answer = support.json.loads(server.get(path, start=self.old + 86400, **match)[1])
            self.assertNotIn("warnings", answer, path)


if __name__ == "__main__":
    unittest.main()
