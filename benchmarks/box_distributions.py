"""Measure the table of medground_bench/sources/distributions.py: sizes and places of real evidence boxes.

    python benchmarks/box_distributions.py --source nih_cxr14=DIR [--source NAME=DIR ...]

Prints the rows as they stand in the module.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple

from medground_bench.imaging.read import image_size
from medground_bench.sources import open_source
from medground_bench.sources.distributions import measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="NAME=DIR")
    for pair in parser.parse_args().source:
        name, _, folder = pair.partition("=")
        candidates = open_source(name, folder)
        for row in measure(name, ((c.attribute, c.boxes, image_size(c.image_path)) for c in candidates if c.boxes)):
            source, finding, boxes, images, area, evidence, *rest = astuple(row)
            print(f'    BoxDistribution(\n        "{source}", "{finding}", {boxes}, {images},')
            print(f"        {area},\n        {evidence},")
            print(f"        {', '.join(map(repr, rest))},\n    ),")


if __name__ == "__main__":
    main()
