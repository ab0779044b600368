"""What a submission is: written, read as a stream, validated row by row."""

from medground_bench.submission.format import (
    HEADER_FILE,
    HEADER_KEYS,
    MAX_BOXES,
    PREDICTIONS_FILE,
    Fault,
    ValidationReport,
)
from medground_bench.submission.prediction import Prediction
from medground_bench.submission.read import Submission, find_submissions, open_submission
from medground_bench.submission.validate import must_answer, validate_submission
from medground_bench.submission.write import SubmissionWriter, write_submission

__all__ = [
    "HEADER_FILE",
    "HEADER_KEYS",
    "MAX_BOXES",
    "PREDICTIONS_FILE",
    "Fault",
    "Prediction",
    "Submission",
    "SubmissionWriter",
    "ValidationReport",
    "find_submissions",
    "must_answer",
    "open_submission",
    "validate_submission",
    "write_submission",
]
