"""A file of numbers becomes a picture: `plot` knows panels of curves, of bars and of points with intervals, and no run.

The numbers are a title, a note and panels. A panel has a `title`, the labels `x` and `y` of its axes, and one of
`curves` (`label`, `step`, `value`), `bars` (label -> a value for each of the panel's `names`) and `points` (`name`,
`kind`, `mean`, `low`, `high`). `levels` are values worth a line, `marks` are steps worth one; both are name -> place.
"""

import textwrap
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from llama_qna.project.files import write_json

# the labels of the axes that are drawn in a way of their own
PERPLEXITY, SCORE, LOSS = "perplexity (lower is better)", "ROUGE F1 (0-1)", "training loss"
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), each with its own marker: curves differ without colour too
LOOKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")]
STYLE = {"font.size": 15, "axes.titleweight": "bold", "lines.linewidth": 2.5, "text.parse_math": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.edgecolor": "none", "svg.hashsalt": "llama-qna"}


def save(folder: Path, name: str, numbers: dict) -> Path:
    """Write the numbers, and the picture that they make as PNG and SVG; returns the PNG."""
    write_json(folder / f"{name}.json", numbers)
    figure, png = plot(numbers), folder / f"{name}.png"
    with style.context(["default", STYLE]):  # no date and no version inside: same numbers, same files
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(png.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    return png


def page_and_text(image, paragraphs: list[str]) -> Figure:
    """A page as a picture (`documents.pages.picture`) beside the paragraphs that were read from it, cut at its foot."""
    figure = Figure(figsize=(12, 8))
    left, right = figure.add_axes((0, 0, 0.5, 1)), figure.add_axes((0.5, 0, 0.5, 1))
    left.imshow(image)
    lines = [line for text in paragraphs for line in [*textwrap.wrap(text, 88), ""]]
    text = "\n".join(lines[:58])  # as many as there is room for
    right.text(0, 0.97, text, fontsize=7.5, verticalalignment="top", parse_math=False)
    for axis in (left, right):
        axis.axis("off")
    return figure


def plot(numbers: dict) -> Figure:
    """Draw the content of a `<name>.json`; the figure belongs to no pyplot state."""
    panels, columns = numbers["panels"], numbers.get("columns", len(numbers["panels"]))
    rows, width = len(panels) // columns, 11 if columns == 1 else 15
    with style.context(["default", STYLE]):
        height = 9.2 if rows > 1 else 8 if any("points" in panel for panel in panels) else 6.4
        figure = Figure(figsize=(width, height), layout="constrained")
        alike = rows == 1 and len({panel["y"] for panel in panels}) == 1
        axes = figure.subplots(rows, columns, sharey=alike, squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=True):
            label = panel["y"] if axis is axes[0, 0] or not alike else ""
            axis.set(title=panel["title"], xlabel=panel["x"], ylabel=label)
            (_draw_bars if "bars" in panel else _draw_points if "points" in panel else _draw_curves)(axis, panel)
        figure.suptitle("\n".join(_wrapped(numbers["title"].split("\n"), 7 * width)), fontsize=18)
        figure.supxlabel(*_wrapped([numbers.get("note", "")], 9 * width), fontsize=13, color="0.3")
    return figure


def _draw_curves(axis, panel: dict) -> None:
    """Curves with their first and last value in the legend, levels as broken lines across, marks as lines upward.

    A curve with intervals has them as a shade around it.
    """
    for curve, (colour, marker) in zip(panel["curves"], LOOKS, strict=False):
        steps, values = curve["step"], curve["value"]
        label = f"{curve['label']}: {values[0]:.3g} → {values[-1]:.3g}"
        axis.plot(steps, values, color=colour, marker=marker if len(steps) < 40 else "", label=label)
        if "low" in curve:
            axis.fill_between(steps, curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
    for (name, level), dashes in zip(panel.get("levels", {}).items(), ("--", ":"), strict=False):
        axis.axhline(level, color="black", linestyle=dashes, label=f"{name}: {level:.3g}")
    for (name, step), dashes in zip(panel.get("marks", {}).items(), ("-.", ":"), strict=False):
        axis.axvline(step, color="0.5", linewidth=1.5, linestyle=dashes, label=name, zorder=1)
    axis.grid(color="0.9")
    if panel["y"] in (PERPLEXITY, LOSS) and axis.dataLim.ymax > 6 * axis.dataLim.ymin > 0:
        axis.set_yscale("log", subs=[])
        axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.yaxis.set_major_formatter("{x:g}")
    elif panel["y"] == SCORE:
        axis.set_ylim(0, 1)
    if "marks" in panel:
        _legend_below(axis)
    else:
        axis.legend()


def _draw_bars(axis, panel: dict) -> None:
    """Horizontal bars, a group a model, each with its value written beside it; the last bar of a group stands out."""
    names, height = panel["names"], 0.8 / len(panel["bars"])
    for n, (label, values) in enumerate(panel["bars"].items(), start=-len(panel["bars"])):
        places = [model + (n + 0.5) * height for model in range(1, len(names) + 1)]
        bars = axis.barh(places, values, 0.9 * height, label=label, color=("#999999", LOOKS[0][0])[n])
        axis.bar_label(bars, fmt="%.3g", padding=3)
    axis.set_yticks([model + 0.6 for model in range(len(names))], _wrapped(names, 24))
    axis.set_ylim(len(names) + 0.7, 0)
    axis.set_xlim(right=1.05 if panel["x"] == SCORE else 1.3 * axis.dataLim.xmax)
    axis.locator_params(axis="x", nbins=3)
    axis.legend(loc="lower right")


def _draw_points(axis, panel: dict) -> None:
    """A row a point, with its interval as a bar and its mean written behind; a colour and a marker for each kind."""
    points = panel["points"]
    for kind, (colour, marker) in zip(dict.fromkeys(p["kind"] for p in points), LOOKS, strict=False):
        rows = [row for row, point in enumerate(points) if point["kind"] == kind]
        means = [points[row]["mean"] for row in rows]
        arms = [[abs(points[row][end] - points[row]["mean"]) for row in rows] for end in ("low", "high")]
        axis.errorbar(means, rows, xerr=arms, fmt=marker, color=colour, markersize=10, capsize=5, label=kind)
        for row in rows:
            mean, high = points[row]["mean"], points[row]["high"]
            axis.annotate(f"{mean:.3f}", (high, row), (8, 0), textcoords="offset points", va="center", fontsize=13)
    for name, level in panel.get("levels", {}).items():
        axis.axvline(level, color="black", linewidth=1, linestyle="--", label=f"{name}: {level:.3f}", zorder=1)
    axis.set_yticks(range(len(points)), _wrapped([point["name"] for point in points], 30))
    axis.set_ylim(len(points) - 0.5, -0.7)
    axis.set_xlim(0, 1.2 * max(point["high"] for point in points))
    axis.grid(axis="x", color="0.9", zorder=0)
    axis.set_axisbelow(True)
    _legend_below(axis)


def _legend_below(axis) -> None:
    """A legend under the label of the x axis, where it hides nothing; the distance is in font sizes."""
    place = dict(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5)
    axis.legend(**place, ncols=2, columnspacing=1.2, fontsize=13)


def _wrapped(lines: list[str], width: int) -> list[str]:
    return [textwrap.fill(line, width, break_on_hyphens=False) for line in lines]
