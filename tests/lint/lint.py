#!/usr/bin/env python3
"""The tree checks itself: include arrows, libraries in one place, banned calls, leftovers, format, documents.

    lint.py [--root DIR]      checks the tree; prints path:line: rule: what; exit 1 if anything was found
    lint.py --self-test       shows that every rule finds a planted fault and passes clean text
    lint.py --print-limits    prints the table of docs/limits.md from base/limits.def
"""
import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PRODUCT = ("base", "proto", "storage", "query", "client", "server")
CODE = (".c", ".h", ".cc", ".def")

# Call -> what to use instead. The heap is base/alloc.c's alone; tests may use it.
BANNED_EVERYWHERE = {
    "strcpy": "buf.h or arena.h", "strcat": "buf.h", "sprintf": "snprintf or buf_printf",
    "vsprintf": "vsnprintf", "strtok": "slices", "gets": "fgets", "gmtime": "gmtime_r",
    "localtime": "localtime_r", "rand": "rand.h", "srand": "rand.h", "atoi": "strtol with checks",
    "atol": "strtol with checks", "atof": "strtod with checks", "alloca": "arena.h",
}
BANNED_IN_PRODUCT = {
    "malloc": "mem_alloc", "calloc": "mem_zalloc", "realloc": "mem_realloc", "free": "mem_free",
    "strdup": "mem_strndup", "strndup": "mem_strndup", "assert": "ASSERT", "asprintf": "buf_printf",
}
HEAP_OWNERS = ("base/alloc.c", "storage/io/sim_disk.c", "storage/io/io_sim.c")  # a simulated disk is no memory of the program
TESTS_MAY = ("strcpy", "strcat", "atoi", "rand", "srand")

# Spelled in pieces, so that this file does not find itself.
LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(" + "|".join(["wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers"]) + r")/\w")


class Tree:
    """The files of a checkout: path -> text."""

    def __init__(self, root):
        self.root = root
        self.paths = sorted(self._list())
        self._texts = {}

    def _list(self):
        try:
            out = subprocess.run(["git", "-C", self.root, "ls-files", "-co", "--exclude-standard"],
                                 check=True, capture_output=True, text=True).stdout
            names = out.splitlines()
        except (OSError, subprocess.CalledProcessError):
            names = []
            for folder, folders, files in os.walk(self.root):
                folders[:] = [f for f in folders if f not in ("build", "data", ".git", "__pycache__")]
                names += [os.path.relpath(os.path.join(folder, f), self.root) for f in files]
        return {n for n in names if os.path.isfile(os.path.join(self.root, n))}

    def text(self, path):
        if path not in self._texts:
            with open(os.path.join(self.root, path), "rb") as f:
                data = f.read()
            self._texts[path] = None if b"\0" in data else data.decode("utf-8", "replace")
        return self._texts[path]

    def code(self, folders):
        return [p for p in self.paths if p.endswith(CODE) and p.split("/")[0] in folders]


def read_rules(name):
    rules = {}
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        for line in f:
            line = line.split("#")[0].strip()
            if line:
                key, _, rest = line.partition(":")
                rules[key.strip()] = rest.split()
    return rules


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(text):
    """Comments and the insides of strings blanked; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(blank, text)


def lines_of(text):
    return enumerate(text.split("\n"), 1)


def rule_arrows(tree):
    layers = read_rules("layers.txt")
    for path in tree.code(PRODUCT):
        folder = os.path.dirname(path)
        if folder not in layers:
            yield path, 1, f'folder "{folder}" is not in tests/lint/layers.txt'
            continue
        for number, line in lines_of(tree.text(path)):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match:
                continue
            target = match.group(1)
            if "/" not in target:
                if not target.endswith((".pb-c.h",)) and f"{folder}/{target}" in tree.paths:
                    yield path, number, f'"{target}": write "{folder}/{target}"'
                continue
            to = os.path.dirname(target)
            if to != folder and to not in layers[folder] and target not in layers[folder]:
                yield path, number, f'{folder} may not include "{target}" (tests/lint/layers.txt)'


def rule_libraries(tree):
    libraries = read_rules("libraries.txt")
    for path in tree.code(PRODUCT):
        folder = os.path.dirname(path)
        for number, line in lines_of(tree.text(path)):
            match = re.match(r"\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", line)
            if not match:
                continue
            for pattern, homes in libraries.items():
                if fnmatch.fnmatchcase(match.group(1), pattern) and folder not in homes:
                    yield path, number, f'{match.group(1)} belongs in {" or ".join(homes)} only'


def rule_banned(tree):
    for path in tree.code(PRODUCT + ("bench", "tests")):
        product = path.split("/")[0] in PRODUCT + ("bench",)
        banned = dict(BANNED_EVERYWHERE)
        if product and path not in HEAP_OWNERS:
            banned.update(BANNED_IN_PRODUCT)
        if not product:
            banned = {call: use for call, use in banned.items() if call not in TESTS_MAY}
        pattern = re.compile(r"(?<![\w.>])(" + "|".join(banned) + r")\s*\(")
        for number, line in lines_of(without_comments(tree.text(path))):
            for match in pattern.finditer(line):
                yield path, number, f"{match.group(1)}(): use {banned[match.group(1)]}"
            if product and re.match(r"\s*#\s*include\s*<(assert\.h|cassert)>", line):
                yield path, number, "<assert.h>: use base/assert.h"


def rule_leftovers(tree):
    for path in tree.paths:
        text = tree.text(path)
        if text is None or path == "LICENSE":
            continue
        for number, line in lines_of(text):
            match = LEFTOVERS.search(line)
            if match:
                yield path, number, f"{match.group(1)} left in the text"


def rule_paths(tree):
    for path in tree.paths:
        text = tree.text(path)
        if text is None or path == "LICENSE":
            continue
        for number, line in lines_of(text):
            match = MACHINE_PATH.search(line)
            if match:
                yield path, number, f"a path of one machine: {match.group(0)}…"


def clang_format():
    for name in ("clang-format-14", "clang-format"):
        if shutil.which(name):
            version = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            if re.search(r"version 14\.", version):
                return name
    return None


def rule_format(tree):
    program = clang_format()
    if program is None:
        print("lint: format not checked: needs clang-format 14 (versions format differently)")
        return
    paths = [p for p in tree.code(PRODUCT + ("bench", "tests")) if not p.endswith(".def")]
    for i in range(0, len(paths), 40):
        run = subprocess.run([program, "--dry-run", "-Werror", *paths[i:i + 40]], cwd=tree.root,
                             capture_output=True, text=True)
        seen = set()
        for match in re.finditer(r"^([^:\n]+):(\d+):\d+: error: ", run.stderr, re.M):
            if match.group(1) not in seen:
                seen.add(match.group(1))
                yield match.group(1), int(match.group(2)), "clang-format would change this"


def human(value, unit):
    if unit == "bytes":
        for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value // size} {name}"
    if unit == "ms":
        for name, size in (("h", 3600000), ("min", 60000), ("s", 1000)):
            if value >= size and value % size == 0:
                return f"{value // size} {name}"
    return f"{value:,} {unit}"


def limit_rows(text):
    """The table rows that base/limits.def stands for."""
    rows = []
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for match in re.finditer(r'^LIMIT(?:_OR_NONE)?\(\s*(\w+),\s*([^,]+),\s*"([^"]*)",\s*"([^"]*)",\s*"([^"]*)"\)', text, re.M):
        name, value, unit, flag, answer = match.groups()
        number = eval(re.sub(r"(\d)[uUlL]+", r"\1", value), {"__builtins__": {}})  # pylint: disable=eval-used
        flag = f"`{flag}`" if flag else "–"
        rows.append(f"| `{name}` | {human(number, unit)} | {flag} | {answer or '–'} |")
    return rows


def rule_limits(tree):
    if "base/limits.def" not in tree.paths:
        return
    want = limit_rows(tree.text("base/limits.def"))
    have = []
    if "docs/limits.md" in tree.paths:
        have = [line for line in tree.text("docs/limits.md").split("\n") if re.match(r"\| `\w+` \|", line)]
    if not want:
        yield "base/limits.def", 1, "no LIMIT(...) row found"
    for row in want:
        if row not in have:
            yield "docs/limits.md", 1, f"missing: {row}"
    for row in have:
        if row not in want:
            yield "docs/limits.md", 1, f"not in base/limits.def: {row}"


def slug(heading):
    heading = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def rule_links(tree):
    for path in tree.paths:
        if not path.endswith(".md"):
            continue
        text = re.sub(r"```.*?```", blank, tree.text(path), flags=re.S)
        for number, line in lines_of(text):
            for match in re.finditer(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                target, _, anchor = match.group(1).partition("#")
                if re.match(r"[a-z]+:", target):
                    continue
                full = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
                if not os.path.exists(os.path.join(tree.root, full)):
                    yield path, number, f"link to {match.group(1)}: no such file"
                elif anchor and full.endswith(".md"):
                    with open(os.path.join(tree.root, full), encoding="utf-8") as f:
                        headings = {slug(h) for h in re.findall(r"^#+ (.*)$", f.read(), re.M)}
                    if anchor not in headings:
                        yield path, number, f"link to {match.group(1)}: no such heading"


def rule_durability(tree):
    """Each numbered rule of docs/durability.md names a test that exists."""
    path = "docs/durability.md"
    if path not in tree.paths:
        return
    sources = "\n".join(tree.text(p) or "" for p in tree.paths if p.startswith("tests/") and p.endswith((".c", ".py")))
    rules = re.split(r"^(?=\*\*D\d+\.)", tree.text(path), flags=re.M)[1:]
    if not rules:
        yield path, 1, "no rule (**D1.** …) found"
    for rule in rules:
        name = re.match(r"\*\*(D\d+)\.", rule).group(1)
        number = tree.text(path)[:tree.text(path).index(rule)].count("\n") + 1
        match = re.search(r"\*Tests?: (.*?)\*", rule, re.S)
        if not match:
            yield path, number, f"{name} names no test"
            continue
        for test in re.findall(r"`([^`]+)`", match.group(1)):
            known = test in tree.paths if "/" in test else re.search(r"\b" + re.escape(test) + r"\b", sources)
            if not known:
                yield path, number, f"{name} names {test}, which does not exist"


RULES = {
    "arrows": rule_arrows, "libraries": rule_libraries, "banned": rule_banned, "leftovers": rule_leftovers,
    "paths": rule_paths, "format": rule_format, "limits": rule_limits, "links": rule_links,
    "durability": rule_durability,
}

# rule -> (clean files, files with one fault each).
LIMIT_DEF = '/* LIMIT(x) */\nLIMIT(body_bytes_max, 32u << 20, "bytes", "--body", "413")\n'
LIMIT_ROW = "| `body_bytes_max` | 32 MiB | `--body` | 413 |\n"
PLANTED = {
    "arrows": ({"query/a.c": '#include "storage/storage.h"\n', "storage/head/a.c": '#include "storage/chunk/chunk.h"\n'},
               [{"base/a.c": '#include "storage/storage.h"\n'}, {"storage/chunk/a.c": '#include "storage/wal/wal.h"\n'},
                {"query/a.c": '#include "storage/head/head.h"\n'}, {"proto/a.c": '#include "storage/storage.h"\n'},
                {"other/../storage/new/a.c": "\n"}]),
    "libraries": ({"server/a.c": "#include <uv.h>\n", "query/re.cc": "#include <re2/re2.h>\n"},
                  [{"storage/a.c": "#include <uv.h>\n"}, {"server/a.c": "#include <liburing.h>\n"},
                   {"server/a.c": "#include <snappy-c.h>\n"}, {"base/a.cc": "#include <re2/re2.h>\n"}]),
    "banned": ({"base/a.c": '/* free(x) */ int x = mem_free(p); y->free(z); puts("malloc(1)");\n',
                "base/alloc.c": "p = malloc(3);\n", "tests/unit/t.c": "p = malloc(3);\n"},
               [{"query/a.c": f"x = {call}(y);\n"} for call in {**BANNED_EVERYWHERE, **BANNED_IN_PRODUCT}]
               + [{"tests/a.c": "sprintf(a, b);\n"}, {"base/a.c": "#include <assert.h>\n"}]),
    "leftovers": ({"a.md": "a methodology\n"}, [{"a.md": "TO" + "DO later\n"}, {"b.c": "// FIX" + "ME\n"}]),
    "paths": ({"a.sh": "cd $root/wo" + "rk/x; ls ../ho" + "me/y\n"},
              [{"a.sh": "cd /wo" + "rk/main\n"}, {"a.md": "see /ho" + "me/me/x\n"}]),
    "format": ({"base/a.c": "int x;\n"}, [{"base/a.c": "int   x;\n"}]),
    "limits": ({"base/limits.def": LIMIT_DEF, "docs/limits.md": LIMIT_ROW},
               [{"base/limits.def": LIMIT_DEF, "docs/limits.md": "\n"},
                {"base/limits.def": LIMIT_DEF, "docs/limits.md": LIMIT_ROW.replace("32 MiB", "64 MiB")},
                {"base/limits.def": LIMIT_DEF, "docs/limits.md": LIMIT_ROW + "| `other` | 1 x | – | – |\n"}]),
    "links": ({"docs/a.md": "[b](b.md#a-b) [c](https://example.org/x)\n", "docs/b.md": "# A b\n"},
              [{"docs/a.md": "[b](missing.md)\n"}, {"docs/a.md": "[b](#missing)\n"}]),
    "durability": ({"docs/durability.md": "**D1.** Rule. *Test: `test_x`, `tests/a.py`*\n", "tests/a.py": "def test_x\n"},
                   [{"docs/durability.md": "**D1.** Rule.\n"}, {"docs/durability.md": "no rules\n"},
                    {"docs/durability.md": "**D1.** Rule. *Test: `test_gone`*\n"}]),
}


def self_test():
    failures = 0
    cases = 0

    def findings(rule, files):
        with tempfile.TemporaryDirectory() as root:
            shutil.copy(os.path.join(HERE, "../../.clang-format"), root)
            for path, text in files.items():
                full = os.path.normpath(os.path.join(root, path))
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", encoding="utf-8") as f:
                    f.write(text)
            return list(RULES[rule](Tree(root)))

    for rule in RULES:
        clean, faults = PLANTED[rule]
        found = findings(rule, clean)
        cases += 1
        if found:
            failures += 1
            print(f"self-test: {rule}: clean text refused: {found}")
        if rule == "format" and clang_format() is None:
            continue
        for files in faults:
            cases += 1
            if not findings(rule, files):
                failures += 1
                print(f"self-test: {rule}: not found: {files}")
    print(f"lint: self-test: {cases} cases, {failures} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.path.normpath(os.path.join(HERE, "../..")))
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--print-limits", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    tree = Tree(args.root)
    if args.print_limits:
        print("\n".join(limit_rows(tree.text("base/limits.def"))))
        return 0
    count = 0
    for name, rule in RULES.items():
        for path, line, what in rule(tree):
            print(f"{path}:{line}: {name}: {what}")
            count += 1
    print(f"lint: {len(tree.paths)} files, {len(RULES)} rules, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
