#!/usr/bin/env python3
"""Steps of the server's optimizers over a few rounds, by NumPy.

Needs `pip install numpy`; writes `server_optimizers.json` beside this file, with the versions. The
adapter has factor A of 2 x 3 values, and behind it B of 4 x 2. Values are written as the bits of
f32. A moment is kept as f32; what is made of it is f64, rounded once.
"""

import json
import pathlib
import platform

import numpy
from numpy import float32, float64

SEED = 17
PARTS = {"a": slice(0, 6), "b": slice(6, 14), "both": slice(0, 14)}
SCHEDULES = ("b", "a", "b", "a", "b"), ("both", "both", "both")
# Slack of the fixed-point format: a mean may be this much longer than the clip.
SLACK = 1.01
# Optimizer, rate, momentum, beta2, tau, largest step in clips or None for the default.
CASES = (
    ("fedavg", 1.0, None, None, None, None),
    ("fedavg", 0.7, None, None, None, 0.5),
    ("fedavgm", 1.0, 0.9, None, None, None),
    ("fedavgm", 0.3, 0.5, None, None, 0.4),
    ("nesterov", 0.7, 0.9, None, None, None),
    ("nesterov", 0.7, 0.9, None, None, 0.9),
    ("fedadam", 0.01, 0.9, 0.99, 0.001, None),
    ("fedadam", 1.0, 0.0, 0.5, 0.1, None),
    ("fedyogi", 0.01, 0.9, 0.99, 0.001, None),
    ("fedyogi", 0.1, 0.8, 0.9, 0.01, 3.0),
)


def largest_step(name, rate, momentum):
    if name == "fedavg":
        return float32(rate)
    if name in ("fedavgm", "nesterov"):
        return float32(float64(rate) / (1.0 - momentum))
    return float32(1.0)


class Optimizer:
    def __init__(self, name, momentum, beta2, tau):
        self.name, self.momentum, self.beta2, self.tau = name, momentum, beta2, tau
        self.first = numpy.zeros(14, float32)
        self.second = numpy.full(14, float32((tau or 0.0) * (tau or 0.0)), float32)

    def direction(self, part, mean):
        d, mu = mean.astype(float64), self.momentum
        if self.name == "fedavg":
            return d
        if self.name in ("fedavgm", "nesterov"):
            self.first[part] = (mu * self.first[part].astype(float64) + d).astype(float32)
            v = self.first[part].astype(float64)
            return v if self.name == "fedavgm" else d + mu * v
        self.first[part] = (mu * self.first[part].astype(float64) + (1.0 - mu) * d).astype(float32)
        v, share = self.second[part].astype(float64), (1.0 - self.beta2) * (d * d)
        if self.name == "fedadam":
            v = self.beta2 * v + share
        else:
            v = v - share * numpy.sign(v - d * d)
        self.second[part] = v.astype(float32)
        root = numpy.sqrt(self.second[part].astype(float64))
        return self.first[part].astype(float64) / (root + self.tau)


def norm(values):
    total = float64(0.0)
    for value in values.astype(float64):
        total += value * value
    return numpy.sqrt(total)


def bits(values):
    return values.view(numpy.uint32).tolist()


def case(generator, case, schedule):
    name, rate, momentum, beta2, tau, most = case
    rate = float32(rate)
    optimizer = Optimizer(name, momentum, beta2, tau)
    most = largest_step(name, rate, momentum) if most is None else float32(most)
    rounds = []
    for number, factors in enumerate(schedule):
        clip = float32(0.5 + 0.25 * number)
        size = PARTS[factors].stop - PARTS[factors].start
        mean = generator.normal(size=size)
        # From a hundredth of the clip to nearly all of it.
        mean *= clip * (0.01, 0.9, 0.99, 0.5, 0.97)[number] / numpy.sqrt((mean * mean).sum())
        mean = mean.astype(float32)
        step = (float64(rate) * optimizer.direction(PARTS[factors], mean)).astype(float32)
        bound, length = float64(most) * float64(clip), norm(step)
        if length > bound * SLACK:
            step = (step.astype(float64) * (bound / length)).astype(float32)
        rounds.append({
            "factors": factors,
            "clip": float(clip),
            "mean": bits(mean),
            "scaled": bool(length > bound * SLACK),
            "step": bits(step),
        })
    return {
        "optimizer": name,
        "rate": float(rate),
        "momentum": momentum,
        "beta2": beta2,
        "tau": tau,
        "max_step": None if case[5] is None else float(most),
        "rounds": rounds,
    }


def main():
    generator = numpy.random.default_rng(SEED)
    made_by = (
        f"make_server_optimizers.py, Python {platform.python_version()}, "
        f"NumPy {numpy.__version__}"
    )
    cases = [case(generator, one, schedule) for schedule in SCHEDULES for one in CASES]
    lines = ",\n".join(json.dumps(one) for one in cases)
    path = pathlib.Path(__file__).with_name("server_optimizers.json")
    path.write_text(f'{{"made_by": {json.dumps(made_by)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
