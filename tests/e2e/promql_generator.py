"""Random well-typed PromQL over the series of promql_data.py, from a generator that knows the grammar.

Every expression carries what is known of its answer, so that two servers that add numbers in another order, or take logarithms
from another library, must still agree:

- exact: each value is the same double whatever the order of additions (or is computed in one order only). Only exact values
  go where a last bit decides: floor, %, ==, count_values, changes.
- dyadic: exact, and so few binary digits that sums are exact too.
- distinct: no two series have the same value at the same time. Only then is the order of sort and topk defined.
- keys: the labels by which its series differ once the name is gone; None if that is not known.

Rules that come from the age of Prometheus 2.42, each kept by construction:

- Ranges were closed on the left, also those of subqueries. Samples never lie on a whole second; questions are asked at seconds that
  end in 7 (or 2), subqueries step in tens of seconds, and a subquery inside a subquery has an offset that ends in 7.
- The zero point of a counter was taken before the limit of extrapolation, not after. The data's counters never come near zero,
  and rate and increase are asked of nothing else.
- A comparison that filters did so before many-to-one matching was noticed. Comparisons of vectors have a left side that is unique.
- A unary minus did not join series that are equal without their names but are never there together. Only the error for those
  that are is asked for.
- atan2 kept the metric's name. Its operands have none.
- Numbers are no durations, names are ASCII, holt_winters had its old name (see `for_prometheus`), and what is newer than 2.42 is not
  generated: fill, the trims, anchored, smoothed, duration expressions, limitk, limit_ratio, info, mad_over_time,
  first_over_time, ts_of_*, sort_by_label, histogram_quantiles, start(), end(), range(), step(), max_of, min_of.
- A subquery with no step inside its window still had a value if what is inside does not change by step. Windows are no shorter than
  steps.
- predict_linear moved a range with @ on at every step: it is asked of ranges without.
- timestamp() of a selector with @ and offset forgot the offset: it is asked with one of them.
- A standard deviation of one NaN was 0: it is asked of selectors. Special values are asked for by functions and operators that take one element at a time,
  and by sum, min, max, count.
"""
import random
import re

from promql_data import AT_S, METRICS, Metric

MATH_EXACT = ("abs", "ceil", "floor", "sgn", "sqrt", "deg", "rad")
MATH_CLOSE = ("exp", "ln", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
              "atanh")
DATES = ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
ORDERLESS = ("count", "min", "max", "group")


def for_prometheus(text, after="("):
    """The same question in the words of 2.42."""
    return text.replace("double_exponential_smoothing" + after, "holt_winters" + after)


class Expr:
    """Text, and what is known of its answer."""

    def __init__(self, text, keys=frozenset(), exact=True, dyadic=False, distinct=False, binary=False):
        self.text = text
        self.keys = None if keys is None else frozenset(keys)
        self.exact = exact
        self.dyadic = exact and dyadic
        self.distinct = distinct
        self.binary = binary  # needs parentheses as an operand

    def operand(self):
        return f"({self.text})" if self.binary else self.text


def duration(seconds):
    if seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    if seconds % 60 == 0:
        return f"{seconds // 60}m"
    if seconds > 60 and seconds % 7 == 0:
        return f"{seconds // 60}m{seconds % 60}s"
    return f"{seconds}s"


class Generator:
    """One source of random queries; the same seed gives the same ones."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.in_subquery = 0

    def chance(self, share):
        return self.random.random() < share

    def pick(self, *items):
        return self.random.choice(items)

    # ---- Selectors -------------------------------------------------------------------------------------------

    def metric(self, *kinds):
        return self.random.choice([m for m in METRICS if m.kind in kinds])

    def matcher(self, metric):
        name = self.random.choice(sorted(metric.labels))
        values = metric.labels[name]
        value = self.random.choice(values)
        roll = self.random.randrange(8)
        if roll < 3:
            return name, f'{name}="{value}"'
        if roll == 3 and len(values) > 1:
            return name, f'{name}!="{value}"'
        if roll == 4:
            return name, f'{name}=~"{"|".join(re.escape(v) for v in self.random.sample(values, min(2, len(values))))}"'.replace(
                "\\", "\\\\")
        if roll == 5:
            return name, f'{name}=~"{value[:1].replace("+", "[+]").replace(".", "[.]")}.*"'
        if roll == 6 and len(values) > 2:
            return name, f'{name}!~"{re.escape(value)[:30]}"'.replace("\\", "\\\\")
        return name, self.pick(f'{name}=~".+"', f'no_such_label=""', f'{name}!=""', f"{name}!='nothing'")

    def selector(self, metric, matchers_max=2):
        """Text without offset and @."""
        texts = []
        for _ in range(self.random.randrange(matchers_max + 1)):
            texts.append(self.matcher(metric)[1])
        if self.chance(0.1):
            return f'{{__name__="{metric.name}"' + "".join(", " + t for t in texts) + "}"
        if not texts and self.chance(0.8):
            return metric.name
        return metric.name + "{" + ",".join(texts) + "}"

    def shift(self, subquery=False, at_share=0.08):
        """offset and @, or nothing."""
        texts = []
        aligned = subquery and self.in_subquery > 0  # the times it is asked at are tens of seconds
        if self.chance(at_share):
            texts.append(self.pick(f"@ {AT_S - self.random.randrange(60) * 10}", "@ end()", "@ start()"))
            aligned = False
        if aligned:
            texts.append(f"offset {duration(self.random.randrange(12) * 10 + 7)}")
        elif self.chance(0.12):
            texts.append(f"offset {self.pick('', '', '-')}{duration(self.random.randrange(1, 31) * 10)}")
        self.random.shuffle(texts)
        return "".join(" " + t for t in texts)

    def instant(self, *kinds):
        metric = self.metric(*(kinds or ("gauge", "counter", "gauge", "flag")))
        return Expr(self.selector(metric) + self.shift(), metric.labels, dyadic=True, distinct=metric.distinct)

    def range_s(self):
        return self.random.choice((30, 40, 60, 90, 120, 300, 300, 420, 600, 900))

    def matrix(self, *kinds):
        metric = self.metric(*kinds)
        return Expr(f"{self.selector(metric)}[{duration(self.range_s())}]{self.shift()}", metric.labels, dyadic=True)

    def subquery(self, inner):
        step = self.random.choice((10, 20, 30, 60, 90, None))
        over_s = max(self.range_s(), step or 60)
        return Expr(f"{inner.operand()}[{duration(over_s)}:{duration(step) if step else ''}]{self.shift(subquery=True)}", inner.keys,
                    inner.exact, inner.dyadic)

    def inside_subquery(self, make):
        self.in_subquery += 1
        try:
            return make()
        finally:
            self.in_subquery -= 1

    # ---- Vectors -----------------------------------------------------------------------------------------------

    def vector(self, depth):
        if depth <= 0:
            return self.instant()
        make = self.random.choices(
            (lambda _: self.instant(), self.over_time, self.counter, self.aggregate, self.math, self.vector_scalar, self.vector_vector, self.set,
             self.relabel, self.quantile, self.top, self.rounding, self.date, self.odd, self.minus, self.special),
            (4, 16, 14, 22, 6, 12, 14, 6, 5, 6, 5, 5, 3, 6, 2, 4))[0]
        return make(depth)

    def exact_vector(self, depth):
        for _ in range(20):
            found = self.vector(depth)
            if found.exact:
                return found
        return self.instant()

    def known_vector(self, depth):
        """One whose keys are known, and not a mere constant."""
        for _ in range(20):
            found = self.vector(depth)
            if found.keys is not None:
                return found
        return self.instant()

    def over_time(self, depth):
        name = self.pick("sum", "avg", "min", "max", "count", "last", "present", "stddev", "stdvar", "quantile", "changes",
                         "resets", "delta", "idelta", "deriv", "predict_linear", "double_exponential_smoothing", "irate")
        if depth > 1 and self.chance(0.35):
            inner = self.inside_subquery(lambda: self.exact_vector(depth - 2))
            if inner.keys is None:
                inner = self.inside_subquery(self.instant)
            source = self.subquery(inner)
        elif name == "irate":
            source = self.matrix("counter")
        else:
            source = self.matrix("gauge", "gauge", "counter", "flag", "gappy")
        text = source.text
        if name == "predict_linear" and "@" in text:
            name = "deriv"
        if name in ("sum", "avg", "min", "max", "count", "last", "present", "stddev", "stdvar"):
            text = f"{name}_over_time({text})"
        elif name == "quantile":
            text = f"quantile_over_time({self.pick('0', '0.5', '0.9', '0.333', '1', '0.25')}, {text})"
        elif name == "predict_linear":
            text = f"predict_linear({text}, {self.pick('60', '3600', '-30', '1.5 * 60')})"
        elif name == "double_exponential_smoothing":
            text = f"double_exponential_smoothing({text}, {self.pick('0.3', '0.5', '0.9')}, {self.pick('0.1', '0.6')})"
        else:
            text = f"{name}({text})"
        exact = source.exact and name in ("min", "max", "count", "last", "present", "changes", "resets")
        return Expr(text, source.keys, exact, source.dyadic or name in ("count", "present", "changes", "resets"))

    def counter(self, depth):
        name = self.pick("rate", "rate", "rate", "increase", "increase", "irate")
        if depth > 1 and self.chance(0.12) and name != "irate":
            def make():
                metric = self.metric("counter")
                inner = Expr(self.selector(metric) + self.shift(), metric.labels, dyadic=True)
                return self.sum_of(inner) if self.chance(0.3) else inner
            source = self.subquery(self.inside_subquery(make))
        else:
            source = self.matrix("counter", "counter", "bucket")
        return Expr(f"{name}({source.text})", source.keys, exact=False)

    def labels_of(self, keys, most=2):
        keys = sorted(keys)
        return self.random.sample(keys, self.random.randrange(min(most, len(keys)) + 1))

    def clause(self, inner):
        """(text, keys left): by or without."""
        keys = inner.keys
        if keys is None:
            return self.pick(("", frozenset()), (" by (job)", frozenset({"job"})), (" without (instance)", None))
        labels = self.labels_of(keys)
        roll = self.random.randrange(6)
        if roll == 0:
            return "", frozenset()
        if roll == 1:
            return f" without ({', '.join(labels)})", keys - set(labels)
        if roll == 2 and self.chance(0.3):
            return " by (no_such_label)", frozenset()
        return f" by ({', '.join(labels)})", frozenset(labels)

    def place(self, op, clause, inside):
        """The clause before or behind the parentheses."""
        return f"{op}{clause}({inside})" if self.chance(0.6) else f"{op}({inside}){clause}"

    def sum_of(self, inner):
        clause, keys = self.clause(inner)
        return Expr(self.place("sum", clause, inner.text), keys, inner.dyadic, inner.dyadic)

    def aggregate(self, depth):
        op = self.pick("sum", "sum", "sum", "avg", "avg", "count", "min", "max", "group", "stddev", "stdvar", "quantile", "count_values")
        inner = self.vector(depth - 1)
        if op in ("stddev", "stdvar"):
            inner = self.instant()
        clause, keys = self.clause(inner)
        if op == "quantile":
            return Expr(self.place(op, clause, f"{self.pick('0', '0.5', '0.95', '1', '0.1', '-1', '2')}, {inner.text}"), keys, exact=False)
        if op == "count_values":
            inner = self.instant("flag", "gauge")
            clause, keys = self.clause(inner)
            return Expr(self.place(op, clause, f'"value", {inner.text}'), None if keys is None else keys | {"value"})
        exact = inner.exact and op in ORDERLESS or inner.dyadic and op == "sum"
        return Expr(self.place(op, clause, inner.text), keys, exact, inner.dyadic or op in ("count", "group"))

    def math(self, depth):
        if self.chance(0.5):
            name = self.random.choice(MATH_EXACT)
            inner = self.exact_vector(depth - 1)
            return Expr(f"{name}({inner.text})", inner.keys, name in ("abs", "ceil", "floor", "sgn", "sqrt"),
                        name in ("sgn",) or inner.dyadic and name in ("abs", "ceil", "floor"))
        inner = self.exact_vector(depth - 1)
        name = self.random.choice(MATH_CLOSE)
        if name in ("exp", "sinh", "cosh", "tan", "sin", "cos"):  # where a last bit of the argument is not a last bit of the value
            inner = Expr(f"{inner.operand()} / {self.pick('1e6', '4096', '300')}", inner.keys, binary=True)
        return Expr(f"{name}({inner.text})", inner.keys, exact=False)

    def number(self):
        return self.pick("1", "2", "0.5", "-1", "10", "1e3", "0x10", "3.25", "1024", "0.125", "100")

    def threshold(self):
        return self.pick("0.31071", "100.7003", "33.30009", "1000.10003", "-5.20001", "5e4")

    def scalar(self, depth):
        roll = self.random.randrange(8)
        if roll < 4 or depth <= 0:
            return Expr(self.number())
        if roll == 4:
            return Expr(f"scalar({self.pick('sum', 'max', 'count')}({self.instant('gauge', 'flag').text}))")
        if roll == 5:
            return Expr(self.pick("pi()", "2 * pi()", "time() / 1e9", "time() % 97"), exact=False, binary=True)
        if roll == 6:
            inner = self.scalar(depth - 1)
            return Expr(f"{self.pick('-', '+', '')}({inner.text} {self.pick('+', '*', '-', '/')} {self.number()})", exact=False)
        return Expr(f"({self.number()} {self.pick('>', '<=', '==', '!=')} bool {self.number()})")

    def vector_scalar(self, depth):
        inner = self.vector(depth - 1)
        if self.chance(0.35):
            op = self.pick(">", "<", ">=", "<=", "==", "!=")
            right = self.threshold()
            text = f"{inner.operand()} {op}{self.pick('', ' bool')} {right}"
            if self.chance(0.2):
                text = f"{right} {op}{self.pick('', ' bool')} {inner.operand()}"
            return Expr(text, inner.keys, inner.exact, inner.dyadic or "bool" in text, binary=True)
        op = self.pick("+", "-", "*", "/", "%", "^", "*", "/", "atan2")
        if op == "%" and not inner.exact:
            op = "*"
        right = self.scalar(depth - 1)
        if op in ("%", "^"):
            right = Expr(self.pick("2", "7", "0.5", "10"))
        if op == "^" and not inner.exact:
            op = "/"
        exact = inner.exact and right.exact and op in ("+", "-", "*", "/", "%")
        text = f"{self.nameless(inner).operand() if op == 'atan2' else inner.operand()} {op} {right.operand()}"
        if self.chance(0.2) and op in ("+", "-", "*", "/"):
            text = f"{right.operand()} {op} {inner.operand()}"
        return Expr(text, inner.keys, exact, binary=True)

    def nameless(self, inner):
        return Expr(f"{inner.operand()} + 0", inner.keys, inner.exact, inner.dyadic, binary=True)

    def grouped(self, depth, labels):
        """A vector with one element for each combination of these labels."""
        inner = self.known_vector(depth)
        if inner.keys is None or not set(labels) <= inner.keys:
            metric = self.random.choice([m for m in METRICS if m.kind in ("gauge", "counter") and set(labels) <= set(m.labels)])
            inner = Expr(self.selector(metric, 1), metric.labels, dyadic=True)
            if metric.kind == "counter":
                inner = Expr(f"rate({self.selector(metric, 1)}[{duration(self.range_s())}])", metric.labels, exact=False)
        if inner.keys == frozenset(labels):
            return inner
        op = self.pick("sum", "max", "count", "avg")
        return Expr(f"{op} by ({', '.join(sorted(labels))}) ({inner.text})", labels, inner.exact and op in ("max", "count") or inner.dyadic and op == "sum",
                    inner.dyadic or op == "count")

    def vector_vector(self, depth):
        labels = self.random.choice((("job",), ("instance",), ("job", "instance"), ("job", "instance"), ()))
        compares = self.chance(0.25)
        roll = self.random.randrange(3)
        if labels == () or roll == 0:
            left, right = self.grouped(depth - 1, labels), self.grouped(depth - 1, labels)
            matching = self.pick("", f" on ({', '.join(labels)})", f"{self.pick('', ' ignoring (no_such_label)')}")
            keys = frozenset(labels)
        else:
            left, right = self.known_vector(depth - 1), self.grouped(depth - 1, labels)
            if not set(labels) <= left.keys:
                left = self.instant("gauge")
            if not set(labels) <= left.keys:
                left = Expr("memory_bytes", ("job", "instance", "zone"))
            keys = left.keys
            matching = f" on ({', '.join(labels)}) group_left"
            if self.chance(0.3):
                matching += "()"
            if self.chance(0.25) and "version" not in keys and set(labels) >= {"instance"}:
                right = Expr(self.pick("build_info", 'build_info{version=~".+"}'), ("job", "instance", "version"))
                if "job" not in labels:
                    labels = ("job", "instance")
                    if "job" not in keys:
                        left, keys = Expr("memory_bytes", dyadic=True), frozenset({"job", "instance", "zone"})
                matching = " on (job, instance) group_left (version)"
                keys = keys | {"version"}
                return Expr(f"{left.operand()} *{matching} {right.operand()}", keys, left.exact, binary=True)
            if self.chance(0.3):
                left, right, matching = right, left, matching.replace("group_left", "group_right")
        exact = left.exact and right.exact
        if compares and exact:
            op = self.pick(">", "<", "==", "!=", ">=", "<=") + self.pick("", " bool")
        elif compares:
            op, matching = self.pick("+", "-", "*", "/"), matching
        else:
            op = self.pick("+", "-", "*", "/", "/", "atan2" if exact else "+", "%" if exact else "*")
        if op == "atan2":
            exact, left, right = False, self.nameless(left), self.nameless(right)
        return Expr(f"{left.operand()} {op}{matching} {right.operand()}", keys, exact, binary=True)

    def set(self, depth):
        op = self.pick("and", "or", "unless")
        left, right = self.known_vector(depth - 1), self.known_vector(depth - 1)
        common = sorted(left.keys & right.keys)
        matching = self.pick("", f" on ({', '.join(common[:1])})", f" on ({', '.join(common)})", " on ()",
                             f" ignoring ({', '.join(sorted(left.keys ^ right.keys))})")
        keys = left.keys
        if op == "or" and left.keys != right.keys:
            keys = None
        if op == "or":
            keys = None  # names may differ and the rest be the same
        return Expr(f"{left.operand()} {op}{matching} {right.operand()}", keys, left.exact and right.exact, left.dyadic and right.dyadic,
                    binary=True)

    def relabel(self, depth):
        inner = self.known_vector(depth - 1)
        if self.chance(0.5) or not inner.keys:
            source = self.random.choice(sorted(inner.keys)) if inner.keys else "job"
            pattern, replacement = self.pick(("(.*)", "x-$1"), ("(.).*", "$1$1"), ("(?P<first>.)(.*)", "${first}_$2"), ("nothing", "$1"),
                                             ("(.*)", "a $$ b"), (".*", ""), ("(.+)", "$1x"))
            target = self.pick("added", "added", "zone2")
            return Expr(f'label_replace({inner.text}, "{target}", "{replacement}", "{source}", "{pattern}")', inner.keys, inner.exact,
                        inner.dyadic, inner.distinct)
        sources = self.random.sample(sorted(inner.keys), self.random.randrange(1, len(inner.keys) + 1))
        return Expr(f'label_join({inner.text}, "joined", "{self.pick("-", "", ", ")}", ' + ", ".join(f'"{s}"' for s in sources) + ")",
                    inner.keys, inner.exact, inner.dyadic, inner.distinct)

    def quantile(self, depth):
        del depth
        metric = self.metric("bucket")
        phi = self.pick("0.5", "0.9", "0.99", "0.37", "1", "0", "-1", "1.5", "0.05")
        source = self.pick(self.selector(metric, 0), f"rate({metric.name}[{duration(self.range_s())}])",
                           f"increase({metric.name}[{duration(self.range_s())}])")
        keys = frozenset(metric.labels) - {"le"}
        if self.chance(0.6):
            labels = self.labels_of(keys)
            source = f"sum by ({', '.join(labels + ['le'])}) ({source})"
            keys = frozenset(labels)
        return Expr(f"histogram_quantile({phi}, {source})", keys, exact=False)

    def top(self, depth):
        del depth
        inner = self.instant("gauge")
        while not inner.distinct:
            inner = self.instant("gauge")
        k = self.pick("1", "2", "3", "5", "100", "2.7", "0", "scalar(count(up)) / 3")
        clause = self.pick("", "", " by (job)", " without (zone, sensor)")
        return Expr(self.place(self.pick("topk", "bottomk"), clause, f"{k}, {inner.text}"), inner.keys, distinct=True)

    def rounding(self, depth):
        inner = self.exact_vector(depth - 1)
        text = self.pick(f"round({inner.text})", f"round({inner.text}, {self.pick('0.5', '10', '0.1', '3')})",
                         f"clamp({inner.text}, {self.pick('-10', '0', '20.5')}, {self.pick('50', '1e4')})",
                         f"clamp_min({inner.text}, {self.pick('0', '30.5', '-1')})", f"clamp_max({inner.text}, {self.pick('100', '0.5')})",
                         f"clamp({inner.text}, 5, -5)")
        return Expr(text, inner.keys, True)

    def date(self, depth):
        del depth
        name = self.random.choice(DATES)
        if self.chance(0.25):
            return Expr(f"{name}()")
        metric = self.metric("clock")
        return Expr(f"{name}({self.selector(metric)}{self.shift()})", metric.labels)

    def odd(self, depth):
        roll = self.random.randrange(9)
        if roll == 0:
            return Expr(f"absent({self.selector(self.metric('gauge', 'counter'))})")
        if roll == 1:
            return Expr(f'absent({self.pick("no_such_metric", "up")}{{job="{self.pick("x", "api")}", instance=~"y.*", zone!="z"}})')
        if roll == 2:
            return Expr(f'absent_over_time({self.pick("no_such_metric", "gappy")}{{job="{self.pick("x", "api")}"}}[{duration(self.range_s())}])')
        if roll == 3:
            return Expr(f"vector({self.scalar(depth - 1).text})", exact=False)
        if roll == 4:
            inner = self.instant("gauge", "counter", "gappy")
            while "@" in inner.text and "offset" in inner.text:
                inner = self.instant("gauge", "counter", "gappy")
            return Expr(f"time() - timestamp({inner.text})", inner.keys, binary=True)
        if roll == 5:
            inner = self.vector(depth - 1)
            return Expr(f"timestamp({inner.operand()} * 1) - time()" if not inner.binary else f"timestamp({inner.text}) - time()", inner.keys,
                        binary=True)
        if roll == 6:
            metric = self.metric("clock")
            return Expr(f"time() - {self.selector(metric)}", metric.labels, binary=True)
        if roll == 7:
            inner = self.vector(depth - 1)
            return Expr(f"({inner.text})", inner.keys, inner.exact, inner.dyadic, inner.distinct)
        inner = self.vector(depth - 1)
        return Expr(f"{self.pick('sort', 'sort_desc')}({inner.text})", inner.keys, inner.exact, inner.dyadic, inner.distinct)

    def minus(self, depth):
        inner = self.known_vector(depth - 1)
        return Expr(f"{self.pick('-', '-', '+')}{inner.operand()}", inner.keys, inner.exact, inner.dyadic, inner.distinct, binary=True)

    def special(self, depth):
        del depth
        metric = self.metric("special")
        inner = self.selector(metric, 1)
        text = self.pick(inner, f"{inner} + 1", f"{inner} > 0", f"abs({inner})", f"sgn({inner})", f"sum({inner})", f"min({inner})",
                         f"max by (case) ({inner})", f"count({inner})", f"{inner} == {inner}", f"{inner} * 0", f"-{inner}", f"{inner} ^ 2",
                         f"max_over_time({inner}[5m])", f"min_over_time({inner}[2m])", f"last_over_time({inner}[1m])", f"clamp_max({inner}, 5)",
                         f"{inner} % 5", f"{inner} / 0", f"changes({inner}[5m])", f"{inner} != {inner}", f"{inner} or on () vector(1)",
                         f"sqrt({inner})", f"floor({inner})", f"{inner} >= bool 1", f"{inner} < bool {inner}")
        return Expr(text, ("case",), binary=True, exact=False)

    # ---- Whole queries -------------------------------------------------------------------------------------------

    def query(self):
        """(text, ordered): a query with an answer, most likely."""
        roll = self.random.randrange(40)
        depth = self.pick(1, 2, 2, 3, 3, 4)
        if roll == 0:
            return self.scalar(3).text, False
        if roll == 1:
            metric = self.metric("gauge", "counter", "flag", "special")
            return f"{self.selector(metric)}[{duration(self.range_s())}]{self.shift()}", False
        if roll == 2:
            return self.pick('"a string"', "'it''s'".replace("''", "\\'"), "`raw \\n`", '"\\u00e4 <&>"'), False
        if roll == 3:
            inner = self.known_vector(2)
            return self.subquery(self.inside_subquery(lambda: inner)).text if " offset" not in inner.text and "[" not in inner.text \
                else inner.text, False
        if roll == 4:
            inner = self.instant("gauge")
            while not inner.distinct:
                inner = self.instant("gauge")
            return self.pick(f"sort({inner.text})", f"sort_desc({inner.text})", f"topk(3, {inner.text})", f"bottomk(4, {inner.text})"), True
        return self.vector(depth).text, False

    def wrong(self):
        """A query that fails, most often: not well-formed, of the wrong type, or impossible on this data."""
        good = self.vector(2).text
        gauge, counter = self.metric("gauge"), self.metric("counter")
        return self.pick(
            good + ")", "(" + good, good + " +", "sum(" + good, f"rate({gauge.name})", f"abs({gauge.name}[5m])", f"sum({self.number()})",
            f"{self.number()} == {self.number()}", f"no_such_function({good})", f"{gauge.name}[5x]", f"{gauge.name}[5m] offset",
            f"{gauge.name} offset 5m offset 5m", f"{gauge.name} @ 5 @ 6", "{}", '{job=~".*"}', f"{gauge.name}{{job}}", f"{gauge.name}{{job=1}}",
            f"{gauge.name} and 1", f"{good} + bool {self.number()}", f"{gauge.name} + on (job) group_left (job) up", f"-{gauge.name}[5m]",
            f"topk({gauge.name}, {gauge.name})", f"quantile_over_time({gauge.name}[5m], 1)", f"count_values(1, {gauge.name})", f"sum by job ({gauge.name})",
            f"{gauge.name}{{job=~\"(\"}}", f"label_replace({gauge.name}, \"a\", \"b\")", f"time({gauge.name})", f"round({gauge.name}, 1, 2)",
            f"({good}) [5m]", f"{gauge.name}[5m][5m]", f"\"text\" + 1", f"{good} or", f"1 or {gauge.name}", f"{gauge.name}{{job=\"a\" instance=\"b\"}}",
            f"sum({gauge.name}, {gauge.name})", f"{gauge.name}[5m:1m:1m]", f"{gauge.name} group_left up", "", "#", "&", f"{gauge.name} ! up",
            f"{gauge.name}{{__name__=\"x\"}}", f"1 + sum() ", f"holt({good})", f"{gauge.name} offset up", f"{gauge.name}[-5m]", "'open", f"5 {good}",
            # Impossible only once it runs:
            f"{counter.name} / on (job) {counter.name}", f"memory_bytes * on (job) memory_bytes", "memory_bytes + on (job) group_left temperature",
            'label_replace(temperature, "sensor", "same", "sensor", ".*")', "rate({__name__=~\"requests_total|bytes_total\"}[5m]) + on () up",
            'abs({__name__=~"memory_bytes|other_bytes"})', 'label_replace(up, "", "x", "job", ".*")', 'label_replace(up, "a", "x", "job", "(")',
            "double_exponential_smoothing(memory_bytes[5m], 2, 0.5)", "double_exponential_smoothing(memory_bytes[5m], 0.5, 0)",
            "topk(NaN, up)", "topk(1e300, up)", "up * on (job) group_right memory_bytes", 'label_join(temperature, "sensor", "", "job")',
            'count_values("", up)', '-{__name__=~"memory_bytes|other_bytes"}', 'min_over_time({__name__=~"memory_bytes|other_bytes"}[5m])',
            'memory_bytes * ignoring (zone) group_left temperature', 'up + ignoring (instance, job) up', "up == on () up",
            'rate({__name__=~"latency_seconds_(sum|count)"}[5m])'), False
