"""Reading boxes and phrases out of what vision-language models really write.

Replies are JSON, almost JSON, JSON inside prose, truncated JSON, special tokens or plain sentences, and the
coordinates are pixels, thousandths, percent or fractions. What a model marks as its thoughts is not its reply. Nothing
of a reply is ever evaluated as code: a small forgiving parser (:mod:`baselines.shared.lenient`) reads lists and
mappings, and patterns read the box tokens of Qwen-VL, PaliGemma and Florence.

One parser a file: ``structures`` for lists and mappings, ``mappings`` for the names of their entries, ``prose`` for
coordinates in sentences, ``boxes`` for a reply as a whole, ``scales`` for what the coordinates are of, ``phrases``.
"""

from baselines.shared.replies.boxes import read_boxes
from baselines.shared.replies.numbers import RawBox
from baselines.shared.replies.phrases import read_phrases
from baselines.shared.replies.scales import to_fractions

__all__ = ["RawBox", "read_boxes", "read_phrases", "to_fractions"]
