"""A file of numbers becomes a picture: `plot` knows panels of curves, bars, shares, dots and boxes, and no run.

The numbers are a title, a note and panels. A panel has a `title`, the label `x` of its axis, and one of

- `curves`: `label`, `step`, `value`, with `y`, the label of that axis; `levels` (name -> value) and `marks`
  (name -> step) are lines across and upward;
- `bars`: label -> a value for each of the panel's `names`;
- `shares`: rows with a `name` and `parts` (kind -> share, or nothing); `low` and `high` are the interval of the first
  part, `dot` is one more share, whose meaning is the panel's `dot`;
- `dots`: rows with a `name` and `values` (kind -> value);
- `picture`: a PNG, in base64;
- `boxes`: rows of boxes, each with a `name` and `text`, read from left to right; `arrows` are pairs of names.
"""

import textwrap
from base64 import b64decode
from io import BytesIO
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import PercentFormatter

from llama_qna.project.files import write_json

# the labels of the axes that are drawn in a way of their own
PERPLEXITY, SCORE, LOSS = "perplexity (lower is better)", "ROUGE F1 (0-1)", "loss (nats a token)"
SHARE = "share of questions"
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), each with its own marker: curves differ without colour too
LOOKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")]
PARTS = {"right": "#0072B2", "says so": "#B8C4CC", "wrong": "#F0B48A"}  # of a bar, from the left
DOT = {"marker": "D", "color": "white", "markeredgecolor": "black", "markersize": 8, "linestyle": "", "clip_on": False}
STYLE = {"font.size": 14, "axes.titlesize": 14, "lines.linewidth": 2.5, "text.parse_math": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "svg.hashsalt": "llama-qna"}
ROUNDED = "round,pad=0,rounding_size=0.05"  # a box with its name and text
WIDTH = 12  # inches; at 900 pixels a letter of 14 points is then as high as one of 10 points on a screen


def save(folder: Path, name: str, numbers: dict) -> Path:
    """Write the numbers, and the picture that they make as PNG and SVG; returns the PNG."""
    write_json(folder / f"{name}.json", numbers)
    figure, png = plot(numbers), folder / f"{name}.png"
    with style.context(["default", STYLE]):  # no date and no version inside: same numbers, same files
        sharp = 90 if "picture" in numbers["panels"][0] else 150  # a page is large in a file
        figure.savefig(png, dpi=sharp, metadata={"Software": None})
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
    rows = len(panels) // columns
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, _height(panels, rows)), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, width_ratios=numbers.get("widths"))
        for axis, panel in zip(grid.flat, panels, strict=True):
            axis.set_title(panel["title"], pad=36 if "marks" in panel else 8)
            draw = next(DRAWN[kind] for kind in DRAWN if kind in panel)
            draw(axis, panel)
        figure.suptitle(textwrap.fill(numbers["title"], 90), fontsize=17, fontweight="bold")
        figure.supxlabel(textwrap.fill(numbers.get("note", ""), 132), fontsize=11, color="0.35")
    return figure


def _height(panels: list[dict], rows: int) -> float:
    """Inches, so that each row of bars or dots gets the same room."""
    if "picture" in panels[0]:
        pixels = _image(panels[0])
        return 1.8 + WIDTH * pixels.shape[0] / pixels.shape[1]
    listed = max(len(panel.get(kind, [])) for panel in panels for kind in ("shares", "dots"))
    return 8.6 if rows > 1 else max(5.6, 2.2 + 0.5 * listed)


def _draw_curves(axis, panel: dict) -> None:
    """Curves with their name and last value at their end; an interval is a shade around its curve."""
    axis.set(xlabel=panel["x"], ylabel=panel["y"])
    axis.grid(color="0.92")
    ends = []
    for curve, (colour, marker) in zip(panel["curves"], LOOKS, strict=False):
        steps, values = curve["step"], curve["value"]
        axis.plot(steps, values, color=colour, marker=marker if len(steps) < 30 else "")
        if "low" in curve:
            axis.fill_between(steps, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        ends.append((values[-1], f"{curve['label']} {values[-1]:.3g}", colour))
    for name, level in panel.get("levels", {}).items():
        axis.axhline(level, color="0.3", linestyle="--", linewidth=1.5)
        ends.append((level, f"{name} {level:.3g}", "0.3"))
    if panel["y"] in (PERPLEXITY, LOSS) and axis.dataLim.ymax > 6 * axis.dataLim.ymin > 0:
        axis.set_yscale("log", subs=[])
        axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.yaxis.set_major_formatter("{x:g}")
    elif panel["y"] == SCORE:
        axis.set_ylim(0, 1)
    _label_ends(axis, ends)
    _label_marks(axis, panel.get("marks", {}))


def _label_ends(axis, ends: list[tuple[float, str, str]]) -> None:
    """Write each (value, text, colour) at the right of the axis, moved up where it would lie on the one below."""
    axis.get_ylim()  # settles the scale, which is put off until it is asked for
    to_axes = axis.transData + axis.transAxes.inverted()
    lowest = -1.0
    for value, text, colour in sorted(ends):
        lines = textwrap.wrap(text, 16)
        half = 0.035 * len(lines)  # of the axis, for letters of 13 points
        height = max(lowest + half, to_axes.transform((axis.dataLim.xmax, value))[1])
        lowest = height + half
        look = {"xycoords": "axes fraction", "va": "center", "fontsize": 13}
        axis.annotate("\n".join(lines), (1.02, height), color=colour, **look)


def _label_marks(axis, marks: dict[str, float]) -> None:
    """Lines upward with their names above the axis, the second one higher than the first."""
    for (name, step), height in zip(marks.items(), (1.01, 1.06), strict=False):
        axis.axvline(step, color="0.5", linewidth=1.5, linestyle=":", zorder=1)
        look = {"ha": "center", "color": "0.35", "fontsize": 12}
        axis.text(step, height, name, transform=axis.get_xaxis_transform(), **look)


def _draw_bars(axis, panel: dict) -> None:
    """A group of bars a name, each with its value beside it; the last bar of a group stands out."""
    names, groups = panel["names"], panel["bars"]
    height, last = 0.8 / len(groups), list(groups)[-1]
    for n, (label, values) in enumerate(groups.items()):
        places = [row - 0.4 + (n + 0.5) * height for row in range(len(names))]
        colour = LOOKS[0][0] if label == last else "#999999"
        bars = axis.barh(places, values, 0.9 * height, label=label, color=colour)
        axis.bar_label(bars, fmt="%.3g", padding=3)
    axis.margins(x=0.15)
    _finish_rows(axis, panel, names)


def _draw_shares(axis, panel: dict) -> None:
    """A bar a row, whose parts add up to 1, each with its percentage where there is room for it."""
    for number, row in enumerate(panel["shares"]):
        begin = 0.0
        for kind, share in row["parts"].items():
            axis.barh(number, share, 0.72, left=begin, color=PARTS[kind], label=kind)
            if share >= 0.08:
                light = "white" if kind == "right" else "0.2"
                axis.text(begin + share / 2, number, f"{share:.0%}", ha="center", va="center", color=light, fontsize=12)
            begin += share
        if not row["parts"]:
            axis.text(0.02, number, "not asked", va="center", color="0.5", fontsize=12)
        elif row["low"] < row["high"]:
            first = next(iter(row["parts"].values()))
            arms = [[max(0.0, first - row["low"])], [max(0.0, row["high"] - first)]]
            axis.errorbar(first, number - 0.24, xerr=arms, color="black", linewidth=1.2, capsize=3)
        if "dot" in row:
            axis.plot(row["dot"], number + 0.24, label=panel["dot"], **DOT)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    _finish_rows(axis, panel, [row["name"] for row in panel["shares"]])


def _draw_dots(axis, panel: dict) -> None:
    """A row of dots, one a kind, with a line between them."""
    rows = panel["dots"]
    for number, row in enumerate(rows):
        axis.plot(list(row["values"].values()), [number] * len(row["values"]), color="0.8", zorder=1)
    for kind, (colour, marker) in zip(rows[0]["values"], LOOKS, strict=False):
        values = [row["values"][kind] for row in rows]
        axis.plot(values, range(len(rows)), marker, color=colour, markersize=10, label=kind)
    axis.grid(axis="x", color="0.92")
    _finish_rows(axis, panel, [row["name"] for row in rows])


def _finish_rows(axis, panel: dict, names: list[str]) -> None:
    """Names at the left and what the colours mean below the axis; neither where the panel beside has them."""
    axis.set_xlabel(panel["x"])
    axis.set_yticks(range(len(names)), [textwrap.fill(name, 34) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    if panel.get("beside"):
        axis.set_yticks([])
        return
    handles, labels = axis.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    place = dict(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.8)
    axis.legend(known.values(), known, **place, ncols=len(known), columnspacing=1.2, handlelength=1.2, fontsize=12)


def _draw_boxes(axis, panel: dict) -> None:
    """Rows of boxes with a heading and a text, and arrows from the edge of one to the edge of the next."""
    axis.set_axis_off()
    columns, rows = max(len(row) for row in panel["boxes"]), len(panel["boxes"])
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    centres = {}
    for number, row in enumerate(panel["boxes"]):
        for column, box in enumerate(row):
            x, y = column + 0.5, number + 0.5
            centres[box["name"]] = x, y
            look = {"facecolor": f"{LOOKS[number][0]}18", "edgecolor": LOOKS[number][0]}
            axis.add_patch(FancyBboxPatch((x - 0.4, y - 0.36), 0.8, 0.72, boxstyle=ROUNDED, **look))
            axis.text(x, y - 0.2, box["name"], ha="center", va="center", fontweight="bold", fontsize=13)
            axis.text(x, y + 0.1, textwrap.fill(box["text"], 19), ha="center", va="center", fontsize=11, color="0.25")
    look = {"arrowstyle": "-|>", "color": "0.4", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    for begin, end in panel["arrows"]:
        (x, y), (to_x, to_y) = centres[begin], centres[end]
        if y == to_y:
            x, to_x = x + 0.4, to_x - 0.4
        else:
            edge = 0.36 if to_y > y else -0.36
            y, to_y = y + edge, to_y - edge
        axis.annotate("", (to_x, to_y), (x, y), arrowprops=look)


def _draw_picture(axis, panel: dict) -> None:
    axis.set_axis_off()
    axis.set_title(textwrap.fill(panel["title"], 95))
    axis.imshow(_image(panel), interpolation="none")


def _image(panel: dict):
    """The pixels of a panel's picture: (height, width, 3 or 4)."""
    return imread(BytesIO(b64decode(panel["picture"])), format="png")


DRAWN = {"curves": _draw_curves, "bars": _draw_bars, "shares": _draw_shares, "dots": _draw_dots}
DRAWN |= {"boxes": _draw_boxes, "picture": _draw_picture}
