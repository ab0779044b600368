"""Which share of an LVLM's replies to the prompting methods' requests can be read: boxes, phrases, numbers of marks.

    python benchmarks/prompted_replies.py toy_qwen toy_gemma --phantoms 50

Of every phantom the first two findings are asked about, the answer taken to be yes.
"""

from __future__ import annotations

import argparse
from collections import Counter

from PIL import Image

from baselines.shared.marks import read_numbers
from baselines.shared.prompts import ask, boxes_prompt, marks_prompt, phrases_prompt
from baselines.shared.replies import read_boxes, read_phrases
from medground_bench.core.schema import question
from medground_bench.lvlm import load_lvlm
from medground_bench.sources.phantom import sample_phantom

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("lvlms", nargs="+")
parser.add_argument("--phantoms", type=int, default=50)
options = parser.parse_args()

for key in options.lvlms:
    lvlm = load_lvlm(key)
    read: Counter[str] = Counter()
    for seed in range(options.phantoms):
        phantom = sample_phantom(seed)
        for finding in phantom.findings[:2]:
            episode = lvlm.prepare(Image.fromarray(phantom.image), question(finding.attribute, "direct"), "Yes")
            scale = lvlm.adapter.box_scale
            width, height = lvlm.adapter.processed_size(lvlm.processor, *episode.frame.size)
            boxes = ask(lvlm, episode, boxes_prompt(scale=scale, width=width, height=height), 48)
            read["asked"] += 1
            read["boxes"] += bool(read_boxes(boxes, rows_first=scale == "normalised"))
            read["phrases"] += bool(read_phrases(ask(lvlm, episode, phrases_prompt(), 48), 8))
            read["marks"] += bool(read_numbers(ask(lvlm, episode, marks_prompt(7), 48), 7)[0])
    print(key, dict(read))
