"""The reply reader on replies as the families write them: boxes in a 224 x 224 image, fractions as answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.shared.lenient import scan
from baselines.shared.replies import RawBox, read_boxes, read_phrases, to_fractions

Q, G = "pixel", "thousand"
A = (56.0, 112.0, 168.0, 224.0)  # the box most replies mean, in pixels of a 224 x 224 image
F = (0.25, 0.5, 0.75, 1.0)  # the same as fractions

# (reply, the family's convention, boxes as fractions)
REPLIES = [
    # plain lists, as the prompt asks
    ("[[56, 112, 168, 224]]", Q, [F]),
    ("[[56,112,168,224],[0,0,112,112]]", Q, [F, (0, 0, 0.5, 0.5)]),
    ("[56, 112, 168, 224]", Q, [F]),
    ("[56, 112, 168, 224, 0, 0, 112, 112]", Q, [F, (0, 0, 0.5, 0.5)]),
    ("[250, 500, 750, 1000]", G, [F]),
    ("[[0.25, 0.5, 0.75, 1.0]]", Q, [F]),
    ("[[0.25, 0.5, 0.75, 1.0]]", G, [F]),
    ("[[.25, .5, .75, 1.]]", G, [F]),
    ("((56, 112, 168, 224),)", Q, [F]),
    ("[[56, 112, 168, 224], [56, 112, 168, 224]]", Q, [F]),
    # fenced blocks and the families' own keys
    ('```json\n[\n\t{"bbox_2d": [56, 112, 168, 224], "label": "opacity"}\n]\n```', Q, [F]),
    (
        '```json\n[{"bbox_2d": [56, 112, 168, 224], "label": "a"},\n {"bbox_2d": [0, 0, 112, 112], "label": "b"}]```',
        Q,
        [F, (0, 0, 0.5, 0.5)],
    ),
    ('```json\n[\n  {"box_2d": [500, 250, 1000, 750], "label": "pleural effusion"}\n]\n```', G, [F]),
    ('{"box_2d": [500, 250, 1000, 750]}', Q, [F]),  # the key means thousandths whoever writes it
    ('{"boxes": [[56, 112, 168, 224]]}', Q, [F]),
    ('{"evidence": {"boxes": [{"bbox": [56, 112, 168, 224], "confidence": 0.92}]}}', Q, [F]),
    ('{"x1": 56, "y1": 112, "x2": 168, "y2": 224}', Q, [F]),
    ('[{"xmin": 56, "ymin": 112, "xmax": 168, "ymax": 224, "label": "mass"}]', Q, [F]),
    ('{"x": 56, "y": 112, "width": 112, "height": 112}', Q, [F]),
    ('{"left": 250, "top": 500, "right": 750, "bottom": 1000}', G, [F]),
    ("```\n[[56, 112, 168, 224]]\n```\nThese boxes show the opacity.", Q, [F]),
    ("```python\nboxes = [(56, 112, 168, 224)]\n```", Q, [F]),
    # almost JSON
    ("[{'bbox_2d': [56, 112, 168, 224], 'label': 'patient's left lung'}]", Q, [F]),
    ("{bbox_2d: [56, 112, 168, 224]}", Q, [F]),
    ("[[56, 112, 168, 224,],]", Q, [F]),
    ("[[56 112 168 224]]", Q, [F]),
    ('[{"bbox_2d": [56, 112, 168, 224], "label": "opacity"}, {"bbox_2d": [10, 2', Q, [F]),
    ("[[56, 112, 168, 224], [0, 0, 112", Q, [F]),
    ("[[56px, 112px, 168px, 224px]]", Q, [F]),
    ("[[25%, 50%, 75%, 100%]]", Q, [F]),
    ("[56, 112, 168, 224, 0.87]", Q, [F]),
    ("[[[56, 112], [168, 224]]]", Q, [F]),
    # prose
    ("Yes. The evidence lies in [[56, 112, 168, 224]], i.e. the lower left zone.", Q, [F]),
    ("The patient's heart (see the image) is enlarged: [56, 112, 168, 224].", Q, [F]),
    ("1. Left costophrenic angle: [56, 112, 168, 224]\n2. Right lung: [0, 0, 112, 112]", Q, [F, (0, 0, 0.5, 0.5)]),
    ("**Opacity**: (56, 112, 168, 224)", Q, [F]),
    ("The box goes from the top-left (56, 112) to the bottom-right (168, 224).", Q, [F]),
    ("x1=56, y1=112, x2=168, y2=224", Q, [F]),
    ("x_min: 56, y_min: 112, x_max: 168, y_max: 224", Q, [F]),
    ("Bounding box: 56, 112, 168, 224", Q, [F]),
    ("56, 112, 168, 224", Q, [F]),
    ("56 112 168 224", Q, [F]),
    ("0.25, 0.50, 0.75, 1.00", G, [F]),
    # special tokens
    ("<|object_ref_start|>mass<|object_ref_end|><|box_start|>(56,112),(168,224)<|box_end|>", Q, [F]),
    ("<ref>opacity</ref><box>(56,112),(168,224)</box>", Q, [F]),
    ("<loc0512><loc0256><loc1024><loc0768> pleural effusion", G, [F]),
    ("<loc_250><loc_500><loc_750><loc_999>", Q, [(0.25, 0.5, 0.75, 0.999)]),  # Florence: x first
    ("<|ref|>opacity<|/ref|><|det|>[[250, 500, 750, 1000]]<|/det|>", G, [F]),
    ("<ref>opacity</ref><box>[[250, 500, 750, 1000]]</box>", G, [F]),
    ('<bbox x1="56" y1="112" x2="168" y2="224"/>', Q, [F]),
    ("<box>56 112 168 224</box>", Q, [F]),
    # thoughts are not the reply
    ("<think>Maybe [0, 0, 112, 112]?</think>[[56, 112, 168, 224]]", Q, [F]),
    ("Perhaps [[0, 0, 10, 10]]. No.</think>\n[[56, 112, 168, 224]]", Q, [F]),  # the opening tag was in the prompt
    ("<unused94>thought\nThe box is [0, 0, 112, 112].<unused95>[[250, 500, 750, 1000]]", G, [F]),
    ("<think>The lesion is at [[56, 112, 168, 224]] and", Q, []),  # cut off before the answer
    ("<unused94>thought\n[[250, 500, 750, 1000]] fits the opacity", G, []),
    ("<thinking>[[1, 2, 30, 40]]</thinking>None of the regions supports it: []", Q, []),
    # named corners, and corner or centre with size
    ('{"top_left": [56, 112], "bottom_right": [168, 224]}', Q, [F]),
    ('{"topLeft": {"x": 56, "y": 112}, "bottomRight": {"x": 168, "y": 224}}', Q, [F]),
    ('[{"label": "mass", "upper-left": [250, 500], "lower-right": [750, 1000]}]', G, [F]),
    ('{"top_left_x": 56, "top_left_y": 112, "bottom_right_x": 168, "bottom_right_y": 224}', Q, [F]),
    ('{"p1": [56, 112], "p2": [168, 224]}', Q, [F]),
    ('{"min": {"x": 0.25, "y": 0.5}, "max": {"x": 0.75, "y": 1.0}}', Q, [F]),
    ('{"center": [112, 168], "size": [112, 112]}', Q, [F]),
    ('{"centre": {"x": 500, "y": 750}, "width": 500, "height": 500}', G, [F]),
    ('{"cx": 112, "cy": 168, "w": 112, "h": 112}', Q, [F]),
    ('{"x_center": 0.5, "y_center": 0.75, "width": 0.5, "height": 0.5}', Q, [F]),
    ('{"xmin": 56, "ymin": 112, "width": 112, "height": 112}', Q, [F]),
    ('{"bbox": {"x_min": 56, "y_min": 112, "x_max": 168, "y_max": 224}, "finding": "mass"}', Q, [F]),
    ("The opacity is centred at (112, 168) with a width of 112 and a height of 112 pixels.", Q, [F]),
    ("x from 56 to 168, y from 112 to 224", Q, [F]),
    ("It spans x: 56-168 and y: 112-224.", Q, [F]),
    ("Top-left corner: (56, 112). Bottom-right corner: (168, 224).", Q, [F]),
    ("Upper left [56, 112], lower right [168, 224]", Q, [F]),
    ("(56, 112) - (168, 224)", Q, [F]),
    ("Bounding box: (56, 112) to (168, 224)", Q, [F]),
    ("[{x: 56, y: 112}, {x: 168, y: 224}]", Q, [F]),
    # quoted numbers
    ('[["56", "112", "168", "224"]]', Q, [F]),
    ('{"bbox_2d": ["56", "112", "168", "224"], "label": "3"}', Q, [F]),
    ('{"bbox": "56, 112, 168, 224"}', Q, [F]),
    ('{"bounding_box": "[250, 500, 750, 1000]", "label": "left base"}', G, [F]),
    ('{"box": "25% 50% 75% 100%"}', Q, [F]),
    ("{'x1': '56', 'y1': '112', 'x2': '168', 'y2': '224'}", Q, [F]),
    # the scale that was asked for is believed
    ("[[56, 112, 168, 229]]", Q, [F]),  # a few per cent over the border: cut, not thousandths
    ("[[56, 112, 168, 240]]", Q, [F]),
    ("[[56, 112, 168, 224], [200, 200, 250, 250]]", Q, [F, (200 / 224, 200 / 224, 1, 1)]),
    ("[[0, 0, 100, 100]]", Q, [(0, 0, 100 / 224, 100 / 224)]),  # could be per cent: pixels were asked for
    ("[[100, 100, 200, 200]]", G, [(0.1, 0.1, 0.2, 0.2)]),  # could be pixels: thousandths were asked for
    ("[[250, 500, 750, 1005]]", G, [F]),
    ("[[-8, 112, 168, 224]]", Q, [(0, 0.5, 0.75, 1)]),
    # other scales than the family's own
    ("[[250, 500, 750, 1000]]", Q, [F]),  # far beyond 224 pixels: thousandths
    ("[[56, 112, 168, 226]]", Q, [F]),  # two pixels over the border
    ("[[-5, 112, 56, 230]]", G, [(0, 0.112, 0.056, 0.23)]),
    ("[[0, 0, 5000, 5000]]", Q, [(0, 0, 1, 1)]),
    # no box
    ("", Q, []),
    ("The heart's centre lies at (112, 130) and its apex at (150, 170).", Q, []),
    ("The tube runs from (100, 20) down to (110, 90) in the midline.", Q, []),
    ("Landmarks: carina (112, 80); left hilum (140, 110).", Q, []),
    ("Opacity between ribs [5, 6] and [7, 8].", Q, []),
    ('{"point_2d": [112, 130], "label": "apex"}', Q, []),
    ('{"top_left": "upper zone", "bottom_right": "base"}', Q, []),
    ('{"size": [12, 15]}', Q, []),
    ('{"note": "seen in 2 of 4 views, 3 months apart, on 12 occasions"}', Q, []),
    ("There is no evidence of pneumonia in the image.", Q, []),
    ("[]", Q, []),
    ('{"boxes": []}', Q, []),
    ("```json\n[]\n```", Q, []),
    ("I'm sorry, but I cannot provide coordinates.", Q, []),
    ("[[x1, y1, x2, y2]]", Q, []),
    ("[[168, 224, 56, 112]]", Q, []),  # reversed
    ("[[56, 112, 56, 224]]", Q, []),  # no width
    ("The lesion measures 12 x 15 mm (series 3, image 40).", Q, []),
    ("See references [1] and [2, 3].", Q, []),
    ("In 2019, 3 of 4 readers, 2 of them radiologists, agreed on 12/05/2020.", Q, []),
    ("[56, 112, 168]", Q, []),
    ("((((((((((((((((((((", Q, []),
    ('[{"bbox_2d": "left lower lobe"}]', Q, []),
]


@pytest.mark.parametrize(("reply", "convention", "expected"), REPLIES)
def test_boxes_of_a_reply(reply: str, convention: str, expected: list[tuple[float, ...]]) -> None:
    boxes, _ = to_fractions(read_boxes(reply), convention=convention, width=224, height=224)
    assert [pytest.approx(b) for b in expected] == boxes


def test_there_are_replies_enough() -> None:
    assert len({(reply, convention) for reply, convention, _ in REPLIES}) == len(REPLIES) >= 110


def test_a_list_under_box_2d_is_read_as_the_family_writes_it() -> None:
    reply = '[{"box_2d": [250, 500, 750, 1000]}]'
    for rows_first, expected in ((False, F), (True, (0.5, 0.25, 1.0, 0.75))):
        boxes, scale = to_fractions(read_boxes(reply, rows_first=rows_first), convention=G, width=224, height=224)
        assert boxes == [pytest.approx(expected)]
        assert scale == "thousand"
    # Qwen3-VL's own key has x first whatever the family.
    assert read_boxes(reply.replace("box_2d", "bbox_2d"), rows_first=True)[0].values == (250, 500, 750, 1000)


@pytest.mark.parametrize(("over", "scale"), [(224, "pixel"), (229, "pixel"), (250, "pixel"), (300, "thousand")])
def test_pixels_over_the_border_stay_pixels(over: int, scale: str) -> None:
    assert to_fractions(read_boxes(f"[[10, 20, 30, {over}]]"), convention=Q, width=224, height=224)[1] == scale


def test_pixels_of_a_non_square_image() -> None:
    boxes, scale = to_fractions([RawBox((56, 112, 168, 224))], convention=Q, width=224, height=448)
    assert boxes == [pytest.approx((0.25, 0.25, 0.75, 0.5))]
    assert scale == "pixel"


def test_one_scale_for_all_boxes_of_a_reply() -> None:
    # The second box alone could be pixels; beside the first it cannot.
    raw = read_boxes("[[500, 500, 900, 900], [100, 100, 200, 200]]")
    boxes, scale = to_fractions(raw, convention=Q, width=224, height=224)
    assert scale == "thousand"
    assert boxes[1] == pytest.approx((0.1, 0.1, 0.2, 0.2))


def test_nothing_of_a_reply_runs() -> None:
    assert read_boxes("[__import__('os').system('touch hacked'), 1, 2, 3]") == []
    assert read_boxes("{'a': open('x').read()}") == []


@given(st.text(alphabet="[](){}<>,:;'\"`.-+%0123456789 xy_\nabloc", max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    boxes, _ = to_fractions(read_boxes(text), convention=Q, width=224, height=224)
    assert all(0 <= b[0] < b[2] <= 1 and 0 <= b[1] < b[3] <= 1 for b in boxes)
    read_phrases(text)


@given(
    st.lists(
        st.lists(st.integers(0, 999), min_size=4, max_size=4).filter(lambda b: b[2] > b[0] and b[3] > b[1]),
        min_size=1,
        max_size=5,
        unique_by=tuple,
    )
)
def test_json_is_read_exactly(boxes: list[list[int]]) -> None:
    import json

    assert [list(b.values) for b in read_boxes(json.dumps(boxes))] == boxes
    assert [list(b.values) for b in read_boxes(json.dumps([{"bbox_2d": b, "label": "x [1]"} for b in boxes]))] == boxes


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{'a':",
        "{'a': 1 ",
        "1 ",
        "x1=",
        "x1=1 y1=2 ",
        "box 1 2 3 ",
        "(1,2)",
        "'",
        "-",
        "1.",
        "12 % ",
        "[1,2,3,4]",
        "<loc0001>",
        " ",
        "\n ",
    ],
)
def test_endless_replies_are_read_in_linear_time_and_depth(piece: str) -> None:
    """A model that repeats itself must not hang or break the reader (a quadratic one would take minutes)."""
    text = "box x1: 1 " + piece * (60_000 // len(piece))
    assert len(read_boxes(text)) <= 3  # duplicates are removed
    assert len(read_phrases(text)) <= 1


def test_every_value_of_a_repeated_key_counts() -> None:
    reply = '{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8], "bbox_2d": [9, 10, 11, 12]}'
    assert [b.values for b in read_boxes(reply)] == [(1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)]


def test_scan_reports_where_values_stand() -> None:
    text = "see [1, 2] and {a: 'b'}"
    assert [(text[s:e], v) for s, e, v in scan(text)] == [
        ("[1, 2]", [(1.0, False), (2.0, False)]),
        ("{a: 'b'}", {"a": "b"}),
    ]


PHRASES = [
    ('["left lower opacity", "blunted costophrenic angle"]', ["left lower opacity", "blunted costophrenic angle"]),
    ('```json\n["enlarged heart"]\n```', ["enlarged heart"]),
    ("- enlarged heart\n- pleural effusion", ["enlarged heart", "pleural effusion"]),
    ("1. Enlarged heart\n2. enlarged heart\n3) wide mediastinum.", ["Enlarged heart", "wide mediastinum"]),
    ("enlarged heart, fluid in the left base; hazy lung", ["enlarged heart", "fluid in the left base", "hazy lung"]),
    ("Here are the regions:\nleft lung, right hilum", ["left lung", "right hilum"]),
    ('[{"label": "left lung", "bbox_2d": [1, 2, 3, 4]}]', ["left lung"]),
    ("None.", []),
    ("[]", []),
    ("", []),
    ("This chest radiograph shows a large amount of fluid that collects in the lower part of the left lung", []),
    ("enlarged heart", ["enlarged heart"]),
]


PHRASES += [
    ('<think>"right lung"? No.</think>["left lung"]', ["left lung"]),
    ("<unused94>thought\n- right lung\n- heart", []),
]


@pytest.mark.parametrize(("reply", "expected"), PHRASES)
def test_phrases_of_a_reply(reply: str, expected: list[str]) -> None:
    assert read_phrases(reply) == expected


def test_no_more_phrases_than_asked() -> None:
    assert read_phrases("a region, b region, c region", limit=2) == ["a region", "b region"]
