"""What Grafana's Prometheus data source needs of a server, one test for each point: the requests that it sends, spelled as it
sends them, and what of the answers it depends on."""
import gzip
import json
import threading
import time
import unittest
import urllib.parse

import support
from lib.raw_http import RawClient, wait_until
from server_case import HeavyCase, now_ms

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# What comes along with a request; none of it may matter.
HEADERS = {"User-Agent": "Grafana/13.2.3", "X-Dashboard-Uid": "rYdddlPWk", "X-Dashboard-Title": "Node%20Exporter%20%E2%9C%93", "X-Panel-Id": "77",
           "X-Panel-Title": "CPU", "X-Datasource-Uid": "ds", "X-Grafana-Org-Id": "1", "X-Query-Group-Id": "a-b", "X-Cache-Skip": "true",
           "X-Grafana-Cache": "public", "FromAlert": "true", "X-Rule-Name": "r", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "Cookie": "grafana_session=x; other=y", "Accept": "application/json, text/plain, */*", "Accept-Language": "de,en;q=0.7"}


def form(**parameters):
    return urllib.parse.urlencode(parameters, doseq=True)


class GrafanaTest(HeavyCase):
    """The data: HeavyCase's, and a few series with names and values of all kinds."""
    flags = ("--query-concurrency", "4")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.now_ms = now_ms() // 1000 * 1000
        at = cls.now_ms - 30000
        rows = [({"__name__": "node_load1", "instance": f"host{i}", "job": "node"}, [(at - 15000 + 229, 0.5 * i), (at, 1.5 * i)]) for i in (2, 0, 1)]
        rows += [({"__name__": "values", "kind": kind}, [(at, value)]) for kind, value in (
            ("nan", float("nan")), ("inf", float("inf")), ("minus", float("-inf")), ("zero", -0.0), ("large", 1e6), ("larger", 1.5e21),
            ("small", 1e-7), ("third", 1 / 3))]
        rows += [({"__name__": "my.metric", "http.status code": "200", "job": "otel"}, [(at, 7.0)])]
        rows += [({"__name__": f"name_{i:04d}", "job": "many"}, [(at, 1.0)]) for i in range(1200)]
        for begin in range(0, len(rows), 500):
            if cls.server.write(rows[begin:begin + 500])[0] != 204:
                raise AssertionError("the samples were not taken")
        cls.seconds = at // 1000

    def send(self, method, path, text="", headers=None):
        """The way of a request through Grafana: POST with a form, or GET with all of it in the URL."""
        path = "/api/v1/" + path
        if method == "GET":
            code, got, body = support.request(self.server.port, "GET", path + ("?" + text if text else ""), None, {**HEADERS, **(headers or {})})
        else:
            code, got, body = support.request(self.server.port, "POST", path, text, {**HEADERS, **FORM, **(headers or {})})
        return code, got, body

    def success(self, method, path, text=""):
        code, headers, body = self.send(method, path, text)
        self.assertEqual((code, headers["Content-Type"]), (200, "application/json"), (path, text[:200], body[:200]))
        answer = json.loads(body)
        self.assertEqual(list(answer)[:2], ["status", "data"], path)
        self.assertEqual(answer["status"], "success")
        return answer

    def test_1_requests(self):
        """Every request that it sends, both ways; form and URL together, unknown parameters, gzip, HEAD, OPTIONS, long URLs."""
        s = self.seconds
        both = (("query", form(query="1+1", time=4)), ("query", form(query='node_load1{job="node"}', time=f"{s}.229")),
                ("query", form(query="node_load1", time=s, timeout="60s")),
                ("query_range", form(query="rate(node_load1[1m0s])", start=s - 1800, end=s, step=5)),
                ("query_range", form(query="node_load1", start=f"{s - 60}.5", end=s, step=0.5)),
                ("query_range", form(query="node_load1", start=s - 86400 * 30, end=s, step=86400)),
                ("query_exemplars", form(query="node_load1", start=s - 1800, end=s)),
                ("labels", form(start=s - 3600, end=s, limit=40000)), ("labels", ""),
                ("labels", form(**{"match[]": '{job="node",__name__="node_load1"}', "start": s - 3600, "end": s})),
                ("labels", form(**{"match[]": ['{__name__=~".*node.*"}'], "limit": 1000})),
                ("series", form(**{"match[]": ['{__name__="node_load1"}'], "start": s - 3600, "end": s})))
        gets = (("status/buildinfo", ""), ("rules", ""), ("alerts", ""), ("metadata", form(limit=40000)), ("metadata", form(metric="node_load1")),
                ("label/__name__/values", form(limit=40000, start=s - 3600, end=s)), ("label/__name__/values", ""),
                ("label/job/values", form(**{"match[]": '{__name__=~"node_load1|values",job=~".*no"}'})),
                ("label/__name__/values", form(**{"match[]": '{__name__=~"(?i).*LOAD"}'})),
                ("rules", form(**{"file[]": "a", "rule_group[]": "b", "rule_name[]": "c", "exclude_alerts": "true", "group_limit": 40})))
        for method, requests in (("GET", both + gets), ("POST", both)):
            for path, text in requests:
                self.success(method, path, text)
        # Custom parameters and stats=all come in the URL of a POST, too; a builder sends all of a POST there.
        extra = "query?stats=all&max_samples_processed_warning_threshold=1&max_samples_processed_error_threshold=2&custom=x"
        self.assertIn("stats", self.success("POST", extra, form(query="node_load1", time=s))["data"])
        answer = self.success("POST", "query?" + form(query="count(node_load1)", time=s))
        self.assertEqual(answer["data"]["result"][0]["value"], [s, "3"])
        # A browser offers all there is; only gzip is understood behind it.
        code, headers, body = self.send("GET", "label/__name__/values", "", {"Accept-Encoding": "gzip, deflate, br, zstd"})
        self.assertEqual((code, headers["Content-Encoding"]), (200, "gzip"))
        self.assertIn("node_load1", json.loads(gzip.decompress(body))["data"])
        for path in ("/api/v1/labels", "/api/v1/query?query=1"):
            code, headers, body = support.request(self.server.port, "HEAD", path)
            self.assertEqual((code, body), (200, b""))
            code, headers, _ = support.request(self.server.port, "OPTIONS", path, None, {"Origin": "http://g.example"})
            self.assertEqual((code, headers["Access-Control-Allow-Methods"]), (204, "GET, POST, OPTIONS"))
        # The metrics browser puts all names into one selector.
        names = "|".join(f"name_{i:04d}_{'x' * 200}" for i in range(4500)) + "|node_load1"
        self.assertEqual(self.success("GET", "label/instance/values", form(**{"match[]": f'{{__name__=~"{names}"}}'}))["data"],
                         ["host0", "host1", "host2"])
        names = "|".join(f"name_{i:05d}_{'x' * 100}" for i in range(40000)) + "|node_load1"
        self.assertEqual(self.success("POST", "labels", form(**{"match[]": f'{{__name__=~"{names}"}}'}))["data"],
                         ["__name__", "instance", "job"])

    def test_2_bytes(self):
        """Order of members, times, numbers, labels in order, a sorted matrix, empty arrays."""
        s = self.seconds
        values = {item["metric"]["kind"]: item["value"] for item in self.success("POST", "query", form(query="values", time=s))["data"]["result"]}
        self.assertEqual({kind: value for kind, (_, value) in values.items()},
                         {"nan": "NaN", "inf": "+Inf", "minus": "-Inf", "zero": "-0", "large": "1000000", "larger": "1.5e+21", "small": "1e-07",
                          "third": "0.3333333333333333"})
        for path, text, data in (
                ("query", form(query="none", time=s), '{"resultType":"vector","result":[]}'),
                ("query", form(query='node_load1{instance="host2"}[20s]', time=s),
                 '{"resultType":"matrix","result":[{"metric":{"__name__":"node_load1","instance":"host2","job":"node"},'
                 '"values":[[%d.229,"1"],[%d,"3"]]}]}' % (s - 15, s)),
                ("query_range", form(query="node_load1", start=s, end=s + 1, step="0.5"),
                 '{"resultType":"matrix","result":[%s]}' % ",".join(
                     '{"metric":{"__name__":"node_load1","instance":"host%d","job":"node"},"values":[[%d,"%s"],[%d.500,"%s"],[%d,"%s"]]}'
                     % (i, s, ("0", "1.5", "3")[i], s, ("0", "1.5", "3")[i], s + 1, ("0", "1.5", "3")[i]) for i in (0, 1, 2))),
                ("series", form(**{"match[]": "none"}), "[]"), ("labels", form(**{"match[]": "none"}), "[]")):
            code, _, body = self.send("POST", path, text)
            self.assertEqual((code, body.decode()), (200, '{"status":"success","data":%s}' % data))
        answer = self.success("POST", "query", form(query="quantile(2, rate(node_load1[1m]))", time=s, stats="true"))
        self.assertEqual((list(answer), list(answer["data"])), (["status", "data", "warnings", "infos"], ["resultType", "result", "stats"]))

    def test_3_errors(self):
        """The codes whose body it reads, with errorType and error, and no data."""
        s = self.seconds
        for path, text, code, kind, error in (
                ("query", form(query="sum("), 400, "bad_data", 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis'),
                ("query_range", form(query="1", start=s - 11001, end=s, step=1), 400, "bad_data",
                 "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"),
                ("query", form(query="node_load1 * on (job) group_left heavy", time=s), 422, "execution", None),
                ("query", form(query="heavy", timeout="0s"), 503, "timeout", None),
                ("labels", form(**{"match[]": "a{"}), 400, "bad_data", "1:3: parse error: unexpected end of input inside braces"),
                ("series", "", 400, "bad_data", "no match[] parameter provided")):
            if kind == "execution":
                self.server.write([({"__name__": "twice", "job": "node", "n": n}, [(self.now_ms - 30000, 1.0)]) for n in "ab"])
                text = form(query="node_load1 * on (job) group_left twice", time=s)
            for method in ("GET", "POST"):
                got, headers, body = self.send(method, path, text)
                answer = json.loads(body)
                self.assertEqual((got, headers["Content-Type"], answer["status"], answer["errorType"]), (code, "application/json", "error", kind), body)
                self.assertEqual(list(answer), ["status", "errorType", "error"])
                if error is not None:
                    self.assertEqual(answer["error"], error)

    def test_4_what_it_is(self):
        """A Prometheus of its version and nothing else; empty lists where there are no rules; times in milliseconds."""
        info = self.success("GET", "status/buildinfo")["data"]
        self.assertRegex(info["version"], r"^3\.\d+\.\d+$")
        self.assertNotIn("features", info)
        self.assertEqual(self.success("GET", "rules")["data"], {"groups": []})
        self.assertEqual(self.success("GET", "alerts")["data"], {"alerts": []})
        for method in ("GET", "POST"):
            self.assertEqual(self.success(method, "query_exemplars", form(query="test", start=self.now_ms - 3600000, end=self.now_ms))["data"], [])
        self.assertTrue(all(self.success("GET", "metadata", form(limit=40000))["data"].values()), "no empty list")
        self.success("GET", "label/__name__/values", form(start=self.now_ms - 3600000, end=self.now_ms))

    def test_5_names(self):
        """Limits with their warning, escaped names, several selectors."""
        warning = ["results truncated due to limit"]
        for method, path, text in (("GET", "label/__name__/values", ""), ("POST", "labels", ""), ("POST", "series", form(**{"match[]": '{job="many"}'}))):
            whole = self.success(method, path, text)
            self.assertNotIn("warnings", whole)
            count = len(whole["data"])
            for limit in (0, count, 40000):
                self.assertEqual(self.success(method, path, f"{text}&limit={limit}"), whole)
            for limit in (1, count - 1):
                cut = self.success(method, path, f"{text}&limit={limit}")
                self.assertEqual((cut["data"], cut["warnings"]), (whole["data"][:limit], warning))
        self.assertEqual(len(self.success("GET", "label/__name__/values", "limit=1000")["data"]), 1000)
        for name in ("U__http_2e_status_20_code", "http.status%20code"):
            self.assertEqual(self.success("GET", f"label/{name}/values")["data"], ["200"])
        for selector in ('{"my.metric"}', '{"my.metric", "http.status code"="200"}', '{__name__="my.metric"}'):
            self.assertEqual(self.success("POST", "series", form(**{"match[]": selector}))["data"],
                             [{"__name__": "my.metric", "http.status code": "200", "job": "otel"}])
        several = form(**{"match[]": ["node_load1", '{"my.metric"}', "none"]})
        self.assertEqual(self.success("GET", "label/job/values", several)["data"], ["node", "otel"])
        self.assertEqual(self.success("POST", "labels", several)["data"], ["__name__", "http.status code", "instance", "job"])
        self.assertEqual(len(self.success("POST", "series", several)["data"]), 4)

    def test_6_search(self):
        """What makes it ask the label routes instead."""
        for name in ("metric_names", "label_names", "label_values"):
            code, _, body = self.send("GET", "search/" + name, form(**{"search[]": "node", "limit": 10000, "sort_by": "alpha", "fuzz_alg": "jarowinkler"}))
            self.assertEqual((code, json.loads(body)["errorType"]), (503, "unavailable"))

    def test_7_many_at_once(self):
        """A dashboard's requests all at once, beside queries that take long; who leaves takes its query along."""
        begin = time.monotonic()
        self.assertEqual(self.start_heavy().reply().code, 200)
        long_s = time.monotonic() - begin
        heavy = [self.start_heavy(f"&n={i}") for i in range(2)]
        self.assertTrue(wait_until(lambda: self.metric("tidalite_queries_active") == 2))
        begin, times, wrong = time.monotonic(), [], []

        def ask(i):
            text = form(query=f"sum(rate(node_load1[{i + 60}s]))", start=self.seconds - 3600, end=self.seconds, step=15)
            code, _, body = self.send("POST", "query_range", text)
            times.append(time.monotonic() - begin)
            if code != 200 or json.loads(body)["status"] != "success":
                wrong.append(body)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((wrong, len(times)), ([], 40))
        if long_s > 1:  # else they may be over by themselves
            self.assertEqual(self.metric("tidalite_queries_active"), 2, "the long ones still run: nobody waited for them")
        for client in heavy:
            client.close()
        self.assertTrue(self.idle())
        with RawClient(self.server.port) as client:  # keep-alive, one after the other, as its pool of connections does
            for _ in range(20):
                client.send(b"GET /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(client.reply().code, 200)


if __name__ == "__main__":
    unittest.main()
