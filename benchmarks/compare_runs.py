"""Compares the curves of runs with that of the first: `metrics.jsonl` of each.

    python3 compare_runs.py [--svg FILE] NAME=FILE NAME=FILE ...

Prints, as Markdown, the mean training loss over consecutive stretches of updates and the validation losses that two runs have at
the same update, then how far apart single losses are. The figure shows running means of the training losses and the validation
losses as dots. Needs no packages.
"""

import argparse
import json
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 52, 12, 12, 40
COLOURS = ("#1b6ca8", "#d1495b", "#5a8f29")
DASHES = ("", "6 4", "2 3")


def read(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    return losses, {line["step"]: line["valid_loss"] for line in lines if line.get("valid_loss") is not None}


def mean(values):
    return sum(values) / len(values)


def running_mean(losses, window):
    sums = [0.0]
    for loss in losses:
        sums.append(sums[-1] + loss)
    return {end: (sums[end] - sums[end - window]) / window for end in range(window, len(losses) + 1)}


def table(runs, stretch):
    names = list(runs)
    print("| updates | " + " | ".join(f"{name}, training" for name in names) + " | "
          + " | ".join(f"{name}, validation" for name in names) + " |")
    print("|---|" + "---|" * 2 * len(names))
    for start in range(0, len(runs[names[0]][0]), stretch):
        end = min(start + stretch, len(runs[names[0]][0]))
        training = [f"{mean(losses[start:end]):.4f}" if len(losses) >= end else "" for losses, _ in runs.values()]
        validation = [f"{valid[end]:.4f}" if end in valid else "" for _, valid in runs.values()]
        print(f"| {start + 1} to {end} | " + " | ".join(training + validation) + " |")


def distances(runs, window):
    (first, (losses, valid)), *others = runs.items()
    smooth = running_mean(losses, window)
    for name, (other, other_valid) in others:
        count = min(len(losses), len(other))
        apart = [abs(a - b) for a, b in zip(losses, other)]
        single = ", ".join(f"{max(apart[:n]):.1e} in {n} updates" for n in (10, 50, 100, 200, count) if n <= count)
        other_smooth = running_mean(other, window)
        gaps = [abs(smooth[end] - other_smooth[end]) for end in smooth if end in other_smooth]
        both = [valid[step] - other_valid[step] for step in valid if step in other_valid]
        print(f"\n{name} against {first}, {count} updates. Largest difference of a training loss: {single}. Running means over "
              f"{window} updates: {mean(gaps):.4f} on average, {max(gaps):.4f} at most. Validation losses: "
              f"{mean(both):+.4f} on average, {max(map(abs, both)):.4f} at most.")


def figure(runs, window):
    curves = {name: running_mean(losses, window) for name, (losses, _) in runs.items()}
    last = max(len(losses) for losses, _ in runs.values())
    values = [y for curve in curves.values() for y in curve.values()]
    low, high = min(values) - 0.05, max(values) + 0.05
    x = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    y = lambda loss: TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    ticks = [t / 2 for t in range(int(low * 2) + 1, int(high * 2) + 1)]
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for tick in range(0, last + 1, 200):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">updates</text>'
                 f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">nats a token</text>')
    for i, (name, curve) in enumerate(curves.items()):
        colour, valid = COLOURS[i % len(COLOURS)], runs[name][1]
        points = " ".join(f"{x(end):.1f},{y(loss):.1f}" for end, loss in curve.items() if end % 5 == 0)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6" '
                     f'stroke-dasharray="{DASHES[i % len(DASHES)]}"/>')
        parts += [f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="{5 - 1.5 * i}" fill="none" stroke="{colour}"/>'
                  for step, loss in valid.items() if loss <= high]
        parts.append(f'<text x="{WIDTH - RIGHT - 8}" y="{TOP + 18 + 18 * i}" text-anchor="end" fill="{colour}">'
                     f"{name}: training (mean of {window}), validation (dots)</text>")
    return "\n".join([*parts, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--stretch", type=int, default=185, help="updates in a row of the table")
    parser.add_argument("--window", type=int, default=50, help="updates in a running mean")
    arguments = parser.parse_args()
    runs = {name: read(path) for name, path in (run.split("=", 1) for run in arguments.runs)}
    table(runs, arguments.stretch)
    distances(runs, arguments.window)
    if arguments.svg:
        arguments.svg.write_text(figure(runs, arguments.window))


if __name__ == "__main__":
    main()
