"""The same data in Debian's Prometheus and in Tidalite, and the same random questions to both (promql_generator.py, promql_data.py): same
series, same order where there is one, same values (1e-9), same kind of error, and the same JSON text but for last digits.

    DIFF_SEED=…      another sequence of questions (printed; the same seed asks the same)
    DIFF_QUERIES=…   how many (a few hundred by default; thousands by hand)
    DIFF_VERBOSE=1   prints each question
"""
import collections
import http.client
import json
import math
import os
import re
import signal
import sys
import unittest
import urllib.parse

import promql_data
import promql_fixed
import support
from promql_generator import Generator, for_prometheus

SEED = int(os.environ.get("DIFF_SEED", "1"))
QUERIES = int(os.environ.get("DIFF_QUERIES", "500"))
VERBOSE = bool(os.environ.get("DIFF_VERBOSE"))
SHOWN = 25

POINT = re.compile(rb'\[(-?[0-9.e+-]+),"([^"]*)"\]')


# Where 2.42 words the same error differently, and why; (its words, ours). What no rule covers must be equal.
WORDINGS = (
    # query_range did not say which parameter.
    (r"^(\d+:\d+: parse error: .*)$", r'invalid parameter "query": \1'),
    (r'^(invalid expression type "[a-z ]+" for range query, must be Scalar or instant Vector)$', r'invalid parameter "query": \1'),
    # Durations became numbers and expressions.
    (r"expected duration$", "expected number, duration, step(), or range()"),
    (r'bad duration syntax: "5"$', 'bad number or duration syntax: "5x"'),
    (r"missing unit character in duration$", "duration must be greater than 0"),
    (r"unclosed left bracket$", "unexpected end of input in duration expression"),
    # The token had no name.
    (r'"<Item \d+>" <op:@>', "<op:@>"),
    # The pattern was parsed with its anchors.
    (r"`\^\(\?:(.*)\)\$`$", r"`\1`"),
    # topk's parameter.
    (r"^Scalar value NaN overflows int64$", "Parameter value is NaN"),
    # The two series that are named came in any order.
    (r"on the (right|left) hand-side of the operation: \[\{.*\}, \{.*\}\];", r"on the \1 hand-side of the operation: [series, series];"),
)
OUR_PAIR = re.compile(WORDINGS[-1][0])


def wording_fault(theirs, ours, renamed):
    """None if the texts are the same but for the rules above; `renamed`: the question was shorter there, so columns differ."""
    if renamed:
        theirs, ours = (re.sub(r"\d+:\d+: parse", "parse", text) for text in (theirs, ours))
        theirs = re.sub("^parse", 'invalid parameter "query": parse', theirs)
    for pattern, replacement in WORDINGS:
        theirs = re.sub(pattern, replacement, theirs)
    ours = OUR_PAIR.sub(WORDINGS[-1][1], ours)
    return None if theirs == ours else f"{ours}, Prometheus: {theirs}"


class Side:
    """One of the two, on one connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path, body, headers):
        self.connection.request("POST", path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def ask(self, path, parameters):
        return self.post(path, urllib.parse.urlencode(parameters), {"Content-Type": "application/x-www-form-urlencoded"})


def same(a, b):
    x, y = float(a), float(b)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-300)


def data_text(body, answer):
    """The bytes of `data`: what stands behind it (annotations, which 2.42 does not have) cut off."""
    begin = body.index(b'"data":') + 7
    end = len(body.rstrip()) - 1
    for key in ("infos", "warnings"):
        if key in answer:
            end = body.rindex(b',"%s":[' % key.encode(), 0, end)
    return body[begin:end]


def items_of(data):
    """[(labels, [(time text, value text)…])…] in the order of the answer."""
    out = []
    for series in data["result"]:
        points = series["values"] if "values" in series else [series["value"]]
        out.append((tuple(sorted(series["metric"].items())), points))
    return out


class Outcome:
    """How one question came out: `kind` of data, empty, error; `fault` says what differs."""

    def __init__(self, kind, fault=None, bytes_equal=None, wording=None):
        self.kind, self.fault, self.bytes_equal, self.wording = kind, fault, bytes_equal, wording


def text_fault(theirs, ours, ordered):
    """(bytes equal?, fault): the text apart from last digits of values."""
    if theirs == ours:
        return True, None

    def skeleton(text):
        values = []

        def take(match):
            values.append(match.group(2))
            return b"[" + match.group(1) + b',"?"]'

        return POINT.sub(take, text), values

    if not ordered:
        # The order of an instant vector is each server's own: compare its elements, sorted.
        split = re.compile(rb'(?<=\]\}),(?=\{"metric")')
        theirs, ours = (b",".join(sorted(split.split(re.sub(rb'^\{"resultType":"\w+","result":\[(.*)\]\}$', rb"\1", t))))
                        for t in (theirs, ours))
        if theirs == ours:
            return True, None
    a, a_values = skeleton(theirs)
    b, b_values = skeleton(ours)
    if a != b:
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        return False, f"JSON differs at byte {at}: …{b[max(0, at - 60):at + 60]!r}, Prometheus …{a[max(0, at - 60):at + 60]!r}"
    for x, y in zip(a_values, b_values):
        if x != y and float(x) == float(y) and str(float(x)) == str(float(y)):
            return False, f"the text of a value differs: {y!r}, Prometheus {x!r}"
    return False, None


def compare(theirs, ours, ordered, renamed):
    """theirs, ours: (status, body)."""
    want, have = json.loads(theirs[1]), json.loads(ours[1])
    if "error" in (want["status"], have["status"]):
        kinds = tuple((a.get("errorType"), s) for a, (s, _) in ((want, theirs), (have, ours)))
        if kinds[0] != kinds[1]:
            return Outcome("error", f"{kinds[1]} {have.get('error')}, Prometheus {kinds[0]} {want.get('error')}")
        return Outcome("error", wording_fault(want["error"], have["error"], renamed), wording=want["error"] == have["error"])
    answers = want, have
    want, have = want["data"], have["data"]
    if want["resultType"] != have["resultType"]:
        return Outcome("data", f"{have['resultType']}, Prometheus {want['resultType']}")
    if want["resultType"] in ("scalar", "string"):
        equal = want["result"][0] == have["result"][0] and (
            same(want["result"][1], have["result"][1]) if want["resultType"] == "scalar" else want["result"][1] == have["result"][1])
        return Outcome("data", None if equal else f"{have['result']}, Prometheus {want['result']}",
                       bytes_equal=data_text(theirs[1], answers[0]) == data_text(ours[1], answers[1]))
    a, b = items_of(want), items_of(have)
    # 2.42 did not sort the series of a subquery, in an instant query.
    if not ordered:
        a.sort(key=lambda i: i[0])
        b.sort(key=lambda i: i[0])
    if [i[0] for i in a] != [i[0] for i in b]:
        only_a, only_b = sorted({i[0] for i in a} - {i[0] for i in b}), sorted({i[0] for i in b} - {i[0] for i in a})
        return Outcome("data", f"series: {len(b)}, Prometheus {len(a)}; only here {only_b[:2]}, only there {only_a[:2]}")
    for (labels, x_points), (_, y_points) in zip(a, b):
        if [p[0] for p in x_points] != [p[0] for p in y_points]:
            return Outcome("data", f"times of {labels}: {len(y_points)}, Prometheus {len(x_points)}; first that is on one side only: "
                                   f"{sorted({p[0] for p in x_points} ^ {p[0] for p in y_points})[:1]}")
        for x, y in zip(x_points, y_points):
            if not same(x[1], y[1]):
                return Outcome("data", f"{labels} at {x[0]}: {y[1]}, Prometheus {x[1]}")
    equal, fault = text_fault(data_text(theirs[1], answers[0]), data_text(ours[1], answers[1]),
                              ordered)
    return Outcome("data" if a else "empty", fault, bytes_equal=equal)


class DifferentialTest(unittest.TestCase):
    """One Prometheus and one Tidalite with the same samples, for all tests."""

    @classmethod
    def setUpClass(cls):
        cls.directory = support.Directory()
        cls.path = cls.directory.__enter__()
        cls.addClassCleanup(cls.directory.__exit__)
        cls.prometheus = support.Prometheus(os.path.join(cls.path, "prometheus"), "--enable-feature=promql-per-step-stats")
        cls.addClassCleanup(cls.prometheus.close)
        cls.server = support.Server(os.path.join(cls.path, "data"), "--retention", "200000h")
        cls.addClassCleanup(cls.server.close)
        cls.sides = [Side(cls.prometheus.port), Side(cls.server.port)]
        for side in cls.sides:
            cls.addClassCleanup(side.connection.close)
        cls.load()

    @classmethod
    def load(cls):
        samples = 0
        for request in promql_data.requests():
            body = support.snappy(support.write_request(request))
            samples += len(request)
            for side in cls.sides:
                status, reply = side.post("/api/v1/write", body, support.WRITE_HEADERS)
                if status != 204:
                    raise AssertionError(f"write: {status} {reply!r}")
        print(f"loaded {samples} samples into both", file=sys.stderr)

    def ask(self, text, kind, parameters, ordered=False):
        path = "/api/v1/query_range" if kind == "range" else "/api/v1/query"
        theirs = self.sides[0].ask(path, {"query": for_prometheus(text), **parameters})
        ours = self.sides[1].ask(path, {"query": text, **parameters})
        return compare(theirs, ours, ordered or kind == "range", for_prometheus(text) != text)

    def run_all(self, questions):
        """questions: (text, kind, parameters, ordered). Counts, prints, asserts."""
        counts, faults, wordings = collections.Counter(), [], 0
        equal = texts = 0
        for text, kind, parameters, ordered in questions:
            outcome = self.ask(text, kind, parameters, ordered)
            if VERBOSE:
                print(f"{outcome.kind:12} {kind:8} {text}", file=sys.stderr)
            counts[outcome.kind] += 1
            if outcome.bytes_equal is not None:
                texts += 1
                equal += outcome.bytes_equal
            wordings += outcome.wording is False
            if outcome.fault:
                faults.append(f"{kind} {parameters}\n    {text}\n    {outcome.fault}")
        total = sum(counts.values())
        shares = ", ".join(f"{kind} {count} ({100 * count / total:.1f} %)" for kind, count in sorted(counts.items()))
        print(f"{total} questions: {shares}; JSON equal byte for byte in {equal} of {texts} answers, the others in last digits; "
              f"{wordings} of {counts['error']} errors in 2.42's older words; {len(faults)} differ", file=sys.stderr)
        for fault in faults[:SHOWN]:
            print("  " + fault, file=sys.stderr)
        self.assertEqual(len(faults), 0, f"of {total} answers differ")
        return counts

    def test_fixed(self):
        def questions():
            for text in promql_fixed.QUERIES:
                yield text, "instant", {"time": promql_data.AT_S}, False
                yield text, "range", {"start": promql_data.AT_S - 600, "end": promql_data.AT_S, "step": 30}, False
            for text in promql_fixed.ORDERED:
                yield text, "instant", {"time": promql_data.AT_S}, True
            for text in promql_fixed.INSTANT:
                yield text, "instant", {"time": promql_data.AT_S}, False

        counts = self.run_all(questions())
        self.assertGreater(counts["data"], counts["empty"] * 5)

    def test_stats(self):
        """What a query looked at, in all and at each step."""
        # Of nothing, the top is found here without looking.
        texts = [text for text in promql_fixed.QUERIES if not text.startswith("topk(0,")]
        questions = [(text, "/api/v1/query", {"time": promql_data.AT_S + 0.1}) for text in texts]
        questions += [(text, "/api/v1/query_range", {"start": promql_data.AT_S - 600, "end": promql_data.AT_S, "step": 30}) for text in texts]
        compared, faults = 0, []
        for text, path, parameters in questions:
            answers = [side.ask(path, {"query": query, "stats": "all", **parameters})
                       for side, query in zip(self.sides, (for_prometheus(text), text))]
            if answers[0][0] != 200:
                continue
            theirs, ours = (json.loads(body)["data"]["stats"]["samples"] for _, body in answers)
            compared += 1
            for key in ("totalQueryableSamplesPerStep", "totalQueryableSamples"):
                if theirs.get(key) != ours.get(key):
                    faults.append(f"{path} {text}\n    {key}: {ours.get(key)}\n    Prometheus {theirs.get(key)}")
                    break
        print(f"{compared} compared, {len(faults)} differ", file=sys.stderr)
        for fault in faults[:SHOWN]:
            print("  " + fault[:600], file=sys.stderr)
        self.assertGreater(compared, 400)
        self.assertEqual(len(faults), 0)
        answer = json.loads(self.sides[1].ask("/api/v1/query", {"query": "up", "stats": "true"})[1])
        self.assertNotIn("totalQueryableSamplesPerStep", answer["data"]["stats"]["samples"])

    def test_random(self):
        generator = Generator(SEED)
        print(f"seed {SEED}", file=sys.stderr)

        def questions():
            for _ in range(QUERIES):
                text, ordered = generator.wrong() if generator.chance(0.09) else generator.query()
                if generator.chance(0.4):
                    yield text, "instant", {"time": promql_data.AT_S - generator.random.randrange(240) * 10}, ordered
                else:
                    end = promql_data.AT_S - generator.random.randrange(120) * 10
                    span = generator.random.choice((0, 60, 300, 600, 1200, 2400))
                    yield text, "range", {"start": end - span, "end": end, "step": generator.random.choice((10, 15, 30, 60, 70, 300))}, False

        counts = self.run_all(questions())
        total = sum(counts.values())
        self.assertGreaterEqual(counts["data"], 0.7 * total, "too few questions have an answer with data")
        self.assertGreaterEqual(counts["error"], 0.1 * total, "too few questions fail")

    @classmethod
    def tearDownClass(cls):
        code, log = cls.server.stop(signal.SIGTERM), cls.server.log()
        if code != 0 or "Sanitizer" in log or "runtime error" in log:
            raise AssertionError(f"the server ended with {code}:\n{log[-8000:]}")


if __name__ == "__main__":
    unittest.main()
