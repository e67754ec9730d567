"""How fast pairs are written: one prompt at a time against batches with a shared prefix, on the same chunks.

Both ways use the same model, prompts, word lists and filters (`llama_qna.pair_writers`). The plain one runs each prompt
alone and whole; ours sorts prompts by length, batches them and computes the beginning that they share once. They take
turns, so that a slow moment of the machine meets both. Prints a table and writes `benchmarks/results/generation.json`.

    python benchmarks/generation.py [VARIANT] [--chunks 32] [--rounds 2]
"""

import argparse
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from llama_qna import records
from llama_qna.chunks import load
from llama_qna.pair_writers import LocalModel, Passage, TwoStep
from llama_qna.qna import judge
from llama_qna.variants import Variant

RESULTS = Path(__file__).parent / "results" / "generation.json"


class OneAtATime(LocalModel):
    """The same questions to the same model, every prompt alone and from its first token."""

    def generate(self, input_ids, seeds, words):
        single = super().generate
        return [single([ids], [seed], words=[row])[0] for ids, seed, row in zip(input_ids, seeds, words, strict=True)]

    def likelihoods(self, input_ids, texts):
        single = super().likelihoods
        return [single([ids], [text])[0] for ids, text in zip(input_ids, texts, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variant", nargs="?", default="physics_books_135m")
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    variant = Variant.load(options.variant)
    chunks = load(variant)
    body = chunks[chunks.kind == "body"].sample(options.chunks, random_state=variant.recipe.seed)
    passages = [Passage(row.chunk_id, row.text) for row in body.itertuples()]
    settings = variant.recipe.generation
    ways = {
        "one prompt at a time": TwoStep(OneAtATime(variant), settings),
        "batches, shared prefix": TwoStep(LocalModel(variant), settings),
    }
    rounds = []
    for number in range(1, options.rounds + 1):
        measured = {}
        for name, write in ways.items():
            started = time.perf_counter()
            written = write(passages, attempt=1)
            seconds = time.perf_counter() - started
            pairs, rejected = judge(variant, body, {p.chunk_id: [w] for p, w in zip(passages, written, strict=True)})
            measured[name] = {
                "seconds": round(seconds, 2),
                "pairs": len(pairs),
                "tries": len(pairs) + len(rejected),
                "pairs_per_second": round(len(pairs) / seconds, 3),
            }
            print(f"round {number}, {name}: {seconds:.1f} s, {len(pairs)} pairs", flush=True)
        plain, ours = measured.values()
        measured["ratio"] = round(ours["pairs_per_second"] / plain["pairs_per_second"], 2)
        rounds.append(measured)
    ratios = [measured["ratio"] for measured in rounds]
    print(f"\n{'':26}{'seconds':>9}{'pairs':>7}{'pairs/s':>9}")
    for name in ways:
        middle = {
            key: statistics.median(m[name][key] for m in rounds) for key in ("seconds", "pairs", "pairs_per_second")
        }
        print(f"{name:26}{middle['seconds']:>9.1f}{middle['pairs']:>7.0f}{middle['pairs_per_second']:>9.2f}")
    print(f"ratio: median {statistics.median(ratios):.1f}, from {min(ratios):.1f} to {max(ratios):.1f}")
    facts = {"variant": variant.name, "chunks": options.chunks, "seed": variant.recipe.seed, "rounds": rounds}
    facts |= {"ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}}
    facts |= {"date": datetime.now(UTC).date().isoformat(), "git": records.git_state()}
    records.write_json(RESULTS, facts | {"machine": records.machine(), "versions": records.versions()})


if __name__ == "__main__":
    main()
