"""Yes and no in the languages in which LVLMs answer, put into English before a text is read.

A word counts only where an answer stands: at the beginning of a sentence, line or marked answer, followed by
punctuation or nothing. Words that are also words of another language are therefore safe inside a sentence.
"""

from __future__ import annotations

import re

__all__ = ["LANGUAGES", "to_english"]

LANGUAGES: dict[str, tuple[str, str]] = {
    "Arabic": ("نعم|أجل|بلى", "لا|كلا"),
    "Bengali": ("হ্যাঁ|হাঁ", "না"),
    "Chinese": ("是的|是|有的|有|对的|对|對|存在|肯定|可见", "不是的|不是|否|没有|沒有|無|无|不存在|不|非|否定|未见"),
    "Dutch": ("ja|jawel", "nee|neen"),
    "French": ("oui", "non"),
    "German": ("ja|jawohl", "nein"),
    "Greek": ("ναι", "όχι|οχι"),
    "Hebrew": ("כן", "לא"),
    "Hindi": ("जी हाँ|जी हां|हाँ|हां|हा", "जी नहीं|नहीं|नही"),
    "Indonesian": ("ya|iya", "tidak"),
    "Italian": ("sì|si", "no"),
    "Japanese": ("はい|ええ|あります|有り|肯定", "いいえ|いえ|ありません|ない|否定"),
    "Korean": ("네|예|그렇습니다|있습니다|있음", "아니요|아니오|아뇨|아닙니다|없습니다|없음"),
    "Persian": ("بله|آری", "خیر|نه"),
    "Polish": ("tak", "nie"),
    "Portuguese": ("sim", "não|nao"),
    "Russian": ("да|имеется", "нет"),
    "Spanish": ("sí|si", "no"),
    "Thai": ("ใช่|มี", "ไม่ใช่|ไม่มี|ไม่"),
    "Turkish": ("evet", "hayır|hayir"),
    "Ukrainian": ("так", "ні"),
    "Vietnamese": ("có|đúng", "không có|không"),
}
"""Language -> its words for yes and for no, as alternatives of a pattern, longest first."""

_ANSWERS = (
    r"(?:la )?respuesta(?: (?:final|correcta))?(?: (?:es|sería))?"
    r"|(?:la )?réponse(?: (?:finale|correcte))?(?: est)?|(?:a )?resposta(?: (?:final|correta))?(?: (?:é|seria))?"
    r"|(?:la )?risposta(?: (?:finale|corretta))?(?: (?:è|e'))?|(?:die |endgültige |meine )*antwort(?: (?:ist"
    r"|lautet))?"
    r"|(?:het )?antwoord(?: is)?|(?:окончательный )?ответ|(?:ostateczna )?odpowiedź(?: (?:to|brzmi))?"
    r"|(?:nihai )?(?:cevap|yanıt)|(?:câu )?trả lời(?: (?:là|cuối cùng))?|jawaban(?:nya)?(?: (?:akhir|adalah))*"
    r"|(?:ال)?(?:إجابة|اجابة|جواب)(?: النهائية| النهائي)?(?: هي| هو)?|(?:अंतिम )?(?:उत्तर|जवाब)(?: है)?"
    r"|(?:最终|最後の|最終的な|最终的)?(?:答案|回答|结论|結論|答え|答)(?:是|为|為|は)?"
    r"|(?:최종 )?(?:정답|답변|답)(?:은|는)?"
)
_POLITE = r"(?:[\"']?(?:です|でした|입니다|예요|이에요|है))?"
_YES = "|".join(sorted({w for yes, _ in LANGUAGES.values() for w in yes.split("|")}, key=len, reverse=True))
_NO = "|".join(sorted({w for _, no in LANGUAGES.values() for w in no.split("|")}, key=len, reverse=True))
_OR = r"\s*(?:/|\||\b(?:o|ou|oder|of|или|lub|veya|atau|hoặc)\b|أو|या|或者|或是|或|または|か|또는)\s*"
_LEAD = r"(?P<before>^|[\n.!?:;¿¡(\[{\"'*_>|-]|\banswer\b)(?P<space>[ \t'\"*_(\[¿¡]*)"
_END = r"(?=[ \t]*(?:[,.!:;)\]}\"'*_<|–—]|\n|$)|[ \t]+-)"

_PUNCTUATION = str.maketrans(
    {"。": ". ", "、": ", ", "،": ", ", "؛": "; ", "।": ". ", "？": "?", "؟": "?", "！": "! ", "・": " "}
)
_MARKER = re.compile(rf"(?<!\w)(?:{_ANSWERS})\s*(?:[:=-]\s*)?(?=[*_\"'(\[ ]*(?:{_YES}|{_NO}))", re.MULTILINE)
_PAIR = re.compile(rf"(?<!\w)(?:{_YES}){_OR}(?:{_NO})(?!\w)")
_WORD = re.compile(rf"{_LEAD}(?:(?P<yes>{_YES})|(?P<no>{_NO})){_POLITE}{_END}", re.MULTILINE)


def to_english(text: str) -> str:
    """Lower-case, NFKC text with answers of other languages in English and their punctuation in ASCII."""
    text = text.translate(_PUNCTUATION)
    text = _PAIR.sub("yes/no", text)
    text = _MARKER.sub("\nanswer: ", text)
    return _WORD.sub(lambda m: f"{m['before']}{m['space']}{'yes' if m['yes'] else 'no'}", text)
