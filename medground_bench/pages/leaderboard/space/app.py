"""Entry point of the Space: where the dataset and the results are comes from the Space's variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medground_bench.pages.leaderboard.app import main


def arguments(environment: dict[str, str]) -> list[str]:
    """The server's command line for a Space's variables; a dataset that is no folder is fetched from the Hub."""
    dataset = environment.get("MEDGROUND_DATASET", "/data/medground-bench")
    if not Path(dataset).is_dir() and dataset.count("/") == 1:
        from huggingface_hub import snapshot_download

        dataset = snapshot_download(dataset, repo_type="dataset")
    listen = ["--host", "0.0.0.0", "--port", environment.get("PORT", "7860")]
    config = environment.get("MEDGROUND_CONFIG")
    results = environment.get("MEDGROUND_RESULTS", "/data/results")
    return ["--results", results, "--dataset", dataset, *listen, *(["--config", config] if config else [])]


if __name__ == "__main__":
    sys.exit(main(arguments(dict(os.environ))))
