"""server/openapi.yaml is true: it has every route with its methods, every parameter that the sources read, and a running
server answers every operation as it says."""
import glob
import json
import os
import re
import unittest
import urllib.parse

import yaml

import support
from server_case import ServerCase, body_of, now_ms, series

SERVER = os.path.join(support.ROOT, "server")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
METHODS = ("get", "post", "put")


def document_read():
    with open(os.path.join(SERVER, "openapi.yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)


class Document:
    def __init__(self):
        self.root = document_read()

    def resolve(self, node):
        while "$ref" in node:
            target = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def operations(self):
        for path, item in self.root["paths"].items():
            for method, operation in item.items():
                yield path, method, operation

    def parameters(self, operation):
        """In the URL; a form's have the same names as those of GET."""
        return [self.resolve(parameter) for parameter in operation.get("parameters", [])]

    def form(self, operation):
        content = self.resolve(operation.get("requestBody", {})).get("content", {})
        return content.get("application/x-www-form-urlencoded", {}).get("schema")

    def check(self, value, schema, where):
        """A ValueError unless the value is as the schema says; of JSON Schema what the document uses."""
        schema = self.resolve(schema)
        known = {"type", "const", "enum", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems",
                 "maxItems", "minimum", "maximum", "pattern", "description", "examples", "format", "default", "allOf"}
        if set(schema) - known:
            raise ValueError(f"{where}: the test does not know {set(schema) - known}")

        def demand(condition, what):
            if not condition:
                raise ValueError(f"{where}: {what}: {value!r}")

        kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
        if "type" in schema:
            demand(isinstance(value, kinds[schema["type"]]) and not (schema["type"] in ("integer", "number") and isinstance(value, bool)),
                   f"no {schema['type']}")
        demand("const" not in schema or value == schema["const"], f"not {schema.get('const')}")
        demand("enum" not in schema or value in schema["enum"], f"none of {schema.get('enum')}")
        demand("pattern" not in schema or re.search(schema["pattern"], value), "not of the pattern")
        if isinstance(value, dict):
            demand(set(schema.get("required", ())) <= set(value), "something is missing")
            more = schema.get("additionalProperties", True)
            for key, member in value.items():
                if key in schema.get("properties", {}):
                    self.check(member, schema["properties"][key], f"{where}.{key}")
                elif more is not True:
                    demand(more is not False, f"{key} is not documented")
                    self.check(member, more, f"{where}.{key}")
        if isinstance(value, list):
            demand(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), "too few or too many")
            for i, member in enumerate(value):
                kind = schema["prefixItems"][i] if i < len(schema.get("prefixItems", ())) else schema.get("items")
                if kind is not None:
                    self.check(member, kind, f"{where}[{i}]")


class TableTest(unittest.TestCase):
    """Without a server."""
    document = Document()

    def test_routes(self):
        with open(os.path.join(SERVER, "routes.def"), encoding="utf-8") as f:
            rows = re.findall(r'^ROUTE\("([^"]+)", ([A-Z_ |]+),', f.read(), re.M)
        routes = {(path.replace("*", "{name}"), method.removeprefix("METHOD_").lower())
                  for path, methods in rows for method in methods.split(" | ")}
        self.assertGreater(len(routes), 40)
        self.assertEqual({(path, method) for path, method, _ in self.document.operations()}, routes)

    def test_operations(self):
        ids = [operation["operationId"] for _, _, operation in self.document.operations()]
        self.assertEqual(len(ids), len(set(ids)))
        tags = {tag["name"] for tag in self.document.root["tags"]}
        for path, method, operation in self.document.operations():
            self.assertLessEqual(set(operation["tags"]), tags)
            other = self.document.root["paths"][path].get("get")
            form = self.document.form(operation)
            if method == "post" and other is not None:
                names = {parameter["name"]: parameter.get("required", False) for parameter in self.document.parameters(other)}
                self.assertEqual({name: name in (form or {}).get("required", ()) for name in (form or {}).get("properties", ())}, names, path)

    def test_parameters(self):
        """What the sources read and what is documented are the same names."""
        read = set()
        for source in glob.glob(os.path.join(SERVER, "api*.c")):
            with open(source, encoding="utf-8") as f:
                text = f.read()
            read |= set(re.findall(r'params_get\(&?params, "([^"]+)"\)', text))
            read |= set(re.findall(r'(?:api_time|duration_param|timestamp_param)\(exchange, &?params, "([^"]+)"', text))
        read |= {"match[]"}
        documented, filters = set(), set()
        for _, _, operation in self.document.operations():
            documented |= set((self.document.form(operation) or {}).get("properties", ()))
            for parameter in self.document.parameters(operation):
                (filters if parameter.get("x-nothing-to-filter") else documented).add(parameter["name"])
        documented.discard("name")  # in the path
        self.assertEqual(documented, read)
        self.assertFalse(filters & read - {"scrapePool"})

    def test_components_are_used(self):
        text = json.dumps(self.document.root)
        for kind, components in self.document.root["components"].items():
            for name in components:
                self.assertIn(f'"#/components/{kind}/{name}"', text)


class AnswerTest(ServerCase):
    """Every operation, asked as documented, and once more for every value that is to be refused."""
    flags = ("--enable-admin-api", "--enable-lifecycle", "--slow-query", "1ms")
    document = Document()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        at = now_ms()
        rows = [({"__name__": "up", "job": f"j{i}"}, [(at - 60000 + t * 15000, 1.0) for t in range(4)]) for i in range(30)]
        if cls.server.write(rows)[0] != 204:
            raise AssertionError("the samples were not taken")
        cls.server.get("/api/v1/query_range", query="count(rate(up[1m]))", start=at / 1000 - 10000, end=at / 1000, step=1)

    def request(self, path, method, values):
        """Parameters in the URL for GET, in a form for the others."""
        values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
        path = path.replace("{name}", urllib.parse.quote(values.pop("name", ""), safe=""))
        text = urllib.parse.urlencode(values, doseq=True)
        if method == "get":
            return support.request(self.server.port, "GET", path + ("?" + text if text else ""))
        return support.request(self.server.port, method.upper(), path, text, FORM)

    def check_answer(self, operation, answer, where):
        code, headers, body = answer
        self.assertIn(str(code), operation["responses"], (where, body))
        response = self.document.resolve(operation["responses"][str(code)])
        content = response.get("content")
        if content is None:
            self.assertEqual(body, b"", where)
            return None
        self.assertEqual(list(content), [headers["Content-Type"].partition(";")[0]], where)
        if "application/json" not in content:
            return body
        value = json.loads(body)
        self.document.check(value, content["application/json"]["schema"], where)
        return value

    def described(self, operation):
        """Parameters of the operation, a form's ones included, by name: (description, required)."""
        out = {parameter["name"]: (parameter, parameter.get("required", False)) for parameter in self.document.parameters(operation)}
        form = self.document.form(operation)
        if form is None:
            return out
        for name, schema in form["properties"].items():
            spec = {"example": schema["examples"][0], **{key: schema[key] for key in ("x-refused",) if key in schema}}
            out[name] = (spec, name in form.get("required", ()))
        return out

    def check_operation(self, path, method, operation):
        specs = self.described(operation)
        examples = {name: spec["example"] for name, (spec, _) in specs.items() if "example" in spec}
        expected = next(iter(operation["responses"]))
        if operation["operationId"].startswith("cancelQuery"):
            expected = "404"  # nothing runs
        for values in (examples, {name: examples[name] for name, (_, required) in specs.items() if required}):
            answer = self.request(path, method, values)
            self.check_answer(operation, answer, (method, path))
            self.assertEqual(str(answer[0]), expected, (method, path, values, answer[2]))
        for name, (spec, required) in specs.items():
            refused = []
            if "x-refused" in spec:
                refused.append({**examples, name: spec["x-refused"]})
            if required and name != "name":
                refused.append({key: value for key, value in examples.items() if key != name})
            for values in refused:
                answer = self.request(path, method, values)
                self.check_answer(operation, answer, (method, path, values))
                self.assertEqual(answer[0], 400, (method, path, values, answer[2]))

    def test_operations(self):
        skipped = ("/api/v1/write", "/-/quit")
        later = []
        for path, method, operation in self.document.operations():
            if path not in skipped:
                (later if "admin" in path else [None]).append((path, method, operation))
                if "admin" not in path:
                    with self.subTest(path=path, method=method):
                        self.check_operation(path, method, operation)
        for path, method, operation in later:
            with self.subTest(path=path, method=method):
                self.check_operation(path, method, operation)

    def test_not_empty(self):
        """Where the schema's inside would not be looked at if there were no rows."""
        for path, count in (("/api/v1/status/slow_queries", 1), ("/api/v1/status/limits", 40), ("/api/v1/status/self_metrics", 60)):
            self.assertGreaterEqual(len(self.server.data(path)), count)

    def test_stats(self):
        self.assertIn("stats", self.server.data("/api/v1/query", query="1", stats="all"))

    def test_write(self):
        operation = self.document.root["paths"]["/api/v1/write"]["post"]
        for body, headers, code in ((body_of(series("one")), support.WRITE_HEADERS, 204), (b"x", support.WRITE_HEADERS, 400),
                                    (b"x", {"Content-Type": "text/html"}, 415)):
            answer = support.request(self.server.port, "POST", "/api/v1/write", body, headers)
            self.assertEqual(answer[0], code)
            self.check_answer(operation, answer, code)

    def test_disabled(self):
        with support.Directory() as directory:
            server = support.Server(os.path.join(directory, "data"))
            try:
                for path, method, operation in self.document.operations():
                    if operation["tags"] == ["admin"]:
                        answer = support.request(server.port, method.upper(), path)
                        self.assertIn(answer[0], (403, 500), path)
                        self.check_answer(operation, answer, path)
            finally:
                server.close()

    def test_served(self):
        code, headers, body = support.request(self.server.port, "GET", "/api/v1/openapi.yaml")
        with open(os.path.join(SERVER, "openapi.yaml"), "rb") as f:
            self.assertEqual((code, headers["Content-Type"], body), (200, "application/yaml; charset=utf-8", f.read()))
        self.assertEqual(self.document.root["info"]["version"],
                         self.server.data("/api/v1/status/runtimeinfo")["tidaliteVersion"])


if __name__ == "__main__":
    unittest.main()
