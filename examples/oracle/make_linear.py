#!/usr/bin/env python3
"""Golden numbers for `examples/src/linear`, from scikit-learn.

    python3 -m venv venv && venv/bin/pip install scikit-learn
    venv/bin/python examples/oracle/make_linear.py

Writes examples/vectors/linear.json with the version used. The texts are vulnerability reports of
the embedded data, and a few that test the words' borders.
"""

import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

EXAMPLES = Path(__file__).resolve().parents[1]
OUT = EXAMPLES / "vectors/linear.json"
# Borders of words: underscores, single characters, digits, letters beyond ASCII, apostrophes.
ODD = ["", "a b c", "snake_case x86 3.14159", "Ünïcode ÉCOLE naïve Straße", "don't re-enter e-mail"]


def reports(part):
    lines = (EXAMPLES / f"assets/data/web-soc.{part}.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(one["input"], one["output"]) for one in records if one["kind"] == "report"]


def case(labels):
    """A classifier of so many of the most frequent labels."""
    training, held_out = reports("train"), reports("heldout")
    counts = Counter(label for _, label in training)
    names = sorted(label for label, _ in counts.most_common(labels))
    number = {label: index for index, label in enumerate(names)}
    training = [(text, number[label]) for text, label in training if label in number]
    held_out = [(text, number[label]) for text, label in held_out if label in number]
    training += [(text, index % labels) for index, text in enumerate(ODD)]
    held_out += [(text, 0) for text in ODD]
    vectorizer = TfidfVectorizer()
    rows = vectorizer.fit_transform([text for text, _ in training])
    model = LogisticRegression(tol=1e-12, max_iter=100_000)
    model.fit(rows, [label for _, label in training])
    tests = vectorizer.transform([text for text, _ in held_out])
    words = vectorizer.get_feature_names_out()
    return {
        "training": training,
        "held_out": held_out,
        "features": len(words),
        "rows": [
            {words[at]: value for at, value in zip(row.indices, row.data)} for row in tests
        ],
        "probabilities": model.predict_proba(tests).round(9).tolist(),
    }


OUT.parent.mkdir(exist_ok=True)
document = {"scikit-learn": version("scikit-learn"), "cases": [case(7), case(2)]}
OUT.write_text(json.dumps(document, ensure_ascii=False) + "\n")
print(OUT)
