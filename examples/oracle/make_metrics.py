#!/usr/bin/env python3
"""Golden numbers for `client/src/metrics`, from sacrebleu, rouge-score and scikit-learn.

    python3 -m venv venv && venv/bin/pip install sacrebleu rouge-score scikit-learn
    venv/bin/python examples/oracle/make_metrics.py

Writes client/vectors/metrics.json with the versions used.
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from sklearn.metrics import accuracy_score, f1_score

OUT = Path(__file__).resolve().parents[2] / "client/vectors/metrics.json"

# (hypothesis, reference): each pair is there for a reason.
PAIRS = [
    # Equal, almost equal, shorter, longer, nothing in common.
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the cat sat on a mat", "the cat sat on the mat"),
    ("the cat", "the cat sat on the mat today"),
    ("well , the small cat sat down on the very old mat", "the cat sat on the mat"),
    ("entirely different words here now", "the cat sat on the mat"),
    # Empty and blank.
    ("", "the cat sat on the mat"),
    ("the cat sat on the mat", ""),
    ("", ""),
    ("  \t ", "a b c d e"),
    # One word; fewer words than the longest n-gram.
    ("yes", "yes"),
    ("yes", "no"),
    ("two words", "two words"),
    ("three short words", "three short words"),
    # Repeated n-grams are clipped.
    ("the the the the the the the", "the cat is on the mat"),
    ("a b a b a b a b", "a b a b c d a b"),
    # Numbers, points, commas, hyphens, signs.
    ("It cost $1,000.5, or 3.14 % more.", "It cost $1,000.50, or 3.14% more."),
    ("Pages 12-15, and state-of-the-art 5-fold tests -3", "Pages 12 - 15 and state of the art 5-fold tests -3"),
    ("v1.2.3,4.5.,.6 ...,,. 7.,8", "v1.2.3 , 4.5 . , .6 ... 7. ,8"),
    (".starts with a point", ", starts with a comma"),
    ("U.S.A. and e.g. this.", "U.S.A. and e.g., this"),
    ("don't can't it's 'quoted' \"twice\"", "don't can't it is 'quoted' 'twice'"),
    ("a/b [c] {d} (e) <f> g:h;i?j!k@l#m$n%o^p&q*r_s+t=u|v~w`x\\y", "a / b c d e f g h i j k l m n o p q r s t u v w x y"),
    # Entities, entities of entities, and what only looks like one.
    ("&quot;R&amp;D&quot; &lt;tag&gt;", "\"R&D\" <tag>"),
    ("&amp;lt; &amp;quot; &copy; &amp;amp;", "&lt; &quot; &copy; &amp;"),
    ("&ampersand & co", "&ampersand &amp; co"),
    # Lines: a hyphen at a line's end joins it, other ends are spaces.
    ("hyphen-\nated at the\nend\r\nof lines\n", "hyphenated at the end of lines"),
    ("<skipped> not <skipped>counted", "not counted"),
    # Unicode: letters, case, wide spaces, digits that are not ASCII, emoji, combining marks.
    ("Der Fluß fließt über Köln, café naïve", "Der Fluss fließt über Koeln, cafe naïve"),
    ("Ελλάς ΟΔΥΣΣΕΥΣ ΣΑΣ", "ελλάς οδυσσευς σας"),
    ("İstanbul K 300 K", "istanbul k 300 k"),
    ("no\u00a0break\u2003em\u3000wide\u200bzero", "no break em wide zero"),
    ("separators\u001cof\u001dthe\u001eASCII\u001fset\u0085next\u2028line", "separators of the ASCII set next line"),
    ("١٢٣.٤ and १२,३ and 1.٢", "١٢٣ . ٤ and १२ , ३ and 1.2"),
    ("日本語のテキスト。これは,テスト.です", "日本語のテキスト。これはテストです"),
    ("cafe\u0301 😀😀 ok 👍🏽.", "café 😀 ok 👍🏽"),
    # Upper and lower case: BLEU keeps it, ROUGE does not.
    ("The Quick Brown FOX Jumps", "the quick brown fox jumps"),
    # Under_scores and mixed words.
    ("snake_case CamelCase x86_64 utf-8 C++ C#", "snake case camelcase x86 64 utf8 c c"),
    # Order alone differs.
    ("mat the on sat cat the", "the cat sat on the mat"),
]


def mixed(seed, count):
    """Random word salads over a small vocabulary, so that n-grams of all lengths match."""
    draw = random.Random(seed)
    words = "the a cat, dog. sat ran 1,000 3.5 on-line (maybe) it's über R&amp;D no yes".split()
    pairs = []
    for _ in range(count):
        reference = [draw.choice(words) for _ in range(draw.randint(1, 25))]
        hypothesis = [word if draw.random() < 0.8 else draw.choice(words) for word in reference]
        if draw.random() < 0.3:
            hypothesis = hypothesis[: draw.randint(0, len(hypothesis))]
        pairs.append((" ".join(hypothesis), " ".join(reference)))
    return pairs


def scrambled(seed, count):
    """Random strings of what the tokenizers treat in their own ways."""
    draw = random.Random(seed)
    parts = list("ab1290.,.,--'/&;:!()[]_ \n\t\u00a0é٣") + ["&amp;", "&lt;", "&quot;", "-\n", "<skipped>"]
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 30))) for _ in range(count)]


def bleu(pairs):
    metric = BLEU()
    score = metric.corpus_score([h for h, _ in pairs], [[r for _, r in pairs]])
    return {
        "score": score.score,
        "precisions": score.precisions,
        "brevity_penalty": score.bp,
        "hypothesis_tokens": score.sys_len,
        "reference_tokens": score.ref_len,
    }


def rouge(pairs):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    rows = []
    for hypothesis, reference in pairs:
        scores = scorer.score(reference, hypothesis)
        rows.append([list(scores[name]) for name in ("rouge1", "rouge2", "rougeL")])
    return rows


def classes(seed, count, labels):
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        truth = draw.randrange(labels)
        pairs.append((truth, truth if draw.random() < 0.6 else draw.randrange(labels + 1)))
    return pairs


def classified(pairs):
    truth, got = [t for t, _ in pairs], [g for _, g in pairs]
    return {
        "pairs": pairs,
        "accuracy": accuracy_score(truth, got),
        "macro_f1": f1_score(truth, got, average="macro"),
    }


def main():
    corpora = [PAIRS, mixed(1, 40), mixed(2, 3), PAIRS[5:6], PAIRS[4:5], PAIRS[9:13], PAIRS[:5]]
    tokenizer = BLEU().tokenizer
    golden = {
        "versions": {name: version(name) for name in ("sacrebleu", "rouge-score", "scikit-learn")},
        "signature": None,
        "tokens": [
            [text, " ".join(tokenizer(text.rstrip()).split())]
            for text in [*(text for pair in PAIRS for text in pair), *scrambled(5, 80)]
        ],
        "segments": [{"pair": pair, "bleu": bleu([pair]), "rouge": rouge([pair])[0]} for pair in PAIRS],
        "corpora": [{"pairs": pairs, "bleu": bleu(pairs), "rouge": rouge(pairs)} for pairs in corpora[1:]],
        "all_segments": bleu(PAIRS),
        "classes": [
            classified(classes(3, 50, 4)),
            classified(classes(4, 7, 2)),
            # A label that is only predicted, one that is never predicted, all right, all wrong.
            classified([(0, 0), (0, 1), (2, 0), (1, 3)]),
            classified([(1, 1), (2, 2)]),
            classified([(0, 1), (1, 0)]),
        ],
    }
    metric = BLEU()
    metric.corpus_score(["a b"], [["a b"]])
    golden["signature"] = str(metric.get_signature())
    OUT.write_text(json.dumps(golden, indent=None, separators=(",", ":"), ensure_ascii=True) + "\n")
    print(f"{OUT.name}: {len(PAIRS)} pairs, {golden['signature']}")


if __name__ == "__main__":
    main()
