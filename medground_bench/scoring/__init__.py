"""Numbers: scores of boxes and heat maps, chance rows, uncertainty, and the files that hold them."""

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, RecordAreas, ragged, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores, score_areas, score_boxes
from medground_bench.scoring.aggregate import (
    LEVELS,
    Aggregate,
    Quotient,
    aggregate,
    aggregate_bounds,
    aggregate_chance,
    score_quotients,
)
from medground_bench.scoring.ceiling import BOUND_ROWS, TILES, ceiling_scores
from medground_bench.scoring.chance import CHANCE_ROWS, best_chance, chance_scores, whole_image_scores
from medground_bench.scoring.comparison import (
    ComparisonReport,
    MethodScores,
    PairComparison,
    compare_scores,
    pool_methods,
)
from medground_bench.scoring.concepts import (
    CONCEPT_METRICS,
    Anatomy,
    ConceptReference,
    concept_reference,
    score_concepts,
)
from medground_bench.scoring.files import ScoreFile, SubmissionScores, find_scores, read_scores, write_scores
from medground_bench.scoring.heatmaps import HEATMAP_METRICS, HeatmapScores, score_heatmap
from medground_bench.scoring.quick import evaluate_boxes
from medground_bench.scoring.rows import Row, submission_rows
from medground_bench.scoring.run import score_submission, score_submissions
from medground_bench.scoring.statistics import (
    MIN_CLUSTERS,
    Comparison,
    Interval,
    bootstrap_ratios,
    compare_methods,
    holm,
    ratio_intervals,
    sign_flip_test,
)
from medground_bench.scoring.table import SIZES, RecordTable, Reference, load_reference, size_tertiles
from medground_bench.scoring.tokens import EVIDENTIAL, TOKEN_METRICS, token_auroc

__all__ = [
    "BOUND_ROWS",
    "CHANCE_ROWS",
    "CONCEPT_METRICS",
    "EVIDENTIAL",
    "HEATMAP_METRICS",
    "LEVELS",
    "METRICS",
    "MIN_CLUSTERS",
    "SIZES",
    "TILES",
    "TOKEN_METRICS",
    "Aggregate",
    "Anatomy",
    "BoxScores",
    "Comparison",
    "ComparisonReport",
    "ConceptReference",
    "HeatmapScores",
    "Interval",
    "MethodScores",
    "PairComparison",
    "Quotient",
    "RaggedBoxes",
    "RecordAreas",
    "RecordTable",
    "Reference",
    "Row",
    "ScoreFile",
    "ScoringError",
    "SubmissionScores",
    "aggregate",
    "aggregate_bounds",
    "aggregate_chance",
    "best_chance",
    "bootstrap_ratios",
    "ceiling_scores",
    "chance_scores",
    "compare_methods",
    "compare_scores",
    "concept_reference",
    "evaluate_boxes",
    "find_scores",
    "holm",
    "load_reference",
    "pool_methods",
    "ragged",
    "ratio_intervals",
    "read_scores",
    "record_areas",
    "score_areas",
    "score_boxes",
    "score_concepts",
    "score_heatmap",
    "score_quotients",
    "score_submission",
    "score_submissions",
    "sign_flip_test",
    "size_tertiles",
    "submission_rows",
    "token_auroc",
    "whole_image_scores",
    "write_scores",
]
