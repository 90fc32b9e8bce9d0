#!/usr/bin/env python3
"""Median and trimmed mean of a few vectors, coordinate by coordinate, by NumPy and SciPy.

Needs `pip install numpy scipy`; writes `robust.json` beside this file, with their versions. The
vectors are of f32 values, the results of f64.
"""

import json
import pathlib
import platform

import numpy
import scipy
from scipy import stats

SEED = 11
# Groups and coordinates.
SHAPES = (3, 8), (4, 8), (5, 5), (7, 5), (12, 3), (21, 2)


def case(generator, groups, length):
    means = generator.normal(size=(groups, length)).astype(numpy.float32)
    # Equal values, and one group far out.
    means[:, 0] = numpy.float32(0.25)
    means[0] *= numpy.float32(-1e3)
    exact = means.astype(numpy.float64)
    trims = range(1, (groups - 1) // 2 + 1)
    return {
        "means": exact.tolist(),
        "median": numpy.median(exact, axis=0).tolist(),
        "trimmed": [
            # `trim_mean` cuts int(share * groups) values at either end.
            {"trim": trim, "mean": stats.trim_mean(exact, (trim + 0.5) / groups, axis=0).tolist()}
            for trim in trims
        ],
    }


def main():
    generator = numpy.random.default_rng(SEED)
    document = {
        "made_by": f"make_robust.py, Python {platform.python_version()}, "
        f"NumPy {numpy.__version__}, SciPy {scipy.__version__}",
        "cases": [case(generator, *shape) for shape in SHAPES],
    }
    path = pathlib.Path(__file__).with_name("robust.json")
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
