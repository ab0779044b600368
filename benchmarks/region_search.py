"""IoU against passes of the methods that remove regions, on evidence that is known.

A record is a finding of an unseen phantom, or of a planted set, that passes the causal filter with the exact
counterfactual: the LVLM says yes to the image, no without the finding, and yes when only the finding is left. Every
method runs on the same records. ``medfocus_minimal`` tells its best region after any number of passes; the others run
once for each budget. Then follow paired comparisons of one method (``--reference``) with all others (sign flips by
patient, Holm). Beside the scores: how often removing the boxes takes the answer away, and how often they alone keep it.

Every finished (LVLM, mode, method, record) is a line of a journal in ``--out``: the same command resumes, with more
records or methods too. Other weights of an LVLM are refused: take another folder.

    python benchmarks/region_search.py --out search --records 300
    python benchmarks/region_search.py --out search-planted --planted planted --records 300
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medground_bench.attribution.fills import compose, fill_frame
from medground_bench.attribution.method import Attribution, available_methods, get_method
from medground_bench.attribution.regions import box_masks
from medground_bench.causal.answers import read_answer
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import Journal, atomic_write, read_journals
from medground_bench.core.schema import question
from medground_bench.core.settings import same_as_before
from medground_bench.lvlm import load_lvlm
from medground_bench.scoring import compare_methods, evaluate_boxes, score_boxes
from medground_bench.scoring.rows import interval_text, p_text
from medground_bench.sources import open_source
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import load_planted

FIRST_SEED = 9_000_000_000  # far from the seeds of training, evaluation and tuning
MINIMAL = "medfocus_minimal"
BUDGETS = (17, 24, 32, 48, 65, 80, 128, 257)

VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    # name -> method, settings, whether one run tells all budgets
    MINIMAL: (MINIMAL, {}, True),
    "minimal, no margin": (MINIMAL, {"margin": 0.0}, True),
    "minimal, factor 1.75": (MINIMAL, {"margin": 0.0, "enlarge": 1.75}, True),
    "minimal, queue": (MINIMAL, {"search": "best_first"}, True),
    "minimal, 3 starts": (MINIMAL, {"starts": 3, "budget": 128}, True),
    "minimal, zones": (MINIMAL, {"vocabulary": "zones", "zones": False}, True),
    "minimal, pairs": (MINIMAL, {"boxes": 2}, True),
    "minimal, mean fill": (MINIMAL, {"fill": "mean"}, True),
    "minimal, blurred fill": (MINIMAL, {"fill": "blur"}, True),
    "minimal, 0.7 kept": (MINIMAL, {"share": 0.7}, True),
    "medfocus_multi_atlas": ("medfocus_multi_atlas", {}, False),
    "medfocus": ("medfocus", {}, False),
    "lrp": ("lrp", {}, False),
    "occlusion 4x4": ("occlusion", {"rows": 4, "cols": 4}, False),
    "occlusion 8x8": ("occlusion", {}, False),
    "occlusion 16x16": ("occlusion", {"rows": 16, "cols": 16}, False),
    **{f"rise {n}": ("rise", {"masks": n}, False) for n in (64, 128, 256)},
    **{
        f"{name} {n}": (name, {"budget": n}, False)
        for name in ("eagle", "smdl", "lima", "vps", "tis", "lime", "kernel_shap", "shapley_anatomy", "sobol", "hsic")
        for n in (64, 257)
    },
}


@dataclass(frozen=True)
class Record:
    """A verified question: image, question, answer, evidence and patient."""

    key: str
    patient: str
    image: Image.Image
    attribute: str
    question: str
    response: str
    boxes: list[list[float]]


def phantoms(start: int) -> Iterator[tuple[str, str, str, list[Image.Image], list[list[float]]]]:
    """(key, patient, attribute, [image, without, only], boxes), one finding of each phantom."""
    seed = start
    while True:
        phantom = sample_phantom(seed)
        for finding in np.roll(np.asarray(phantom.findings, object), -seed)[:1]:
            alone = phantom
            for other in phantom.attributes:
                alone = alone if other == finding.attribute else alone.without(other)
            images = [Image.fromarray(np.array(p.image)) for p in (phantom, phantom.without(finding.attribute), alone)]
            yield f"{seed}", f"{seed}", finding.attribute, images, [list(b) for b in finding.boxes]
        seed += 1


def planted(root: Path) -> Iterator[tuple[str, str, str, list[Image.Image], list[list[float]]]]:
    """The findings of a planted set."""
    for candidate in open_source("planted", root):
        if not candidate.boxes:
            continue
        file = load_planted(root, candidate.image_id)
        others = [name for name in file.masks if name != candidate.attribute]
        try:
            alone = file.without(others) if others else file.image
        except MedGroundError:  # findings that lie on each other cannot be taken apart
            continue
        images = [Image.fromarray(a) for a in (file.image, file.without([candidate.attribute]), alone)]
        yield candidate.id, candidate.patient_id, candidate.attribute, images, [list(b) for b in candidate.boxes]


def records_of(lvlm: Any, mode: str, args: argparse.Namespace, journal: Journal, known: list[Any]) -> Iterator[Record]:
    """``args.records`` verified records; what was judged before is not asked again."""
    judged = {e["record"]: e for e in known if e["kind"] == "judged" and (e["lvlm"], e["mode"]) == (lvlm.key, mode)}
    found = 0
    for key, patient, attribute, images, boxes in planted(args.planted) if args.planted else phantoms(FIRST_SEED):
        ask = question(attribute, mode)
        if key not in judged:
            replies = lvlm.generate(images, [ask] * 3, max_new_tokens=64)
            read = [read_answer(r.text, attribute, cut=not r.ended) for r in replies]
            entry = {
                "kind": "judged",
                "lvlm": lvlm.key,
                "mode": mode,
                "record": key,
                "kept": read == ["yes", "no", "yes"],
            }
            judged[key] = entry | {"response": replies[0].text}
            journal.append(judged[key])
        if judged[key]["kept"]:
            found += 1
            yield Record(key, patient, images[0], attribute, ask, judged[key]["response"], boxes)
            if found >= args.records:
                return


def passes_of(name: str, settings: dict[str, Any], result: Attribution) -> int | None:
    """How many images the LVLM saw, where that is known."""
    if "passes" in result.extras:
        return int(result.extras["passes"])
    if "budget" in settings:
        return int(settings["budget"])
    if name == "occlusion":
        return int(settings.get("rows", 8)) * int(settings.get("cols", 8)) + 1
    if name == "rise":
        return int(settings["masks"])
    return {"medfocus": 16, "medfocus_multi_atlas": 16, MINIMAL: 16}.get(name)


def curve(result: Attribution, end: int | None) -> list[list[Any]]:
    """[passes, boxes] of the best region at each budget."""
    steps = result.extras.get("progress")
    if not steps:
        return [[end, [list(b) for b in result.boxes]]]
    out: list[list[Any]] = []
    for budget in BUDGETS:
        reached = [boxes for passes, boxes in steps if passes <= budget]
        if reached:
            out.append([budget, reached[-1]])
    return out


def flips(lvlm: Any, record: Record, episode: Any, boxes: list[Any]) -> dict[str, Any]:
    """Whether removing the boxes (black) takes the answer away, and whether they alone (rest mean grey) keep it."""
    frame = episode.frame_array
    on_frame = box_masks(episode.letterbox.to_frame([tuple(b) for b in boxes]), frame.shape[0], frame.shape[1])
    inside = np.asarray(on_frame.any(0))
    removed = compose(frame, inside[None], fill_frame("black", episode))[0]
    kept = compose(frame, ~inside[None], fill_frame("mean", episode))[0]
    replies = lvlm.generate(
        [Image.fromarray(np.asarray(a)) for a in (removed, kept)], [record.question] * 2, max_new_tokens=64
    )
    reads = [read_answer(r.text, record.attribute, cut=not r.ended) for r in replies]
    return {"necessary": reads[0] == "no", "sufficient": reads[1] == "yes"}


def run(lvlm: Any, mode: str, names: list[str], args: argparse.Namespace) -> None:
    """Compute what is missing."""
    known = list(read_journals(args.out, "search"))
    done = {
        (e["method"], e["record"]) for e in known if e["kind"] == "run" and (e["lvlm"], e["mode"]) == (lvlm.key, mode)
    }
    with Journal(args.out, "search") as journal:
        for count, record in enumerate(records_of(lvlm, mode, args, journal, known)):
            missing = [name for name in names if (name, record.key) not in done]
            if not missing:
                continue
            episode = lvlm.prepare(record.image, record.question, record.response)
            for name in missing:
                kind, settings, _ = VARIANTS.get(name, (name, {}, False))
                entry = {"kind": "run", "lvlm": lvlm.key, "mode": mode, "method": name, "record": record.key}
                entry |= {"patient": record.patient, "evidence": record.boxes}
                try:
                    method = get_method(kind)
                    result = method.run(
                        lvlm, episode, method.make_parameters({**args.common.get(kind, {}), **settings})
                    )
                except MedGroundError as error:
                    journal.append(entry | {"error": str(error).splitlines()[0]})
                    continue
                passes = passes_of(kind, settings, result)
                entry |= {"passes": passes, "curve": curve(result, passes), "boxes": [list(b) for b in result.boxes]}
                entry |= {"fallback": result.fallback, "concept": result.concept}
                journal.append(entry | flips(lvlm, record, episode, result.boxes))
            print(f"\r{lvlm.key} {mode}: {count + 1} of {args.records}", end="", flush=True)
    print()


def report(out: Path, records: int, reference: str) -> dict[str, Any]:
    """Print and return the tables."""
    entries = [e for e in read_journals(out, "search") if e["kind"] == "run"]
    everything: dict[str, Any] = {}
    for lvlm, mode in dict.fromkeys((e["lvlm"], e["mode"]) for e in entries):
        mine = [e for e in entries if (e["lvlm"], e["mode"]) == (lvlm, mode) and "error" not in e]
        keys = list(dict.fromkeys(e["record"] for e in mine if e["method"] == reference))[:records]
        table = {
            name: {e["record"]: e for e in mine if e["method"] == name}
            for name in dict.fromkeys(e["method"] for e in mine)
        }
        table = {name: rows for name, rows in table.items() if all(key in rows for key in keys)}
        if reference not in table or not keys:
            continue
        print(f"\n## {lvlm}, {mode}: {len(keys)} records\n")
        print("| method | passes | IoU | precision | recall | removal flips | alone suffices |\n" + "| --- " * 7 + "|")
        ious, rows, cost = {}, {}, {}
        for name, by_key in table.items():
            chosen = [by_key[key] for key in keys]
            scores = evaluate_boxes([e["boxes"] for e in chosen], [e["evidence"] for e in chosen])
            ious[name] = score_boxes([e["boxes"] for e in chosen], [e["evidence"] for e in chosen]).iou
            passes = [e["passes"] for e in chosen if e["passes"] is not None]
            rows[name] = {k: float(scores[k]) for k in ("iou", "precision", "recall")}
            rows[name] |= {k: float(np.mean([e[k] for e in chosen])) for k in ("necessary", "sufficient", "fallback")}
            cost[name] = f"{np.mean(passes):.0f}" if passes else ""
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["iou"]):
            cells = [f"{row[k]:.3f}" for k in ("iou", "precision", "recall", "necessary", "sufficient")]
            print(f"| {name} | {cost[name]} | " + " | ".join(cells) + " |")
        curves = {name: _curve(by_key, keys) for name, by_key in table.items()}
        print("\nIoU after so many passes: " + ", ".join(map(str, BUDGETS)))
        for name, points in curves.items():
            if points:
                print(f"  {name}: " + ", ".join(f"{p}: {v:.3f}" for p, v in points))
        patients = [table[reference][key]["patient"] for key in keys]
        pairs = [(reference, name) for name in table if name != reference]
        print(f"\n{reference} less another, IoU, paired by patient (p: Holm)")
        for c in compare_methods(ious, patients, pairs):
            ratio = ious[reference].mean() / max(float(ious[c.second].mean()), 1e-9)
            print(f"  {c.second}: {interval_text(c.difference)}, p {p_text(c.p_holm, c.clusters)}, {ratio:.2f} times")
        everything[f"{lvlm} {mode}"] = {"records": len(keys), "methods": rows, "curves": curves}
    return everything


def _curve(by_key: dict[str, Any], keys: list[str]) -> list[tuple[int, float]]:
    """(passes, mean IoU): of every record the best region so far, from where all records have one."""
    reached = []
    for key in keys:
        steps = [(int(p), boxes) for p, boxes in by_key[key]["curve"] if p is not None]
        if not steps:
            return []
        scores = score_boxes([boxes for _, boxes in steps], [by_key[key]["evidence"]] * len(steps)).iou
        reached.append((np.array([p for p, _ in steps]), scores))
    first = max(int(passes[0]) for passes, _ in reached)
    places = sorted({int(p) for passes, _ in reached for p in passes if p >= first})
    values = [[scores[np.searchsorted(passes, p, "right") - 1] for passes, scores in reached] for p in places]
    return [(p, float(np.mean(v))) for p, v in zip(places, values, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the journal; the same command resumes")
    parser.add_argument("--lvlm", nargs="+", default=["toy_qwen", "toy_gemma"])
    parser.add_argument("--mode", nargs="+", default=["direct", "reason"])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--planted", type=Path, help="a folder of medground-bench plant, instead of phantoms")
    parser.add_argument("--pool", default="phantom", help="reference pool of the MedFocus methods")
    parser.add_argument("--methods", nargs="+", default=list(VARIANTS), help="names of VARIANTS, or of methods")
    parser.add_argument("--reference", default=MINIMAL, help="the method that the others are compared with")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    parser.add_argument("--json", help="also write the numbers there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    medfocus = [name for name in available_methods() if name.startswith("medfocus")]
    args.common = {name: {"pool": args.pool} for name in medfocus}
    for key in [] if args.report else args.lvlm:
        lvlm = load_lvlm(key, device="cpu")
        now = {"revision": lvlm.revision, "planted": bool(args.planted), "pool": args.pool}
        same_as_before("the results here", args.out / f"{key}.json", now)
        for mode in args.mode:
            run(lvlm, mode, args.methods, args)
    everything = report(args.out, args.records, args.reference)
    if args.json:
        with atomic_write(args.json) as file:
            json.dump(everything, file, indent=2)


if __name__ == "__main__":
    main()
