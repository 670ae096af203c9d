"""What peers.py makes of its samples: rows with ratios and intervals, a table, a picture. Needs the standard library only."""
import random
import statistics
from xml.sax.saxutils import escape

RESAMPLES = 2000


def interval(values):
    """95 % of the medians of resampled values, the same for the same values."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


def ratio(own, other):
    """(median, lo, hi) of other / own over the rounds that both have: above 1 `own` took less time."""
    pairs = [b / a for a, b in zip(own, other)]
    return (statistics.median(pairs), *interval(pairs))


def rows_of(case, samples, errors):
    """case: {model, type, test, depth, kv}; samples: engine -> ms of each round; errors: engine -> why it has none.
    The engine "kvasir" is compared with the best peer, a peer's row says by how much Kvasir is faster than that one."""
    rows = []
    own = samples.get("kvasir")
    peers = {engine: ms for engine, ms in samples.items() if engine != "kvasir" and ms}
    best = min(peers, key=lambda engine: statistics.median(peers[engine])) if peers else None
    for engine, ms in samples.items():
        row = {**case, "engine": engine, "ms": ms, "median": statistics.median(ms) if ms else None, "best_peer": best,
               "ratio": None, "lo": None, "hi": None}
        other = peers.get(best if engine == "kvasir" else engine)
        if own and other:
            row["ratio"], row["lo"], row["hi"] = ratio(own, other)
        if engine in errors:
            row["error"] = errors[engine]
        rows.append(row)
    return rows


def name_of(row):
    return f"{row['model']} {row['type']}, {row['test']} @ d{row['depth']}, {row['kv']} KV"


def cases_of(rows):
    """Rows of the same case together, in order."""
    cases = {}
    for row in rows:
        cases.setdefault(tuple(row[key] for key in ("model", "type", "test", "depth", "kv")), []).append(row)
    return cases


def cell(rows, family):
    """The fastest of a family's rows."""
    times = [row["median"] for row in rows if row["engine"].split()[0] == family and row["median"] is not None]
    if times:
        return f"{min(times):.2f}"
    return "failed" if any(row["engine"].split()[0] == family for row in rows) else ""


def table(rows):
    lines = [["model", "type", "test", "depth", "KV", "Kvasir ms", "llama.cpp ms", "OpenVINO ms", "best peer", "x best", "95 %"]]
    for (model, kind, test, depth, kv), group in cases_of(rows).items():
        own = next((row for row in group if row["engine"] == "kvasir"), None)
        ratios = ["", "", ""]
        if own and own["ratio"] is not None:
            ratios = [own["best_peer"], f"{own['ratio']:.2f}", f"{own['lo']:.2f} to {own['hi']:.2f}"]
        lines.append([model, kind, test, str(depth), kv, *[cell(group, f) for f in ("kvasir", "llama.cpp", "openvino")], *ratios])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    for row in rows:
        if row.get("error"):
            text.append(f"{name_of(row)}: {row['engine']}: {row['error']}")
    return "\n".join(text)


def plot(rows):
    """An SVG: for each case how many times faster Kvasir is than the best peer, with its interval."""
    own = [row for row in rows if row["engine"] == "kvasir" and row["ratio"] is not None]
    left, width, step, top = 330, 480, 22, 30
    most = max([row["hi"] for row in own] + [1.0]) * 1.05
    height = top + step * len(own) + 30

    def x(value):
        return left + width * value / most

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" '
             'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="18">times as fast as the best peer (median of rounds, 95 %)</text>']
    for i, row in enumerate(own):
        y = top + step * i
        color = "#2a7f62" if row["lo"] > 1 else "#b3432b" if row["hi"] < 1 else "#888888"
        middle = y + step / 2 - 2
        parts += [f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name_of(row))}</text>',
                  f'<rect x="{left}" y="{y + 2}" width="{x(row["ratio"]) - left:.1f}" height="{step - 8}" fill="{color}"/>',
                  f'<line x1="{x(row["lo"]):.1f}" x2="{x(row["hi"]):.1f}" y1="{middle}" y2="{middle}" stroke="black"/>',
                  f'<text x="{x(row["hi"]) + 5:.1f}" y="{y + 14}">{row["ratio"]:.2f}</text>']
    parts += [f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{top - 4}" y2="{height - 22}" stroke="black" stroke-dasharray="4 3"/>',
              f'<text x="{x(1):.1f}" y="{height - 8}" text-anchor="middle">1</text>', "</svg>"]
    return "\n".join(parts) + "\n"
