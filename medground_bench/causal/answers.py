r"""Reading yes or no out of a model's free text (paper, section 3.2: whether the model's answer flips).

The reader looks for the text's *final* answer. Sentences are read one by one, and each may commit itself at one of
three levels:

1. **statement**: "There is no evidence of effusion.", "Cardiomegaly is present.", "It cannot be determined.";
2. **answer word** or drawn conclusion: "Yes, ...", "so no", "Therefore, there is an effusion.";
3. **marked answer**: "Answer: Yes", "the answer is no", ``\boxed{No}``, ``{"answer": "yes"}``, a chosen option.

A higher level beats a lower one wherever it stands; within a level the last sentence counts. A sentence that
commits itself to *not knowing* ("cannot be excluded", "could be", "yes/no") is a reading too: it yields undecided.
Questions, instructions, conditionals, general knowledge, descriptions of the picture and trailing notes are not
statements about this image, and what a model marks as its thoughts is not its answer.

Where the attribute that was asked about is known, only statements about it count: those about other findings
(:mod:`~medground_bench.causal.findings`) say nothing, and a normal region denies what would lie in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

from medground_bench.causal import phrases
from medground_bench.causal.findings import asked_findings, denied_by_normal, findings_in, plain_words, regions_in
from medground_bench.causal.languages import to_english
from medground_bench.core.schema import MODES, question

__all__ = ["Answer", "read_answer", "without_thoughts"]

Answer = Literal["yes", "no"]

_STATEMENT, _WORD, _MARKED = 1, 2, 3
_MARKERS = 8
"""Markers that are looked at in one sentence, from its end: a runaway text has thousands."""
_SUFFIXES = re.compile(
    "|".join(re.escape(question("", mode).removeprefix(question("")).strip().lower()) for mode in MODES)
)


class _Reading(NamedTuple):
    level: int
    answer: Answer | None  # None: the sentence says that it does not decide
    about: frozenset[str] | None = None  # the asked findings it speaks of; None: of all


class _Sentence(NamedTuple):
    text: str
    topic: frozenset[str] = frozenset()  # findings of the question right before it
    complete: bool = True


def read_answer(text: str | None, attribute: str | None = None, *, cut: bool = False) -> Answer | None:
    r"""The yes/no answer that a text finally gives.

    Parameters
    ----------
    text : str or None
        What the model wrote, in either mode: a bare word, a sentence, a chain of reasoning, markdown, JSON or LaTeX.
    attribute : str, optional
        What was asked about. Statements about other findings then do not count.
    cut : bool
        The text was cut off at the token limit: what it was about to say is not known, so it is read only from a
        marked answer whose end is there ("Final answer: yes.", ``\boxed{no}``).

    Returns
    -------
    {"yes", "no"} or None
        None when the text is empty or nothing in it decides ("The answer is yes/no", "cannot be excluded").

    Examples
    --------
    >>> read_answer("Yes, there is no doubt.")
    'yes'
    >>> read_answer("There is no effusion, so the answer is no")
    'no'
    >>> read_answer("The answer is yes/no") is None
    True
    >>> read_answer("Cardiomegaly is present. There is no pleural effusion.", "cardiomegaly")
    'yes'
    >>> read_answer("Step 1: the heart. There is no pleural effusion.", cut=True) is None
    True
    """
    if not text:
        return None
    asked = asked_findings(attribute) if attribute else ()
    readings: list[_Reading] = []
    awaited = False  # the sentence before was a bare "Answer:"
    # "Other lesion" is an attribute; elsewhere "no other ..." speaks of something else than was asked.
    sentences = _sentences(_plain(text, bool(attribute and re.match("other ", attribute, re.I))), asked)
    for sentence in sentences:
        if phrases.ECHOED_PAIR.fullmatch(sentence.text):
            continue  # the choice, repeated
        if awaited:
            value = _value(sentence.text, asked, statements=True)
            reading = None if value is None else _Reading(_MARKED, value.answer, value.about)
            awaited = False
        elif phrases.BARE_MARKER.fullmatch(sentence.text):
            awaited = True
            continue
        else:
            reading = _read(sentence, asked, alone=len(sentences) == 1)
        if reading is not None and (not cut or (reading.level == _MARKED and sentence.complete)):
            readings.append(reading)
    return _final(readings, asked)


def _final(readings: list[_Reading], asked: tuple[str, ...]) -> Answer | None:
    """The last reading of the highest level; of several findings asked about, one that is present suffices."""
    if not readings:
        return None
    top = max(reading.level for reading in readings)
    last: dict[str, Answer | None] = {}
    for reading in readings:
        if reading.level == top:
            last |= dict.fromkeys(asked or ("",) if reading.about is None else reading.about, reading.answer)
    return _any(last.values())


def _any(answers: Iterable[Answer | None]) -> Answer | None:
    found = set(answers)
    return "yes" if "yes" in found else "no" if "no" in found else None


# ----------------------------------------------------------------------------------------------- plain text


def without_thoughts(text: str) -> str:
    """The text without what its model marks as thoughts; empty where it was cut off while thinking."""
    for thought in phrases.CLOSED_THOUGHTS:
        text = thought.sub("\n", text)
    text = phrases.END_OF_THOUGHT.sub("\n", text)  # the opening tag was part of the prompt
    return phrases.OPEN_THOUGHT.sub("\n", text)


def _plain(text: str, other: bool = False) -> str:
    """Lower-case text without hidden thoughts, echoes, markup, typographic quotes and contractions."""
    text = without_thoughts(text)
    for place in phrases.PLACES:
        text = place.sub(lambda m: f"\nfinal answer: {m['body']}" + ("\n" if m["end"] else ""), text)
    if phrases.UNTICKED.search(text):
        text = phrases.UNTICKED.sub(" ", phrases.TICKED.sub(r"\nfinal answer: \1\n", text))
    text = unicodedata.normalize("NFKC", text).translate(phrases.QUOTES).lower()
    text = re.sub(r"</?[a-z_]+[^<>\n]{0,40}/?>|<\|[^|\n]*\|>", " ", text)
    text = to_english(text)
    text = _options(phrases.ECHO.sub(" ", _SUFFIXES.sub("\n", text)))
    text = re.sub(r"[*~#$`]+|(?<!\w)_+|_+(?!\w)", "", text)
    for pattern, plain in phrases.CONTRACTIONS:
        text = pattern.sub(plain, text)
    text = re.sub(r'"[^"\n]{0,300}\?\s*"', " ", text)  # the question, quoted
    text = re.sub(r',(?=\s*"[^"\n]+"\s*:)', "\n", text)  # the entries of a JSON object
    text = text.replace('"', "").replace("\\", " ")
    text = phrases.IDIOMS.sub(" ", phrases.PAIR.sub(_pair, text))
    return text if other else phrases.NO_OTHER.sub(" ", text)


def _pair(match: re.Match[str]) -> str:
    """Write "yes or no" as one sign; "yes and no" is no echo of a choice."""
    both = re.search(r"\band\b|&|\bboth\b", match[0])
    return f" {phrases.PAIR_TOKEN} and {phrases.PAIR_TOKEN} " if both else f" {phrases.PAIR_TOKEN} "


def _options(text: str) -> str:
    """Text without lists of options, and with what a chosen letter stands for in place of the letter."""
    meaning: dict[str, str] = {}

    def drop(found: re.Match[str]) -> str:
        options = dict(phrases.OPTION.findall(found[0]))
        if not {"yes", "no"} <= set(options.values()):
            return found[0]
        meaning.update(options)
        return "\n"

    text = phrases.OPTIONS.sub(drop, text)
    if not meaning:
        return text

    def choose(found: re.Match[str]) -> str:
        value = meaning.get(found["letter"])
        if value is None:
            return found[0]
        return f"\nfinal answer: {value if value in ('yes', 'no') else 'uncertain'}\n"

    return phrases.CHOSEN.sub(choose, text)


def _sentences(text: str, asked: tuple[str, ...]) -> list[_Sentence]:
    out: list[_Sentence] = []
    topic: frozenset[str] = frozenset()
    end = len(text.rstrip(" '*_"))
    at = 0
    for raw in phrases.BREAK.split(text):
        at = text.find(raw, at) + len(raw)
        sentence = phrases.BULLET.sub("", raw.strip()).strip()
        if phrases.NOTE.search(sentence):
            continue
        if phrases.DISCLAIMER.search(sentence) and not (_marked(sentence, asked) or _answer_word(sentence)):
            # "I am not a radiologist, but there is an effusion": what follows the disclaimer is the statement.
            _, *rest = re.split(r"\bbut\b|\bhowever\b|\bthat said\b", sentence, maxsplit=1)
            sentence = "".join(rest).strip(" ,")
        if sentence.endswith("?"):
            topic = findings_in(sentence, *asked) if asked else frozenset()
        elif sentence and re.search(r"[a-z⟂]", sentence):
            complete = at < end or sentence[-1] in ".!)]}"
            out.append(_Sentence(sentence.rstrip(" .!,'"), topic, complete))
            topic = frozenset()
    return out


# ------------------------------------------------------------------------------------------------ marked answers


def _word(word: str) -> Answer:
    return "yes" if re.fullmatch(phrases.YES, word) else "no"


def _read(sentence: _Sentence, asked: tuple[str, ...], *, alone: bool) -> _Reading | None:
    """What one sentence commits itself to."""
    text = sentence.text
    if sentence.topic and sentence.topic.isdisjoint(asked) and not findings_in(text, *asked) & set(asked):
        return _marked(text, asked)  # the answer to a question about something else
    if alone:
        if phrases.AGREEMENT.fullmatch(text):
            return _Reading(_WORD, "yes")
        if phrases.DISAGREEMENT.fullmatch(text):
            return _Reading(_WORD, "no")
    labelled = phrases.LABELLED.match(text) if asked else None
    if labelled:
        label, value = labelled["label"], labelled["value"].strip(" |")
        named = findings_in(label, *asked)
        if named and (found := _value(value, asked, statements=False)):  # "Pleural effusion: no"
            about = named & set(asked)
            return _Reading(_WORD, found.answer, about) if about else None
        if regions_in(label) and not named:  # "Heart: enlarged"
            text = f"{label} is {value}"
    reading = _marked(text, asked) or _answer_word(text) or _statement(text, asked)
    if reading is not None and phrases.CORRECTION.match(text):
        return reading._replace(level=_MARKED)  # it takes back what was said before, however that was marked
    return reading


def _marked(sentence: str, asked: tuple[str, ...]) -> _Reading | None:
    turned = phrases.REVERSED.search(sentence)
    if turned and not phrases.UNDECIDED.search(sentence):
        return _Reading(_MARKED, _word(turned["word"]))
    for marker in reversed(list(phrases.MARKER.finditer(sentence))[-_MARKERS:]):
        if phrases.NO_REASON.search(sentence[: marker.start()]):
            return _Reading(_MARKED, None)
        rest = sentence[marker.end() :]
        if marker["link"].endswith(" be") and marker["link"].split()[0] in ("could", "might", "may", "can"):
            return _Reading(_MARKED, None)
        found = _value(rest, asked, statements=True)
        if found is not None:
            return found._replace(level=_MARKED)
    for marker in reversed(list(phrases.WEAK_MARKER.finditer(sentence))[-_MARKERS:]):
        found = _value(sentence[marker.end() :], asked, statements=False)
        if found is not None:
            return _Reading(_WORD, found.answer)
    said = phrases.ANSWERED.search(sentence)
    if said and not _doubted(sentence[: said.start("rest")]):
        if phrases.OTHERS.search(sentence[: said.start()]):
            return _Reading(_STATEMENT, None)
        found = _answer_word(said["rest"])
        if found is not None:
            return _Reading(_MARKED, found.answer)
    return None


def _value(rest: str, asked: tuple[str, ...], *, statements: bool) -> _Reading | None:
    """What stands behind a marker such as ``Answer:``."""
    rest = rest.strip(" '\"{}[]()|")
    single = re.match(r"^(y|n|true|false|positive|negative|present|absent)\b(?!\s+\w)", rest)
    if single:
        return _Reading(_MARKED, "yes" if single[1] in ("y", "true", "positive", "present") else "no")
    if re.match(rf"^(?:{phrases.PAIR_TOKEN}|null|none$|n/a)", rest):
        later = _answer_word(rest.replace(phrases.PAIR_TOKEN, " ", 1))
        return later if later is not None else _Reading(_MARKED, None)
    denied = re.fullmatch(
        rf"(?:definitely |certainly |clearly |probably )?not\s+(?:a\s+)?(?P<word>{phrases.YES}|{phrases.NO})", rest
    )
    if denied:
        return _Reading(_MARKED, "no" if _word(denied["word"]) == "yes" else "yes")
    return _answer_word(rest) or (_statement(rest, asked) if statements else None)


# ------------------------------------------------------------------------------------------------ answer words


def _answer_word(sentence: str) -> _Reading | None:
    """A yes or no that answers, not one that counts ("no effusion")."""
    if phrases.BARE_NOT.search(sentence):
        return _Reading(_WORD, "no")
    kept = phrases.DISOWNED.sub(" ", sentence)
    lead = phrases.LEAD.match(kept)
    words = list(phrases.ANSWER_WORD.finditer(kept))
    if lead and (_word(lead["word"]) == "yes" or any(m.start() == lead.start("word") for m in words)):
        # "Yes, but actually no": a later word takes it back.
        last = words[-1]
        turn = kept[lead.end() : last.start()] if last.start() > lead.end() else ""
        if _word(last[0]) != _word(lead["word"]):
            return _Reading(_WORD, _word(last[0]) if phrases.TURN.search(turn) else None)
        return _Reading(_WORD, _word(lead["word"]))
    if phrases.PAIR_TOKEN in kept and not words:
        return _Reading(_WORD, None)
    if not words:
        return None
    if _doubted(kept[: words[0].start()]) or re.search(r"\bif\b|\botherwise\b", kept[: words[-1].start()]):
        return _Reading(_WORD, None)
    answers = {_word(m[0]) for m in words}
    if len(answers) == 1:
        return _Reading(_WORD, answers.pop())
    between = kept[words[-2].end() : words[-1].start()]
    return _Reading(_WORD, _word(words[-1][0]) if phrases.TURN.search(between) else None)


def _doubted(before: str) -> bool:
    """Whether what leads to an answer takes it back: "it could be yes", but not "hard to say, but yes"."""
    return phrases.UNDECIDED.search(phrases.BUT.split(before)[-1]) is not None


# ------------------------------------------------------------------------------------------------ statements


def _statement(sentence: str, asked: tuple[str, ...]) -> _Reading | None:
    """A sentence about the image: present, absent or not decided."""
    level = _STATEMENT
    concluded = list(phrases.CONCLUSION.finditer(sentence))
    if concluded:
        level = _WORD
        sentence = sentence[concluded[-1].end() :]
        if concluded[-1][0].startswith("based on"):
            sentence = sentence.partition(",")[2].strip() or sentence
    sentence = phrases.LOOKING.sub("", sentence)
    claim = phrases.SUBORDINATE_LAST.sub("", phrases.SUBORDINATE_FIRST.sub("", sentence)).strip()
    if asked and findings_in(sentence, *asked):
        return None if phrases.PROCEDURE.search(claim) else _of_the_asked(sentence, asked, level)
    if phrases.UNABLE_TO_SEE.search(claim):
        return _general(claim, "no", asked, level)
    if phrases.UNDECIDED.search(claim):
        return _Reading(level, None)
    if phrases.PROCEDURE.search(claim):
        return None
    answer = _polarity(claim)
    return None if answer is None else _general(claim, answer, asked, level)


def _of_the_asked(sentence: str, asked: tuple[str, ...], level: int) -> _Reading | None:
    """A sentence that names findings: what its clauses say of those that were asked about.

    A clause without a verb of its own shares what the clause before it says, else the one after it ("Cardiomegaly and
    effusion are present").
    """
    clauses = _clauses(sentence)
    said = [_clause_answer(clause) for clause in clauses]
    answers: dict[str, Answer | None] = {}
    for i, clause in enumerate(clauses):
        about = findings_in(clause, *asked) & set(asked)
        if about and said[i] == _SILENT and phrases.FINITE.search(clause):
            said[i] = "yes"  # "The aorta is tortuous"
        before = [a for a in said[: i + 1] if a != _SILENT]
        after = [a for a in said[i:] if a != _SILENT]
        answer = before[-1] if before else after[0] if after else _SILENT
        if not about and answer == "no" and phrases.NORMAL.search(clause) and not findings_in(clause, *asked):
            normal = _general(clause, "no", asked, level)
            about = (normal.about or frozenset(asked)) if normal else frozenset()
        if answer != _SILENT:
            answers |= dict.fromkeys(about, None if answer == _OPEN else answer)  # type: ignore[arg-type]
    if not answers:
        return None
    return _Reading(level, _any(answers.values()), frozenset(answers))


def _clauses(sentence: str) -> list[str]:
    """Clauses that each say something: cut at contrasts, and at commas and "and" between two finite verbs."""
    out: list[str] = []
    for part in phrases.CLAUSE.split(sentence):
        pieces = phrases.COORDINATION.split(part)
        kept = pieces[0]
        for i in range(1, len(pieces), 2):
            if phrases.FINITE.search(kept) and phrases.FINITE.search(pieces[i + 1].partition(",")[0]):
                out.append(kept)
                kept = pieces[i + 1]
            else:
                kept += pieces[i] + pieces[i + 1]
        out.append(kept)
    return [clause for clause in (c.strip(" ,") for c in out) if clause]


def _clause_answer(clause: str) -> str:
    """Read "yes", "no", undecided, or silent: a mere noun phrase."""
    if phrases.UNABLE_TO_SEE.search(clause):
        return "no"
    if phrases.UNDECIDED.search(clause):
        return _OPEN
    return _polarity(clause) or _SILENT


_OPEN, _SILENT = "undecided", "silent"


def _general(claim: str, answer: Answer, asked: tuple[str, ...], level: int) -> _Reading | None:
    """Whether a statement that names no finding of the table speaks of what was asked."""
    if not asked:
        return _Reading(level, answer)
    normal = answer == "no" and phrases.NORMAL.search(claim) is not None
    words = set(re.findall(r"[a-z-]+", plain_words(claim)))
    if not normal and not words <= (phrases.GENERAL_NO if answer == "no" else phrases.GENERAL):
        return None  # about something else
    if answer == "yes":
        return _Reading(level, answer)
    regions = regions_in(claim)
    about = frozenset(finding for finding in asked if denied_by_normal(finding, regions))
    return _Reading(level, answer, about) if about else None


def _opposite(answer: Answer | None) -> Answer | None:
    if answer is None:
        return None
    return "no" if answer == "yes" else "yes"


def _polarity(claim: str) -> Answer | None:
    refuted = phrases.FALSE_THAT.search(claim)
    if refuted:
        return _opposite(_polarity(claim[refuted.end() :]))
    inference = phrases.INFERENCE.search(claim)
    if inference and phrases.MISSING.match(claim):
        # "The absence of lung markings indicates a pneumothorax": what is inferred counts.
        return "no" if phrases.NEGATIVE.search(claim[inference.end() :]) else "yes"
    if phrases.DOUBLE.search(claim):
        return "yes"
    if phrases.NO_NORMAL.search(claim):
        return None  # what is abnormal instead is not said
    positive = phrases.POSITIVE.search(claim)
    negative = phrases.NEGATIVE.search(claim)
    if negative is None:
        return _affirmed(claim) if positive else "no" if phrases.NORMAL.search(claim) else None
    # "There is an effusion without pneumothorax", "cardiomegaly is seen, but no effusion": the main claim stands.
    main = phrases.ADDENDUM.sub("", claim)
    if positive and main != claim and main.strip():
        kept = phrases.POSITIVE.search(main)
        dangling = phrases.DANGLING.search(main)  # "There appears to be no effusion": it belongs to the claim
        if kept and not dangling and not phrases.NEGATIVE.search(main) and main[kept.end() :].strip(" ,"):
            return _affirmed(main) or "no"
    return "no"


def _affirmed(claim: str) -> Answer | None:
    """A claim in affirmative words: a finding, a normal region (no), or merely what the picture is of (None)."""
    answers: list[Answer | None] = []
    for clause in phrases.CONTRAST.split(claim):
        if phrases.NORMAL.search(clause):
            answers.append("no")
            continue
        bare = phrases.IN_THE_IMAGE.sub(" ", clause)
        words = set(re.findall(r"[a-z-]+", plain_words(bare)))
        described = (
            not phrases.ANAPHOR.match(clause)
            and words & phrases.DESCRIPTION
            and words <= phrases.FUNCTION | phrases.DESCRIPTION
        )
        answers.append(None if described or not words else "yes")
    return _any(answers)
