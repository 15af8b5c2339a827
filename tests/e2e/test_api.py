"""The API beside queries: the same answers as Prometheus where it has the route, documented shapes elsewhere.

Prometheus is the distribution's, older than the one whose API this is: what came later is spelled here."""
import json
import math
import os
import re
import signal
import struct
import subprocess
import threading
import time
import unittest
import urllib.parse

import support
from lib.raw_http import RawClient, wait_until
from server_case import HeavyCase, ServerCase, body_of, now_ms, series

MATCH = "match%5B%5D="


def quote(**parameters):
    return urllib.parse.urlencode(parameters, doseq=True)


class SameTest(unittest.TestCase):
    """Status, Content-Type and body, byte for byte, with the same data in both."""

    @classmethod
    def setUpClass(cls):
        directory = support.Directory()
        path = directory.__enter__()
        cls.addClassCleanup(directory.__exit__)
        cls.prometheus = support.Prometheus(os.path.join(path, "prometheus"))
        cls.addClassCleanup(cls.prometheus.close)
        cls.server = support.Server(os.path.join(path, "data"))
        cls.addClassCleanup(cls.server.close)
        cls.now_ms = now_ms() // 1000 * 1000
        rows = [({"__name__": f"m{i % 3}", "job": f"j{i % 2}", "id": str(i), "odd": "<&>\"\\é" if i % 2 else ""},
                 [(cls.now_ms - 60000 + t * 15000, i + t / 4) for t in range(4)]) for i in range(12)]
        rows = [({k: v for k, v in labels.items() if v}, samples) for labels, samples in rows]
        at = cls.now_ms - 1000
        stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
        rows += [({"__name__": "fed", "case": str(i)}, [(at - 5000, 1.0), (at, value)]) for i, value in enumerate(
            (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e6, 123456.0, 1234567.0, 1e-5, 0.1, 1e300, 5e-324, 12345678901234567890.0, stale))]
        rows += [({"__name__": "fed", "case": "old"}, [(at - 400000, 1.0)]),
                 ({"__name__": "fed:rule", "instance": "here", "text": 'a"b\\c\nd'}, [(at, 2.0)]),
                 ({"__name__": "fed:rule", "zone": "z"}, [(at, 3.0)])]
        for port in cls.ports():
            if support.post_write(port, rows)[0] != 204:
                raise AssertionError("the samples were not taken")

    @classmethod
    def ports(cls):
        return cls.prometheus.port, cls.server.port

    def ask(self, port, path, form=None, method=None):
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        code, got, body = support.request(port, method or ("GET" if form is None else "POST"), path, form, headers)
        return code, got.get("Content-Type"), body

    def check_same(self, path, form=None, method=None, label_sets=False):
        """The older Prometheus escapes <, > and & in label sets, too."""
        theirs, ours = (self.ask(port, path, form, method) for port in self.ports())
        if label_sets:
            theirs, ours = ((*side[:2], side[2].replace(b"\\u003c", b"<").replace(b"\\u003e", b">").replace(b"\\u0026", b"&"))
                            for side in (theirs, ours))
        self.assertEqual(ours, theirs, (path, form))

    def test_names(self):
        for path in ("labels", "label/id/values", "label/odd/values", "label/__name__/values", "label/none/values"):
            for match in ("", "m1", '{job="j1"}', '{id=~"1.*"}', '{odd!=""}', '{odd="",job=~".+"}', "none", "a{", '{a=""}', "sum(a)"):
                query = MATCH + urllib.parse.quote(match) if match else ""
                self.check_same(f"/api/v1/{path}?{query}")
                if path == "labels":
                    self.check_same(f"/api/v1/{path}", query)
                    self.check_same(f"/api/v1/{path}?{query}", "x=y")
            for start, end in (("x", ""), ("", "x"), ("1", "2"), ("2021-01-01T00:00:00Z", "2100-01-01T00:00:00.5+01:00"),
                               ("-292273086-05-16T16:47:06Z", "292277025-08-18T07:12:54.999999999Z"), ("1e9", "1e18"), ("1e400", "1"), ("1", "")):
                self.check_same(f"/api/v1/{path}?{quote(start=start, end=end)}")
        self.check_same("/api/v1/labels?" + quote(**{"match[]": ["m1", '{id="2"}']}))

    def test_series(self):
        for match in (["m1"], ["m1", "m2"], ['{id=~"1|2"}', '{id=~"2|3"}'], ["none"], ["a{"], ["m1", "a{"], ['{a=""}'], [], [""]):
            self.check_same("/api/v1/series?" + quote(**{"match[]": match}), label_sets=True)
            self.check_same("/api/v1/series", quote(**{"match[]": match}), label_sets=True)
        self.check_same(f"/api/v1/series?{MATCH}m1&start=x")
        self.check_same("/api/v1/series?start=x")
        self.check_same(f"/api/v1/series?{MATCH}m1&start=1&end=2")
        self.check_same(f"/api/v1/series?{MATCH}m1&start={self.now_ms / 1000 - 20}&end={self.now_ms / 1000}", label_sets=True)

    def test_empty(self):
        for path in ("rules", "rules?type=alert", "rules?type=record", "rules?type=Alert", "rules?type=x", "alerts", "alertmanagers",
                     "targets/metadata", "targets/metadata?limit=x", "targets/metadata?limit=1&metric=a",
                     "targets/metadata?match_target=" + urllib.parse.quote('{job="a"}'), "targets/metadata?match_target=a%7B",
                     "scrape_pools", "metadata", "query_exemplars?query=a", "query_exemplars?query=", "query_exemplars?query=a%2B",
                     "query_exemplars?query=a&start=2&end=1", "query_exemplars?query=a&start=x", "query_exemplars?query=a&end=x",
                     "query_exemplars?query=test&start=1795456301238&end=1795458101238"):
            self.check_same("/api/v1/" + path)
        self.check_same("/api/v1/query_exemplars", "query=a")

    def test_queries(self):
        """The frame of queries: parameters and errors; results are compared elsewhere."""
        at = self.now_ms / 1000
        for text in ("sort(m1)", "sort(sum by (job) (m1))", "count(m1)", '"a<b"', "1/0", "0/0", "-1/0", "1e300", "none", 'sort(m1{odd!=""})'):
            self.check_same("/api/v1/query?" + quote(query=text, time=at), label_sets=True)
            self.check_same("/api/v1/query?time=5", quote(query=text, time=at), label_sets=True)
            self.check_same(f"/api/v1/query?{quote(query=text)}", quote(time=at), label_sets=True)
        for parameters in ({"start": at - 60, "end": at, "step": 15}, {"start": at - 60, "end": at, "step": "15s"},
                           {"start": at - 60.5, "end": at, "step": "0.5"}, {"start": 2, "end": 1, "step": 1},
                           {"start": 1, "end": 2, "step": 0}, {"start": 1, "end": 2, "step": -1}, {"start": 0, "end": 11001, "step": 1},
                           {"start": 1, "end": 2}, {"start": 1}, {"start": "2021-01-01T00:00:00Z", "end": "2021-01-01T00:01:00Z", "step": "1m"},
                           {"start": 1, "end": 2, "step": "1x"}, {"start": 1, "end": 2, "step": 1, "timeout": "x"},
                           {"start": "a b&c", "end": 2, "step": 1}):
            for text in ("m1", "m1 > 3"):
                self.check_same("/api/v1/query_range?" + quote(query=text, **parameters), label_sets=True)
                self.check_same("/api/v1/query_range", quote(query=text, **parameters), label_sets=True)
        for parameters in ({"time": "x"}, {"timeout": "x"}, {"time": "1e400"}, {"time": "2021-13-01T00:00:00Z"}):
            self.check_same("/api/v1/query?" + quote(query="1", **parameters))

    def test_federate(self):
        """Lines in any order inside a family: Prometheus does not promise one either. It prints -0 as 0."""
        def families(port, query):
            code, kind, body = self.ask(port, "/federate?" + query)
            self.assertEqual((code, kind.split("; escaping")[0]), (200, "text/plain; version=0.0.4; charset=utf-8"))
            parts = re.split("^(?=# TYPE)", body.decode(), flags=re.M)
            return [part.splitlines()[:1] + sorted(part.splitlines()[1:]) for part in parts if part]

        lines = 0
        for match in (["fed"], ["m0"], ['{__name__=~"m.*"}', "fed", '{case="1"}', "m1"], ['{__name__=~"fed:.*"}'], ["none"],
                      ['{__name__=~".+"}'], ['{__name__=~".*"}'], ['{none=""}']):
            theirs, ours = (families(port, quote(**{"match[]": match})) for port in self.ports())
            self.assertEqual([[line.replace("} -0 ", "} 0 ") for line in part] for part in ours], theirs, match)
            lines += len(ours)
        self.assertGreater(lines, 10)
        self.assertIn('case="4",instance=""} -0 ', str(families(self.server.port, MATCH + "fed")))
        self.assertNotIn('case="old"', str(families(self.server.port, MATCH + "fed")))
        for path in (f"/federate?{MATCH}a%7B", f"/federate?{MATCH}m0&{MATCH}sum(a)"):
            self.check_same(path)
        code, kind, body = self.ask(self.server.port, "/federate")
        self.assertEqual((code, kind, body), (400, "text/plain; charset=utf-8", b"no match[] parameter provided\n"))

    def test_plain(self):
        for path in ("/-/healthy", "/-/ready"):
            self.check_same(path)
        for path in ("/version", "/api/v1/status/buildinfo"):
            theirs, ours = (self.ask(port, path) for port in self.ports())
            self.assertEqual(ours[:2], theirs[:2])
            theirs, ours = (json.loads(side[2]) for side in (theirs, ours))
            self.assertEqual(list(ours.get("data", ours)), list(theirs.get("data", theirs)))
        for method, path in (("OPTIONS", "/api/v1/query"), ("OPTIONS", "/api/v1/labels")):
            self.check_same(path, method=method)
        for path in ("/api/v1/status/runtimeinfo", "/api/v1/status/walreplay", "/api/v1/status/config", "/api/v1/status/tsdb", "/api/v1/targets"):
            theirs, ours = (json.loads(self.ask(port, path)[2])["data"] for port in self.ports())
            self.assertLessEqual(set(theirs), set(ours), path)
            for key, value in theirs.items():
                self.assertIs(type(ours[key]), type(value), (path, key))
        self.assertEqual(json.loads(self.ask(self.server.port, "/api/v1/status/runtimeinfo")[2])["data"]["storageRetention"], "15d")


class ShapeTest(ServerCase):
    """What the Prometheus at hand does not have yet, as the newer one documents it."""

    def data(self, path):
        code, body = self.server.get("/api/v1/" + path)
        answer = json.loads(body)
        self.assertEqual((code, list(answer)), (200, ["status", "data"]), path)
        return answer["data"]

    def check_error(self, path, error, code=400, kind="bad_data"):
        got, body = self.server.get("/api/v1/" + path)
        self.assertEqual((got, json.loads(body)), (code, {"status": "error", "errorType": kind, "error": error}), path)

    def test_rules(self):
        for query in ("exclude_alerts=true", "group_limit=10", "rule_name[]=a&rule_group[]=b&file[]=c", MATCH + "a"):
            self.assertEqual(self.data("rules?" + query), {"groups": []})
        self.check_error("rules?exclude_alerts=x", 'invalid parameter "exclude_alerts": error converting exclude_alerts: '
                                                   'strconv.ParseBool: parsing "x": invalid syntax')
        self.check_error("rules?group_next_token=x", 'invalid parameter "group_next_token": group_limit needs to be present in order '
                                                     "to paginate over the groups")
        self.check_error("rules?group_limit=x", 'invalid parameter "group_limit": group_limit needs to be a valid number: '
                                                'strconv.ParseInt: parsing "x": invalid syntax')
        self.check_error("rules?group_limit=9999999999", 'invalid parameter "group_limit": group_limit needs to be a valid number: '
                                                         'strconv.ParseInt: parsing "9999999999": value out of range')
        self.check_error("rules?group_limit=0", 'invalid parameter "group_limit": group_limit needs to be greater than 0')
        self.check_error("rules?group_limit=1&group_next_token=x", 'invalid parameter "group_next_token": invalid group_next_token '
                                                                   "'x'. were rule groups changed?")
        self.check_error(f"rules?{MATCH}a%7B", "1:3: parse error: unexpected end of input inside braces")

    def test_targets(self):
        for state in ("", "?state=active", "?state=dropped", "?state=any&scrapePool=x"):
            self.assertEqual(self.data("targets" + state), {"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})
        self.check_error("targets/relabel_steps", "no scrapePool parameter provided")
        self.check_error("targets/relabel_steps?scrapePool=x", "no labels parameter provided")
        self.check_error("targets/relabel_steps?scrapePool=x&labels=%7B%7D",
                         'error retrieving scrape config: scrape pool "x" not found')

    def test_notifications_and_search(self):
        self.assertEqual(self.data("notifications"), [])
        self.assertEqual(self.server.get("/api/v1/notifications/live"), (204, b""))
        for name in ("metric_names", "label_names", "label_values"):
            self.check_error(f"search/{name}?search[]=a", "search API disabled", 503, "unavailable")

    def test_features(self):
        features = self.data("features")
        self.assertTrue(all(isinstance(value, bool) for group in features.values() for value in group.values()))
        self.assertTrue(features["promql_functions"]["rate"])
        for name, there in features["promql_functions"].items():
            if there:
                continue
            code, _ = self.server.get("/api/v1/query", query=f"{name}(a)")
            self.assertEqual(code, 422, name)
        self.assertFalse(features["api"]["admin"])
        code, body = self.server.request("POST", "/api/v1/admin/cancel_query?id=1")
        self.assertEqual((code, json.loads(body)["error"]), (500, "admin APIs disabled"))

    def test_federate_utf8(self):
        """Names that are none of old: in quotes for who understands that, changed for others."""
        at = now_ms()
        self.assertEqual(self.server.write(series("näme.with dots", 1.0, at, **{"läbel.x": "v", "plain": "w"}) +
                                           series("näme_plain", 2.0, at) + series("plain_name", 3.0, at, **{"1.x": "v"}))[0], 204)
        path = "/federate?" + quote(**{"match[]": ['{"näme.with dots"}', '{"näme_plain"}', "plain_name"]})
        for accept, kind, body in (
                ("", "escaping=underscores",
                 f'# TYPE n_me_with_dots untyped\nn_me_with_dots{{l_bel_x="v",plain="w",instance=""}} 1 {at}\n'
                 f'# TYPE n_me_plain untyped\nn_me_plain{{instance=""}} 2 {at}\n'
                 f'# TYPE plain_name untyped\nplain_name{{__x="v",instance=""}} 3 {at}\n'),
                ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4",
                 "escaping=allow-utf-8",
                 f'# TYPE "näme.with dots" untyped\n{{"näme.with dots","läbel.x"="v",plain="w",instance=""}} 1 {at}\n'
                 f'# TYPE "näme_plain" untyped\n{{"näme_plain",instance=""}} 2 {at}\n'
                 f'# TYPE plain_name untyped\nplain_name{{"1.x"="v",instance=""}} 3 {at}\n')):
            code, headers, got = support.request(self.server.port, "GET", path, headers={"Accept": accept})
            self.assertEqual((code, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8; " + kind))
            self.assertEqual(sorted(got.decode().split("# TYPE")), sorted(body.split("# TYPE")))

    def test_federate_much(self):
        """An answer of many slices."""
        at = now_ms()
        for begin in range(0, 20000, 5000):
            self.assertEqual(self.server.write([({"__name__": "much", "id": f"{i:05d}"}, [(at, i)])
                                                for i in range(begin, begin + 5000)])[0], 204)
        code, body = self.server.get("/federate", **{"match[]": ["much", '{id=~"0.*"}']})
        self.assertEqual((code, body.decode()), (200, "# TYPE much untyped\n" + "".join(
            f'much{{id="{i:05d}",instance=""}} {i} {at}\n' for i in range(20000))))

    def test_config(self):
        """The text is what --config takes: a flag's name and its value a line."""
        text = self.data("status/config")["yaml"]
        got = dict(re.fullmatch(r'([a-z-]+): ("[^"]*"|[\w./-]+)', line).groups() for line in text.splitlines())
        flags = self.data("status/flags")
        self.assertEqual(flags.pop("config"), "")
        self.assertEqual({key: value.strip('"') for key, value in got.items()}, flags)
        self.assertEqual((got["cors-origin"], got["retention"]), ('"*"', "360h"))
        path = os.path.join(self.path, "again.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("slow-query: 5s", "slow-query: 6s"))
        other = support.Server(os.path.join(self.path, "again"), "--config", path)
        try:
            again = other.data("/api/v1/status/flags")
            self.assertEqual(again.pop("config"), path)
            self.assertEqual({**again, "listen": "", "data-dir": ""}, {**flags, "listen": "", "data-dir": "", "slow-query": "6s"})
        finally:
            other.close()

    def test_self_metrics(self):
        families = {family["name"]: family for family in self.data("status/self_metrics")}
        self.assertEqual(len(families), len(self.data("status/self_metrics")))
        text = self.server.get("/metrics")[1].decode()
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        del types["tidalite_build_info"]
        self.assertEqual({name: family["type"].lower() for name, family in families.items()}, types)
        for name, family in families.items():
            self.assertEqual(len(family["metric"]), len(set(re.findall(rf"^{name}(?:_count)?((?:\{{.*\}})?) ", text, re.M))), name)
            for metric in family["metric"]:
                self.assertEqual(set(metric) - {"label"}, {types[name]})
        buckets = families["tidalite_query_duration_seconds"]["metric"][0]["histogram"]["bucket"]
        self.assertEqual(buckets[-1]["upperBound"], "Infinity")
        some = self.data("status/self_metrics?metric_name_pattern=" + urllib.parse.quote("tidalite_wal_.*|process_open_fds"))
        self.assertEqual({family["name"] for family in some},
                         {name for name in families if name.startswith("tidalite_wal_") or name == "process_open_fds"})
        code, body = self.server.get("/api/v1/status/self_metrics", metric_name_pattern="(")
        self.assertEqual((code, json.loads(body)["errorType"]), (400, "bad_data"))

    def test_stats_values(self):
        """Values of stats other than true and all work, and say that they will not."""
        self.assertEqual(self.server.write(series("one"))[0], 204)
        for value in ("true", "all"):
            self.assertNotIn("warnings", json.loads(self.server.get("/api/v1/query", query="one", stats=value)[1]))
        samples = self.server.data("/api/v1/query_range", query="one", start=now_ms() / 1000 - 30, end=now_ms() / 1000 + 30, step=15,
                                   stats="all")["stats"]["samples"]
        self.assertEqual(list(samples), ["totalQueryableSamplesPerStep", "totalQueryableSamples", "samplesReadPerStep", "samplesRead",
                                         "peakSamples"])
        self.assertEqual([len(samples["samplesReadPerStep"]), sum(n for _, n in samples["samplesReadPerStep"])], [5, samples["samplesRead"]])
        self.assertGreater(samples["samplesRead"], 0)
        for path in ("query", "query_range"):
            answer = json.loads(self.server.get("/api/v1/" + path, query="one", stats="y<", start=1, end=2, step=1)[1])
            self.assertIn("stats", answer["data"])
            self.assertEqual(answer["warnings"], ['value "y<" for parameter "stats" is deprecated and will be rejected in the next '
                                                  'major release, use "true" or "all"'])


class QueriesTest(HeavyCase):
    """Queries that run can be looked at and stopped; slow ones leave a trace; requests are logged when asked for."""
    flags = ("--enable-admin-api", "--slow-query", "100ms", "--query-concurrency", "1", "--log-format", "json", "--request-log")

    def active(self):
        return self.server.data("/api/v1/status/active_queries")

    def events(self, message):
        return [event for event in map(json.loads, self.server.log().splitlines()) if event["msg"] == message]

    def cancel(self, query, method="POST"):
        code, body = self.server.request(method, "/api/v1/admin/cancel_query" + query)
        return code, json.loads(body or b"null")

    def test_cancel(self):
        self.assertTrue(self.idle())
        self.assertEqual(self.active(), [])
        before = self.metric("tidalite_queries_canceled_total")
        running = self.start_heavy()
        self.assertTrue(wait_until(self.active))
        queued = self.start_heavy("&limit=7")
        self.assertTrue(wait_until(lambda: sorted(q["state"] for q in self.active()) == ["queued", "running"]))
        second, first = self.active()
        self.assertEqual((first["state"], first["type"], first["step"], first["client"]),
                         ("running", "range", 1, "127.0.0.1:%d" % running.socket.getsockname()[1]))
        self.assertEqual(first["end"] - first["start"], 10000)
        self.assertIn("count_over_time(heavy[1h])", first["query"])
        self.assertGreater(second["id"], first["id"])
        self.assertRegex(first["received"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$")
        self.assertLess(0, first["duration"])
        self.assertEqual(self.cancel(f"?id={second['id']}"), (204, None))
        self.assertEqual(self.cancel(f"?id={first['id']}", "PUT"), (204, None))
        for client in (running, queued):
            reply = client.reply()
            self.assertEqual((reply.code, json.loads(reply.body)["errorType"]), (499, "canceled"))
            client.send(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.reply().code, 200, "the connection goes on")
            client.send(b"GET /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.reply().code, 200, "and its next query is not stopped")
        self.assertEqual(self.active(), [])
        self.assertEqual(self.metric("tidalite_queries_canceled_total"), before + 2)
        self.assertEqual(self.cancel(f"?id={first['id']}"), (404, {
            "status": "error", "errorType": "not_found", "error": f"no query with the id {first['id']} waits or runs"}))
        for query in ("", "?id=", "?id=x", "?id=0", "?id=-1", "?id=99999999999999999999"):
            self.assertEqual(self.cancel(query)[0], 400, query)
        self.assertEqual(self.cancel("?id=1", "GET")[0], 405)

    def test_slow(self):
        before = self.metric("tidalite_queries_slow_total")
        self.assertEqual(self.server.get("/api/v1/query", query="1 + 2")[0], 200)
        self.assertEqual(self.start_heavy().reply().code, 200)
        client = self.start_heavy("&timeout=200ms")
        self.assertEqual(client.reply().code, 503)
        rows = self.server.data("/api/v1/status/slow_queries")
        self.assertNotIn("1 + 2", [row["query"] for row in rows])
        late, slow = rows[:2]
        self.assertEqual((slow["error"], slow["series"], slow["samplesRead"]), ("", 1, 400000))
        self.assertGreater(slow["duration"], 0.1)
        self.assertGreater(slow["peakSamples"], 0)
        self.assertRegex(late["error"], "query timed out")
        self.assertEqual(late["client"], "127.0.0.1:%d" % client.socket.getsockname()[1])
        self.assertEqual(self.metric("tidalite_queries_slow_total"), before + 2)
        lines = {event["id"]: event for event in self.events("slow query")}
        for row in (late, slow):
            line = lines[row["id"]]
            self.assertEqual((line["level"], line["query"], line["samples_read"]), ("warn", row["query"], row["samplesRead"]))
            self.assertAlmostEqual(line["duration_s"], row["duration"], places=2)

    def test_request_log(self):
        self.assertEqual(self.server.get("/api/v1/labels?match[]=none&marked")[0], 200)
        with RawClient(self.server.port) as client:
            client.send(b'GET /nothing?"marked" HTTP/1.1\r\nHost: x\r\n\r\n')
            self.assertEqual(client.reply().code, 404)
            client.send(b"NONSENSE\r\n\r\n")
            client.reply()
        client = self.start_heavy("&marked=gone")
        self.assertTrue(wait_until(self.active))
        client.close()

        def marked():
            return [event for event in self.events("request") if "marked" in event["query"]]

        self.assertTrue(wait_until(lambda: len(marked()) == 3))
        found, missing, gone = marked()
        self.assertEqual((found["method"], found["path"], found["code"], found["query"]),
                         ("GET", "/api/v1/labels", 200, "match[]=none&marked"))
        self.assertGreater(found["reply_bytes"], 100)
        self.assertEqual((missing["path"], missing["code"]), ("/nothing", 404))
        self.assertEqual((gone["path"], gone["code"]), ("/api/v1/query_range", 499))


class ReloadTest(unittest.TestCase):
    """--config, and what it takes to read it again."""

    def setUp(self):
        directory = support.Directory()
        self.path = directory.__enter__()
        self.addCleanup(directory.__exit__)
        self.config = os.path.join(self.path, "tidalite.conf")

    def write(self, text):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(text)

    def start(self, *flags):
        self.server = support.Server(os.path.join(self.path, "data"), "--config", self.config, *flags)
        self.addCleanup(self.server.close)

    def flags(self, *names):
        flags = self.server.data("/api/v1/status/flags")
        return tuple(flags[name] for name in names)

    def info(self):
        info = self.server.data("/api/v1/status/runtimeinfo")
        return info["reloadConfigSuccess"], info["lastConfigTime"]

    def stop(self):
        code = self.server.stop()
        self.assertEqual(code, 0, self.server.log()[-8000:])

    def check_refused(self, says):
        code, body = self.server.request("POST", "/-/reload")
        self.assertEqual(code, 500)
        self.assertRegex(body.decode(), "^failed to reload config: .*" + says)
        self.assertEqual(self.info()[0], False)
        self.assertIn("tidalite_config_last_reload_successful 0\n", self.server.get("/metrics")[1].decode())

    def test_reload(self):
        self.write("# settings\n\n  query-timeout: 90s\nslow-query : 1h\r\nretention: 10d\ncors-origin: \"http://a.example:1\"\n")
        self.start("--query-timeout", "100s", "--enable-lifecycle")
        names = ("query-timeout", "slow-query", "retention", "cors-origin", "request-log", "max-samples")
        self.assertEqual(self.flags(*names), ("100s", "1h", "240h", "http://a.example:1", "false", "50000000"))
        ok, first = self.info()
        self.assertTrue(ok)
        self.assertNotEqual(first, "1970-01-01T00:00:00Z")
        self.assertEqual(self.server.request("POST", "/-/reload"), (200, b""), "nothing changed")

        time.sleep(1.1)
        self.write("retention: 10d\nquery-timeout: 1s\nslow-query: 7s\nrequest-log: true\nmax-samples: 3\nlog-level: debug\n")
        self.assertEqual(self.server.request("PUT", "/-/reload"), (200, b""))
        self.assertEqual(self.flags(*names), ("100s", "7s", "240h", "*", "true", "3"))
        ok, second = self.info()
        self.assertTrue(ok and second > first)
        self.assertEqual(self.server.write([({"__name__": "many", "n": str(n)}, [(now_ms(), 1.0)]) for n in range(9)])[0], 204)
        code, body = self.server.get("/api/v1/query", query="many + many")
        self.assertEqual((code, json.loads(body)["errorType"]), (422, "execution"))
        self.assertTrue(wait_until(lambda: "path=/api/v1/query " in self.server.log()))

        for text, says in (("max-samples: 4\nslow-query: soon\n", 'bad value "soon" for .*line 2: slow-query'),
                           ("max-samples: 4\nnonsense: 1\n", 'line 2: there is no setting "nonsense"'),
                           ("max-samples: 4\nretention: 11d\n", r'retention can.t change while running \(now "240h", would be "264h"\)'),
                           ("max-samples: 4\n", "retention can.t change"),
                           ("max-samples: 4\nretention: 10d\nenable-lifecycle: false\npath-prefix: /x\n", "path-prefix can.t change")):
            self.write(text)
            self.check_refused(says)
            self.assertEqual(self.flags("max-samples", "slow-query"), ("3", "7s"))
        os.unlink(self.config)
        self.check_refused("cannot read --config")
        self.assertEqual(self.info()[1], second)

        self.write("retention: 10d\nmax-samples: 5M\n")
        self.server.process.send_signal(signal.SIGHUP)
        self.assertTrue(wait_until(lambda: self.flags("max-samples") == ("5000000",)))
        self.assertEqual((self.info()[0], self.flags("request-log", "slow-query")), (True, ("false", "5s")))
        self.assertEqual(self.server.get("/api/v1/query", query="many + many")[0], 200)
        self.stop()

    def test_beside_requests(self):
        """Settings change under requests in flight."""
        self.write("")
        self.start("--enable-lifecycle", "--loops", "2")
        self.assertEqual(self.server.write([({"__name__": "many", "n": str(n)}, [(now_ms(), 1.0)]) for n in range(99)])[0], 204)
        stop, codes = threading.Event(), set()

        def ask():
            while not stop.is_set():
                codes.add(self.server.get("/api/v1/query", query="count(many * 2)")[0])
                codes.add(self.server.get("/api/v1/status/flags")[0])

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(40):
            self.write(f"cors-origin: http://a{i}.example\nmax-samples: {1000 + i}\nrequest-log: {'true' if i % 2 else 'false'}\n")
            if i % 2:
                self.server.process.send_signal(signal.SIGHUP)
            self.assertEqual(self.server.request("POST", "/-/reload"), (200, b""))
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(codes, {200})
        self.assertEqual(self.flags("max-samples"), ("1039",))
        self.stop()

    def test_lifecycle(self):
        self.write("enable-lifecycle: true\n")
        self.start()
        self.assertEqual(self.server.get("/-/reload")[0], 405)
        self.assertEqual(self.server.request("POST", "/-/quit"), (200, b"Requesting termination... Goodbye!\n"))
        self.assertEqual(self.server.process.wait(timeout=60), 0)
        self.write("")
        self.start()
        for path in ("/-/reload", "/-/quit"):
            self.assertEqual(self.server.request("POST", path), (403, b"Lifecycle API is not enabled.\n"))
        self.stop()

    def test_mistakes(self):
        for text, says in (("max-samples\n", 'line 1: "max-samples" is not name: value'), ("\nx: 1", 'line 2: there is no setting "x"'),
                           ("--max-samples: 1", 'there is no setting "--max-samples"'), ("config: x", 'there is no setting "config"'),
                           ("max-samples: 1\nmax-samples: 1\n", 'line 2: "max-samples" a second time'),
                           ("io: tape", 'bad value "tape" for .*line 1: io; it takes auto|uring|syscall'), ("io: uring\0", "is no text"),
                           ("loops: 1000", "--loops takes at most 256"), ("#" * (1 << 20) + "\n", "is larger than 1048576 bytes"),
                           ("path-prefix: x", "for --path-prefix")):
            self.write(text)
            result = subprocess.run([support.BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(self.path, "d"),
                                     "--config", self.config], capture_output=True, text=True, timeout=30, check=False)
            self.assertNotEqual(result.returncode, 0, text[:99])
            self.assertRegex(result.stderr, "^tidalite: .*" + says + ".*\n$")


class PrefixTest(ServerCase):
    """--path-prefix: every path behind it, and none without."""
    flags = ("--path-prefix", "/some/prefix")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if support.request(cls.server.port, "POST", "/some/prefix/api/v1/write", body_of(series("one")), support.WRITE_HEADERS)[0] != 204:
            raise AssertionError("the sample was not taken")

    def metric(self, name):
        text = self.server.get("/some/prefix/metrics")[1].decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))

    def test_paths(self):
        for path in ("/-/healthy", "/metrics", "/version", "/api/v1/labels", "/api/v1/query?query=one", "/federate?match[]=one"):
            self.assertEqual(self.server.get("/some/prefix" + path)[0], 200, path)
            for other in (path, "/some" + path, "/some/prefi" + path, "/other/prefix" + path, "/some/prefix/some/prefix" + path):
                self.assertEqual(self.server.get(other)[0], 404, other)
        for other in ("/some/prefix", "/some/prefix/", "/some/prefixx/metrics", "/some/prefix//metrics", "/"):
            self.assertEqual(self.server.get(other)[0], 404, other)

    def test_write_limit(self):
        """A large body is one for the write route only."""
        head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n\r\n"
        before = self.metric('tidalite_write_requests_total{code="413"}')
        for path in ("/some/prefix/api/v1/write", "/api/v1/write"):
            self.assertEqual(self.ask(head.format(path)).code, 413)
        self.assertEqual(self.metric('tidalite_write_requests_total{code="413"}'), before + 1)

    def test_query_command(self):
        result = subprocess.run([support.BINARY, "query", "one", "--server", self.server.url + "/some/prefix", "--format", "csv"],
                                capture_output=True, text=True, check=True, timeout=60)
        self.assertIn("one", result.stdout)


if __name__ == "__main__":
    unittest.main()
