#!/usr/bin/env python3
"""Finds the segments of the 7 and 8 bit Gauss tables that src/codec/gauss.c holds. SPDX-License-Identifier: MIT

The positive half of the table is 8 segments of 8 (7 bits) or 16 (8 bits) entries base + slope * l + bend * curve(l), all
integers. From least squares to the companding solution of Panter and Dite, each integer in turn is moved up or down (the
segments above it staying or moving along) while the mean squared error of N(0,1) falls. Needs PyTorch; a minute.

usage: make_segments.py
"""
import math

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
SEGMENTS, LARGEST = 8, 4095
TOPS = range(3900, 4600, 50)  # where the largest entry starts
CURVE = {7: lambda l: (l**3 + 2) // 4, 8: lambda l: (l**3 + 16) // 32}  # qins_curve


def density(x):
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def above(x):
    return 0.5 * torch.erfc(x / math.sqrt(2))


def quantile(p):
    return math.sqrt(2) * torch.erfinv(2 * p - 1)


def error(levels):
    """Of N(0,1) with these positive levels and their negatives, cells at midpoints, the best scale."""
    middle, zero = (levels[1:] + levels[:-1]) / 2, torch.zeros(1)
    d = torch.cat([density(zero), density(middle), zero])
    tail = torch.cat([zero + 0.5, above(middle), zero])
    cross = 2 * (levels * (d[:-1] - d[1:])).sum()
    square = 2 * (levels**2 * (tail[:-1] - tail[1:])).sum()
    return (1 - cross**2 / square).item()


class Search:
    def __init__(self, bits, top):
        n = 1 << (bits - 1)
        self.length = n // SEGMENTS
        start = math.sqrt(3) * quantile((torch.arange(n) + 0.5) / (2 * n) + 0.5)
        l = torch.arange(self.length, dtype=torch.float64)
        self.curve = torch.tensor([float(CURVE[bits](i)) for i in range(self.length)])
        self.basis = torch.stack([l**0, l, self.curve], 1)
        self.unit = top / start[-1].item()  # table units a standard deviation
        self.segments = []
        for values in (start * self.unit).view(SEGMENTS, self.length):
            bend = round(torch.linalg.lstsq(self.basis, values[:, None]).solution[2].item())
            rest = values - bend * self.curve
            slope = round((((l - l.mean()) * rest).sum() / ((l - l.mean()) ** 2).sum()).item())
            self.segments.append([round((rest - slope * l).mean().item()), slope, bend])
        self.best = self.error_of(self.segments, self.unit)

    def levels(self, segments):
        return (torch.tensor(segments).double() @ self.basis.T).reshape(-1)

    def error_of(self, segments, unit):
        t = self.levels(segments)
        if (t[1:] <= t[:-1]).any() or t[0] <= 0 or t.max() > LARGEST:
            return math.inf
        return error(t / unit)

    def try_move(self, at, base, slope, bend, along):
        s = [list(x) for x in self.segments]
        s[at] = [s[at][0] + base, s[at][1] + slope, s[at][2] + bend]
        if along:
            rise = base + slope * (self.length - 1) + bend * int(self.curve[-1])
            for x in s[at + 1 :]:
                x[0] += rise
        e = self.error_of(s, self.unit)
        if e < self.best - 1e-13:
            self.best, self.segments = e, s
            return True
        return False

    def sweep(self):
        better = False
        for ratio in (1.001, 1 / 1.001, 1.0001, 1 / 1.0001):
            e = self.error_of(self.segments, self.unit * ratio)
            if e < self.best:
                self.best, self.unit, better = e, self.unit * ratio, True
        straight = int(self.curve[-1]) / (self.length - 1)  # slope that a bend replaces
        for at in range(SEGMENTS):
            for bend in (-1, 0, 1):
                for change in range(-2, 3):
                    slope = change - round(bend * straight)
                    rise = slope * (self.length - 1) + bend * int(self.curve[-1])
                    better |= self.try_move(at, 0, slope, bend, True)
                    better |= self.try_move(at, -(rise // 2), slope, bend, False)
            for base in (-8, -4, -2, -1, 1, 2, 4, 8):
                better |= self.try_move(at, base, 0, 0, False)
                better |= self.try_move(at, base, 0, 0, True)
        return better


def best_segments(bits):
    found = []
    for top in TOPS:
        found.append(Search(bits, top))
        while found[-1].sweep():
            pass
    return min(found, key=lambda search: search.best)


for bits in (7, 8):
    search = best_segments(bits)
    print(f"{bits} bits: error {search.best:.4e}, sigma {search.unit:.3f}")
    for i, name in enumerate(("base", "slope", "bend")):
        print(f"  {name}: {[s[i] for s in search.segments]}")
