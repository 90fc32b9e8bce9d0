#!/usr/bin/env python3
"""Neighbours and thresholds of the sparse graph, in exact arithmetic.

Needs Python's standard library alone; writes `sparse_parameters.json` beside this file. Every
probability is a fraction of whole numbers, and both bounds are decided with whole numbers.
"""

import json
import math
import pathlib
import platform
from fractions import Fraction

PRIVACY, RECOVERY = 40, 30
MAX_HOLDERS = 255
MEMBERS = 65, 100, 200, 500, 1000, 5000
SHARES = ("0.05", "0.05"), ("0.1", "0.1"), ("0.05", "0.1"), ("0.2", "0.05")


def at_least(population, marked, drawn, least):
    """P[at least `least` marked ones among `drawn` of `population`, without replacement]."""
    ways = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(least, min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


def search(members, colluding, dropping):
    """The smallest even k, and its smallest t > k/2, that meet both bounds."""
    others = members - 1
    for k in range(2, min(others, MAX_HOLDERS), 2):
        for t in range(k // 2 + 1, k + 1):
            privacy = members * at_least(others, colluding, k, t)
            if privacy <= Fraction(1, 1 << PRIVACY):
                recovery = members * at_least(others, dropping, k, k - t + 1)
                if recovery <= Fraction(1, 1 << RECOVERY):
                    return k, t, privacy, recovery
                break
    return None


def disconnection(members, gone, k):
    """Bound on P[the members that stay fall apart]: two runs of k/2 gone ones on the ring."""
    return Fraction(members * members, 2) * Fraction(math.comb(gone, k), math.comb(members, k))


def log2(value):
    """None for zero."""
    return math.log2(value.numerator) - math.log2(value.denominator) if value else None


def main():
    rows = []
    for members in MEMBERS:
        for shares in SHARES:
            colluding, dropping = (math.ceil(Fraction(share) * members) for share in shares)
            k, t, privacy, recovery = search(members, colluding, dropping)
            assert disconnection(members, colluding + dropping, k) <= Fraction(1, 1 << PRIVACY)
            rows.append({
                "members": members,
                "colluding_share": shares[0],
                "dropping_share": shares[1],
                "colluding": colluding,
                "dropping": dropping,
                "neighbours": k,
                "threshold": t,
                "privacy_log2": log2(privacy),
                "recovery_log2": log2(recovery),
            })
    table = {"made_with": {"python": platform.python_version()}, "rows": rows}
    path = pathlib.Path(__file__).with_name("sparse_parameters.json")
    path.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
