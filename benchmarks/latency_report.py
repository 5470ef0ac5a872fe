"""The tables and plots of `node_latency.py`."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {
    "parts": "0.6",
    "node": "tab:blue",
    "naive_engine": "tab:orange",
    "naive_torch": "tab:red",
    "echo": "tab:green",
}
CASE = ("transport", "size", "rate")
"""Fields of a row that name its case."""


def by_case(rows):
    """The rows by case and by system: ``{case: {system: row}}``, in the order of measurement."""
    cases = {}
    for row in rows:
        cases.setdefault(tuple(row[name] for name in CASE), {})[row["system"]] = row
    return cases


def parts_p50(systems):
    """The median latency of DDS alone plus the median time of the bare parts, milliseconds."""
    return systems["echo"]["p50_ms"] + systems["bare"]["p50_ms"]


def table(rows, machine):
    """Return Markdown tables: each system in each case, the bare parts, and the ratios between systems."""
    cases = by_case(rows)
    lines = [machine, "", "| images | system | p50 ms | p95 | p99 | used | skipped | lost | "]
    lines[-1] += "CPU ms per frame | cores | MiB |"
    lines.append("|---" * 11 + "|")
    for (transport, size, rate), systems in cases.items():
        label = f"{size} {transport}, {rate:g} Hz"
        for name, r in systems.items():
            line_start = (
                f"| {label} | {name} | {r['p50_ms']:.1f} | {r['p95_ms']:.1f} | {r['p99_ms']:.1f} |"
            )
            if name == "bare":
                lines.append(f"{line_start} {r['sent']} | | | | | |")
                continue
            lines.append(
                f"{line_start} {r['used']} | {r['skipped']} | {r['used'] - r['poses']} | "
                f"{r['cpu_ms_per_frame']:.1f} | {r['cores']:.2f} | {r['memory_mib']:.0f} |"
            )
    names = list(dict.fromkeys(n for s in cases.values() for n in s["bare"]["parts_ms"]))
    lines += ["", "Medians of the parts, ms:", "", f"| images | DDS | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for (transport, size, rate), systems in cases.items():
        dds = f"{systems['echo']['p50_ms']:.2f}" if "echo" in systems else ""
        parts = systems["bare"]["parts_ms"]
        values = " | ".join(f"{parts.get(name, float('nan')):.2f}" for name in names)
        lines.append(f"| {size} {transport}, {rate:g} Hz | {dds} | {values} |")
    lines += [
        "",
        "| images | node p50 / parts | node p95 / naive_torch | node p95 / naive_engine |",
    ]
    lines.append("|---" * 4 + "|")
    for (transport, size, rate), systems in cases.items():
        if "node" not in systems:
            continue
        node, ratios = systems["node"], []
        ratios.append(f"{node['p50_ms'] / parts_p50(systems):.2f}" if "echo" in systems else "")
        for name in ("naive_torch", "naive_engine"):
            other = systems.get(name)
            ratios.append(f"{node['p95_ms'] / other['p95_ms']:.2f}" if other else "")
        lines.append(f"| {size} {transport}, {rate:g} Hz | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def draw(rows, path, machine):
    """Draw the medians as bars and the 95th percentiles as whiskers, on a logarithmic axis."""
    cases = by_case(rows)
    figure = Figure(figsize=(1.2 * len(cases) + 4.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [
        n for n in ("node", "naive_engine", "naive_torch") if any(n in s for s in cases.values())
    ]
    width = 0.8 / (len(names) + 1)
    for i, name in enumerate(["parts", *names]):
        for x, systems in enumerate(cases.values()):
            if name == "parts":
                if "echo" not in systems:
                    continue
                p50 = p95 = parts_p50(systems)
            else:
                p50, p95 = systems[name]["p50_ms"], systems[name]["p95_ms"]
            axes.bar(
                x + (i - len(names) / 2) * width,
                p50,
                width,
                yerr=[[0.0], [p95 - p50]],
                color=COLOURS[name],
                label=name if x == 0 else None,
            )
    axes.set_yscale("log")
    labels = [f"{size}\n{transport}\n{rate:g} Hz" for transport, size, rate in cases]
    axes.set_xticks(range(len(cases)), labels, fontsize=8)
    axes.set_ylabel("latency from image to pose (ms): p50, whisker p95")
    axes.set_yticks((25, 50, 100, 200, 400), minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend(ncols=len(names) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.06))
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(machine, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_age(ages_of, path):
    """Draw the age of the newest pose over time, for each system."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, ages in ages_of.items():
        axes.plot(ages["t"], ages["age_ms"], color=COLOURS[name], label=name, linewidth=0.7)
    axes.set_yscale("log")
    axes.set(xlabel="time (s)", ylabel="age of the newest pose (ms), images at 60 Hz")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=110)
