"""Rate against divergence as an SVG file that follows the reader's light or dark setting."""
import math
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 64, 16, 14, 52
STYLE = """svg{background:#fff}text{font:14px system-ui,sans-serif;fill:#1b1f24}.t{font-size:12px;fill:#667080}.g{stroke:#d9dee5}
.c0{--c:#9aa5b3}.c1{--c:#c2410c}.c2{--c:#15803d}.c3{--c:#0b62c4}.c4{--c:#a21caf}path.l{fill:none;stroke:var(--c);stroke-width:2}circle{fill:var(--c)}
@media(prefers-color-scheme:dark){svg{background:#14171c}text{fill:#e7eaee}.t{fill:#9aa5b3}.g{stroke:#323944}
.c0{--c:#7d8896}.c1{--c:#ff9457}.c2{--c:#58cf86}.c3{--c:#6cb0ff}.c4{--c:#e58af0}}"""


def rate_figure(series):
    """Returns the SVG of {name: [(bits a weight, divergence, label)]}; empty series are left out."""
    series = {name: sorted(points) for name, points in series.items() if points}
    points = [point for some in series.values() for point in some]
    x_low, x_high = math.floor(min(p[0] for p in points) * 2) / 2, math.ceil(max(p[0] for p in points) * 2) / 2
    y_low, y_high = (math.floor(math.log10(min(p[1] for p in points))), math.ceil(math.log10(max(p[1] for p in points))))
    x = lambda value: LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - RIGHT - LEFT)
    y = lambda value: TOP + (y_high - math.log10(value)) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Rate against divergence"><style>{STYLE}</style>']
    for tick in [t / 1 for t in range(math.ceil(x_low), math.floor(x_high) + 1)]:
        out.append(f'<path class="g" d="M{x(tick):.1f} {TOP}V{HEIGHT - BOTTOM}"/><text class="t" text-anchor="middle" x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}">{tick:g}</text>')
    for power in range(y_low, y_high + 1):
        at = y(10.0**power)
        out.append(f'<path class="g" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/><text class="t" text-anchor="end" x="{LEFT - 6}" y="{at + 4:.1f}">{10.0**power:g}</text>')
    out.append(f'<text text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}">bits a weight of the linears</text>')
    out.append(f'<text text-anchor="middle" transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">KL to FP32, nats a token</text>')
    for i, (name, some) in enumerate(series.items()):
        line = "L".join(f"{x(p[0]):.1f} {y(p[1]):.1f}" for p in some)
        out.append(f'<g class="c{i}">' + (f'<path class="l" d="M{line}"/>' if name.startswith("qins") else ""))
        for bpw, kl, label in some:
            out.append(f'<circle cx="{x(bpw):.1f}" cy="{y(kl):.1f}" r="4"><title>{escape(name)}: {bpw:.3f} bits, KL {kl:.4g}</title></circle>')
            if label and "no " not in name:
                out.append(f'<text class="t" x="{x(bpw) + 7:.1f}" y="{y(kl) - 5:.1f}">{escape(label)}</text>')
        # The upper right corner is free: divergence falls with the rate.
        out.append(f'<circle cx="{WIDTH - 270}" cy="{TOP + 20 + 22 * i}" r="5"/><text x="{WIDTH - 258}" y="{TOP + 25 + 22 * i}">{escape(name)}</text></g>')
    return "\n".join(out) + "</svg>\n"
