"""Prints the medians of what secagg_compare.sh measured, and the medians of the pairs' ratios."""

import argparse
import json
import statistics
import sys
from pathlib import Path

SIDES = ("fedlora", "flower")
FIGURES = (
    "client_setup_ms",
    "client_encode_ms",
    "client_mask_ms",
    "server_add_ms",
    "server_unmask_ms",
    "bytes_per_element",
    "control_bytes_per_member",
    "relative_rms_error",
)
# What must be the same on both sides for their figures to be compared.
SAME = ("members", "neighbours", "threshold", "dropped", "elements", "threads")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, required=True)
    args = parser.parse_args()
    pairs = [
        {side: json.loads((args.folder / f"{pair}-{side}.json").read_text()) for side in SIDES}
        for pair in range(1, args.pairs + 1)
    ]
    first = pairs[0]["fedlora"]
    print(", ".join(f"{key} {first[key]}" for key in SAME), first["suite"], pairs[0]["flower"]["versions"])
    for pair in pairs:
        for key in SAME:
            if pair["fedlora"][key] != pair["flower"][key]:
                # Flower may be asked for fewer neighbours; that is said, not refused.
                print(f"warning: {key}: fedlora {pair['fedlora'][key]}, flower {pair['flower'][key]}")
        if not pair["fedlora"]["exact"]:
            sys.exit("error: fedlora's sum is not exact")
    print(f"{'':26}{'fedlora':>12}{'flower':>12}{'ratio':>9}   each pair")
    for key in FIGURES:
        values = [statistics.median(pair[side][key] for pair in pairs) for side in SIDES]
        ratios = [pair["flower"][key] / pair["fedlora"][key] for pair in pairs]
        each = " ".join(f"{ratio:.3g}" for ratio in ratios)
        print(f"{key:26}{values[0]:12.4g}{values[1]:12.4g}{statistics.median(ratios):9.3g}   {each}")


if __name__ == "__main__":
    main()
