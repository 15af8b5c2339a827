"""The HTTP side from outside: bad input and its documented answers, framing, limits, slow clients, the command line.

What a write means for the data is tested elsewhere; here it is what the server says to whom."""
import gzip
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest
import urllib.parse
import zlib

import support
from lib.raw_http import RawClient, wait_until
from server_case import HeavyCase, ServerCase, body_of, now_ms, series

WRITE_HEAD = ("POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
              "Content-Encoding: snappy\r\n")
GET_HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = b"Prometheus Server is Healthy.\n"


def run(*arguments, timeout=30, **more):
    return subprocess.run([support.BINARY, *arguments], capture_output=True, text=True, timeout=timeout, check=False, **more)


class WriteTest(ServerCase):
    """The write path's answers."""
    flags = ("--body-bytes-max", "1MiB", "--decoded-bytes-max", "2MiB")

    def test_good(self):
        before = self.metric('tidalite_write_requests_total{code="204"}')
        reply = self.post(body_of(series()))
        self.assertEqual((reply.code, reply.body), (204, b""))
        self.assertNotIn("content-type", reply.headers)
        self.assertEqual(self.metric('tidalite_write_requests_total{code="204"}'), before + 1)

    def test_no_series(self):
        self.assertEqual(self.post(support.snappy(b"")).code, 204)
        metadata = support.field(3, b"\x08\x01" + support.field(2, b"x_total"))
        self.assertEqual(self.post(support.snappy(metadata)).code, 204)

    def test_other_method(self):
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            client = self.client()
            client.send(f"{method} /api/v1/write HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            reply = client.reply(head_only=method == "HEAD")
            self.assertEqual(reply.code, 405, method)
            self.assertIn("POST", reply.headers["allow"])

    def test_media(self):
        body = body_of(series())
        for headers in ({"Content-Type": "application/json"}, {"Content-Type": "text/plain", "Content-Encoding": "snappy"},
                        {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"},
                        {"Content-Type": "application/x-protobuf; proto=\"unknown.Message\""},
                        {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"},
                        {"Content-Encoding": "deflate"}):
            reply = self.post(body, headers)
            self.assertEqual(reply.code, 415, headers)
            self.assertRegex(reply.headers["content-type"], "^text/plain")
            self.assertTrue(reply.body.endswith(b"\n"))
            self.assertRegex(reply.body, b"send (application/x-protobuf|remote write 1.0|snappy)")
        for headers in ({}, {"Content-Type": "application/x-protobuf"},
                        {"Content-Type": "application/x-protobuf; proto=prometheus.WriteRequest"},
                        {"Content-Type": "Application/X-Protobuf ; Proto = \"prometheus.WriteRequest\" ",
                         "Content-Encoding": "Snappy"}):
            self.assertEqual(self.post(body, headers).code, 204, headers)

    def test_bad_snappy(self):
        for body in (b"", b"\xff\xff\xff\xff\xff\xff", b"not snappy at all", support.snappy(b"x" * 100)[:-1]):
            reply = self.post(body)
            self.assertEqual(reply.code, 400, body)
            self.assertIn(b"snappy", reply.body)
            self.assertTrue(reply.body.endswith(b"\n"))

    def test_bad_protobuf(self):
        for message in (b"\x0a", b"\x0a\x05abc", b"\xff" * 11, support.write_request(series())[:-1]):
            reply = self.post(support.snappy(message))
            self.assertEqual(reply.code, 400, message)
            self.assertRegex(reply.body, rb"protobuf|WriteRequest")
            self.assertRegex(reply.body, rb"\d", "says where")

    def test_body_too_large(self):
        """Refused by its declared length: not a byte of it is sent."""
        before = self.metric('tidalite_write_requests_total{code="413"}')
        client = self.client()
        client.send((WRITE_HEAD + "Content-Length: 1048577\r\n\r\n").encode())
        reply = client.reply()
        self.assertEqual(reply.code, 413)
        self.assertIn(b"1048576", reply.body)
        self.assertEqual(reply.headers["connection"], "close")
        self.assertTrue(client.ended())
        self.assertEqual(self.metric('tidalite_write_requests_total{code="413"}'), before + 1)

    def test_body_too_large_sent_anyway(self):
        """A client that sends without looking still gets to read the answer."""
        client = self.client()
        client.send((WRITE_HEAD + "Content-Length: 8000000\r\n\r\n").encode())
        client.send(b"x" * 4000000)
        self.assertEqual(client.reply().code, 413)

    def test_chunked_body_too_large(self):
        client = self.client()
        client.send((WRITE_HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(17):
            client.send(chunk)
        self.assertEqual(client.reply().code, 413)

    def test_declared_decoded_size(self):
        for declared in (2 << 20 | 1, 0xFFFFFFFF):
            reply = self.post(support.varint(declared) + b"\x00a")
            self.assertEqual(reply.code, 413, declared)
            self.assertIn(b"2097152", reply.body)

    def test_labels(self):
        """Dropped and counted as Prometheus does in v1; what is over a limit of ours is named."""
        t = now_ms()
        sample = support.sample_bytes(t, 1.0)

        def label(name, value):
            return support.field(1, support.field(1, name) + support.field(2, value))

        name = label(b"__name__", b"label_test")
        for reason, labels in (("no_metric_name", label(b"a", b"b")), ("empty_label_name", name + label(b"", b"b")),
                               ("duplicate_label", name + label(b"a", b"1") + label(b"a", b"2")),
                               ("invalid_utf8", name + label(b"a", b"\xff"))):
            counter = f'tidalite_series_dropped_total{{reason="{reason}"}}'
            before = self.metric(counter)
            good = support.field(1, label(b"__name__", b"good_beside_" + reason.encode()) + sample)
            reply = self.post(support.snappy(support.field(1, labels + sample) + good))
            self.assertEqual((reply.code, reply.body), (204, b""), reason)
            self.assertEqual(self.metric(counter), before + 1, reason)
            names = json.loads(self.server.get("/api/v1/label/__name__/values")[1])["data"]
            self.assertIn("good_beside_" + reason, names)
        many = name + b"".join(label(b"l%03d" % i, b"v") for i in range(64))
        for reason, labels in (("too_many_labels", many), ("label_name_too_long", name + label(b"n" * 1025, b"v")),
                               ("label_value_too_long", name + label(b"a", b"v" * 16385))):
            counter = f'tidalite_series_dropped_total{{reason="{reason}"}}'
            before = self.metric(counter)
            reply = self.post(support.snappy(support.field(1, labels + sample)))
            self.assertEqual(reply.code, 400, reason)
            self.assertGreater(len(reply.body), 10)
            self.assertEqual(self.metric(counter), before + 1, reason)

    def test_order(self):
        t = now_ms() - 60000
        self.assertEqual(self.post(body_of(series("order_test", 1.0, t))).code, 204)
        self.assertEqual(self.post(body_of(series("order_test", 1.0, t))).code, 204, "an exact duplicate")
        self.assertEqual(self.post(body_of(series("order_test", 3.0, t - 1000))).code, 204, "a late one")
        answer = json.loads(self.server.get(f"/api/v1/query?query=order_test[1m]&time={(t + 1000) / 1000}")[1])
        self.assertEqual(answer["data"]["result"][0]["values"], [[(t - 1000) / 1000, "3"], [t / 1000, "1"]])
        old = body_of(series("order_test", 1.0, t - 16 * 86400 * 1000) + series("order_other", 1.0, t))
        reply = self.post(old)
        self.assertEqual(reply.code, 400)
        self.assertIn(b"out of bounds", reply.body)
        reply = self.post(body_of(series("order_test", 2.0, t)))
        self.assertEqual(reply.code, 400)
        self.assertIn(b"duplicate sample for timestamp", reply.body)
        names = json.loads(self.server.get("/api/v1/label/__name__/values")[1])["data"]
        self.assertIn("order_other", names, "the rest of the request is stored")

    def test_future(self):
        reply = self.post(body_of(series("future_test", 1.0, now_ms() + 11 * 60000) + series("future_other")))
        self.assertEqual(reply.code, 400)
        self.assertIn(b"too far in the future", reply.body)
        self.assertTrue(reply.body.endswith(b"\n"))
        names = json.loads(self.server.get("/api/v1/label/__name__/values")[1])["data"]
        self.assertIn("future_other", names, "the rest of the request is stored")
        self.assertEqual(self.post(body_of(series("future_near", 1.0, now_ms() + 9 * 60000))).code, 204)

    def test_histograms(self):
        histogram = support.field(4, b"\x78" + support.varint(now_ms()))
        message = support.write_request(series("beside_histogram")) + support.field(
            1, support.label_bytes({"__name__": "h"}) + histogram + histogram)
        reply = self.post(support.snappy(message))
        self.assertEqual((reply.code, reply.body), (400, b"2 histograms not stored yet\n"))
        names = json.loads(self.server.get("/api/v1/label/__name__/values")[1])["data"]
        self.assertIn("beside_histogram", names)

    def test_chunked(self):
        body = body_of(series("chunked_test"))
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7))
        client = self.client()
        client.send((WRITE_HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode() + pieces + b"0\r\n\r\n" + GET_HEALTHY)
        self.assertEqual(client.reply().code, 204)
        self.assertEqual(client.reply().body, HEALTHY, "the next request begins where the body ended")

    def test_expect_continue(self):
        client = self.client()
        body = body_of(series("continue_test"))
        client.send((WRITE_HEAD + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n").encode())
        self.assertEqual(client.reply().code, 100)
        client.send(body)
        self.assertEqual(client.reply().code, 204)

    def test_expect_continue_refused(self):
        client = self.client()
        client.send((WRITE_HEAD + "Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n").encode())
        self.assertEqual(client.reply().code, 413, "no 100 before")
        self.assertTrue(client.ended())

    def test_client_gone(self):
        """Writes whose client leaves at once harm nobody."""
        for i in range(50):
            with RawClient(self.server.port) as client:
                body = body_of(series("gone_test", float(i), i=str(i)))
                client.send((WRITE_HEAD + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
                if i % 2:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.assertTrue(wait_until(lambda: self.metric("tidalite_http_connections_open") == 1))

    def test_pipeline(self):
        """Answers come in order, however many requests are sent before the first is read."""
        count = 400
        request = b""
        for i in range(count):
            if i % 3 == 0:
                body = body_of(series("pipeline_test", float(i), i=str(i)))
                request += (WRITE_HEAD + f"Content-Length: {len(body)}\r\n\r\n").encode() + body
            elif i % 3 == 1:
                request += GET_HEALTHY
            else:
                request += b"GET /nothing/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i
        client = self.client()
        sender = threading.Thread(target=client.send, args=(request,))
        sender.start()
        for i in range(count):
            reply = client.reply()
            if i % 3 == 0:
                self.assertEqual(reply.code, 204)
            elif i % 3 == 1:
                self.assertEqual(reply.body, HEALTHY)
            else:
                self.assertIn(b"/nothing/%d\"" % i, reply.body)
        sender.join()

    def test_pipeline_byte_by_byte(self):
        body = body_of(series("slow_bytes"))
        request = (WRITE_HEAD + f"Content-Length: {len(body)}\r\n\r\n").encode() + body + GET_HEALTHY
        client = self.client()
        for i in range(len(request)):
            client.send(request[i:i + 1])
        self.assertEqual(client.reply().code, 204)
        self.assertEqual(client.reply().body, HEALTHY)


class ProtocolTest(ServerCase):
    """HTTP itself, and the API's frame."""

    def test_malformed(self):
        for head, code in ((b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX:\rY: z\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: y\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\nHost: x\n\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
                           (b"NONSENSE\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
                           (b"GET /-/healthy HTTP/3.7\r\nHost: x\r\n\r\n", 400),
                           (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
                           (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
                           (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
                           (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
                           (b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", 400),
                           (b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nExpect: magic\r\n\r\n", 417)):
            client = self.client()
            client.send(head)
            reply = client.reply()
            self.assertIn(reply.code, (code, 505) if b"3.7" in head else (code,), head)
            self.assertTrue(client.ended(), head)
        self.assertEqual(self.ask(GET_HEALTHY).code, 200)

    def test_head_limits(self):
        def head(extra, path="/-/healthy"):
            return f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n"

        self.assertEqual(self.ask(head("".join(f"X-{i}: y\r\n" for i in range(255)))).code, 200)
        self.assertEqual(self.ask(head("".join(f"X-{i}: y\r\n" for i in range(256)))).code, 431)
        self.assertEqual(self.ask(head("X: " + "y" * 1000000 + "\r\n")).code, 200)
        self.assertEqual(self.ask(head("X: " + "y" * 1100000 + "\r\n")).code, 431)
        self.assertEqual(self.ask(head("", "/-/healthy?" + "y" * 1000000)).code, 200)
        self.assertEqual(self.ask(head("", "/-/healthy?" + "y" * 1100000)).code, 414)

    def test_unknown_path(self):
        for path in ("/nothing", "/", "/api/v1/label//values", "/api/v1/label/a/b/values", "/api/v1/query/"):
            reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(reply.code, 404, path)
            self.assertEqual(reply.headers["content-type"], "application/json")
            answer = json.loads(reply.body)
            self.assertEqual((answer["status"], answer["errorType"]), ("error", "not_found"))
            self.assertNotIn("data", answer)

    def test_other_method(self):
        reply = self.ask("DELETE /api/v1/query HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((reply.code, reply.headers["allow"]), (405, "GET, HEAD, POST, OPTIONS"))
        reply = self.ask("POST /api/v1/rules HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((reply.code, reply.headers["allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_head_and_options(self):
        client = self.client()
        client.send(b"HEAD /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n" + GET_HEALTHY)
        reply = client.reply(head_only=True)
        self.assertEqual((reply.code, reply.headers["content-length"]), (200, str(len(HEALTHY))))
        self.assertEqual(client.reply().body, HEALTHY)
        reply = self.ask("OPTIONS /api/v1/query HTTP/1.1\r\nHost: x\r\nOrigin: http://page.example\r\n\r\n")
        self.assertEqual((reply.code, reply.headers["access-control-allow-origin"]), (204, "*"))
        reply = self.ask("OPTIONS /api/v1/write HTTP/1.1\r\nHost: x\r\nOrigin: http://page.example\r\n\r\n")
        self.assertEqual(reply.code, 204)
        self.assertNotIn("access-control-allow-origin", reply.headers, "no web page may write")

    def test_http_1_0(self):
        client = self.client()
        client.send(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        reply = client.reply()
        self.assertEqual((reply.body, reply.headers["connection"]), (HEALTHY, "close"))
        self.assertTrue(client.ended())
        client = self.client()
        client.send(b"GET /-/healthy HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(client.reply().headers["connection"], "keep-alive")
        client.send(GET_HEALTHY)
        self.assertEqual(client.reply().body, HEALTHY)

    def test_connection_close(self):
        client = self.client()
        client.send(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual(client.reply().headers["connection"], "close")
        self.assertTrue(client.ended())

    def test_upgrade_is_ignored(self):
        client = self.client()
        client.send(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET_HEALTHY)
        self.assertEqual(client.reply().body, HEALTHY)
        self.assertEqual(client.reply().body, HEALTHY)

    def test_absolute_target(self):
        self.assertEqual(self.ask("GET http://host:1/-/healthy?x HTTP/1.1\r\nHost: host:1\r\n\r\n").body, HEALTHY)

    def test_gzip(self):
        for path in ("/metrics", "/api/v1/status/limits"):
            plain = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertNotIn("content-encoding", plain.headers)
            for offer in ("gzip", "deflate, gzip;q=0.5, br", "GZIP"):
                reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {offer}\r\n\r\n")
                self.assertEqual((reply.headers["content-encoding"], reply.headers["vary"]), ("gzip", "Accept-Encoding"))
                self.assertLess(len(reply.body), len(plain.body))
                self.assertIn(b"bytes", gzip.decompress(reply.body))
            reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br, deflate\r\n\r\n")
            self.assertEqual(reply.headers["content-encoding"], "deflate")
            self.assertIn(b"bytes", zlib.decompress(reply.body))
            for offer in ("gzip;q=0", "zstd", "identity"):
                reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {offer}\r\n\r\n")
                self.assertNotIn("content-encoding", reply.headers)

    def check_error(self, path, error, code=400, kind="bad_data"):
        reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = json.loads(reply.body)
        self.assertEqual((reply.code, answer), (code, {"status": "error", "errorType": kind, "error": error}), path)

    def test_parameter_errors(self):
        q = "/api/v1/query?query=1"
        r = "/api/v1/query_range?query=1"
        check = self.check_error
        check(q + "&time=x", "invalid parameter \"time\": Invalid time value for 'time': cannot parse \"x\" to a valid timestamp")
        check(q + "&timeout=x", 'invalid parameter "timeout": cannot parse "x" to a valid duration')
        check(q + "&limit=x", 'invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax')
        check(q + "&limit=-1", 'invalid parameter "limit": limit must be non-negative')
        check(q + "&lookback_delta=x", 'error parsing lookback delta duration: cannot parse "x" to a valid duration')
        check(r, 'invalid parameter "start": cannot parse "" to a valid timestamp')
        check(r + "&start=1", 'invalid parameter "end": cannot parse "" to a valid timestamp')
        check(r + "&start=2&end=1&step=1", 'invalid parameter "end": end timestamp must not be before start time')
        check(r + "&start=1&end=2", 'invalid parameter "step": cannot parse "" to a valid duration')
        zero = ('invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive '
                'integer')
        check(r + "&start=1&end=2&step=0", zero)
        check(r + "&start=1&end=2&step=-1", zero)
        many = ("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution "
                "(?step=XX)")
        check(r + "&start=0&end=11001&step=1", many)
        check("/api/v1/series", "no match[] parameter provided")
        check(q + "&x=%zz", 'error parsing form values: invalid URL escape "%zz"')
        check("/api/v1/labels?start=x",
              "invalid parameter \"start\": Invalid time value for 'start': cannot parse \"x\" to a valid timestamp")

    def test_fixed_answers(self):
        for path, data in (("/api/v1/metadata", {}), ("/api/v1/rules", {"groups": []}), ("/api/v1/alerts", {"alerts": []}),
                           ("/api/v1/query_exemplars?query=test&start=1795456301238&end=1795458101238", [])):
            reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual((reply.code, json.loads(reply.body)), (200, {"status": "success", "data": data}))
        self.assertEqual(self.server.data("/api/v1/status/buildinfo")["version"], "3.14.0")
        self.assertNotIn("features", self.server.data("/api/v1/status/buildinfo"))
        self.assertEqual(self.server.data("/api/v1/status/flags")["query-timeout"], "2m")
        limits = {row["name"]: row for row in self.server.data("/api/v1/status/limits")}
        self.assertEqual(limits["connections_max"]["value"], 512)
        for path in ("/api/v1/status/runtimeinfo", "/api/v1/status/tsdb", "/api/v1/targets", "/api/v1/alertmanagers"):
            self.assertIsInstance(self.server.data(path), dict)
        self.assertEqual(self.server.get("/-/ready"), (200, b"Prometheus Server is Ready.\n"))

    def test_status_tsdb_and_memory(self):
        t = now_ms()
        series = [({"__name__": "card", "many": f"v{i}", "few": f"w{i % 3}"}, [(t, 1.0)]) for i in range(60)]
        self.assertEqual(self.post(body_of(series)).code, 204)
        data = self.server.data("/api/v1/status/tsdb", limit=10000)
        rows = {key: {row["name"]: row["value"] for row in data[key]} for key in data if key != "headStats"}
        self.assertEqual(rows["seriesCountByMetricName"]["card"], 60)
        self.assertEqual((rows["labelValueCountByLabelName"]["many"], rows["labelValueCountByLabelName"]["few"]), (60, 3))
        self.assertEqual(rows["seriesCountByLabelValuePair"]["few=w1"], 20)
        self.assertEqual(rows["memoryInBytesByLabelName"]["few"], 60 * (3 + 1 + 2 + 1))
        self.assertEqual(min(data["headStats"]["numLabelPairs"], 10000), len(data["seriesCountByLabelValuePair"]))
        self.assertGreaterEqual(data["headStats"]["numSeries"], sum(rows["seriesCountByMetricName"].values()))
        self.assertGreaterEqual(data["headStats"]["chunkCount"], 60)
        self.assertLessEqual(data["headStats"]["minTime"], t)
        few = self.server.data("/api/v1/status/tsdb", limit=2)
        self.assertTrue(all(len(few[key]) <= 2 for key in rows))
        self.assertTrue(all(len(rows) <= 10 for rows in self.server.data("/api/v1/status/tsdb").values() if isinstance(rows, list)))
        for limit, error in (("0", "limit must be a positive number"), ("x", "limit must be a positive number"),
                             ("10001", "limit must not exceed 10000")):
            code, body = self.server.get("/api/v1/status/tsdb", limit=limit)
            self.assertEqual((code, json.loads(body)["error"]), (400, error))
        memory = self.server.data("/api/v1/status/memory")
        self.assertEqual(memory["bytes"], sum(row["bytes"] for row in memory["structures"]))
        self.assertGreaterEqual(memory["series"], 60)
        metrics = self.server.get("/metrics")[1].decode()
        for row in memory["structures"]:
            self.assertIn(f'tidalite_memory_bytes{{structure="{row["name"]}"}} ', metrics)

    def test_form_and_url(self):
        """Both are read; unknown parameters are ignored."""
        form = b"match%5B%5D=no_such_metric&start=1"
        for path, body in (("/api/v1/series?stats=all&x", form), ("/api/v1/series?" + form.decode(), b"")):
            reply = self.post(body, {"Content-Type": "application/x-www-form-urlencoded"}, path)
            self.assertEqual((reply.code, reply.body), (200, b'{"status":"success","data":[]}'), path)

    def test_labels_series_and_limit(self):
        t = now_ms()
        self.assertEqual(self.post(body_of([({"__name__": "meta", "host.name": f"h<{i}>"}, [(t, 1.0)]) for i in (3, 1, 2)])).code, 204)
        answer = self.server.get("/api/v1/label/U__host_2e_name/values")[1]
        self.assertEqual(answer, b'{"status":"success","data":["h\\u003c1\\u003e","h\\u003c2\\u003e","h\\u003c3\\u003e"]}')
        answer = self.server.get("/api/v1/label/host.name/values", limit=2)[1]
        self.assertEqual(answer, b'{"status":"success","data":["h\\u003c1\\u003e","h\\u003c2\\u003e"],'
                                 b'"warnings":["results truncated due to limit"]}')
        answer = self.server.get("/api/v1/series", **{"match[]": ["meta", '{__name__="meta"}'], "limit": 1})[1]
        self.assertEqual(answer, b'{"status":"success","data":[{"__name__":"meta","host.name":"h<1>"}],'
                                 b'"warnings":["results truncated due to limit"]}')
        self.assertEqual(self.server.data("/api/v1/labels", **{"match[]": "meta"}), ["__name__", "host.name"])
        self.assertEqual(self.server.data("/api/v1/labels", **{"match[]": ["meta", "none"]}), ["__name__", "host.name"])
        self.assertEqual(self.server.data("/api/v1/labels", **{"match[]": "none"}), [])
        code, body = self.server.get("/api/v1/labels", **{"match[]": '{x=""}'})
        self.assertEqual((code, json.loads(body)["errorType"]), (400, "bad_data"))
        code, body = self.server.get("/api/v1/series", **{"match[]": "sum("})
        self.assertEqual((code, json.loads(body)["errorType"]), (400, "bad_data"))

    def test_long_answer(self):
        """Answers of many slices, read slowly by several clients, whole and chunked right; cut off by a client that leaves."""
        t = now_ms()
        names = [f"{i:05d}" + "x" * 200 for i in range(20000)]
        for begin in range(0, len(names), 2000):
            self.assertEqual(self.post(body_of([({"__name__": "long", "id": name}, [(t, 1.0)])
                                                for name in names[begin:begin + 2000]])).code, 204)
        request = b"GET /api/v1/series?match[]=long HTTP/1.1\r\nHost: x\r\n\r\n"
        clients = [self.client() for _ in range(3)]
        for client in clients:
            client.send(request + GET_HEALTHY)
        for client in clients:
            reply = client.reply()
            self.assertEqual(reply.headers.get("transfer-encoding"), "chunked")
            self.assertEqual([row["id"] for row in json.loads(reply.body)["data"]], names)
            self.assertEqual(client.reply().body, HEALTHY)
        client = self.client()
        client.send(b"GET /api/v1/series?match[]=long HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
        self.assertEqual(len(json.loads(gzip.decompress(client.reply().body))["data"]), len(names))
        client = self.client()
        client.send(b"GET /api/v1/series?match[]=long HTTP/1.0\r\n\r\n")
        self.assertEqual(len(json.loads(client.reply().body)["data"]), len(names))
        for _ in range(3):
            with RawClient(self.server.port) as leaver:
                leaver.send(request)
                leaver.fill()
        self.assertTrue(wait_until(lambda: self.metric("tidalite_http_connections_open") <= 6))


class QueryTest(HeavyCase):
    """The frame around queries; what they compute is tested in query/."""
    flags = ("--query-concurrency", "1", "--query-queue", "2", "--loops", "2")

    def test_bytes(self):
        """Every byte of an answer is as Prometheus writes it."""
        self.assertEqual(self.server.write(series("one", 1.5, self.begin + 1, z="<&>"))[0], 204)
        at = f"{(self.begin + 1000) / 1000:.3f}".rstrip("0").rstrip(".")
        for path, body in (
                (f"query?query=one&time={at}",
                 '{"resultType":"vector","result":[{"metric":{"__name__":"one","z":"<&>"},"value":[%s,"1.5"]}]}' % at),
                (f"query?query=1%2B1&time={at}", '{"resultType":"scalar","result":[%s,"2"]}' % at),
                (f"query?query=none&time={at}", '{"resultType":"vector","result":[]}'),
                (f"query_range?query=one&start={at}&end={at}&step=1",
                 '{"resultType":"matrix","result":[{"metric":{"__name__":"one","z":"<&>"},"values":[[%s,"1.5"]]}]}' % at)):
            code, got = self.server.get("/api/v1/" + path)
            self.assertEqual((code, got.decode()), (200, '{"status":"success","data":' + body + "}"))

    def test_errors(self):
        code, body = self.server.get("/api/v1/query", query="sum(")
        answer = json.loads(body)
        self.assertEqual((code, answer["errorType"]), (400, "bad_data"))
        self.assertRegex(answer["error"], r'^invalid parameter "query": 1:\d+: parse error: ')
        code, body = self.server.get("/api/v1/query?query=heavy&timeout=0s")
        self.assertEqual((code, json.loads(body)["errorType"]), (503, "timeout"))

    def test_format_and_parse(self):
        """Both methods, both answers, errors with their position; what they print is tested in query/."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        tree = {"expr": {"type": "numberLiteral", "val": "1", "duration": False}, "op": "-", "type": "unaryExpr"}
        tree = {"type": "parenExpr", "expr": dict(tree["expr"], val="-1")}
        for path, query, want in (("format_query", "sum(a)by(b)<bool 2", "sum by (b) (a) < bool 2"), ("parse_query", "(-1)", tree)):
            for reply in (self.server.get("/api/v1/" + path, query=query),
                          self.server.request("POST", "/api/v1/" + path, urllib.parse.urlencode({"query": query}), form)):
                self.assertEqual((reply[0], json.loads(reply[1])), (200, {"status": "success", "data": want}))
            for wrong, text in (("a +", "1:4: parse error: unexpected end of input"), ("", "1:1: parse error: no expression found in input")):
                code, body = self.server.get("/api/v1/" + path, query=wrong)
                self.assertEqual((code, json.loads(body)), (400, {
                    "status": "error", "errorType": "bad_data", "error": 'invalid parameter "query": ' + text}))
        self.assertIn(b"bool 2", self.server.get("/api/v1/format_query", query="a<bool 2")[1])
        self.assertIn(b"\\u003c", self.server.get("/api/v1/format_query", query="a<bool 2")[1])

    def test_stats(self):
        code, body = self.server.get("/api/v1/query", query="heavy", stats="true", time=self.begin / 1000)
        data = json.loads(body)["data"]
        self.assertEqual((code, list(data)), (200, ["resultType", "result", "stats"]))
        self.assertEqual(data["stats"]["samples"]["totalQueryableSamples"], 2000)
        self.assertIn("execTotalTime", data["stats"]["timings"])

    def test_annotations(self):
        """Warnings and infos stand behind the data, with their position."""
        code, body = self.server.get("/api/v1/query", query="quantile(2,\n  rate(heavy[5m]))", time=self.begin / 1000 + 600)
        answer = json.loads(body)
        self.assertEqual((code, list(answer)), (200, ["status", "data", "warnings", "infos"]))
        self.assertEqual(answer["warnings"], ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"])
        self.assertEqual(answer["infos"], ["PromQL info: metric might not be a counter, name does not end in "
                                           '_total/_sum/_count/_bucket: "heavy" (2:8)'])

    def test_limit(self):
        code, body = self.server.get("/api/v1/query", query="heavy", limit=3, time=self.begin / 1000)
        answer = json.loads(body)
        self.assertEqual((code, len(answer["data"]["result"])), (200, 3))
        self.assertEqual(answer["warnings"], ["results truncated due to limit"])

    def test_timeout(self):
        client = self.start_heavy("&timeout=50ms")
        reply = client.reply()
        self.assertEqual((reply.code, json.loads(reply.body)["errorType"]), (503, "timeout"))

    def test_client_gone(self):
        """The query of a client that hangs up is stopped."""
        self.assertTrue(self.idle())
        begin = time.monotonic()
        self.assertEqual(self.start_heavy().reply().code, 200)
        whole_s = time.monotonic() - begin
        failed = self.metric("tidalite_queries_failed_total")
        client = self.start_heavy()
        self.assertTrue(wait_until(lambda: self.metric("tidalite_queries_active") == 1))
        begin = time.monotonic()
        client.close()
        self.assertTrue(self.idle())
        self.assertLess(time.monotonic() - begin, max(whole_s / 2, 0.5))
        self.assertEqual(self.metric("tidalite_queries_failed_total"), failed + 1)

    def test_queue(self):
        """One runs, two wait, more are refused, and the rest of the server does not notice."""
        self.assertTrue(self.idle())
        first = self.start_heavy()
        self.assertTrue(wait_until(lambda: self.metric("tidalite_queries_active") == 1))
        clients = [self.start_heavy() for _ in range(5)]
        refused = 0
        for client in clients:
            client.socket.settimeout(0.3)
            try:
                reply = client.reply()
            except socket.timeout:
                continue
            self.assertEqual((reply.code, json.loads(reply.body)["errorType"]), (503, "unavailable"))
            self.assertGreater(int(reply.headers["retry-after"]), 0)
            refused += 1
        self.assertGreaterEqual(refused, 1)
        self.assertEqual(self.server.get("/-/healthy")[0], 200)
        self.assertEqual(self.server.write(series("beside_queries"))[0], 204)
        for client in [first, *clients]:
            client.close()
        self.assertTrue(self.idle())


class LimitTest(ServerCase):
    """Limits small enough to be reached."""
    flags = ("--max-connections", "4", "--read-timeout", "1s", "--write-timeout", "1s", "--cors-origin",
             "http://one.example, http://two.example", "--loops", "3")

    def test_connections(self):
        self.assertTrue(wait_until(lambda: self.server.get("/-/healthy")[0] == 200))
        time.sleep(0.2)
        clients = [self.client() for _ in range(4)]
        for client in clients:
            client.send(GET_HEALTHY)
            self.assertEqual(client.reply().code, 200)
        client = self.client()
        reply = client.reply()
        self.assertEqual(reply.code, 503)
        self.assertGreater(int(reply.headers["retry-after"]), 0)
        self.assertTrue(client.ended())
        for one in clients:
            one.close()
        self.assertTrue(wait_until(lambda: self.server.get("/-/healthy")[0] == 200))
        self.assertGreaterEqual(self.metric("tidalite_http_connections_refused_total"), 1)

    def test_slow_request(self):
        for start in (b"GET /-/hea", (WRITE_HEAD + "Content-Length: 100\r\n\r\nabc").encode()):
            client = self.client()
            client.send(start)
            self.assertEqual(client.reply().code, 408)
            self.assertTrue(client.ended())
        # A byte now and then does not help.
        client = self.client()
        begin = time.monotonic()
        with self.assertRaises((EOFError, OSError)):
            client.send(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n")
            client.socket.settimeout(0.1)
            while time.monotonic() < begin + 10:
                client.send(b"X: y\r\n")
                try:
                    while client.fill():
                        pass
                    break
                except socket.timeout:
                    pass
            if b" 408 " in client.data:
                raise EOFError
        self.assertLess(time.monotonic() - begin, 5)

    def test_slow_reader(self):
        """A client that asks and does not read is closed; its answer does not pile up."""
        t = now_ms()
        for begin in range(0, 20000, 2000):
            self.post(body_of([({"__name__": "unread", "id": f"{i}" + "x" * 400}, [(t, 1.0)])
                               for i in range(begin, begin + 2000)]))
        before = self.metric("tidalite_http_timeouts_total")
        client = RawClient(self.server.port)
        self.addCleanup(client.close)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(b"GET /api/v1/series?match[]=unread HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(wait_until(lambda: self.metric("tidalite_http_timeouts_total") > before))
        client.close()

    def test_origin(self):
        for origin, allowed in (("http://one.example", "http://one.example"), ("http://two.example", "http://two.example"),
                                ("http://three.example", None)):
            reply = self.ask(f"GET /api/v1/labels HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n")
            self.assertEqual(reply.headers.get("access-control-allow-origin"), allowed)
            self.assertEqual(reply.headers["vary"], "Origin")


class DelayedNamesTest(ServerCase):
    """--promql-delayed-name-removal: a name is there until the query ends, but not in the answer."""
    flags = ("--promql-delayed-name-removal",)

    def test_names(self):
        at = now_ms()
        self.assertEqual(self.server.write(series("one", 1.5, at))[0], 204)
        for query, metric in (('label_replace(-one, "was", "$1", "__name__", "(.*)")', {"was": "one"}), ("-one", {}),
                              ("sum by (__name__) (-one)", {}), ("one > 1", {"__name__": "one"})):
            code, body = self.server.get("/api/v1/query", query=query, time=at / 1000)
            self.assertEqual((code, [item["metric"] for item in json.loads(body)["data"]["result"]]), (200, [metric]))


class BrokenLogTest(unittest.TestCase):
    """The disk refuses for a while: 503 with Retry-After, reads go on, and it recovers by itself."""

    def broken(self, inject):
        with support.Directory() as directory:
            server = support.Server(
                os.path.join(directory, "data"), "--io", "syscall", env={"ASAN_OPTIONS": "detect_leaks=0"},
                prefix=("strace", "-f", "-qq", "-o", os.path.join(directory, "trace"), "-e", f"trace={inject.split(':')[0]}",
                        "-e", f"inject={inject}"))
            try:
                begin = now_ms() - 600000
                acked, refused, answers = [], 0, []
                deadline = time.monotonic() + 60
                i = 0
                while time.monotonic() < deadline and not (refused and answers[-5:] == [204] * 5):
                    i += 1
                    with RawClient(server.port) as client:
                        body = body_of(series("broken_test", float(i), begin + i))
                        client.send((WRITE_HEAD + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
                        reply = client.reply()
                    answers.append(reply.code)
                    if reply.code == 204:
                        acked.append(float(i))
                        continue
                    self.assertEqual(reply.code, 503, reply)
                    self.assertGreater(int(reply.headers["retry-after"]), 0)
                    self.assertTrue(reply.body.endswith(b"\n"))
                    refused += 1
                    if refused == 1:
                        self.assertEqual(server.get("/api/v1/query", query="broken_test")[0], 200)
                    time.sleep(0.05)
                self.assertGreater(refused, 0, "the fault was met")
                self.assertEqual(answers[-5:], [204] * 5, server.log())
                answer = server.data("/api/v1/query", query="broken_test[600s]", time=f"{(begin + 500000) / 1000:.3f}")
                self.assertEqual({float(v) for _, v in answer["result"][0]["values"]} & set(acked), set(acked))
                self.assertEqual(server.stop(pid=server.child_pid()), 0)
            finally:
                server.close()

    def test_sync_fails(self):
        self.broken("fdatasync:error=EIO:when=12..14")

    def test_disk_full(self):
        self.broken("pwrite64,pwritev:error=ENOSPC:when=200..204")


class CommandLineTest(unittest.TestCase):
    def test_help_and_version(self):
        self.assertRegex(run("--version").stdout, r"^tidalite \d+\.\d+\.\d+\n$")
        for arguments in (("help",), ("--help",), ()):
            result = run(*arguments)
            self.assertEqual(result.returncode, 0)
            self.assertIn("tidalite serve", result.stdout)
        text = run("serve", "--help").stdout
        for words in ("--listen HOST:PORT", "127.0.0.1:9201", "--max-connections N", "(default 512)", "--query-timeout DURATION",
                      "(default 2m)", "--body-bytes-max BYTES", "(default 32MiB)"):
            self.assertIn(words, text)

    def check_refused(self, *arguments, says, **more):
        result = run(*arguments, **more)
        self.assertNotEqual(result.returncode, 0, arguments)
        lines = [line for line in result.stderr.splitlines() if line.startswith("tidalite: ")]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertRegex(lines[0], says)

    def test_mistakes(self):
        self.check_refused("serve", "--nonsense", says=r'unknown flag "--nonsense"; .*--help')
        self.check_refused("server", says=r'unknown command "server"; .*help')
        self.check_refused("serve", "data", says=r'unknown argument "data"')
        self.check_refused("serve", "--listen", says=r"--listen needs a value: --listen HOST:PORT")
        self.check_refused("serve", "--query-timeout=soon", says=r'bad value "soon" for --query-timeout; .*15s')
        self.check_refused("serve", "--max-connections", "0", says=r"bad value")
        self.check_refused("serve", "--io", "tape", says=r"auto\|uring\|syscall")
        for prefix in ("/", "x", "/x/", "/x//y", "/a b", "/%41", "/a?b"):
            self.check_refused("serve", "--path-prefix", prefix, says=r"bad value .* for --path-prefix; it takes a path such as")
        self.check_refused("serve", "--listen", "nowhere", says=r"HOST:PORT")
        self.check_refused("serve", "--listen", "::1:80", says=r"\[::1\]")

    def test_port_in_use(self):
        with support.Directory() as directory, socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.check_refused("serve", "--listen", f"127.0.0.1:{port}", "--data-dir", os.path.join(directory, "d"),
                               says=r"port is in use.*--listen")

    def test_bad_directory(self):
        with support.Directory() as directory:
            path = os.path.join(directory, "file")
            with open(path, "wb"):
                pass
            self.check_refused("serve", "--listen", "127.0.0.1:0", "--data-dir", path, says="file")
            self.check_refused("serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(directory, "a/b/c"), says="a/b/c")

    def test_second_server(self):
        with support.Directory() as directory:
            data = os.path.join(directory, "data")
            server = support.Server(data)
            try:
                self.check_refused("serve", "--listen", "127.0.0.1:0", "--data-dir", data, says=r"data.*(in use|another|locked)")
                self.assertEqual(server.get("/-/healthy")[0], 200)
                self.assertEqual(server.stop(), 0)
            finally:
                server.close()

    def start(self, directory, *flags):
        process = subprocess.Popen([support.BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir",  # pylint: disable=consider-using-with
                                    os.path.join(directory, "data"), *flags], stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        lines = []
        for line in process.stderr:
            lines.append(line)
            match = re.search(r'"?msg"?[=:]"?listening"?.*?address"?[=:]"?127\.0\.0\.1:(\d+)', line)
            if match:
                return process, int(match.group(1)), lines
        self.fail("".join(lines))
        return None

    def test_port_0_and_logs(self):
        with support.Directory() as directory:
            for log_format in ("logfmt", "json"):
                process, port, lines = self.start(directory, "--log-format", log_format, "--io", "syscall")
                with RawClient(port) as client:
                    client.send(GET_HEALTHY)
                    self.assertEqual(client.reply().body, HEALTHY)
                if log_format == "json":
                    events = [json.loads(line) for line in lines]
                    self.assertIn("syscall", [event.get("io") for event in events])
                else:
                    self.assertTrue(any("io=syscall" in line for line in lines), lines)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(timeout=30), 0)

    def test_self_scrape(self):
        with support.Directory() as directory:
            server = support.Server(os.path.join(directory, "data"), "--self-scrape", "200ms")
            try:
                def up():
                    return server.data("/api/v1/query", query='up{job="tidalite"}')["result"]

                self.assertTrue(wait_until(up))
                self.assertEqual((up()[0]["metric"]["instance"], up()[0]["value"][1]), (f"127.0.0.1:{server.port}", "1"))
                for query in ("scrape_duration_seconds", "scrape_samples_scraped > 50", "scrape_series_added",
                              "scrape_samples_post_metric_relabeling == scrape_samples_scraped", "tidalite_wal_groups_total",
                              "process_resident_memory_bytes", 'tidalite_query_duration_seconds_bucket{le="+Inf"}'):
                    self.assertEqual(len(server.data("/api/v1/query", query=query)["result"]), 1, query)
                self.assertTrue(wait_until(lambda: server.data(
                    "/api/v1/query", query='count_over_time(up{job="tidalite"}[1m]) > 4')["result"]))
                self.assertEqual(server.stop(), 0)
            finally:
                server.close()

    def test_stop_finishes_requests(self):
        """A request that is half there when the signal comes is still answered; an idle connection is just closed."""
        with support.Directory() as directory:
            process, port, _ = self.start(directory, "--loops", "2")
            body = body_of(series("half"))
            with RawClient(port) as half, RawClient(port) as idle:
                half.send((WRITE_HEAD + f"Content-Length: {len(body)}\r\n\r\n").encode() + body[:10])
                idle.send(GET_HEALTHY)
                self.assertEqual(idle.reply().code, 200)
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                self.assertTrue(idle.ended())
                with self.assertRaises(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                half.send(body[10:])
                reply = half.reply()
                self.assertIn(reply.code, (204, 503))
                self.assertEqual(reply.headers["connection"], "close")
                self.assertEqual(process.wait(timeout=30), 0)


if __name__ == "__main__":
    unittest.main()
