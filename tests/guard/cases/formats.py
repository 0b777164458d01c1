"""Text and data formats of the standard library: json, regex, zlib, pickle, sqlite, csv, files, XML."""

from __future__ import annotations

from tests.guard.case import Case

CASES = (
    Case(
        "json.loads of a long list",
        """
import json
text = "[" + "[]," * (LIMIT // 30) + "[]]"
rows = json.loads(text)
""",
    ),
    Case(
        "json.loads of objects",
        """import json\ntext = "[" + '{"a":1.5},' * (LIMIT // 100) + "1]"\nrows = json.loads(text)""",
    ),
    Case(
        "json.dumps of a long list",
        'import json\nrows = [["text " * 6] * 100] * (int(1.5 * LIMIT) // 3400)\ntext = json.dumps(rows)',
    ),
    Case("regex findall", 'import re\nfound = re.findall("..", "ab" * (LIMIT // 30))'),
    Case("regex sub that expands", 'import re\ntext = re.sub("x", "y" * 100, "x" * (LIMIT // 60))'),
    Case("split of a long text", 'parts = ("word " * (LIMIT // 40)).split()'),
    Case(
        "zlib bomb",
        """
import zlib
pack, parts, block = zlib.compressobj(1), [], bytes(MIB)
for _ in range(int(1.5 * LIMIT) // MIB):
    parts.append(pack.compress(block))
parts.append(pack.flush())
text = zlib.decompress(b"".join(parts))
""",
    ),
    Case(
        "pickle.dumps of large values",
        """
import pickle
data = bytearray(b'\\1') * (LIMIT // 5)
copies = [pickle.dumps(data) for _ in range(12)]
""",
    ),
    Case(
        "pickle.loads of many objects",
        """
import pickle
text = pickle.dumps([[i, i + 1.5] for i in range(LIMIT // 5000)])
rows = []
for _ in range(60):
    rows.append(pickle.loads(text))
""",
    ),
    Case(
        "sqlite in memory",
        """
import sqlite3
base = sqlite3.connect(":memory:")
base.execute("create table t(x)")
while True:
    base.execute("insert into t values (randomblob(1000000))")
""",
        errors=frozenset({"OperationalError"}),
    ),
    Case(
        "sqlite fetchall without end",
        """
import sqlite3
base = sqlite3.connect(":memory:")
rows = base.execute(
    "with recursive n(i) as (select 1 union all select i + 1 from n) select i, hex(randomblob(300)) from n"
).fetchall()
""",
        errors=frozenset({"OperationalError"}),
    ),
    Case(
        "csv rows into a list",
        """
import csv
block = "".join(f"{j},{j / 7:.9f},some text of it\\n" for j in range(10_000))
with open("rows.csv", "w") as file:
    for _ in range(LIMIT // 5 // len(block)):
        file.write(block)
with open("rows.csv") as file:
    rows = list(csv.reader(file))
""",
    ),
    Case("a large file read at once", 'data = open(sparse("big", int(1.5 * LIMIT)), "rb").read()'),
    Case(
        "readlines of a large file",
        """
with open("lines", "w") as file:
    for _ in range(LIMIT // 8 // 800_000):
        file.write("a line\\n" * 114_000)
lines = open("lines").readlines()
more = [line.upper() for line in lines * 3]
""",
    ),
    Case(
        "XML into a tree",
        """
import xml.etree.ElementTree as tree
parser = tree.XMLPullParser()
parser.feed("<rows>")
while True:
    parser.feed("<row a='1'><cell>some text</cell></row>" * 1000)
""",
    ),
    Case(
        "base64 of large data",
        """
import base64
data = bytes(LIMIT // 3)
text = base64.b64encode(data).decode()
""",
    ),
    Case(
        "lines of a subprocess without end",
        'import subprocess\nout = subprocess.run("yes some text", shell=True, capture_output=True)',
    ),
)
