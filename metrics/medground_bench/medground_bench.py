"""MedGround-Bench's metric as an ``evaluate`` module: thin over ``medground_bench.scoring``."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

import medground_bench.scoring as scoring

_CITATION = """\
@misc{medground_bench,
  title = {Rethinking Visual Attribution for Chest X-ray Reasoning in Large Vision Language Models},
  note  = {Introduces MedGround-Bench and MedFocus},
  url   = {https://github.com/gzxiong/medfocus}
}
"""

_DESCRIPTION = """\
How well predicted evidence boxes match an expert's, per record: IoU, precision, recall and F1 of the unions of boxes,
with exact areas. Beside them, where the inputs allow: intervals from resampled patients, scores by dataset and model,
and what chance would score.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list): one list of boxes per record; a box is [x1, y1, x2, y2], half-open, in pixels of the native
        image. An empty list is an answer too: no evidence.
    references (list): one list of evidence boxes per record, in the same frame.
    datasets (list, optional): the dataset of every record; adds 'by_dataset'.
    models (list, optional): the model of every record; adds 'by_model' and 'macro', the mean over models.
    groups (list, optional): what is resampled for the intervals: the patient (else the image) of every record.
        Without it every record stands for itself.
    image_sizes (list, optional): [width, height] of every record's image; adds 'area_ratio', 'precision_lift',
        'chance', 'skill' and 'against_chance'.
    attributes (list, optional): the finding of every record; with image_sizes, adds the centre prior to 'chance'.
    resamples (int): bootstrap resamples and sign flips; 0 leaves the intervals and p-values out.
    confidence (float): level of the intervals.
    seed (int): of the resamples and of the random chance row.
    per_record (bool): add 'per_record', the scores of every record.
    drop_invalid (bool): leave reversed boxes and boxes without area out and count them in 'dropped_boxes'; without it
        they are refused, as 'medground-bench validate' refuses them.
Returns:
    dict: 'iou', 'precision', 'recall', 'f1' (means over records, fractions from 0 to 1; NaN without records),
    'records', 'clusters' (groups, else records), 'coverage' (share of records with a predicted box), 'intervals' (only
    with at least six clusters) and what the optional inputs add.
Examples:
    >>> metric = evaluate.load("metrics/medground_bench")
    >>> results = metric.compute(predictions=[[[0, 0, 10, 10]]], references=[[[0, 0, 10, 20]]])
    >>> results["iou"], results["precision"], results["recall"]
    (0.5, 1.0, 0.5)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MedGroundBench(evaluate.Metric):
    """IoU, precision, recall and F1 of unions of boxes."""

    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
            reference_urls=["https://github.com/gzxiong/medfocus"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch; a faulty box is refused here, by name, and nothing of the batch is kept."""
        if predictions is not None and references is not None:
            predictions = _lists(predictions, "predictions")
            references = _lists(references, "references")
            if len(predictions) != len(references):
                raise scoring.ScoringError(
                    f"{len(predictions)} predictions for {len(references)} references",
                    expected="one list of boxes per record in each",
                )
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one record; a faulty box is refused here."""
        (prediction,) = _lists([prediction], "predictions")
        (reference,) = _lists([reference], "references")
        super().add(prediction=prediction, reference=reference, **kwargs)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        datasets: Any = None,
        models: Any = None,
        groups: Any = None,
        image_sizes: Any = None,
        attributes: Any = None,
        resamples: int = 10_000,
        confidence: float = 0.95,
        seed: int = 0,
        per_record: bool = False,
        drop_invalid: bool = False,
    ) -> dict[str, Any]:
        return scoring.evaluate_boxes(
            list(predictions),
            list(references),
            datasets=datasets,
            models=models,
            groups=groups,
            image_sizes=image_sizes,
            attributes=attributes,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            per_record=per_record,
            drop_invalid=drop_invalid,
        )


def _lists(records: Any, name: str) -> list[Any]:
    """Boxes as plain lists, checked: the metric's own features accept NaN and boxes of three numbers."""
    records = list(records)
    scoring.ragged(records, name)
    return [[[float(value) for value in box] for box in record] for record in records]
