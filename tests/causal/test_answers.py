"""The yes/no reader on a table of phrasings: bare words, reasoning, markdown, hedges, quotes, JSON and LaTeX."""
# ruff: noqa: E501 - phrasings stand on one line each

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medground_bench.causal.answers import read_answer
from medground_bench.causal.findings import FINDINGS, asked_findings, findings_in
from medground_bench.causal.languages import LANGUAGES
from medground_bench.core.schema import question

YES = [
    "Yes",
    "yes.",
    "Yes.\n",
    "**Yes**",
    "`yes`",
    "„Yes“",
    "Answer: **Yes**",
    "Answer:\nYes",
    "Final answer: yes",
    "The answer is yes",
    "The answer is **yes**.",
    "So, the answer is 'yes'.",
    "Yes, there is no doubt.",
    "The answer is yes, not no",
    '{"answer": "yes"}',
    "$\\boxed{\\text{Yes}}$",
    "<think>There is no effusion. No.</think>Yes",
    "reasoning ... no</think>\n\nYes.",
    "There is evidence of pleural effusion.",
    "Evidence of cardiomegaly is present.",
    "Probably yes",
    "Yes, although a small effusion cannot be excluded.",
    "Is there evidence of effusion in the image? Yes.",
    "Yes. No pneumothorax is seen.",
    "Yes\n\nNote: this is not a diagnosis. No liability is taken.",
    "The image shows blunting of the left costophrenic angle, which suggests an effusion. Therefore, the answer is yes.",
    "The heart is enlarged. Therefore, there is evidence of cardiomegaly.",
    "Yes is the answer.",
    "I'd say yes",
    "A nodule is visible in the right upper lobe.",
    "There is an effusion without pneumothorax.",
    "There is no doubt that cardiomegaly is present.",
    "Without a doubt, yes.",
    "The absence of lung markings indicates a pneumothorax.",
    "Although there is no effusion, there is cardiomegaly.",
    "Present.",
    "Positive for pneumonia",
    "Effusion is likely.",
    "A) Yes",
    "Option A: Yes",
    "1. Yes",
    "[x] Yes [ ] No",
    "YES - cardiomegaly",
    "Yes - there is no question about it",
    "Answer: The image shows cardiomegaly.",
    "Definitely.",
    "Yes, it is.",
    "There is evidence of atelectasis in the image. No other abnormality is seen.",
    "yes yes yes",
    "Based on the findings, I would answer: Yes",
    "Hence, yes.",
    "The answer is a clear yes.",
    "A: Yes",
    "Yes, the costophrenic angle is not sharp.",
    "There is a nodule that was not present before.",
    "The findings are consistent with edema.",
    "Yes.  \nExplanation: there is no normal lung",
    "true",
    "Final answer: \\boxed{yes}",
    "There is pneumothorax because no lung markings are visible.",
    "Let's think step by step. The question asks whether there is evidence of effusion. The angle is blunted. So yes.",
    "**Yes**, there is evidence of **cardiomegaly** in the image.",
    "Yes, there is evidence of an aortic enlargement; no pleural effusion.",
    "yes (confidence: 95%)",
    "Response: Yes.",
    "Wait, no. The opacity is present, so the answer must be yes.",
    "Thought: no opacity.\nAnswer: yes.\nNo further comments.",
    "Yes, likely",
    "I would lean towards yes",
    "Answer: Yes (moderate confidence)",
    "Yes\nThe image shows a mass.",
    "yes or no: yes",
    "I think yes",
    "Final Answer: The final answer is Yes. I hope it is correct.",
    "Based on the image, I would say that the answer is most likely yes.",
    "Yes, no doubt",
    "No doubt about it: yes",
    "Yes, there is no evidence to the contrary.",
    "No, the answer is yes.",
    "I am not a doctor, but yes.",
    "Yes—there is.",
    "yes,",
    "'yes'",
    "[Yes]",
    "Ground truth: yes",
    "Pleural effusion: present",
    "Cardiomegaly: yes",
    "Cardiomegaly - yes",
    "There is evidence of mild cardiomegaly, but no effusion.",
    "The cardiac silhouette is enlarged, indicating cardiomegaly.",
    "Final Answer:\n\n**Yes, there is evidence of cardiomegaly.**",
    "1. Observe: opacity in the right lung.\n2. Conclude: this is consistent with pneumonia.\n\nYes",
    "There is increased opacity in the right lower lobe. This could represent atelectasis. Therefore, the answer is yes.",
    "Yes, I can see evidence of consolidation.",
    "It is clear that there is a fracture.",
    "The fracture can be seen clearly.",
    "Yes indeed.",
    "Indeed, there is evidence.",
    "Yes, there's evidence of it",
    "The response is 'yes', since there is no normal lung tissue",
    "Let's say: yes",
    "Yes!!!",
    "y",
    "<answer>yes</answer> No",
    "[ANSWER] yes",
    "My answer: »Yes«",
    "The image does show evidence of effusion.",
    "There are findings that suggest an effusion",
    "The answer is positive.",
    "The answer is in the affirmative.",
    "the answer is affirmative",
    "Answer: There is evidence of edema",
    "Yes, it is possible that there is an effusion.",
    "Likely yes.",
    "Yes, with high confidence",
    "Findings are suspicious for malignancy.",
    "The patient has pneumonia.",
    "Yes. However, there is no pneumothorax.",
    "| Answer | Yes |",
    "Answer: $\\text{Yes}$",
    "There's an effusion, yes.",
    "It seems that there is an effusion.",
    "Presence of pleural effusion.",
    "There is a nodule in the left lung. Therefore, the answer is: **Yes**.",
    "Hmm, yes.",
    "Yes, minimal.",
    "There is consolidation in the right lower lobe with air bronchograms.",
    "Yes, there is evidence of pleural effusion in the image. The costophrenic angle is blunted, and there is no pneumothorax.",
    "It is difficult to answer with certainty, but I would say yes.",
    "I can't say for sure, but probably yes.",
    "The answer to your question is yes.",
    "So the final answer is - yes.",
    "Yes, a follow-up CT is recommended.",
    "As an AI model, my answer is yes.",
    "I am not a radiologist, but there is an effusion.",
    "There is an effusion. Follow-up is recommended.",
    "There is no other explanation, the answer is yes.",
    "Impression: No.\n\nYes",
]

NO = [
    "No",
    "NO!",
    " no\n\n",
    "*No*.",
    "Antwort: „Nein“",
    "**Answer:** No",
    "**Final Answer**\n\nNo.",
    "final answer - NO",
    "The answer is no.",
    "The answer is: No",
    "There is no effusion, so the answer is no",
    "The answer is no, not yes.",
    "not yes but no",
    '{"answer": "No", "confidence": 0.93}',
    '```json\n{"answer": "no"}\n```',
    "\\boxed{No}",
    "<answer>No</answer>",
    "No, there is evidence of fibrosis elsewhere only.",
    "There is no evidence of pleural effusion.",
    "Pneumothorax is absent.",
    "Effusion is not seen.",
    "No evidence of effusion.",
    "No pneumothorax is seen in the image.",
    "Most likely no.",
    "Probably not.",
    "Step 1: Look at the lungs. Are they clear? No.\nStep 2: Is the angle blunted? Yes.\nTherefore, there is no pneumothorax.",
    "Initial answer: yes. After looking again, final answer: no.",
    "No – that is my final answer.",
    "I would say no.",
    "I don't see any evidence of effusion.",
    "I cannot see any pneumothorax.",
    "There isn't any evidence of a nodule.",
    "The lungs are clear.",
    "The absence of blunting suggests no effusion.",
    "Not present.",
    "Absent",
    "Negative for pneumothorax.",
    "It is unlikely that there is an effusion.",
    "(B) No",
    "☐ Yes ☑ No",
    'The answer to the question "Is there evidence of edema in the image?" is no.',
    "Answer: There is no effusion.",
    "Certainly not.",
    "Absolutely not",
    "No it isn't",
    "Answer yes or no: no",
    "Based on the image, there is no evidence of pneumothorax.",
    "Thus no",
    "Yes, but actually no",
    "The answer is yes. Actually, no.",
    "I think not.",
    "There is nothing to suggest effusion",
    "The answer is most likely no",
    "answer=no",
    "Q: Is there edema? A: No",
    'The correct answer is "No".',
    "No, I do not see it.",
    "No acute cardiopulmonary abnormality.",
    "The findings are not consistent with edema.",
    "Conclusion: No evidence of fracture.",
    "In conclusion, the X-ray does not show a fracture.",
    "Answer: false",
    "The presence of an effusion is not confirmed.",
    "The final answer is $\\boxed{No}$.",
    "The answer is not yes.",
    "I conclude that there is no effusion",
    "no no no yes? no",
    "No (95% confident)",
    "<|im_start|>assistant\nNo<|im_end|>",
    "No. There is no evidence of X.",
    "No evidence.",
    "Not seen.",
    "None.",
    "It does not.",
    "No, without doubt.",
    "Some would answer yes; however, there is no effusion.",
    "As an AI language model I cannot diagnose, but the answer is no.",
    "No—there isn't.",
    "No; the lungs are clear.",
    "(no)",
    "{no}",
    "The model answers: no",
    "There are no signs of edema, therefore no.",
    "Evidence of edema: absent",
    "Pneumothorax: No",
    "The heart size is normal, so there is no cardiomegaly.",
    "The heart is not enlarged.",
    "### Answer\nNo",
    "### Conclusion\nThe image shows no evidence of pneumothorax.",
    "Let me think. Yes or no? I'd go with no.",
    "1. The lungs are clear.\n2. The heart is normal.\n3. No effusion.\n\nAnswer: No",
    "No signs of consolidation can be seen",
    "Neither lung shows consolidation.",
    "The X-ray is normal.",
    "Evidence of fracture is not evident",
    "The answer is no because there is evidence of clear lungs",
    "NO NO NO",
    "N",
    "Yes, Answer: No",
    "Answer – „No“.",
    "'No'",
    "I see no evidence of effusion.",
    "I found no effusion.",
    "There are no findings that suggest an effusion",
    "Findings suggest effusion is not present",
    "The answer is negative",
    "negative",
    "The answer is that there is no effusion.",
    "No, it is not possible to see an effusion.",
    "There is no clear evidence of nodules.",
    "There is no definitive evidence of nodules",
    "No definite effusion.",
    "Unlikely.",
    "I don't think so.",
    "I don't believe there is.",
    "The patient has no pneumonia.",
    "Pneumonia has been ruled out.",
    "There is little evidence of edema.",
    "Evidence of edema: none.",
    "Yes. However, upon closer inspection, there is no effusion.",
    "| Answer | No |",
    "There appears to be no effusion.",
    "Absence of pleural effusion.",
    "Evidence is lacking.",
    "The diagnosis of pneumonia is unlikely.",
    "Nothing in the image suggests a fracture.",
    "There is evidence to suggest that there is no pneumothorax.",
    "I'm leaning towards no.",
    "I would answer 'no' to this question.",
    "Yes/no: no",
    "**Final Answer:** There is no evidence of pneumothorax.",
    "No, the lungs are clear and the heart is normal.",
    "The chest X-ray shows clear lungs. No consolidation or effusion. The answer is therefore no.",
    "The lungs are clear bilaterally, with no focal consolidation.",
    "It is difficult to say, but the answer is no.",
    "My final answer: no.",
    "No, but clinical correlation is advised.",
    "Answer: no. Consult a medical professional.",
]

UNDECIDED = [
    "The answer is yes/no",
    "Yes/No",
    "yes or no",
    "Yes and no.",
    "I cannot determine",
    "I can't tell from this image.",
    "<think>I think yes",
    "It is not possible to answer with yes or no",
    "It could be pneumonia.",
    "Consolidation cannot be excluded.",
    "Pneumonia cannot be ruled out.",
    "Unable to determine.",
    "Sorry, I can't help with that.",
    "",
    "???",
    "The image is a chest X-ray.",
    "Answer: cannot be determined",
    "Answer: Yes/No",
    "The answer could be yes.",
    "Maybe.",
    "Perhaps yes",
    "I am not sure.",
    "If there is blunting, the answer is yes, otherwise no",
    "I cannot confirm the presence of an effusion.",
    "It's hard to say.",
    "It depends.",
    "The answer is neither yes nor no.",
    "We should not answer yes here.",
    "The image does not provide sufficient information",
    "It appears so",
    "N/A",
    "I am unable to answer.",
    "The answer is either yes or no",
    "Both yes and no",
    "Yes? No?",
    "The answer is not clear.",
    "The question cannot be answered with yes or no.",
    "No doubt.",
    "Yesterday",
    "As an AI, I cannot diagnose.",
    "Yes.No.",
    "There might be a small nodule.",
    "It's possible that there is an effusion.",
    "It is not possible to rule out pneumonia.",
    "I do not know.",
    "Cannot say.",
    "Undetermined",
    "The answer is uncertain",
    "The answer: undetermined",
    "Answer: I don't know",
    "Not applicable.",
    "The image is too blurry to answer.",
    "The quality of the image is poor.",
    "Based on the chest X-ray, I cannot definitively answer yes or no.",
    "Possibly, yes.",
    "Not definitively",
    "There is insufficient evidence of edema.",
    "Answer: There is a possibility of pneumonia.",
    "I would not rule out pneumonia.",
    "Pneumonia is not excluded.",
    "The answer would depend on the clinical context.",
    "Unfortunately, I cannot answer yes or no.",
    "Please consult a radiologist.",
]

TABLE = [(t, "yes") for t in YES] + [(t, "no") for t in NO] + [(t, None) for t in UNDECIDED]


def test_the_table_is_large_and_has_all_three_answers() -> None:
    assert len(YES) >= 40
    assert len(NO) >= 40
    assert len(UNDECIDED) >= 25
    assert len({t for t, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[repr(t)[:60] for t, _ in TABLE])
def test_reads(text: str, expected: str | None) -> None:
    assert read_answer(text) == expected


@pytest.mark.parametrize("answer", ["yes", "no"])
@pytest.mark.parametrize(
    "frame",
    [
        "{}", "{}.", "{}!", "**{}**", "*{}*", "__{}__", "`{}`", "\"{}\"", "'{}'", "\u201e{}\u201c", "\u00bb{}\u00ab", "({})", "[{}]",
        "Answer: {}", "answer - {}", "ANSWER = {}", "Answer: **{}**.", "**Answer: {}**", "### Answer\n{}", "The answer is {}.",
        "The final answer is: {}", "My answer would be {}", "I would answer {}.", "I'd say {}.", "So, {}.", "Therefore {}",
        "Probably {}", "Most likely {}.", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "{{\"answer\": \"{}\"}}", "<answer>{}</answer>",
        "<think>Yes or no? Hmm, yes. No.</think>{}", "Is there evidence of edema in the image? {}", "A) {}", "{} is my answer.",
        "{} (high confidence)", "{}\n\nNote: I am not a doctor.", "{}. Please consult a radiologist.",
        "Some long reasoning. The lungs were inspected.\n\nFinal answer: {}", "Step 1: Is it clear? Yes.\nStep 2: Opaque? No.\nAnswer: {}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("case", [str.lower, str.title, str.upper])
def test_a_frame_around_the_word_does_not_change_it(frame: str, answer: str, case) -> None:
    assert read_answer(frame.format(case(answer))) == answer


@pytest.mark.parametrize(
    "attribute",
    [
        "pleural effusion",
        "Nodule/Mass",
        "lung opacity or consolidation",
        "no finding-like shadow",
        "ILD",
        "hilar  enlargement",
    ],
)
def test_statements_hold_for_any_attribute(attribute: str) -> None:
    assert read_answer(f"There is evidence of {attribute} in the image.") == "yes" or attribute.startswith("no ")
    assert read_answer(f"There is no evidence of {attribute} in the image.") == "no"
    assert read_answer(f"Yes, there is evidence of {attribute} in the image.") == "yes"
    assert read_answer(f"No, there is no evidence of {attribute} in the image.") == "no"


# Text, what was asked about, answer: statements about other findings say nothing.
ASKED = [
    ("Cardiomegaly is present. There is no pleural effusion.", "cardiomegaly", "yes"),
    ("Cardiomegaly is present. There is no pleural effusion.", "pleural effusion", "no"),
    ("Cardiomegaly is present. There is no pleural effusion.", "nodule", None),
    ("There is no pleural effusion. The heart is enlarged.", "Cardiomegaly", "yes"),
    ("There is an enlarged heart, but no effusion is seen.", "cardiomegaly", "yes"),
    ("There is an enlarged heart, but no effusion is seen.", "Effusion", "no"),
    ("Enlargement of the cardiac silhouette is noted.", "cardiomegaly", "yes"),
    ("The cardiac silhouette appears mildly enlarged. No pneumothorax.", "cardiomegaly", "yes"),
    ("The cardiothoracic ratio is increased. The lungs are clear.", "cardiomegaly", "yes"),
    ("The heart is not enlarged. There is a small pleural effusion.", "cardiomegaly", "no"),
    ("The heart size is normal. There is a small pleural effusion.", "cardiomegaly", "no"),
    ("The heart is normal in size.", "enlarged cardiac silhouette", "no"),
    ("The heart is normal in size.", "pleural effusion", None),
    ("The lungs are clear. The heart is enlarged.", "Cardiomegaly", "yes"),
    ("The heart is enlarged. The lungs are clear.", "Cardiomegaly", "yes"),
    ("The heart is enlarged. The lungs are clear.", "lung opacity", "no"),
    ("The lungs are clear.", "Pneumothorax", "no"),
    ("The lungs are clear.", "Rib fracture", None),
    ("The chest X-ray is normal.", "Rib fracture", "no"),
    ("There are bilateral opacities. No effusion or pneumothorax.", "lung opacity", "yes"),
    ("There are bilateral opacities. No effusion or pneumothorax.", "pneumothorax", "no"),
    ("There are bilateral opacities. No effusion or pneumothorax.", "pleural effusion", "no"),
    ("Multiple nodules are visible in both lungs.", "Nodule/Mass", "yes"),
    ("There is no nodule, but a large mass is present.", "Nodule/Mass", "yes"),
    ("A large mass is present. There is no nodule.", "mass/nodule (not otherwise specified)", "yes"),
    ("There are no nodules or masses.", "Nodule/Mass", "no"),
    ("There is pulmonary oedema.", "pulmonary edema/hazy opacity", "yes"),
    ("No oedema is seen. There is cardiomegaly.", "Edema", "no"),
    ("The costophrenic angle is blunted.", "costophrenic angle blunting", "yes"),
    ("The costophrenic angle is blunted, indicating a pleural effusion.", "pleural effusion", "yes"),
    ("The costophrenic angles are sharp.", "pleural effusion", "no"),
    ("Pleural effusion is present and pneumothorax is absent.", "pleural effusion", "yes"),
    ("Pleural effusion is present and pneumothorax is absent.", "pneumothorax", "no"),
    ("Cardiomegaly and pleural effusion are present.", "cardiomegaly", "yes"),
    ("No cardiomegaly and no pleural effusion.", "cardiomegaly", "no"),
    ("Neither consolidation nor effusion is seen.", "consolidation", "no"),
    ("Neither consolidation nor effusion is seen.", "edema", None),
    ("There is consolidation without effusion.", "consolidation", "yes"),
    ("There is consolidation without effusion.", "effusion", "no"),
    ("While there is a pleural effusion, there is no cardiomegaly.", "pleural effusion", "yes"),
    ("While there is a pleural effusion, there is no cardiomegaly.", "cardiomegaly", "no"),
    ("Although there is no effusion, there is cardiomegaly.", "pleural effusion", "no"),
    ("A pericardial effusion is present.", "pleural effusion", None),
    ("Subcutaneous emphysema is seen.", "Emphysema", None),
    ("There is subcutaneous emphysema but no emphysema.", "subcutaneous air", "yes"),
    ("A rib fracture is seen.", "Clavicle fracture", None),
    ("There is a displaced fracture.", "Clavicle fracture", "yes"),
    ("No fracture is identified.", "Rib fracture", "no"),
    ("The aorta is tortuous. The heart is normal.", "Aortic enlargement", "yes"),
    ("The thoracic aorta is dilated and unfolded.", "tortuous aorta", "yes"),
    ("The mediastinum is widened.", "mediastinal widening", "yes"),
    ("The trachea is deviated to the left.", "Mediastinal shift", "yes"),
    ("The left hemidiaphragm is elevated.", "elevated hemidiaphragm", "yes"),
    ("There is hyperinflation with flattened diaphragms.", "hyperaeration", "yes"),
    ("The hila are prominent.", "hilar enlargement", "yes"),
    ("The main pulmonary artery is enlarged.", "Enlarged PA", "yes"),
    ("Reticular interstitial markings are seen.", "ILD", "yes"),
    ("Infiltrates are visible at both bases.", "Infiltration", "yes"),
    ("There is scoliosis. No infiltrate.", "Infiltrate", "no"),
    ("Atelectatic changes are present at the left base.", "Atelectasis", "yes"),
    ("There is collapse of the left lower lobe.", "atelectasis", "yes"),
    ("Calcifications of the aortic arch are present. No nodules.", "Calcification", "yes"),
    ("Cardiomegaly: yes\nPleural effusion: no", "cardiomegaly", "yes"),
    ("Cardiomegaly: yes\nPleural effusion: no", "pleural effusion", "no"),
    ("| Cardiomegaly | yes |\n| Effusion | no |", "cardiomegaly", "yes"),
    ('{"cardiomegaly": "yes", "pleural effusion": "no"}', "cardiomegaly", "yes"),
    ("Is the heart enlarged? Yes. Is there a pleural effusion? No.", "cardiomegaly", "yes"),
    ("Is the heart enlarged? Yes. Is there a pleural effusion? No.", "effusion", "no"),
    (
        "Step 1: Is there consolidation? No.\nStep 2: the left angle is blunted and fluid is seen in the pleural space.",
        "effusion",
        "yes",
    ),
    ("Cardiomegaly is an enlargement of the heart. There is no effusion.", "cardiomegaly", None),
    ("Cardiomegaly cannot be excluded. There is no effusion.", "cardiomegaly", None),
    ("Cardiomegaly is present; pneumonia cannot be excluded.", "cardiomegaly", "yes"),
    ("There might be a nodule. There is no pneumothorax.", "nodule", None),
    ("Yes, the heart is enlarged. There is no effusion.", "cardiomegaly", "yes"),
    ("No. There is an effusion, however.", "cardiomegaly", "no"),
    ("No, there is cardiomegaly but no effusion.", "pleural effusion", "no"),
    ("There is evidence of this finding in the image.", "cardiomegaly", "yes"),
    ("It is visible in the left lung.", "nodule", "yes"),
    ("There is no abnormality.", "cardiomegaly", "no"),
    ("No acute cardiopulmonary process.", "pneumonia", "no"),
    ("There is an abnormality in the image.", "cardiomegaly", None),
    ("There is a fracture line through the scapula plate.", "pleural effusion", None),
    ("An endotracheal tube is present.", "pneumothorax", None),
    ("There is evidence of other disease.", "pneumothorax", None),
    ("Therefore, there is no pleural effusion.", "cardiomegaly", None),
    ("Answer: There is evidence of edema.", "edema", "yes"),
    ("Answer: There is no evidence of edema.", "cardiomegaly", None),
    ("Conclusion: the image shows a pleural effusion.", "pleural effusion", "yes"),
    ("There is evidence of laminar atelectasis.", "laminar atelectasis or pleural effusion", "yes"),
    ("The image shows gynecomastia.", "gynecomastia", "yes"),
    ("There is no gynecomastia. The heart is enlarged.", "gynecomastia", "no"),
]

NORMAL = [
    "The image shows normal lungs.", "The X-ray shows clear lungs.", "Lungs are clear.", "The lungs appear clear and healthy.",
    "This is a normal chest X-ray.", "The radiograph demonstrates a normal heart.", "The image depicts healthy lungs.",
    "Healthy lungs are seen.", "The chest radiograph is within normal limits.", "The lungs look healthy.", "Normal.",
    "The image shows a healthy chest.", "The film displays unremarkable lungs and heart.", "The heart and lungs are normal.",
    "The bones are intact.", "The image reveals normal lung fields.", "I see normal lungs.", "Both lungs are well aerated.",
    "The cardiac silhouette is unremarkable.", "There are clear lungs on both sides.", "The lungs remain clear.",
    "The patient has a normal chest X-ray.", "The lung fields are clear bilaterally.", "The pleural spaces are clear.",
]  # fmt: skip

DESCRIPTIONS = [
    "The image shows a chest X-ray of an adult.", "The image displays a frontal chest radiograph.", "This is a chest X-ray.",
    "This is a chest X-ray showing the heart and lungs.", "The image depicts the lungs, the heart and the ribs.",
    "The radiograph demonstrates the thoracic cavity.", "The lungs are visible.", "The heart is visible.", "I can see the ribs.",
    "There is a heart in the image.", "The trachea is seen in the midline region.", "The picture contains two lungs.",
    "A frontal view of the chest is shown.", "The diaphragm and both costophrenic angles can be seen.", "It is a PA radiograph.",
    "The image presents an anteroposterior chest radiograph of a patient.", "The film reveals the clavicles.",
    "The provided image is a grayscale chest X-ray.", "The aortic arch is visible on the left side.",
    "The image features the mediastinum.", "The spine is visible behind the heart.", "The scan includes the upper abdomen.",
]  # fmt: skip

# An echo of the task or of the options around an answer.
ECHOES = [
    "{} Answer directly with yes or no without any explanation.", "{}. Answer directly with yes or no without any explanation.",
    "Answer directly with yes or no without any explanation. {}", "Answer directly with yes or no without any explanation.\n{}",
    "{}. Think step by step and answer with yes or no.", "Think step by step and answer with yes or no. {}",
    "Think step by step and answer with yes or no.\n\n{}.", "{} (yes/no)", "(yes/no) {}", "(yes/no): {}", "[yes/no] {}", "{} [Yes/No]",
    "{}. (Yes or No)", "{}\n(A) Yes\n(B) No", "(A) Yes (B) No\n{}", "Options: (A) Yes (B) No. {}", "A. Yes\nB. No\nAnswer: {}",
    "Answer (yes/no): {}", "{}. Please answer with yes or no.", "Please answer yes or no.\n{}", "Options: yes, no\n{}",
    "{}\nYes or no", "Yes/No\n{}", "{}. Respond with only yes or no.", "{}\nAnswer: yes/no", "Is there evidence of edema? (yes/no)\n{}",
    "Let's think step by step. {}", "{}\n[yes/no]\n", "<yes/no> {}", "Answer with Yes or No only: {}",
]  # fmt: skip

OPTIONS = [
    ("(A) Yes (B) No\n(A)", "yes"), ("(A) Yes (B) No\nAnswer: (B)", "no"), ("A) Yes\nB) No\n\nThe answer is B.", "no"),
    ("Options: A. Yes B. No. Option A", "yes"), ("A: Yes, B: No. I choose B", "no"), ("(A) No (B) Yes\nAnswer: A", "no"),
    ("1. Yes 2. No\nAnswer: 2", "no"), ("(A) Yes (B) No (C) Uncertain\nAnswer: (C)", None), ("(A)", None), ("Option B", None),
    ("Options:\n(A) Yes\n(B) No\n\nThe correct option is (A).", "yes"), ("(A) Yes (B) No", None), ("Option B: No", "no"),
    ("(A) Yes\n(B) No\n**B**", "no"), ("A. No\nB. Yes\nMy choice is: B", "yes"),
]  # fmt: skip

THOUGHTS = [
    "<think>{t}</think>{a}", "<unused94>thought\n{t}<unused95>{a}", "<|channel>thought\n{t}<channel|>{a}", "{t}</think>\n{a}", "{t}<unused95>{a}",
    "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}", "[THINK]{t}[/THINK]{a}",
    "<thinking>{t}</thinking>{a}", "◁think▷{t}◁/think▷{a}", "<reasoning>{t}</reasoning><answer>{a}</answer>", "<seed:think>{t}</seed:think>{a}",
    "<|START_THINKING|>{t}<|END_THINKING|>{a}", "<think>{t}</think><|begin_of_box|>{a}<|end_of_box|>", "{a}<think>{t}",
    "<SUMMARY>{t}</SUMMARY><REASONING>{t}</REASONING><CONCLUSION>{a}</CONCLUSION>",
]  # fmt: skip

FOREIGN = [
    ("Sí.", "yes"), ("Sí, hay evidencia de cardiomegalia.", "yes"), ("No, no hay evidencia de derrame.", "no"), ("La respuesta es sí.", "yes"),
    ("Respuesta: **No**", "no"), ("Oui", "yes"), ("Oui, il y a un épanchement.", "yes"), ("Non.", "no"), ("La réponse est non.", "no"),
    ("Ja.", "yes"), ("Nein, es gibt keinen Hinweis.", "no"), ("Die Antwort lautet: Ja", "yes"), ("Sim", "yes"), ("Não.", "no"),
    ("A resposta é sim.", "yes"), ("Sì, è presente.", "yes"), ("La risposta è no.", "no"), ("Да.", "yes"), ("Нет, признаков нет.", "no"),
    ("Ответ: да", "yes"), ("是", "yes"), ("是的，图像中有心脏肥大的证据。", "yes"), ("否。", "no"), ("没有。", "no"), ("不是", "no"), ("答案：否", "no"),
    ("答案是：是", "yes"), ("有", "yes"), ("はい。", "yes"), ("いいえ、ありません。", "no"), ("答えは「はい」です。", "yes"), ("回答：いいえ", "no"),
    ("네", "yes"), ("예, 있습니다.", "yes"), ("아니요.", "no"), ("정답: 아니오", "no"), ("نعم", "yes"), ("لا، لا يوجد دليل.", "no"),
    ("الإجابة: نعم", "yes"), ("हाँ", "yes"), ("नहीं।", "no"), ("उत्तर: हाँ", "yes"), ("Evet.", "yes"), ("Hayır, yok.", "no"), ("Tak.", "yes"),
    ("Nie.", "no"), ("Có.", "yes"), ("Không.", "no"), ("Ya.", "yes"), ("Tidak, tidak ada.", "no"), ("Nee.", "no"), ("はい\n(はい/いいえ)", "yes"),
    ("sí/no", None), ("是或否", None), ("Non-calcified nodule is seen.", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "attribute", "expected"), ASKED)
def test_only_statements_about_what_was_asked_count(text: str, attribute: str, expected: str | None) -> None:
    assert read_answer(text, attribute) == expected


@pytest.mark.parametrize("text", NORMAL)
def test_a_normal_statement_is_no(text: str) -> None:
    assert read_answer(text) == "no"
    assert read_answer(text, "lung opacity") in ("no", None)


@pytest.mark.parametrize("text", DESCRIPTIONS)
@pytest.mark.parametrize("attribute", [None, "cardiomegaly", "Rib fracture"])
def test_a_description_decides_nothing(text: str, attribute: str | None) -> None:
    assert read_answer(text, attribute) is None


@pytest.mark.parametrize("answer", ["Yes", "No", "yes", "no"])
@pytest.mark.parametrize("frame", ECHOES)
def test_an_echo_says_nothing_and_takes_nothing_away(frame: str, answer: str) -> None:
    assert read_answer(frame.format(answer), "edema") == answer.lower()
    assert read_answer(frame.format("")) is None


@pytest.mark.parametrize("mode", ["direct", "reason"])
@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_the_question_repeated_says_nothing(mode: str, answer: str) -> None:
    text = question("pleural effusion", mode)
    assert read_answer(text) is None
    assert read_answer(f"{text}\n{answer}", "pleural effusion") == answer.lower()
    assert read_answer(f"{answer}. {text}", "pleural effusion") == answer.lower()


@pytest.mark.parametrize(("text", "expected"), OPTIONS)
def test_a_chosen_option_is_read_where_the_list_is_in_the_text(text: str, expected: str | None) -> None:
    assert read_answer(text) == expected


@pytest.mark.parametrize("frame", THOUGHTS)
@pytest.mark.parametrize(
    ("thought", "answer"), [("There is an effusion. Yes. Final answer: yes.", "No"), ("No. Answer: no.", "Yes")]
)
def test_thoughts_do_not_count(frame: str, thought: str, answer: str) -> None:
    assert read_answer(frame.format(t=thought, a=answer)) == answer.lower()


@pytest.mark.parametrize("start", ["<think>", "<unused94>thought\n", "<|channel>thought\n", "[THINK]", "◁think▷", "<|channel|>analysis<|message|>", "thought\n"])  # fmt: skip
def test_a_thought_that_never_ends_leaves_nothing(start: str) -> None:
    assert read_answer(f"{start}There is an effusion. Final answer: yes.") is None


@pytest.mark.parametrize(("text", "expected"), FOREIGN)
def test_reads_other_languages(text: str, expected: str | None) -> None:
    assert read_answer(text) == expected
    assert read_answer(text, "cardiomegaly") == (expected if "nodule" not in text else None)


def test_every_language_of_the_table_is_read() -> None:
    assert len(LANGUAGES) >= 10
    for yes, no in LANGUAGES.values():
        for word in yes.split("|"):
            assert read_answer(f"{word}.") == "yes", word
        for word in no.split("|"):
            assert read_answer(f"{word}.") == "no", word


def test_the_tables_hold_at_least_250_texts() -> None:
    tables = (YES, NO, UNDECIDED, ASKED, NORMAL, DESCRIPTIONS, ECHOES, OPTIONS, THOUGHTS, FOREIGN)
    assert sum(map(len, tables)) >= 250


ATTRIBUTES = {
    "Aortic enlargement": "aortic enlargement", "Atelectasis": "atelectasis", "Calcification": "calcification", "Cardiomegaly": "cardiomegaly",
    "Clavicle fracture": "clavicle fracture", "Consolidation": "consolidation", "Edema": "edema", "Emphysema": "emphysema",
    "Enlarged PA": "enlarged pulmonary artery", "ILD": "interstitial disease", "Infiltration": "infiltrate", "Lung Opacity": "opacity",
    "Lung cavity": "cavity", "Lung cyst": "cyst", "Mediastinal shift": "mediastinal shift", "Other lesion": "lesion",
    "Pleural effusion": "pleural effusion", "Pleural thickening": "pleural thickening", "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "fibrosis", "Rib fracture": "rib fracture", "Effusion": "pleural effusion", "Infiltrate": "infiltrate",
    "enlarged cardiac silhouette": "cardiomegaly", "copd/emphysema": "emphysema", "linear/patchy atelectasis": "atelectasis",
    "fluid overload/heart failure": "heart failure", "costophrenic angle blunting": "blunting", "vascular congestion": "congestion",
    "elevated hemidiaphragm": "elevated diaphragm", "subcutaneous air": "subcutaneous air", "sub-diaphragmatic air": "free air",
    "increased reticular markings/ild pattern": "interstitial disease", "superior mediastinal mass/enlargement": "mediastinal widening",
    "tortuous aorta": "aortic enlargement", "enlarged hilum": "hilar enlargement", "mediastinal displacement": "mediastinal shift",
    "spinal degenerative changes": "degenerative change", "lobar/segmental collapse": "atelectasis", "lung cancer": "mass",
    "callus rib fracture": "rib fracture", "hyperinflated lung": "hyperinflation", "apical pleural thickening": "pleural thickening",
    "pulmonary oedema": "edema", "hiatal hernia": "hernia", "vertebral compression": "spinal fracture", "pericardial effusion": "pericardial effusion",
}  # fmt: skip


@pytest.mark.parametrize(("attribute", "finding"), ATTRIBUTES.items())
def test_the_table_knows_the_attributes(attribute: str, finding: str) -> None:
    assert finding in asked_findings(attribute)
    assert finding in FINDINGS
    assert read_answer(f"There is {attribute}.", attribute) == "yes"
    assert read_answer(f"There is no {attribute}.", attribute) == "no"
    assert read_answer(f"There is no {attribute}. There is a broken zipper.", attribute) == "no"


def test_an_attribute_of_several_findings() -> None:
    assert set(asked_findings("Nodule/Mass")) == {"nodule", "mass"}
    assert set(asked_findings("pneumonia or consolidation")) == {"pneumonia", "consolidation"}
    assert asked_findings("azygos lobe") == ("azygos lobe",)
    assert findings_in("pleural effusions and subcutaneous emphysema") == {"pleural effusion", "subcutaneous air"}


_CHAIN = [
    "Let's think step by step.", "The image shows a chest X-ray.", "There is no pneumothorax.", "The heart is enlarged.", "The lungs are clear.",
    "No rib fracture is seen.", "There is a pleural effusion.", "Yes, the trachea is in the midline.", "No, the bones are intact.",
    "It could be atelectasis.", "Is the angle blunted? Yes.", "Therefore, there is no edema.", "I first look at the heart.", "1. Lungs: no nodules",
]  # fmt: skip
_END = ["Answer: {}", "**Final answer:** {}", "The answer is {}.", "\\boxed{{{}}}", "So the final answer is: {}.", '{{"answer": "{}"}}', "<answer>{}</answer>"]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    chain=st.lists(st.sampled_from(_CHAIN), max_size=6),
    end=st.sampled_from(_END),
    answer=st.sampled_from(["Yes", "No", "yes", "no", "not certain", "yes/no", "nothing is decided"]),
    gap=st.sampled_from(["\n", " ", "\n\n"]),
    attribute=st.sampled_from([None, "cardiomegaly", "pleural effusion", "nodule"]),
)
def test_every_prefix_of_a_reasoning_text_is_undecided_or_reads_as_the_whole(
    chain: list[str], end: str, answer: str, gap: str, attribute: str | None
) -> None:
    text = gap.join([*chain, end.format(answer)])
    whole = read_answer(text, attribute)
    for stop in range(len(text)):
        assert read_answer(text[:stop], attribute, cut=True) in (None, whole), text[:stop]


@settings(max_examples=40, deadline=None)
@given(
    chain=st.lists(st.sampled_from(["There is no pneumothorax.", "A rib fracture is seen.", "No effusion.", "The trachea is visible."]), max_size=5),
    whole=st.sampled_from([("The heart is enlarged.", "yes"), ("The heart is not enlarged.", "no"), ("Answer: yes", "yes")]),
)  # fmt: skip
def test_every_sentence_about_another_finding_leaves_a_text_undecided(chain: list[str], whole: tuple[str, str]) -> None:
    # Not cut, but stopped after any sentence: what is said of other findings decides nothing about the one asked for.
    for stop in range(len(chain) + 1):
        assert read_answer(" ".join(chain[:stop]), "cardiomegaly") is None
    assert read_answer(" ".join([*chain, whole[0]]), "cardiomegaly") == whole[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The lungs are hazy on the left. There is no pleural effusion.", None),
        ("Yes, there is evidence of", None),
        ("No", None),
        ("Therefore, there is an effusion.", None),
        ("Final answer: yes.\nTo explain this further, the", "yes"),
        ("The answer is no. There is an", "no"),
        ("\\boxed{Yes}", "yes"),
        ("<answer>No</answer>", "no"),
        ("<answer>No", None),
        ("The answer is yes", None),
        ("The answer is no, but", None),
        ("<think>The answer is no.", None),
    ],
)
def test_a_cut_text_is_read_from_a_marked_answer_only(text: str, expected: str | None) -> None:
    assert read_answer(text, cut=True) == expected


def test_nothing_to_read_is_undecided() -> None:
    assert read_answer(None) is None
    assert read_answer("") is None
    assert read_answer("\x00\n\t .,;") is None


@pytest.mark.parametrize("attribute", [None, "aortic enlargement"])
@pytest.mark.parametrize(
    "unit",
    ["so ", "the answer to ", "no ", "not ", "yes, ", "- ", "i would say ", "'", "{", "a) ", "there is ", "<think", "very likely ", "**", "answer", "( ", "1. ", "mostly ", "\n", "[ ] ",
     "answer: ", "(a) yes (b) no ", "the heart ", "increased ", "no effusion, ", "<think>", "是的", "[yes/no]", "option a "],
)  # fmt: skip
def test_a_runaway_text_is_read_without_backtracking_forever(unit: str, attribute: str | None) -> None:
    # In a process of its own, so that a pattern that explodes fails the test instead of hanging the suite.
    code = f"from medground_bench.causal.answers import read_answer; read_answer({unit!r} * 2000 + 'x', {attribute!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_importing_the_reader_is_light() -> None:
    code = (
        "import sys; import medground_bench.causal.answers; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'diffusers', 'skimage', 'scipy', 'pandas')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
