"""The findings that questions and answers speak of: one table of names, synonyms and spellings.

A text is put into a plain form first (American spelling, singular nouns), so that the table needs each wording once.
Where one name lies inside another ("emphysema" in "subcutaneous emphysema") only the longer one counts.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ["FINDINGS", "Finding", "asked_findings", "findings_in", "plain_words", "regions_in"]


class Finding(NamedTuple):
    """What is known of a finding's name.

    Attributes
    ----------
    pattern : str
        Regular expression of its names, for text in plain form.
    regions : frozenset of str
        Where it is: a statement that such a region is normal denies it.
    """

    pattern: str
    regions: frozenset[str]


_MORE = r"(?:larger|enlarg|increas|dilat|promin|big|widen|broad|full)\w*"
_FEW = r"(?:[\w-]+ ){0,4}?"
_HEART = r"(?:heart|cardiac|cardiomediastinal)(?: (?:silhouette|shadow|contour|outline|size|border))?"
_AORTA = r"(?:aort(?:a|ic)(?: (?:arch|knob|knuckle|button|contour|root))?)"
_AORTIC = r"(?:enlarg|dilat|elongat|tortuo|ectat|ectas|aneurysm|unfold|uncoil|promin|widen)\w*"
_PA = r"(?:pa|pulmonary (?:artery|trunk|arterial trunk|conus))"
_HILUM = r"(?:hil(?:ar|um|a|us)(?: (?:structure|region|contour|shadow|vessel))?)"
_DIAPHRAGM = r"(?:hemi)?diaphragm\w*"
_SHIFT = r"(?:shift|displac|deviat)\w*"

_TABLE: dict[str, tuple[str, str]] = {
    "cardiomegaly": (
        rf"cardiomegal\w+|megalocardia|{_HEART} {_FEW}{_MORE}|{_MORE} {_FEW}{_HEART}|(?:atrial|ventric\w+)"
        rf" enlargement"
        r"|(?:increas|elevat|enlarg|high)\w* (?:cardio-?thoracic (?:ratio|index)|ctr)"
        r"|(?:cardio-?thoracic (?:ratio|index)|ctr) (?:\w+ ){0,3}(?:increas|elevat|enlarg|high|above|great"
        r"|exceed|over|>)\w*",
        "heart",
    ),
    "pericardial effusion": (r"pericardial (?:effusion|fluid)|hemopericardium", "heart"),
    "heart failure": (
        r"(?:heart|cardiac) (?:failure|insufficiency|decompensation)|chf|(?:fluid|volume) overload",
        "heart lung",
    ),
    "pleural effusion": (
        r"(?:(?:pleural|fissural|loculated|sub-?pulmonic) )*effusion|pleural (?:fluid|collection)"
        r"|fluid (?:\w+ ){0,5}pleural (?:space|cavity)|(?:hydro|hemo)thorax|hydropneumothorax",
        "pleura",
    ),
    "pneumothorax": (
        r"(?:hydro|hemo)?pneumothorax|air (?:\w+ ){0,5}pleural (?:space|cavity)|collapsed lung",
        "pleura",
    ),
    "pleural thickening": (
        r"pleur(?:al|a) (?:[\w-]+ ){0,3}?thicken\w*|thicken\w* (?:[\w-]+ ){0,3}?pleura\w*|pleural plaque|apical"
        r" cap\w*"
        r"|fissure thickening|pleuropulmonary thickening",
        "pleura",
    ),
    "blunting": (
        r"blunt\w*(?: (?:[\w-]+ ){0,4}?(?:costo-?phrenic|cp) (?:angle|sulcus|recess))?"
        r"|(?:costo-?phrenic|cp) (?:angle|sulcus|recess) (?:[\w-]+ ){0,4}?(?:blunt|obliterat|obscur)\w*",
        "pleura",
    ),
    "atelectasis": (
        r"(?:linear |laminar |lobar |plate-?like |discoid |sub-?segmental |bibasilar |basilar |basal )*atelecta\w+"
        r"|(?:volume loss|loss of (?:lung )?volume)|(?:lobar|segmental|lobe|lung) collapse|collaps\w+ (?:[\w-]+"
        r" ){0,4}?lobe"
        r"|collapsed lung",
        "lung",
    ),
    "consolidation": (r"consolidat\w*|air-? ?space disease|alveolar pattern", "lung"),
    "pneumonia": (
        r"(?:broncho)?pneumoni(?:a|c)|(?:lung|pulmonary|chest|respiratory) infection|infectious process",
        "lung",
    ),
    "opacity": (
        r"(?:lung |pulmonary |air-?space |hazy |patchy |ground[- ]glass |focal |interstitial )*(?:opacit\w+"
        r"|opacifi\w+)"
        r"|ground[- ]glass(?: pattern)?|(?:increas\w+ )?(?:density|densities)|hazines\w*|white-?out",
        "lung",
    ),
    "infiltrate": (r"infiltrat\w*", "lung"),
    "edema": (r"(?:pulmonary |lung |interstitial |alveolar |cardiogenic )*edema\w*|kerley(?: b)?(?: line)?", "lung"),
    "congestion": (
        r"(?:(?:pulmonary|vascular|venous|hilar) )*congest\w+|(?:vascular )?(?:redistribution|cephali[sz]ation)",
        "lung vessel",
    ),
    "nodule": (r"(?:calcified |lung |pulmonary )*(?:pseudo-?|micro-?)?nodul\w*|coin lesion", "lung"),
    "mass": (r"(?:lung |pulmonary )*(?:mass|masse|tumor|neoplas\w+|malignanc\w+|cancer|carcinoma)", "lung"),
    "lesion": (r"(?:lung |pulmonary )*lesion", "lung"),
    "granuloma": (r"granuloma\w*", "lung"),
    "cavity": (r"(?<!thoracic )(?<!chest )(?<!pleural )cavit(?:y|ation|ary|ating)\w*", "lung"),
    "cyst": (r"cyst(?:ic)?|bulla\w*|bleb", "lung"),
    "emphysema": (r"emphysema\w*|copd|chronic obstructive (?:pulmonary|lung|airway) disease", "lung"),
    "hyperinflation": (
        r"(?:hyper-?|over-?)(?:inflat|aerat|expan|lucen)\w*|air trapping|flatten\w* (?:[\w-]+"
        r" ){0,3}?(?:hemi)?diaphragm\w*"
        r"|(?:hemi)?diaphragm\w* (?:[\w-]+ ){0,3}?flatten\w*",
        "lung",
    ),
    "fibrosis": (r"(?:pulmonary |lung )?fibro(?:sis|tic)\w*(?: (?:band|change|scar\w*))?|honeycomb\w*", "lung"),
    "scar": (r"scar(?:ring|red)?|parenchymal band", "lung"),
    "interstitial disease": (
        r"ild(?: pattern)?|interstitial (?:lung )?(?:disease|pattern|marking|change|thickening|abnormality)"
        r"|reticul(?:ar|ation|o-?nodular)\w*(?: (?:marking|pattern|interstitial pattern|opacity))?|honeycomb\w*",
        "lung",
    ),
    "bronchiectasis": (r"bronchiecta\w+|bronchial (?:wall )?thickening|peribronchial (?:cuffing|thickening)", "lung"),
    "tuberculosis": (r"tubercul\w+|tb", "lung"),
    "aspiration": (r"aspiration", "lung"),
    "hemorrhage": (r"hemorrhag\w+", "lung"),
    "calcification": (r"calcifi\w+(?! nodul)|calcium|atheromato\w+|atheroscler\w+", "lung vessel"),
    "aortic enlargement": (
        rf"{_AORTA} (?:[\w-]+ ){{0,4}}?{_AORTIC}|{_AORTIC} (?:[\w-]+ ){{0,4}}?{_AORTA}(?: enlargement)?",
        "mediastinum vessel",
    ),
    "enlarged pulmonary artery": (
        rf"{_PA} (?:[\w-]+ ){{0,4}}?{_MORE}|{_MORE} (?:of )?(?:the )?(?:(?:left|right|main|central) )*{_PA}"
        r"|pulmonary (?:arterial )?hypertension",
        "mediastinum vessel",
    ),
    "hilar enlargement": (
        rf"{_HILUM} (?:[\w-]+ ){{0,4}}?{_MORE}|{_MORE} (?:[\w-]+ ){{0,4}}?{_HILUM}|{_HILUM} (?:lymph)?adenopathy",
        "mediastinum",
    ),
    "lymphadenopathy": (r"(?:lymph)?adenopath\w*|enlarged lymph nodes?", "mediastinum"),
    "mediastinal widening": (
        rf"mediastin\w+ (?:[\w-]+ ){{0,4}}?{_MORE}|{_MORE} (?:[\w-]+ ){{0,4}}?mediastin\w+|(?:superior"
        rf" )?mediastinal mass"
        r"(?:/enlargement)?",
        "mediastinum",
    ),
    "mediastinal shift": (
        rf"(?:mediastin\w+|trache\w+) (?:[\w-]+ ){{0,4}}?{_SHIFT}|{_SHIFT} (?:[\w-]+ ){{0,4}}?(?:mediastin\w+"
        rf"|trache\w+)",
        "mediastinum",
    ),
    "pneumomediastinum": (r"pneumomediastin\w+", "mediastinum"),
    "goiter": (r"goit(?:er|re)|thyroid enlargement", "mediastinum"),
    "rib fracture": (
        r"rib (?:[\w-]+ ){0,3}?fractur\w*|fractur\w* (?:[\w-]+ ){0,4}?rib|broken rib|fractur\w*",
        "bone",
    ),
    "clavicle fracture": (
        r"clavic\w+ (?:[\w-]+ ){0,3}?fractur\w*|fractur\w* (?:[\w-]+ ){0,4}?clavic\w+|broken clavicle|fractur\w*",
        "bone",
    ),
    "spinal fracture": (
        r"(?:vertebra\w*|spin\w+|compression) (?:[\w-]+ ){0,3}?fractur\w*|fractur\w* (?:[\w-]+"
        r" ){0,4}?(?:vertebra\w*|spine)"
        r"|vertebral compression|fractur\w*",
        "bone",
    ),
    "scoliosis": (r"scolio\w+", "bone"),
    "kyphosis": (r"(?:hyper)?kypho\w+", "bone"),
    "degenerative change": (
        r"degenerat\w+|spondyl\w+|osteophyt\w+|(?:osteo)?arthr(?:itis|osis|itic)\w*|hyperostosis",
        "bone",
    ),
    "bone lesion": (r"(?:bone|bony|osseous|lytic|blastic|sclerotic)(?: bone)? lesion|metasta\w+", "bone"),
    "subcutaneous air": (r"subcutaneous (?:air|emphysema|gas)|surgical emphysema", "soft tissue"),
    "free air": (
        r"pneumoperitone\w+|free (?:intra-?peritoneal |sub-?diaphragmatic )?air|sub-?diaphragmatic air",
        "diaphragm",
    ),
    "elevated diaphragm": (
        rf"(?:elevat|rais)\w* (?:[\w-]+ ){{0,4}}?{_DIAPHRAGM}|{_DIAPHRAGM} (?:[\w-]+ ){{0,4}}?(?:elevat|rais)\w*"
        rf"|eventration",
        "diaphragm",
    ),
    "hernia": (r"(?:hiat\w+ )?hernia\w*", "diaphragm mediastinum"),
    "device": (
        r"pace-?maker|(?:endotracheal|nasogastric|chest|ng|et|tracheostomy|drainage) tube|tube|catheter|sternotomy"
        r"|sutur\w+|surgical (?:clip|material)|prosthe\w+|(?:picc|central) line|icd|(?:artificial )?heart valve"
        r"|electrode",
        "soft tissue",
    ),
}

FINDINGS: dict[str, Finding] = {
    name: Finding(pattern, frozenset(regions.split())) for name, (pattern, regions) in _TABLE.items()
}
"""Name -> names and synonyms, for all attributes of the benchmark's sources."""

_REGIONS = {
    "lung": r"lung|pulmonary|parenchym\w+|lobe|air-?space|lung (?:field|zone|base|apex)|chest cavity",
    "pleura": r"pleura\w*|costo-?phrenic|cp angle|sulcus|lung",
    "heart": r"heart|cardiac|cardiomediastinal|cardio-?thoracic",
    "mediastinum": r"mediastin\w+|cardiomediastinal|hil(?:ar|um|a|us)|trachea\w*|aort\w+",
    "vessel": r"vascul\w+|vessel|aort\w+|vasculature",
    "bone": r"bone|bony|osseous|rib|spine|spinal|clavicle|skelet\w+|vertebra\w*|thoracic cage|rib cage",
    "diaphragm": r"(?:hemi)?diaphragm\w*",
    "soft tissue": r"soft tissue",
}

_SPELLINGS = (
    (re.compile(r"\boe(?=dema|soph)"), "e"),
    (re.compile(r"\bhaem|(?<=[a-z])haem"), "hem"),
    (re.compile(r"\btumour"), "tumor"),
    (re.compile(r"\bleucen"), "lucen"),
    (re.compile(r"\b(\w+)thoraces\b"), r"\1thorax"),
    (re.compile(r"\b(\w+ct|met)ases\b"), r"\1asis"),
    (re.compile(r"\b(\w+)ae\b"), r"\1a"),
    (re.compile(r"\b(\w{3,})ies\b"), r"\1y"),
    (re.compile(r"\b(\w*ss|\w*x)es\b"), r"\1"),
    (re.compile(r"\b(\w{2,}[^siou\W_])s\b"), r"\1"),
)
_GAP = re.compile(r"[\s/()]+")


def plain_words(text: str) -> str:
    """Lower-case text in American spelling with singular nouns and single spaces."""
    text = text.lower()
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return _GAP.sub(" ", text).strip()


@cache
def _compiled() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(rf"\b(?:{finding.pattern})(?!\w)") for name, finding in FINDINGS.items()}


@cache
def _literal(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")


def findings_in(text: str, *phrases: str) -> frozenset[str]:
    """Names of the findings that a text speaks of, whether it affirms or denies them.

    Parameters
    ----------
    text : str
        Any text.
    *phrases : str
        Further names, in plain form, that stand for themselves.
    """
    return _mentions(plain_words(text), phrases)


def _mentions(text: str, phrases: tuple[str, ...]) -> frozenset[str]:
    found: list[tuple[int, int, str]] = []
    for name, pattern in [*_compiled().items(), *((p, _literal(p)) for p in phrases)]:
        found += [(*m.span(), name) for m in pattern.finditer(text)]
    return frozenset(
        name
        for start, end, name in found
        if not any(s <= start and end <= e and (s, e) != (start, end) for s, e, other in found if other != name)
    )


@cache
def asked_findings(attribute: str) -> tuple[str, ...]:
    """The findings that an attribute names: several for "Nodule/Mass" and "pneumonia or consolidation".

    A part that is not in the table stands for itself, in plain form.
    """
    plain = plain_words(attribute)
    known = _mentions(plain, ())
    if known:
        return tuple(sorted(known))
    parts = [part.strip(" ,.") for part in re.split(r"\bor\b|,", plain)]
    return tuple(dict.fromkeys(part for part in parts if part))


def regions_in(text: str) -> frozenset[str]:
    """Anatomical regions that a text names; those of the table."""
    plain = plain_words(text)
    return frozenset(name for name, pattern in _REGIONS.items() if re.search(rf"\b(?:{pattern})\b", plain))


def denied_by_normal(finding: str, regions: frozenset[str]) -> bool:
    """Whether "these regions are normal" denies a finding; no region at all means the whole image."""
    return not regions or (finding in FINDINGS and bool(FINDINGS[finding].regions & regions))
