"""The parts of `docs/performance.md` that come after the tables: goals, the profile, whole runs, rehearsals."""

from __future__ import annotations

from statistics import median

from benchmarks.measures import memory_ratio, ratios, share
from benchmarks.step_profile import PASSES

# stage -> the least ratio of speed that was set as a goal for two cores
GOALS = {"extraction": 15, "generation": 8, "training": 3, "perplexity": 2, "sweep": 10}
LIMIT, MEMORY, MINUTES = 0.60, 0.20, 8  # of training: share of the limit, of the study's memory; of `make run`


def goals(stages: dict[str, dict], whole: dict | None) -> str:
    """What was set as a goal beside what was measured, by stage."""
    lines = ["## Goals", "", "On two cores with the embedded model.", ""]
    lines += [row(["what", "goal", "measured", ""]), row(["---"] * 4)]
    for stage, goal in GOALS.items():
        if stage in stages:
            found = median(ratios(stage, stages[stage]))
            lines.append(_goal(f"{stage}, times as fast", f"{goal}", f"{found:.1f}", found >= goal))
    if "training" in stages:
        facts = stages["training"]
        reached = median(share("training", ours, facts)[0] for ours in facts["ours"])
        what = "training, share of the limit of products"
        lines.append(_goal(what, f"{LIMIT:.0%}", f"{reached:.0%}", reached >= LIMIT))
        peak = memory_ratio(facts)
        lines.append(_goal("training, peak memory of the study's", f"{MEMORY:.0%}", f"{peak:.0%}", peak <= MEMORY))
    if whole:
        minutes = whole["seconds"] / 60
        what = "`make run` after installation, minutes"
        lines.append(_goal(what, f"{MINUTES}", f"{minutes:.1f}", minutes <= MINUTES))
    if {"perplexity", "sweep", "asking"} <= stages.keys():
        texts, whole_sweep = (
            median(round_["seconds"] for round_ in stages[name]["ours"]) for name in ("perplexity", "sweep")
        )
        checkpoints = stages["sweep"]["work"]["checkpoints"]
        gains = {name: median(ratios(name, stages[name])) for name in ("perplexity", "asking")}
        lines += ["", SWEEP.format(share=checkpoints * texts / whole_sweep, **gains)]
    return "\n".join(lines) + "\n"


SWEEP = """What holds the sweep: perplexity takes about {share:.0%} of our time in it and is {perplexity:.1f} times as
fast as in the study's way, the answers {asking:.1f} times. The more questions a checkpoint is asked, the nearer the
sweep comes to the answers."""


def _goal(what: str, goal: str, measured: str, reached: bool) -> str:
    return row([what, goal, measured, "reached" if reached else "**missed**"])


def step(profile: dict) -> str:
    """The table of `benchmarks.step_profile`, and what it says."""
    steps, wall, limit = profile["steps"], profile["seconds"], profile["limits"]["matmul"]
    kinds = sorted(profile["kinds"].items(), key=lambda kind: -kind[1]["seconds"])
    lines = [row(["what", "ms a step", "share", "TFLOP/s"]), row(["---"] * 4)]
    for name, found in kinds:
        rate = f"{found['operations'] / found['seconds'] / 1e12:.2f}" if found["operations"] else "-"
        lines.append(row([name, f"{1000 * found['seconds'] / steps:.0f}", f"{found['seconds'] / wall:.0%}", rate]))
    products = [found for _, found in kinds if found["operations"]]
    spent, counted = (sum(found[key] for found in products) for key in ("seconds", "operations"))
    commit = (profile["git"] or {"commit": "no commit"})["commit"][:10]
    return STEP.format(
        steps=steps, tokens=profile["tokens"] / steps, wall=wall / steps, about=f"{profile['date']}, {commit}",
        table="\n".join(lines), products=spent / wall, rate=counted / spent / 1e12, limit=limit / 1e12,
        passes=profile["kinds"][PASSES]["seconds"] / wall, copy=profile["limits"]["copy"] / 1e9,
    )  # fmt: skip


STEP = """## Where a training step's time goes

{steps} steps of the benchmark `training` in our way under PyTorch's profiler ({about}; the profiler makes them slower):
{tokens:.0f} tokens and {wall:.2f} s a step.

{table}

What holds training back from the limit: products take {products:.0%} of the time, at {rate:.1f} TFLOP/s, where the
limit of
{limit:.1f} is measured with 2,048 rows at once. Passes over memory take {passes:.0%}: a model of width 576 does
little arithmetic for each value, and a copy of memory moves {copy:.0f} GB a second. A fused kernel would save most of
them; PyTorch's compiler could make it, but needs a C++ compiler, which is not assumed here.
"""


def attention(found: dict) -> str:
    """What a CPU's answers take with PyTorch's attention and with ours."""
    lines = [row(["way", "answers, s", "general text read, s", "its perplexity"]), row(["---"] * 4)]
    for name, way in found["ways"].items():
        lines.append(row([name, f"{way['answers']:.0f}", f"{way['reading']:.1f}", f"{way['perplexity']:.2f}"]))
    about = f"{found['date']}, {title(found['machine'])}"
    return ATTENTION.format(about=about, table="\n".join(lines), tokens=found["tokens"], questions=found["questions"])


ATTENTION = """## Attention where a CPU answers

`models.attention` multiplies blocks of 64 queries with the keys before them; and prompts of about one length go
together, so that little of them is padding. {questions} questions with their passages, {tokens:,} tokens, 64 new ones
each, on the embedded base in NF4 ({about}):

{table}
"""


def run(whole: dict) -> str:
    """The stages of one `make run` by the run's own records."""
    lines = [row(["stage", "seconds"]), row(["---"] * 2)]
    lines += [row([stage, f"{seconds:.0f}"]) for stage, seconds in whole["seconds_of"].items()]
    rest = whole["seconds"] - sum(whole["seconds_of"].values())
    lines += [row(["notebooks: kernels, imports, figures", f"{rest:.0f}"]), row(["in all", f"{whole['seconds']:.0f}"])]
    commit = (whole["git"] or {"commit": "no commit"})["commit"][:10]
    share = {stage: seconds / whole["seconds"] for stage, seconds in whole["seconds_of"].items()}
    trained = share.get("pretrain", 0) + share.get("finetune", 0)
    evaluated = share.get("evaluate", 0)
    return RUN.format(
        trained=trained,
        evaluated=evaluated,
        variant=whole["variant"],
        about=f"{whole['date']}, {commit}",
        table="\n".join(lines),
    )


RUN = """## The whole of `make run`

`make run` of {variant} after installation ({about}):

{table}

Training takes {trained:.0%} of it, evaluation {evaluated:.0%}: every system answers, most of them with passages.
"""


def rehearsals(found: list[dict]) -> str:
    """The table of what `llama-qna plan --rehearse` wrote."""
    heads = ["variant", "tokens a step", "planned GiB", "measured GiB", "s a step", "s a new token", "measured"]
    lines = [row(heads), row(["---"] * len(heads))]
    for each in found:
        commit = (each["git"] or {"commit": "no commit"})["commit"][:10]
        token = each["seconds_of_generation"] / each["generated_tokens"]
        values = [each["variant"], f"{each['rows']} x {each['length']}", f"{each['planned_peak'] / 2**30:.2f}"]
        values += [f"{each['peak'] / 2**30:.2f}", f"{median(each['seconds_of_steps']):.0f}", f"{token:.0f}"]
        lines.append(row([*values, f"{each['date']}, {commit}, {title(each['machine'])}"]))
    return REHEARSALS.format(table="\n".join(lines))


REHEARSALS = """## 7B and 13B at their true shapes

`llama-qna plan VARIANT --rehearse --memory 24GiB`, with random weights: two training steps with gradient
checkpointing and one generation, on a CPU that dequantizes each matrix when it is used; 13B beside other work. Nearly
the whole of the peak is reached while the model is built, and differs between runs. On a GPU: not measured.

{table}
"""


def title(machine: dict) -> str:
    return machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"


def row(cells) -> str:
    return "| " + " | ".join(cells) + " |"
