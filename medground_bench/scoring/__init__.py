"""Numbers: scores of boxes and heat maps, chance rows, uncertainty, and the files that hold them."""

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, RecordAreas, ragged, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores, score_areas, score_boxes
from medground_bench.scoring.aggregate import (
    LEVELS,
    Aggregate,
    Quotient,
    aggregate,
    chance_quotients,
    score_quotients,
)
from medground_bench.scoring.chance import CHANCE_ROWS, chance_scores, skill, whole_image_scores
from medground_bench.scoring.comparison import (
    ComparisonReport,
    MethodScores,
    PairComparison,
    compare_scores,
    pool_methods,
)
from medground_bench.scoring.files import ScoreFile, SubmissionScores, read_scores, write_scores
from medground_bench.scoring.heatmaps import HEATMAP_METRICS, HeatmapScores, score_heatmap
from medground_bench.scoring.quick import evaluate_boxes
from medground_bench.scoring.run import score_submission, score_submissions
from medground_bench.scoring.statistics import (
    Comparison,
    Interval,
    bootstrap_ratios,
    bootstrap_sums,
    compare_methods,
    holm,
)
from medground_bench.scoring.table import SIZES, RecordTable, Reference, load_reference, size_tertiles

__all__ = [
    "CHANCE_ROWS",
    "HEATMAP_METRICS",
    "LEVELS",
    "METRICS",
    "SIZES",
    "Aggregate",
    "BoxScores",
    "Comparison",
    "ComparisonReport",
    "HeatmapScores",
    "Interval",
    "MethodScores",
    "PairComparison",
    "Quotient",
    "RaggedBoxes",
    "RecordAreas",
    "RecordTable",
    "Reference",
    "ScoreFile",
    "ScoringError",
    "SubmissionScores",
    "aggregate",
    "bootstrap_ratios",
    "bootstrap_sums",
    "chance_quotients",
    "chance_scores",
    "compare_methods",
    "compare_scores",
    "evaluate_boxes",
    "holm",
    "load_reference",
    "pool_methods",
    "ragged",
    "read_scores",
    "record_areas",
    "score_areas",
    "score_boxes",
    "score_heatmap",
    "score_quotients",
    "score_submission",
    "score_submissions",
    "size_tertiles",
    "skill",
    "whole_image_scores",
    "write_scores",
]
