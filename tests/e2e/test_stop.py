"""Orderly stop: SIGTERM and SIGINT end the server with 0, writes in flight are finished or not answered, nothing
acknowledged is missing afterwards, and (in sanitizer builds) nothing has leaked."""
import os
import signal
import threading
import time
import unittest

import support

TROUBLE = ("LeakSanitizer", "AddressSanitizer", "ThreadSanitizer", "runtime error:")


class StopTest(unittest.TestCase):
    def stop_under_load(self, number):
        with support.Directory() as directory:
            data = os.path.join(directory, "data")
            server = support.Server(data, "--self-scrape", "1s")
            acked = [[] for _ in range(4)]
            begin = int(time.time() * 1000) - 600000
            stopping = threading.Event()
            unexpected = []

            def write(n):
                writer = support.Writer(server.port)
                try:
                    i = 0
                    while True:
                        i += 1
                        writer.send(support.snappy(support.write_request([({"__name__": "stop_test", "n": str(n)},
                                                                           [(begin + i, float(i))])])))
                        status = writer.status()
                        if status == 204:
                            acked[n].append(i)
                        elif status in (0, 503) and stopping.is_set():
                            return
                        else:
                            unexpected.append(status)
                            return
                except OSError as error:
                    if not stopping.is_set():
                        unexpected.append(error)
                finally:
                    writer.close()

            try:
                threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
                for thread in threads:
                    thread.start()
                for _ in range(5):
                    server.data("/api/v1/query", query='sum by (n) (rate(stop_test[5m]))')
                    server.data("/api/v1/query_range", query='max_over_time({__name__=~".+"}[1m])', start=begin / 1000,
                                end=begin / 1000 + 60, step=1)
                    server.data("/api/v1/labels")
                    server.get("/metrics")
                    server.get("/api/v1/query", query="sum(")
                    server.request("POST", "/api/v1/write", b"not snappy", support.WRITE_HEADERS)
                    time.sleep(0.3)
                stopping.set()
                code = server.stop(number)
                for thread in threads:
                    thread.join()
                log = server.log()
                self.assertEqual(code, 0, log[-4000:])
                for word in TROUBLE:
                    self.assertNotIn(word, log)
                self.assertEqual(unexpected, [])
                self.assertGreater(min(len(a) for a in acked), 0)

                server = support.Server(data)
                for n, numbers in enumerate(acked):
                    end = begin + 600000
                    answer = server.data("/api/v1/query", query=f'stop_test{{n="{n}"}}[600s]', time=f"{end / 1000:.3f}")
                    have = {float(v) for _, v in answer["result"][0]["values"]}
                    self.assertLessEqual({float(i) for i in numbers}, have)
                self.assertEqual(server.stop(), 0)
            finally:
                stopping.set()
                server.close()

    def test_sigterm(self):
        self.stop_under_load(signal.SIGTERM)

    def test_sigint(self):
        self.stop_under_load(signal.SIGINT)


if __name__ == "__main__":
    unittest.main()
