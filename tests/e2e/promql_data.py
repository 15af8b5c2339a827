"""The series that test_differential.py asks about: the same on every run.

Fixed times in the past, scrapes every 15 s, no sample on a whole second. Numbers are multiples of 1/4096 of moderate size, so that
sums are exact in any order. Counters never come near zero, also after a reset."""
import math
import random
import struct

START_S = 1700000000  # a multiple of ten
SCRAPES = 300
STEP_S = 15
AT_S = START_S + 4207  # where instant queries look; ends in 7
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]

JOBS = ("api", "web")
INSTANCES = ("10.0.0.1:80", "10.0.0.2:80", "b:9100")
BOUNDS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")


class Metric:
    """A name, its labels with all their values, and what may be asked of it."""

    def __init__(self, name, kind, distinct=False, **labels):
        self.name = name
        self.kind = kind
        self.distinct = distinct
        self.labels = {k: tuple(v) for k, v in labels.items()}


METRICS = [
    Metric("requests_total", "counter", job=JOBS, instance=INSTANCES, path=("/", "/login"), code=("200", "500")),
    Metric("bytes_total", "counter", job=JOBS, instance=INSTANCES),
    Metric("flaky_total", "counter", job=JOBS, instance=INSTANCES),
    Metric("memory_bytes", "gauge", distinct=True, job=JOBS, instance=INSTANCES, zone=("a", "b")),
    Metric("other_bytes", "gauge", distinct=True, job=JOBS, instance=INSTANCES, zone=("a", "b")),
    Metric("temperature", "gauge", distinct=True, job=JOBS, instance=INSTANCES, sensor=("cpu", "disk", "gpu")),
    Metric("load1", "gauge", distinct=True, job=JOBS, instance=INSTANCES),
    Metric("up", "flag", job=JOBS, instance=INSTANCES),
    Metric("build_info", "info", job=JOBS, instance=INSTANCES, version=("1.2", "1.3")),
    Metric("latency_seconds_bucket", "bucket", job=JOBS, instance=INSTANCES[:2], le=BOUNDS),
    Metric("latency_seconds_sum", "counter", job=JOBS, instance=INSTANCES[:2]),
    Metric("latency_seconds_count", "counter", job=JOBS, instance=INSTANCES[:2]),
    Metric("gappy", "gappy", job=JOBS, instance=INSTANCES),
    Metric("clock_seconds", "clock", job=JOBS),
    Metric("special", "special", case=("nan", "inf", "neg_inf", "neg_zero", "tiny", "huge", "mixed", "third", "e21")),
]


def combinations(labels):
    out = [{}]
    for name, values in labels.items():
        out = [{**c, name: v} for c in out for v in values]
    return out


SPECIAL = {"nan": NAN, "inf": math.inf, "neg_inf": -math.inf, "neg_zero": -0.0, "tiny": 5e-324, "huge": 1.7976931348623157e308, "third": 1 / 3,
           "e21": 1e21}


def generate():
    """[(labels, [(time_ms, value)…])…], each series' samples in time order."""
    rng = random.Random(42)
    out = []
    for number, metric in enumerate(METRICS):
        for index, labels in enumerate(combinations(metric.labels)):
            if metric.name == "build_info" and (labels["version"] == "1.3") != (labels["instance"] == INSTANCES[0]):
                continue
            if metric.name in ("memory_bytes", "other_bytes") and (labels["zone"] == "b") != (labels["instance"] == INSTANCES[1]):
                continue
            samples = []
            fraction = 101 + (number * 131 + index * 17) % 800  # ms; never 0
            level = float(rng.randrange(50000, 90000))
            gauge = rng.randrange(-400, 4000) / 8
            buckets = None
            for scrape in range(SCRAPES):
                now = START_S * 1000 + scrape * STEP_S * 1000 + fraction
                kind = metric.kind
                if kind == "counter":
                    # One with gaps has no resets: a reset counts as an increment of the whole value, which brings the zero near.
                    if rng.random() < 0.01 and metric.name != "flaky_total":
                        level = float(rng.randrange(20000, 40000))
                    level += rng.randrange(0, 200) if metric.name == "requests_total" else rng.randrange(0, 4096) / 4096
                    if metric.name == "bytes_total":
                        level += rng.randrange(0, 300)
                    value = level
                    if metric.name == "flaky_total" and rng.random() < 0.3:
                        continue  # windows begin and end further from a sample than the limit of extrapolation
                elif kind == "gauge":
                    gauge += rng.randrange(-64, 65) / 8
                    value = math.floor(gauge * 8) / 8 + (index + 1) / 4096
                elif kind == "flag":
                    value = float(rng.random() > 0.05)
                elif kind == "info":
                    value = 1.0
                elif kind == "bucket":
                    value = 0.0  # below
                elif kind == "gappy":
                    value = float(rng.randrange(100))
                    part = (scrape + index * 13) % 100
                    if part == 40:
                        value = STALE
                    elif part > 40 and (part < 55 or (index % 2 and part < 80)):
                        continue
                    elif rng.random() < 0.1:
                        continue
                elif kind == "clock":
                    value = float(START_S + scrape * 86400 * (3 if index else 11))
                else:
                    value = SPECIAL.get(labels["case"])
                    if value is None:
                        value = rng.choice((1.0, NAN, math.inf, 0.0, -2.5, -math.inf))
                samples.append((now, value))
            del buckets
            out.append(({"__name__": metric.name, **labels}, samples))
    return fill_buckets(rng, out)


def fill_buckets(rng, series):
    """Buckets of one histogram come together: cumulative, every one with something new most of the time."""
    groups = {}
    for labels, samples in series:
        if labels["__name__"] == "latency_seconds_bucket":
            groups.setdefault((labels["job"], labels["instance"]), {})[labels["le"]] = samples
    for buckets in groups.values():
        counts = [rng.randrange(30000, 40000) for _ in BOUNDS]
        for scrape in range(SCRAPES):
            total = 0
            for i, bound in enumerate(BOUNDS):
                counts[i] += rng.randrange(1, 30)
                total += counts[i]
                # All buckets of a histogram are scraped at once.
                buckets[bound][scrape] = (buckets[BOUNDS[0]][scrape][0], float(total))
    return series


def requests():
    """The samples as remote writes in time order: lists of (labels, samples) of one scrape each.

    Series are created in the order of their labels, which 2.42 took them in: so what depends on that, the order of an instant vector and the
    last digits of a variance, can be compared. Two metrics are created in the opposite order, so that results have something to be sorted."""
    series = sorted(generate(), key=lambda s: sorted(s[0].items()))
    backwards = ("load1", "other_bytes")
    series = [s for s in series[::-1] if s[0]["__name__"] in backwards] + [s for s in series if s[0]["__name__"] not in backwards]
    slots = {}
    for labels, samples in series:
        for time_ms, value in samples:
            slots.setdefault((time_ms // 1000 - START_S) // STEP_S, []).append((labels, [(time_ms, value)]))
    return [slots[slot] for slot in sorted(slots)]
