"""The same data in Debian's Prometheus and in Tidalite, and the same random questions to both (promql_generator.py, promql_data.py): the
same answers, byte for byte. What may differ, each by a rule with its reason:

- last digits of values, in questions that LAST_DIGITS lists (1e-9 then), written as Prometheus writes numbers;
- the words of errors that 2.42 had older ones for: WORDINGS;
- the order of an instant vector that nothing sorts, which Prometheus leaves open: its elements are compared, sorted;
- infos and warnings behind the data: 2.42 knew none.

    DIFF_SEED=…      another sequence of questions (printed; the same seed asks the same)
    DIFF_QUERIES=…   how many (a few hundred by default; thousands by hand)
    DIFF_VERBOSE=1   prints each question
"""
import collections
import decimal
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
EQUAL_MIN = 0.8  # of all answers, byte for byte, order included

POINT = re.compile(rb'\[(-?[0-9.e+-]+),"([^"]*)"\]')
ELEMENT_END = re.compile(rb'(?<=\]\}),(?=\{"metric")')
ERROR_TEXT = re.compile(rb'"error":("(?:[^"\\]|\\.)*")')

# Questions whose values may differ in last digits. In all others every digit must be the same.
LAST_DIGITS = tuple((re.compile(pattern), reason) for pattern, reason in (
    (r"\b(sum|avg)\b", "2.42 added plainly, and took means step by step; now sums carry what rounding took from them, which makes -0 a 0"),
    (r"\bavg_over_time\b", "2.42 took means step by step"),
    (r"\b(stddev|stdvar)\b", "the order of series decides: 2.42 sorted them by labels, now they come as they were created"),
    (r"\b(exp|ln|log2|log10|a?(sin|cos|tan)h?)\b|\^|\batan2\b", "Go has its own library of these, C another"),
))

# Where 2.42 words the same error differently: its words, ours, why. What no rule covers must be equal.
WORDINGS = tuple((re.compile(pattern), replacement, reason) for pattern, replacement, reason in (
    (r"^(\d+:\d+: parse error: .*)$", r'invalid parameter "query": \1', "query_range did not say which parameter"),
    (r'^(invalid expression type "[a-z ]+" for range query, must be Scalar or instant Vector)$', r'invalid parameter "query": \1',
     "query_range did not say which parameter"),
    (r"expected duration$", "expected number, duration, step(), or range()", "durations became numbers and expressions"),
    (r'bad duration syntax: "5"$', 'bad number or duration syntax: "5x"', "durations became numbers and expressions"),
    (r"missing unit character in duration$", "duration must be greater than 0", "durations became numbers and expressions"),
    (r"unclosed left bracket$", "unexpected end of input in duration expression", "durations became numbers and expressions"),
    (r'"<Item \d+>" <op:@>', "<op:@>", "the token had no name"),
    (r"`\^\(\?:(.*)\)\$`$", r"`\1`", "a pattern was parsed with its anchors"),
    (r"^Scalar value NaN overflows int64$", "Parameter value is NaN", "NaN as topk's parameter had no words of its own"),
    (r"on the (right|left) hand-side of the operation: \[\{.*\}, \{.*\}\];", r"on the \1 hand-side of the operation: [series, series];",
     "the two series that are named came in any order"),
))
OUR_PAIR, ANY_PAIR, _ = WORDINGS[-1]


def number_text(value):
    """A value as Prometheus writes it: the shortest digits that mean the same double."""
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + exponent  # the decimal point stands before text[point]
    if value == 0:
        text = "0"
    elif not 1e-6 <= abs(value) < 1e21:
        text = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{point - 1:+03d}"
    elif point <= 0:
        text = "0." + "0" * -point + text
    elif point >= len(text):
        text += "0" * (point - len(text))
    else:
        text = text[:point] + "." + text[point:]
    return "-" * sign + text


def string_text(text):
    """A string as Go's encoder writes it."""
    return re.sub("[<>&\u2028\u2029]", lambda c: f"\\u{ord(c.group()):04x}", json.dumps(text, ensure_ascii=False)).encode()


def wording_difference(theirs, ours, renamed):
    """(fault, reason) of two error texts; `renamed`: the question was shorter there, so columns differ."""
    reasons = set()
    if renamed:
        theirs, ours = (re.sub(r"\d+:\d+: parse", "1:1: parse", for_prometheus(text, after="")) for text in (theirs, ours))
        reasons.add("a function had a shorter name")
    for pattern, replacement, reason in WORDINGS:
        if pattern.search(theirs):
            theirs = pattern.sub(replacement, theirs)
            reasons.add(reason)
    ours = OUR_PAIR.sub(ANY_PAIR, ours)
    return None if theirs == ours else f"{ours}, Prometheus: {theirs}", ", ".join(sorted(reasons))


class Side:
    """One of the two, on one connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path, body, headers):
        self.connection.request("POST", path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read(), reply.getheader("Content-Type")

    def ask(self, path, parameters):
        return self.post(path, urllib.parse.urlencode(parameters), {"Content-Type": "application/x-www-form-urlencoded"})


def same(a, b):
    x, y = float(a), float(b)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-300)


def without_annotations(body, answer):
    """The body but for infos and warnings."""
    for key in ("infos", "warnings"):
        if key in answer:
            at = body.rindex(b',"%s":[' % key.encode())
            body = body[:at] + body[body.index(b"]", at) + 1:]
    return body


def items_of(data):
    """[(labels, [(time text, value text)…])…] in the order of the answer."""
    out = []
    for series in data["result"]:
        points = series["values"] if "values" in series else [series["value"]]
        out.append((tuple(sorted(series["metric"].items())), points))
    return out


class Outcome:
    """How one question came out: `kind` of data, empty, error; `fault` says what differs; `reason`, why bytes were not the same; "" if they were."""

    def __init__(self, kind, fault=None, reason=""):
        self.kind, self.fault, self.reason = kind, fault, reason


def text_difference(theirs, ours, question):
    """(fault, reason) of two bodies with the same series and times."""
    values = ([], [])

    def frame(text, to):
        def take(match):
            to.append(match.group(2).decode())
            return b"[" + match.group(1) + b',"?"]'

        return POINT.sub(take, text)

    a, b = frame(theirs, values[0]), frame(ours, values[1])
    if a != b:
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        return f"JSON differs at byte {at}: …{b[max(0, at - 60):at + 60]!r}, Prometheus …{a[max(0, at - 60):at + 60]!r}", None
    x, y = next((x, y) for x, y in zip(*values) if x != y)
    for text in values[1]:
        if text != number_text(float(text)):
            return f"{text} should be written {number_text(float(text))}", None
    reason = next((reason for pattern, reason in LAST_DIGITS if pattern.search(question)), None)
    return None if reason else f"last digits: {y}, Prometheus {x}", reason


def error_difference(theirs, ours, want, have, renamed):
    """Two failures: all of the body is the same, or all but the text, and that by a rule."""
    if theirs == ours:
        return Outcome("error")
    texts = [ERROR_TEXT.search(body).group(1) for body in (theirs, ours)]
    if theirs.replace(texts[0], b"?") != ours.replace(texts[1], b"?"):
        return Outcome("error", f"{ours!r}, Prometheus {theirs!r}")
    if texts[1] != string_text(have["error"]):
        return Outcome("error", f"{texts[1]!r} should be written {string_text(have['error'])!r}")
    return Outcome("error", *wording_difference(want["error"], have["error"], renamed))


def compare(theirs, ours, question, ordered, renamed):
    """theirs, ours: (status, body, content type)."""
    want, have = json.loads(theirs[1]), json.loads(ours[1])
    if theirs[2] != ours[2]:
        return Outcome("data", f"Content-Type {ours[2]}, Prometheus {theirs[2]}")
    if "error" in (want["status"], have["status"]):
        kinds = tuple((a.get("errorType"), s[0]) for a, s in ((want, theirs), (have, ours)))
        if kinds[0] != kinds[1]:
            return Outcome("error", f"{kinds[1]} {have.get('error')}, Prometheus {kinds[0]} {want.get('error')}")
        return error_difference(theirs[1], ours[1], want, have, renamed)
    bodies = [theirs[1], without_annotations(ours[1], have)]
    want, have = want["data"], have["data"]
    if want["resultType"] != have["resultType"]:
        return Outcome("data", f"{have['resultType']}, Prometheus {want['resultType']}")
    kind = "data" if want["result"] else "empty"
    if bodies[0] == bodies[1]:
        return Outcome(kind)
    if want["resultType"] == "string":
        return Outcome(kind, f"{bodies[1]!r}, Prometheus {bodies[0]!r}")
    order = ""
    if want["resultType"] == "scalar":
        a, b = ([((), [data["result"]])] for data in (want, have))
    else:
        a, b = items_of(want), items_of(have)
        # 2.42 did not sort the series of a subquery, in an instant query.
        if not ordered:
            a.sort(key=lambda i: i[0])
            b.sort(key=lambda i: i[0])
            bodies = [re.sub(rb'(?<="result":\[).*(?=\]\}\}$)', lambda m: b",".join(sorted(ELEMENT_END.split(m.group()))), body, flags=re.S)
                      for body in bodies]
            order = "the order of an instant vector"
    if [i[0] for i in a] != [i[0] for i in b]:
        only_a, only_b = sorted({i[0] for i in a} - {i[0] for i in b}), sorted({i[0] for i in b} - {i[0] for i in a})
        return Outcome(kind, f"series: {len(b)}, Prometheus {len(a)}; only here {only_b[:2]}, only there {only_a[:2]}")
    for (labels, x_points), (_, y_points) in zip(a, b):
        if [p[0] for p in x_points] != [p[0] for p in y_points]:
            return Outcome(kind, f"times of {labels}: {len(y_points)}, Prometheus {len(x_points)}; first that is on one side only: "
                                 f"{sorted({p[0] for p in x_points} ^ {p[0] for p in y_points})[:1]}")
        for x, y in zip(x_points, y_points):
            if not same(x[1], y[1]):
                return Outcome(kind, f"{labels} at {x[0]}: {y[1]}, Prometheus {x[1]}")
    if bodies[0] == bodies[1]:
        return Outcome(kind, reason=order)
    return Outcome(kind, *text_difference(*bodies, question))


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
                status, reply, _ = side.post("/api/v1/write", body, support.WRITE_HEADERS)
                if status != 204:
                    raise AssertionError(f"write: {status} {reply!r}")
        print(f"loaded {samples} samples into both", file=sys.stderr)

    def ask(self, text, kind, parameters, ordered=False):
        path = "/api/v1/query_range" if kind == "range" else "/api/v1/query"
        theirs = self.sides[0].ask(path, {"query": for_prometheus(text), **parameters})
        ours = self.sides[1].ask(path, {"query": text, **parameters})
        return compare(theirs, ours, text, ordered or kind == "range", for_prometheus(text) != text)

    def run_all(self, questions):
        """questions: (text, kind, parameters, ordered). Counts, prints, asserts."""
        counts, reasons, faults = collections.Counter(), collections.Counter(), []
        for text, kind, parameters, ordered in questions:
            outcome = self.ask(text, kind, parameters, ordered)
            if VERBOSE:
                print(f"{outcome.kind:12} {kind:8} {text}", file=sys.stderr)
            counts[outcome.kind] += 1
            if outcome.fault:
                faults.append(f"{kind} {parameters}\n    {text}\n    {outcome.fault}")
            else:
                reasons[outcome.reason] += 1
        total = sum(counts.values())
        shares = ", ".join(f"{kind} {count} ({100 * count / total:.1f} %)" for kind, count in sorted(counts.items()))
        print(f"{total} questions: {shares}; {reasons[''] * 100 / total:.1f} % of the answers are equal byte for byte; {len(faults)} differ", file=sys.stderr)
        for reason, count in reasons.most_common():
            print(f"  {count:5} {reason or 'equal'}", file=sys.stderr)
        for fault in faults[:SHOWN]:
            print("  " + fault, file=sys.stderr)
        self.assertEqual(len(faults), 0, f"of {total} answers differ")
        self.assertGreaterEqual(reasons[""], EQUAL_MIN * total, "too few answers are equal byte for byte")
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
            theirs, ours = (json.loads(body)["data"]["stats"]["samples"] for _, body, _ in answers)
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
