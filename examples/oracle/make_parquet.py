"""Makes client/vectors/parquet/: small Parquet files as pyarrow writes them, each with the same records as JSON Lines.

Made with Python 3.11, pyarrow as printed. Run from the repository's top:

    python examples/oracle/make_parquet.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path("client/vectors/parquet")

QUESTIONS = ["What is a buffer overflow?", "Name a weakness.", "Ünïcode 漢字 \U0001f600?", "Why?", "How long is a lock held?"]
ANSWERS = ["A write past the end.", "CWE-79.", "Yes.\nOn two lines.", "Because.", "As short as can be."]
SITES = ["hospital", "bank", "hospital", "hospital", "bank"]

ALPACA = [
    {"instruction": q, "input": i, "output": a, "site": s}
    for q, i, a, s in zip(QUESTIONS, ["", None, "An input.", None, ""], ANSWERS, SITES)
]
DOLLY = [
    {"instruction": q, "context": c, "response": a, "category": "closed_qa"}
    for q, c, a in zip(QUESTIONS, ["A context.", "", None, None, "x"], ANSWERS)
]
CHAT = [
    {
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
        "site": s,
    }
    for q, a, s in zip(QUESTIONS, ANSWERS, SITES)
]
CHAT[1]["messages"].insert(0, {"role": "system", "content": "Be brief."})
CHAT[2]["messages"] += [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "No more."}]
TEXT = [{"text": q + " " + a} for q, a in zip(QUESTIONS, ANSWERS)]

STRUCT = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string()), ("weight", pa.int32())]))


def table(records, **types):
    """A table of text columns, others as given, and one of numbers that nothing reads."""
    columns = {name: [record.get(name) for record in records] for name in records[0]}
    arrays = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    arrays["number"] = pa.array(range(len(records)), pa.int64())
    arrays["numbers"] = pa.array([[1, 2], [], None, [3], [4]][: len(records)], pa.list_(pa.int64()))
    return pa.table(arrays)


def write(name, made, **options):
    pq.write_table(made, OUT / f"{name}.parquet", **options)


def lines(name, records):
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (OUT / f"{name}.jsonl").write_text(text, encoding="utf-8")


OUT.mkdir(parents=True, exist_ok=True)
for name, records in [("alpaca", ALPACA), ("dolly", DOLLY), ("chat", CHAT), ("text", TEXT)]:
    lines(name, records)

write("alpaca-snappy", table(ALPACA), compression="snappy")
write("alpaca-dictionary", table(ALPACA, site=pa.dictionary(pa.int32(), pa.string())), compression="none")
write("dolly-zstd", table(DOLLY), compression="zstd", row_group_size=2)
write("chat-gzip", table(CHAT, messages=STRUCT), compression="gzip", row_group_size=3)
write("chat-v2", table(CHAT, messages=STRUCT), compression="lz4", data_page_version="2.0")
write("chat-old-lists", table(CHAT, messages=STRUCT), compression="none", use_compliant_nested_type=False)
write("text-lz4", table(TEXT), compression="lz4")
write("text-large", table(TEXT, text=pa.large_string()), compression="none", use_dictionary=False)
write(
    "text-delta",
    table(TEXT),
    compression="none",
    use_dictionary=False,
    column_encoding={"text": "DELTA_BYTE_ARRAY"},
)

# One page of 300 rows and pages of a few: batches and pages end at different rows.
MANY = [{"text": f"record {i}"} for i in range(300)]
many = pa.table({"text": [record["text"] for record in MANY]})
write("many", many, compression="zstd", row_group_size=170, data_page_size=64, write_batch_size=7)
lines("many", MANY)

# Rows that cannot be used: 2 to 8 of 9.
BAD = [
    [{"role": "user", "content": "SECRET"}, {"role": "assistant", "content": "SECRET"}],
    None,
    [],
    [{"role": "user", "content": "SECRET"}],
    [{"role": "SECRET", "content": "SECRET"}, {"role": "assistant", "content": "SECRET"}],
    [{"role": "user", "content": None}, {"role": "assistant", "content": "SECRET"}],
    [None, {"role": "assistant", "content": "SECRET"}],
    [{"role": "user", "content": " "}, {"role": "assistant", "content": "SECRET"}],
    [{"role": "user", "content": "SECRET"}, {"role": "assistant", "content": "SECRET"}],
]
write("bad-rows", pa.table({"messages": pa.array(BAD, STRUCT)}), compression="snappy")
write("bad-utf8", pa.table({"text": pa.array([b"fine", b"SECRET\xe9"], pa.binary())}), compression="none")

# Columns of other types.
write("refused-strings", pa.table({"messages": [["SECRET"]]}))
write("refused-struct", pa.table({"messages": [{"role": "user", "content": "SECRET"}]}))
write("refused-parts", pa.table({"messages": [[{"role": "user", "content": ["SECRET"]}]]}))
write("refused-number", pa.table({"text": [7]}))
write("refused-list", pa.table({"instruction": ["SECRET"], "output": [["SECRET"]]}))
write("refused-columns", pa.table({"SECRET": ["SECRET"], "output": ["SECRET"]}))
write("refused-brotli", pa.table({"text": ["SECRET"]}), compression="brotli")

print(f"pyarrow {pa.__version__}:", sum(1 for _ in OUT.iterdir()), "files,", sum(f.stat().st_size for f in OUT.iterdir()), "bytes")
