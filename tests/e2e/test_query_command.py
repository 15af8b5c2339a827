"""`tidalite query` as a person meets it: tables, plots, CSV, JSON, and what it says when something is wrong."""
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer

import support

AT_S = 1700000000
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG")}
UTF8 = {"LC_ALL": "C.UTF-8"}


def run(*arguments, timeout=30, **env):
    return subprocess.run([support.BINARY, "query", *arguments], capture_output=True, text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL, env={**ENVIRONMENT, **UTF8, **env}, encoding="utf-8")


def run_in_terminal(*arguments, columns=80, **env):
    """The same with a terminal as its standard output: (exit code, what it shows)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([support.BINARY, "query", *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                          env={**ENVIRONMENT, **UTF8, **env}) as process:
        os.close(theirs)
        data = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            data += piece
        os.close(ours)
        return process.wait(timeout=30), data.decode().replace("\r\n", "\n")


def plain(text):
    return re.sub(r"\x1b\[\d*m", "", text)


def dots_of(text):
    """The dots of a plot in Braille: {(x, y from the top)}, and its width and height in dots."""
    rows = [line.split("│", 1)[1] for line in plain(text).split("\n") if "│" in line]
    dots = set()
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            bits = ord(cell) - 0x2800 if cell != " " else 0
            for bit, (x, y) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))):
                if bits >> bit & 1:
                    dots.add((2 * c + x, 4 * r + y))
    return dots, 4 * len(rows)


class QueryCommandTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = support.Directory()
        path = cls.directory.__enter__()
        cls.addClassCleanup(cls.directory.__exit__)
        cls.server = support.Server(os.path.join(path, "data"), "--retention", "200000h")
        cls.addClassCleanup(cls.server.close)
        times = [(AT_S + i * 15) * 1000 for i in range(241)]
        cls.write([({"__name__": "ramp", "job": "a"}, [(t, float(i)) for i, t in enumerate(times)]),
                   ({"__name__": "ramp", "job": "b"}, [(t, 240.0 - i) for i, t in enumerate(times)]),
                   ({"__name__": "gap"}, [(t, 1.0) for i, t in enumerate(times) if not 80 <= i < 160]),
                   ({"__name__": "odd", "case": "nan"}, [(times[0], float("nan"))]),
                   ({"__name__": "odd", "case": "inf"}, [(times[0], float("inf"))]),
                   ({"__name__": "odd", "case": "quote\",\ncomma"}, [(times[0], 1e-7)]),
                   ({"__name__": "odd", "case": "\x1b[31mred\x07"}, [(times[0], -2.5)]),
                   ({"__name__": "many", "n": "0"}, [(times[0], 1.0)]),
                   ({"__name__": "huge", "n": "1"}, [(times[0], 1.7e308), (times[1], -1.7e308)])])
        cls.write([({"__name__": "wide", "n": str(n)}, [(times[0], float(n))]) for n in range(3000)])
        cls.url = ("--server", cls.server.url)
        cls.range = ("--time", str(AT_S + 3600), "--range", "1h", "--step", "15s", *cls.url)

    @classmethod
    def write(cls, series):
        status, reply = cls.server.write([(labels, samples) for labels, samples in series])
        if status != 204:
            raise AssertionError(reply)

    def check(self, *arguments, **env):
        result = run(*arguments, *self.url, **env)
        self.assertEqual((result.returncode, result.stderr), (0, ""), arguments)
        return result.stdout

    # ---- What it prints ------------------------------------------------------------------------------------------

    def test_instant(self):
        at = ("--time", str(AT_S + 30))
        self.assertEqual(self.check("ramp", *at).splitlines(), ['ramp{job="a"}  2', 'ramp{job="b"}  238'])
        self.assertEqual(self.check("sum(ramp)", "--time=2023-11-14T22:13:50Z"), "{}  240\n")
        self.assertEqual(self.check("1 + 1"), "2\n")
        self.assertEqual(self.check("-ramp{job='a'}", *at), '{job="a"}  -2\n')
        self.assertEqual(self.check("'text'"), "text\n")
        self.assertEqual(self.check("ramp{job='a'}[40s]", *at), 'ramp{job="a"}\n  2023-11-14 22:13:20      0\n'
                                    "  2023-11-14 22:13:35      1\n  2023-11-14 22:13:50      2\n")
        lines = self.check("odd", "--time", str(AT_S + 1)).splitlines()
        self.assertEqual(sorted(line.rsplit("  ", 1)[1].strip() for line in lines), ["+Inf", "-2.5", "1e-07", "NaN"])
        self.assertEqual(len({line.rindex("  ") for line in lines}), 1, "the values stand in one column")
        self.assertEqual(len(self.check("wide", "--time", str(AT_S + 1)).splitlines()), 3000)

    def test_now(self):
        self.assertEqual(self.check("time() > bool 1750000000"), "1\n")

    def test_control_characters(self):
        """What a server says never reaches the terminal as an escape."""
        for arguments in (("odd", "--time", str(AT_S + 1)), ("'\\x1b[31mred'",)):
            code, text = run_in_terminal(*arguments, *self.url)
            self.assertEqual(code, 0)
            self.assertNotIn("\x1b", text)
            self.assertNotIn("\x07", text)

    def test_json(self):
        at = str(AT_S + 30)
        self.assertEqual(json.loads(self.check("ramp", "--time", at, "--format", "json")),
                         json.loads(self.server.get("/api/v1/query", query="ramp", time=at)[1]))

    def test_csv(self):
        rows = list(csv.reader(io.StringIO(self.check("odd or ramp", "--time", str(AT_S + 1), "--format", "csv"))))
        self.assertEqual(rows[0], ["time", "value", "__name__", "case", "job"])
        self.assertIn([str(AT_S + 1), "1e-07", "odd", "quote\",\ncomma", ""], rows)
        self.assertIn([str(AT_S + 1), "240", "ramp", "", "b"], rows)
        self.assertEqual(len(rows), 7)
        rows = list(csv.reader(io.StringIO(run("ramp", *self.range, "--format", "csv").stdout)))
        self.assertEqual(len(rows), 1 + 2 * 241)
        self.assertEqual(rows[241], [str(AT_S + 3600), "240", "ramp", "a"])
        self.assertEqual(self.check("7", "--time", "1.5", "--format", "csv"), "time,value\n1.500,7\n")

    def test_range_without_terminal(self):
        result = run("ramp", *self.range)
        self.assertEqual(result.stdout.splitlines(), [
            "series         points  min  max  last",
            'ramp{job="a"}     241    0  240   240',
            'ramp{job="b"}     241    0  240     0'])

    def test_nothing(self):
        result = run("no_such_metric", *self.url)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertIn("nothing", result.stderr)
        self.assertEqual(run("no_such_metric", *self.range, "--plot", "always").stdout, "")

    # ---- The plot --------------------------------------------------------------------------------------------------

    def test_plot(self):
        for columns in (40, 80, 133):
            code, text = run_in_terminal("ramp{job='a'}", *self.range, columns=columns)
            self.assertEqual(code, 0, text)
            lines = plain(text).split("\n")
            self.assertLessEqual(max(map(len, lines[:17])), columns)
            self.assertIn("240", lines[0])
            self.assertRegex(lines[16], r"2023-11-14 22:13:20 +23:13:20 UTC$")
            dots, height = dots_of(text)
            width = max(x for x, _ in dots) + 1
            self.assertGreaterEqual(width, 2 * (columns - 12), "as wide as the terminal")
            for x in range(width):  # a straight line from the lower left to the upper right
                want = (height - 1) * (1 - x / (width - 1))
                column = [y for c, y in dots if c == x]
                self.assertTrue(column and all(abs(y - want) <= 2 for y in column), (x, want, column))

    def test_plot_without_utf8(self):
        result = run("ramp", *self.range, "--plot", "always", LC_ALL="C", COLUMNS="60")
        self.assertTrue(result.stdout.isascii())
        rows = [line for line in result.stdout.split("\n") if "|" in line]
        self.assertEqual(len(rows), 16)
        self.assertLessEqual(max(map(len, rows)), 60)
        self.assertRegex(rows[0], r"^240 \|\++ +\*+$")
        self.assertRegex(rows[15], r"^ +0 \|\*+ +\++$")
        self.assertIn('* ramp{job="a"}', result.stdout)

    def test_gap(self):
        _, text = run_in_terminal("gap", *self.range, "--time", str(AT_S + 3600))
        dots, _ = dots_of(text)
        width = max(x for x, _ in dots) + 1
        # Samples 80 to 159 are missing; the last one counts for five minutes more.
        missing = [x for x in range(width) if x not in {c for c, _ in dots}]
        self.assertTrue(missing)
        self.assertAlmostEqual(missing[0] / width, (80 + 20) / 240, delta=0.02)
        self.assertAlmostEqual(missing[-1] / width, 160 / 240, delta=0.02)

    def test_odd_values(self):
        for expression in ("odd", "huge", "vector(NaN)", "vector(Inf)", "vector(0)", "1e308 * 10"):
            code, text = run_in_terminal(expression, "--time", str(AT_S + 300), "--range", "5m", *self.url)
            self.assertEqual(code, 0, text)

    def test_many_series(self):
        code, text = run_in_terminal("wide", "--time", str(AT_S + 60), "--range", "1m", *self.url)
        self.assertEqual(code, 0)
        self.assertIn("and 2960 more series", text)
        self.assertLess(len(text.split("\n")), 70)

    def test_colors(self):
        self.assertIn("\x1b[", run_in_terminal("ramp", *self.range)[1])
        self.assertNotIn("\x1b[", run_in_terminal("ramp", *self.range, NO_COLOR="1")[1])
        self.assertNotIn("\x1b[", run("ramp", *self.range, "--plot", "always").stdout)
        self.assertNotIn("│", run_in_terminal("ramp", *self.range, "--plot", "never")[1])

    def test_default_step(self):
        self.assertIn(" 241 ", run("time()", "--time", str(AT_S), "--range", "1h", *self.url).stdout)

    # ---- What is wrong ------------------------------------------------------------------------------------------------

    def test_parse_error(self):
        result = run("sum(ramp) +\n  max(ramp", *self.url)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr, 'tidalite: invalid parameter "query": 2:11: parse error: unclosed left parenthesis\n'
                                        "    max(ramp\n            ^\n")
        self.assertEqual(run("ä{a='ä'} + §", *self.url).returncode, 1)

    def test_execution_error(self):
        result = run("ramp * on () ramp", "--time", str(AT_S), *self.url)
        self.assertEqual(result.returncode, 1)
        self.assertIn("many-to-many", result.stderr)

    def test_unreachable(self):
        result = run("up", "--server", f"http://127.0.0.1:{support.free_port()}")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(result.stderr, r"^tidalite: no answer from http://127\.0\.0\.1:\d+: .*is the server running\?")

    def test_usage(self):
        for arguments, text in (((), "no expression"), (("up", "down"), "more than one expression"), (("up", "--format", "xml"), "table, json or csv"),
                                (("up", "--frmat", "csv"), "--frmat"), (("up", "--range", "x"), "duration"), (("up", "--range", "0s"), "duration"),
                                (("up", "--step", "5s"), "--range"), (("up", "--time", "noon"), "RFC 3339"), (("up", "--time"), "needs a value"),
                                (("up", "--server", "localhost:9201"), "http://"), (("up", "--" + "x" * 100, "y"), "unknown flag")):
            result = run(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertRegex(result.stderr, f"^tidalite: .*{re.escape(text)}")
            self.assertEqual(result.stderr.count("\n"), 1)

    def test_help(self):
        for arguments in (("--help",), ("-h",), ("up", "--help")):
            result = run(*arguments)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            for flag in ("--server URL", "--time TIME", "--range DURATION", "--step DURATION", "--format table|json|csv", "--plot"):
                self.assertIn(flag, result.stdout)

    def answer_with(self, status, body, content_type="application/json"):
        """A server that always says this; its URL."""
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}/"

    def test_strange_answers(self):
        ok = b'{"status":"success","data":{"resultType":"vector","result":[%s]}}'
        for status, body in ((200, b""), (404, b"not found\n"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b'{"status":"success"}'),
                             (200, b'{"status":"success","data":{"resultType":"tensor","result":[]}}'),
                             (200, ok % b"1"), (200, ok % b'{"metric":[]}'), (200, ok % b'{"metric":{"a":1},"value":[1,"2"]}'),
                             (200, ok % b'{"metric":{},"value":[1]}'), (200, ok % b'{"metric":{},"value":["x","2"]}'),
                             (200, ok % b'{"metric":{},"value":[1e300,"2"]}'), (200, ok % b'{"metric":{},"value":1}'),
                             (200, b"[" * 100000), (200, ok % b'{"metric":{},"value":[1,"2"]}' + b"x")):
            result = run("up", "--server", self.answer_with(status, body))
            self.assertEqual((result.returncode, result.stdout), (1, ""), body[:80])
            self.assertRegex(result.stderr, r"^tidalite: http.* answered \d+: ")

    def test_notes_and_histograms(self):
        body = (b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"histogram":[1,{"count":"1"}]}]},'
                b'"warnings":["careful"],"infos":["by the way"]}')
        result = run("up", "--server", self.answer_with(200, body))
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stderr, "note: careful\nnote: by the way\n")
        self.assertIn("1 native histograms", result.stdout)

    @classmethod
    def tearDownClass(cls):
        code, log = cls.server.stop(), cls.server.log()
        if code != 0 or "Sanitizer" in log:
            raise AssertionError(log)


if __name__ == "__main__":
    unittest.main()
