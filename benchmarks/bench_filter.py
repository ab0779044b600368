"""The causal filter against the plain loop.

Claims measured, in one run on phantoms with real (toy) LVLMs:

* at most 4 questions per candidate, fewer where an early gate fails (the plain loop always asks 4);
* edits shared between LVLMs and modes through the cache are made once (the plain loop makes 3 per candidate each time);
* throughput: candidates per second, batched, gated and cached, over the plain loop's.

The verdicts of both are compared as well. Run: python benchmarks/bench_filter.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from medground_bench.causal.answers import read_answer
from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import edit_seed, filter_candidates
from medground_bench.causal.masks import box_mask
from medground_bench.causal.verdicts import read_verdicts
from medground_bench.core.schema import GATES, Candidate, question
from medground_bench.imaging.read import read_image
from medground_bench.lvlm import Generated, load_lvlm
from medground_bench.sources import open_source
from medground_bench.sources.phantom.writers import write_source

EXPECTED = ("yes", "no", "yes", "yes")


def plain(lvlm: Any, mode: str, candidate: Candidate, editor: Any) -> str | None:
    """One candidate by the book: four images, four questions, one after the other."""
    image = read_image(candidate.image_path)
    editor.bind(candidate, image)
    mask, seed = box_mask(candidate.boxes, image.size), edit_seed(0, candidate)
    prompt = f"No {candidate.attribute}"
    pictures = [image] + [
        editor.edit(image, m, p, seed) for m, p in ((mask, prompt), (~mask, prompt), (~mask, "No abnormality"))
    ]
    text = question(candidate.attribute, mode)
    answers = [lvlm.generate([p], [text], max_new_tokens=32 if mode == "direct" else 512)[0] for p in pictures]

    def read(answer: Generated) -> str | None:
        return read_answer(answer.text, candidate.attribute, cut=not answer.ended)

    return next((g for g, a, e in zip(GATES, answers, EXPECTED, strict=True) if read(a) != e), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--lvlm", nargs="+", default=["toy_qwen", "toy_gemma"])
    parser.add_argument("--mode", nargs="+", default=["direct"])
    parser.add_argument("--editor", default="inpaint")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = write_source("phantom", Path(folder) / "set", arguments.images, seed=1, size=arguments.size).root
        source = open_source("phantom", root)
        lvlms = [load_lvlm(name) for name in arguments.lvlm]
        for lvlm in lvlms:  # the first call of a model allocates
            lvlm.generate([read_image(source[0].image_path)], [question("nodule", "direct")], max_new_tokens=2)
        jobs = [(lvlm, mode) for lvlm in lvlms for mode in arguments.mode]
        editor = load_editor(arguments.editor)

        start = time.perf_counter()
        reports = [
            filter_candidates(
                lvlm, mode, {"phantom": source}, editor, Path(folder) / "v", batch_size=arguments.batch_size
            )
            for lvlm, mode in jobs
        ]
        ours = time.perf_counter() - start
        start = time.perf_counter()
        slow: dict[tuple[str, str, int | None], str | None] = {
            (lvlm.key, mode, c.index): plain(lvlm, mode, c, editor) for lvlm, mode in jobs for c in source
        }
        theirs = time.perf_counter() - start
        same = sum(
            slow[verdict.model, verdict.mode, verdict.index] == verdict.gate
            for verdict in read_verdicts(Path(folder) / "v")
        )

    judged = len(source) * len(jobs)
    asked, made = sum(r.questions for r in reports), sum(r.edits_made for r in reports)
    reused, fewer = sum(r.edits_found for r in reports), 3 * judged / max(1, made)
    print(f"{judged} verdicts ({len(source)} candidates, {', '.join(f'{m.key}/{mode}' for m, mode in jobs)})")
    print(f"questions per candidate: {asked / judged:.2f} (plain loop 4.00): {4 * judged / asked:.2f}x fewer")
    print(f"edits made: {made}, found in the cache: {reused} (plain loop {3 * judged}): {fewer:.2f}x fewer")
    print(f"throughput: {judged / ours:.2f} against {judged / theirs:.2f} candidates/s: {theirs / ours:.2f}x")
    print(f"verdicts equal to the plain loop's: {same} of {judged}")


if __name__ == "__main__":
    main()
