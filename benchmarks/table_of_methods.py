"""One table of all registered methods on causally verified phantom records, for each toy LVLM.

A record is a finding of an unseen phantom that passes the causal filter with the phantom's exact counterfactuals: the
LVLM says yes to the phantom, no without the finding, and yes when only the finding is left. Its evidence is the
finding's boxes. For every method the script prints the four scores, how often it named nothing or only the whole
image, passes forward and backward and processor seconds per record (one thread: what an idle core would take), and
(with ``--sanity``) the rank correlation of its heat maps with those it gives when every weight matrix is shuffled; the
chance rows stand below. ``--agreement N`` adds two rank correlations over N records: with the map of
``token_patching``, both on the token grid, which says how well a method estimates the causal effect of image tokens;
and between a method's maps for two questions about one image, which is 1 for a method that is blind to the question.
What a method cannot do here (an absent detector) is a row with the reason. Nothing is asserted: the table is what
comes out. Some ten minutes of an idle core for each LVLM.

    python benchmarks/table_of_methods.py --lvlm toy_qwen toy_gemma --records 64 --sanity 8 --json table.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from medground_bench.attribution.method import Attribution, available_methods, get_method
from medground_bench.causal.answers import read_answer
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import question
from medground_bench.imaging import resize_heatmap
from medground_bench.lvlm import load_lvlm
from medground_bench.lvlm.passes import count_passes
from medground_bench.scoring import evaluate_boxes
from medground_bench.scoring.rows import too_few
from medground_bench.sources.phantom import Phantom, sample_phantom

FIRST_SEED = 7_000_000_000  # far from the seeds of training and evaluation


@dataclass(frozen=True)
class Record:
    """A verified question: the image, what was asked and answered, and where the evidence is."""

    seed: int
    image: Any
    attribute: str
    question: str
    response: str
    boxes: tuple[Any, ...]


def find_records(lvlm: Any, mode: str, count: int) -> tuple[list[Record], int]:
    """``count`` records, one per phantom, and how many candidates were asked."""
    records: list[Record] = []
    asked, seed = 0, FIRST_SEED
    while len(records) < count:
        if asked > 50 * count:
            sys.exit(f"{lvlm.key} in {mode} mode: only {len(records)} of {asked} candidates pass the causal filter")
        phantom = sample_phantom(seed)
        seed += 1
        # A different finding of each phantom, so that no attribute crowds out the others.
        for finding in np.roll(np.asarray(phantom.findings, object), -seed):
            asked += 1
            ask = question(finding.attribute, mode)
            variants = [phantom, phantom.without(finding.attribute), only(phantom, finding.attribute)]
            images = [Image.fromarray(np.array(v.image)) for v in variants]
            replies = lvlm.generate(images, [ask] * 3, max_new_tokens=64)
            if [read_answer(r.text, finding.attribute, cut=not r.ended) for r in replies] == ["yes", "no", "yes"]:
                records.append(Record(seed - 1, images[0], finding.attribute, ask, replies[0].text, finding.boxes))
                break
    return records, asked


def only(phantom: Phantom, attribute: str) -> Phantom:
    """The phantom with all other findings removed."""
    for other in phantom.attributes:
        if other != attribute:
            phantom = phantom.without(other)
    return phantom


def shuffle_weights(model: Any, seed: int = 0) -> None:
    """Every parameter keeps its values in random order: the same statistics, nothing learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            flat = weight.reshape(-1)
            weight.copy_(flat[torch.randperm(len(flat), generator=generator)].reshape(weight.shape))


def attribute(lvlm: Any, name: str, settings: Mapping[str, Any], records: list[Record]) -> Iterator[Attribution]:
    method = get_method(name)
    parameters = method.make_parameters(settings)
    for record in records:
        yield method.run(lvlm, lvlm.prepare(record.image, record.question, record.response), parameters)


def row_of(lvlm: Any, shuffled: Any, name: str, settings: Mapping[str, Any], records: list[Record], sanity: int) -> Any:
    """Scores and times of one method, or the reason why it cannot run."""
    sizes = [record.image.size for record in records]
    try:
        start = time.process_time()
        with count_passes(lvlm) as passes:
            found = list(attribute(lvlm, name, settings, records))
        seconds = (time.process_time() - start) / len(records)
        scores = evaluate_boxes(
            [a.boxes for a in found],
            [r.boxes for r in records],
            image_sizes=sizes,
            attributes=[r.attribute for r in records],
            groups=[r.seed for r in records],
        )
        row = {k: scores[k] for k in ("iou", "f1", "precision", "recall", "area_ratio", "chance", "skill")}
        row["clusters"] = scores["clusters"]
        row["iou_interval"] = scores.get("intervals", {}).get("iou")
        row |= {"seconds": seconds, "empty": sum(not a.boxes for a in found)}
        row |= {"forward": passes.forward / len(records), "backward": passes.backward / len(records)}
        row["whole"] = sum(a.degenerate or a.fallback for a in found)
        errors = [a.extras["completeness_error"] for a in found if "completeness_error" in a.extras]
        if errors:
            row["completeness_error"] = {"median": float(np.median(errors)), "largest": float(np.max(errors))}
        if shuffled is not None and found[0].heatmap is not None:
            row["rank_correlation"] = correlation(found, attribute(shuffled, name, settings, records[:sanity]))
        return row
    except MedGroundError as error:
        return {"error": str(error).splitlines()[0]}


def agreement(lvlm: Any, names: list[str], settings: Mapping[str, Any], records: list[Record]) -> dict[str, Any]:
    """Method -> rank correlations of its maps: with token patching's, and across two questions about one image."""
    found: dict[str, Any] = {}
    mode = "direct" if records[0].question == question(records[0].attribute, "direct") else "reason"
    attributes = sorted({record.attribute for record in records})
    others = [attributes[(attributes.index(r.attribute) + 1) % len(attributes)] for r in records]
    asked = [replace(r, question=question(o, mode)) for r, o in zip(records, others, strict=True)]
    patched: list[np.ndarray] | None = None
    for name in ["token_patching", *(n for n in names if n != "token_patching")]:
        print(f"agreement of {name} ...", file=sys.stderr, flush=True)
        try:
            own = grid_maps(lvlm, name, settings.get(name, {}), records)
            if any(one is None for one in own):
                continue
            patched = own if patched is None else patched
            other = grid_maps(lvlm, name, settings.get(name, {}), asked)
            found[name] = {"with_patching": spearman(own, patched), "across_questions": spearman(own, other)}
        except MedGroundError as error:
            found[name] = {"error": str(error).splitlines()[0]}
    return found


def grid_maps(lvlm: Any, name: str, settings: Mapping[str, Any], records: list[Record]) -> list[Any]:
    found = attribute(lvlm, name, settings, records)
    return [on_grid(lvlm, record, one) for record, one in zip(records, found, strict=True)]


def on_grid(lvlm: Any, record: Record, attribution: Attribution) -> Any:
    """A map's mean in every cell of the token grid; None where a method made no map."""
    if attribution.heatmap is None:
        return None
    episode = lvlm.prepare(record.image, record.question, record.response)
    heat = np.asarray(attribution.heatmap, float)
    if heat.shape == episode.grid.map_shape:
        return heat
    return episode.grid.from_frame(resize_heatmap(heat, (episode.frame.height, episode.frame.width)))


def spearman(ours: list[Any], others: list[Any]) -> float | None:
    """Mean rank correlation of maps that are not constant; None if there is none."""
    from scipy.stats import spearmanr

    pairs = [(np.ravel(a), np.ravel(b)) for a, b in zip(ours, others, strict=True)]
    values = [float(spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) and np.ptp(b)]
    return float(np.mean(values)) if values else None


def show_agreement(found: dict[str, Any]) -> None:
    print("\n| method | with token_patching | across questions | |\n| --- | --- | --- | --- |")
    for name, one in sorted(found.items(), key=lambda item: -(item[1].get("with_patching") or -2)):
        if "error" in one:
            print(f"| {name} | | | not run: {one['error'][:90]} |")
            continue
        texts = ["" if one[k] is None else f"{one[k]:.3f}" for k in ("with_patching", "across_questions")]
        print(f"| {name} | {texts[0]} | {texts[1]} | {'' if get_method(name).question_aware else 'question-blind'} |")


def correlation(found: list[Attribution], others: Iterator[Attribution]) -> float:
    """Mean Spearman correlation of heat maps of the same records; a constant map correlates with nothing."""
    from scipy.stats import spearmanr

    values = []
    for a, b in zip(found, others, strict=False):
        x, y = np.asarray(a.heatmap, float).ravel(), np.asarray(b.heatmap, float).ravel()
        values.append(float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else 0.0)
    return float(np.mean(values))


def show(rows: dict[str, Any]) -> None:
    head = ("method", "IoU", "95 %", "F1", "precision", "recall", "area", "empty", "whole", "F", "B", "s/record")
    head = (*head, "shuffled")
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for name, r in sorted(rows.items(), key=lambda item: -item[1].get("iou", -1)):
        if "error" in r:
            print(f"| {name} | not run: {r['error'][:100]} |" + " |" * (len(head) - 2))
            continue
        interval = too_few(r["clusters"]) or "{:.2f}-{:.2f}".format(*r["iou_interval"])
        cells = [f"{r['iou']:.3f}", interval, *(f"{r[k]:.3f}" for k in ("f1", "precision", "recall"))]
        cells += [f"{r['area_ratio']:.2f}", str(r["empty"]), str(r["whole"])]
        cells += [f"{r['forward']:.0f}", f"{r['backward']:.0f}", f"{r['seconds']:.2f}"]
        cells.append(f"{r['rank_correlation']:.2f}" if "rank_correlation" in r else "")
        print(f"| {name} | " + " | ".join(cells) + " |")
    chance = next((r["chance"] for r in rows.values() if "chance" in r), {})
    for name, r in chance.items():
        print(f"| *{name}* | {r['iou']:.3f} | | {r['f1']:.3f} | {r['precision']:.3f} | {r['recall']:.3f} |" + " |" * 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lvlm", nargs="+", default=["toy_qwen", "toy_gemma"])
    parser.add_argument("--mode", choices=["direct", "reason"], default="direct")
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=available_methods())
    parser.add_argument("--sanity", type=int, default=0, metavar="N", help="records for the shuffled-weights check")
    parser.add_argument("--agreement", type=int, default=0, metavar="N", help="records for the rank correlations")
    parser.add_argument("--detector", help="folder or hub id of an OWL-ViT, for prompting_medsam")
    parser.add_argument("--json", help="also write everything there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, dict[str, Any]] = {"prompting_medsam": {"detector": args.detector} if args.detector else {}}
    everything: dict[str, Any] = {}
    for key in args.lvlm:
        lvlm = load_lvlm(key, device="cpu")
        shuffled = None
        if args.sanity:
            shuffled = load_lvlm(key, device="cpu")
            shuffle_weights(shuffled.model)
        records, asked = find_records(lvlm, args.mode, args.records)
        print(f"\n## {key}, {args.mode} mode: {len(records)} records ({asked} candidates asked)\n", flush=True)
        rows = {}
        for name in args.methods:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows[name] = row_of(lvlm, shuffled, name, settings.get(name, {}), records, args.sanity)
        show(rows)
        ig = rows.get("integrated_gradients", {}).get("completeness_error")
        if ig:
            print(
                f"\nCompleteness error of integrated gradients: median {ig['median']:.1%}, largest {ig['largest']:.1%}"
            )
        agreed = agreement(lvlm, args.methods, settings, records[: args.agreement]) if args.agreement else {}
        if agreed:
            show_agreement(agreed)
        everything[key] = {"mode": args.mode, "records": len(records), "asked": asked, "methods": rows}
        everything[key]["agreement"] = agreed
    if args.json:
        from medground_bench.core.files import atomic_write

        with atomic_write(args.json) as file:
            json.dump(everything, file, indent=2)


if __name__ == "__main__":
    main()
