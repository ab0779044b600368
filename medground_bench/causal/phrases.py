"""The phrases by which :mod:`~medground_bench.causal.answers` reads a text.

All patterns are for lower-case text with plain quotes and written-out contractions ("can not").
"""

from __future__ import annotations

import re

# ------------------------------------------------------------------------------------------------------------ cleaning

QUOTES = str.maketrans(dict.fromkeys('"“”„‟«»‹›″「」『』', '"') | dict.fromkeys("‘’‚‛`´′", "'"))

# Reasoning that a model marks as not being its reply: opening and closing marker of each convention.
_NAMES = (
    r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning|reason|analysis|scratchpad|reflection|summary|caption)"
)
_THOUGHTS = (
    (rf"<{_NAMES}>", rf"</{_NAMES}>"),  # Qwen, DeepSeek, GLM, LLaVA-CoT
    (r"<unused94>(?:thought)?", r"<unused95>"),  # MedGemma 1.5
    (r"<\|channel>(?:thought|analysis)\b", r"<channel\|>"),  # Gemma 4
    (
        r"<\|channel\|>(?:analysis|thought|commentary)\b(?:<\|message\|>)?",
        r"<\|end\|>|<\|channel\|>final(?:<\|message\|>)?",
    ),
    (r"\[think\]", r"\[/think\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (
        r"<\|(?:start_thinking|begin_of_thought|thinking_start|think)\|>",
        r"<\|(?:end_thinking|end_of_thought|thinking_end|/think)\|>",
    ),
)
_OPEN = "|".join(start for start, _ in _THOUGHTS)
_CLOSE = "|".join(end for _, end in _THOUGHTS)
CLOSED_THOUGHTS = tuple(re.compile(rf"(?s)(?:{start}).*?(?:{end})", re.I) for start, end in _THOUGHTS)
END_OF_THOUGHT = re.compile(rf"(?s)^.*(?:{_CLOSE})", re.I)
OPEN_THOUGHT = re.compile(
    rf"(?s)(?:{_OPEN}|\A\s*(?:thought|analysis)\s*\n|<(?:{_NAMES}|unused9?4?|\|channel)?\Z).*$", re.I
)

# Places made for the final answer.
PLACES = (
    re.compile(r"<\|begin_of_box\|>(?P<body>.*?)(?P<end><\|end_of_box\|>|$)", re.S),
    re.compile(r"\\(?:boxed|fbox)\s*\{\s*(?:\\(?:text|mathrm|textbf|mathbf)\s*\{)?(?P<body>[^{}]*)(?P<end>\}+)"),
    re.compile(
        r"<(?P<tag>answer|final|final_answer|response|conclusion)>(?P<body>.*?)(?P<end></(?P=tag)>|$)", re.I | re.S
    ),
)
TICKED = re.compile(r"(?:\[\s*[xX✓✔]\s*\]|[☑☒✅✓✔])\s*(\w+)")
UNTICKED = re.compile(r"(?:\[\s*\]|☐|⬜)\s*\w+")
CONTRACTIONS = (
    (re.compile(r"\bcan(?:'t|not|t)\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bain't\b"), "is not"),
    (re.compile(r"(\w)n't\b"), r"\1 not"),
    (re.compile(r"\b(there|it|that|here|what|he|she)'s\b"), r"\1 is"),
    (re.compile(r"\b(i|we|you|they)'(?:d)\b"), r"\1 would"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\b(we|they)'re\b"), r"\1 are"),
    (re.compile(r"\b(i|we|you|they)'ve\b"), r"\1 have"),
)

# Idioms in which a negative word denies nothing; "no other ..." speaks of something else than was asked.
IDIOMS = re.compile(
    r"\b(?:there is |there can be |i have |we have |with |have )?(?:absolutely )?(?:no|not any"
    r"|without (?:a |any )?)\s*"
    r"(?:shadow of a )?(?:real |reasonable )?(?:doubts?|question|uncertainty|mistake"
    r"|mistaking)\b(?:\s+(?:that|about (?:it|this|that)))?"
    r"|\bundoubtedly\b|\bunquestionably\b|\bnot only\b|\bno matter\b|\bno wonder\b"
)
NO_OTHER = re.compile(r"\b(?:there (?:is|are) )?no (?:other|additional|further|associated|concomitant)\b[^.,;\n]*")


# "yes or no", "yes/no": names the choice and makes none. It is replaced by one sign.
PAIR_TOKEN = "⟂"
PAIR = re.compile(
    r"(?:\b(?:either|both|a|simple|binary)\s+)*['\"(\[]*\byes\b['\")\]]*\s*(?:/|\||\bor\b"
    r"|,\s*or\b|\band\b|-or-|&|\\)\s*['\"(\[]*\bno\b['\")\]]*"
    r"|(?:\b(?:either|both|a)\s+)*['\"(\[]*\bno\b['\")\]]*\s*(?:/|\||\bor\b|,\s*or\b|\band\b"
    r"|-or-|&|\\)\s*['\"(\[]*\byes\b['\")\]]*"
)

# The task's own words, repeated: "Answer directly with yes or no without any explanation.", "(yes/no)".
ECHO = re.compile(
    r"(?:(?<=[.!?:;\n(\[])|^)[\s*_'(\[-]*(?:please |now |first |then |let us |you (?:should|must) )?(?:think"
    r" step by step(?:,)? and )?"
    r"(?:answer|respond|reply|choose|select)\b(?: (?:the|this|following|question|directly|only|briefly|simply"
    r"|just|in|one"
    r"|word|your|by|choosing|selecting|from|between|options?))*"
    r"(?: (?:with|using|as|either|only|just|exactly|a|simple|one of|by saying))*:? ['(\[]*yes['\])]*\s*(?:/|or|,"
    r"|\||and)\s*['(\[]*no"
    r"\b['\])]*"
    r"(?: (?:without|with no) (?:any )?(?:further )?(?:explanations?|reasoning|elaboration)| only| directly|"
    r" first)*[.)\]!]*"
    r"|(?:(?<=[.!?:;\n])|^)[\s*_'-]*(?:let us |let's |please |i will |now )?think(?:ing)?"
    r" step[- ]by[- ]step[.:!]*(?=\s|$)"
    r"|(?:^|(?<=[\n.!?:]))[\s*_'-]*(?:options|choices|possible answers)\s*:\s*['(\[]*yes['\])]*\s*(?:/|or|,|\|"
    r"|and)\s*['(\[]*no\b['\])]*"
    r"|without any explanation\b[.)]*"
    r"|[(\[{<]\s*(?:answer |options: |either |choose )?['*]*yes['*]*"
    r"\s*(?:/|\||\bor\b|,)\s*['*]*no['*]*(?: only)?\s*[)\]}>]",
    re.M,
)
ECHOED_PAIR = re.compile(
    r"(?:(?:the |my |your |final )*(?:answer|response|options?|choices?)\s*[:=-]+\s*)?[\s'(\[]*⟂[\s')\]]*"
)

# "(A) Yes (B) No": the options; which letter was chosen stands elsewhere.
_OPTION = (
    r"[(\[]?(?:option )?\b[a-d1-4]\s*(?:[).:\]]|\s-)\s*(?:yes|no|uncertain|unsure|not sure|unclear|maybe|unknown"
    r"|cannot be determined|can't tell)\b['*]*\.?"
)
OPTIONS = re.compile(rf"(?:(?:options|choices)\s*:\s*)?{_OPTION}(?:[\s,;/|]+(?:or\s+)?{_OPTION})+")
OPTION = re.compile(
    r"\b([a-d1-4])\s*(?:[).:\]]|\s-)\s*(yes|no|uncertain|unsure|not sure|unclear|maybe|unknown|cannot|can't)\b"
)
CHOSEN = re.compile(
    r"(?:\b(?:answer|option|choice|choose|select|pick|response)\w*\b['*]*\s*(?:is|are|would be|:|="
    r"|-)*\s*(?:option|choice|:)?\s*[*'(\[{]*"
    r"|(?:^|(?<=\n)|(?<=[.!?:]\s))[\s*'(\[]*)(?P<letter>[a-d1-4])(?=\s*(?:[)\]}.,;:!*']|\n|$))[)\]}*']*",
    re.M,
)

# Sentences, lines and what may stand before or after them.
BREAK = re.compile(
    r"(?<=[!?])(?=\s|$)|(?<=[^\s.]\.)(?=[\s)\]}]|$)(?<!\bdr\.)(?<!e\.g\.)(?<!i\.e\.)(?<!\bvs\.)"
    r"|\n+|;"
)
BULLET = re.compile(
    r"^(?:[-+*•·>–—|{}\[\]()]|\(?\d{1,2}[.):]\s|\(?[a-h][.)](?=\s)|(?:option|step)\s+\w+\s*[.:)-]|'|\s|,)+"
)
NOTE = re.compile(
    r"^(?:please )?(?:note|notes|nb|n\.b|p\.s|ps|disclaimer|caveat|remark|warning|important"
    r"|limitations?|recommendations?)\b\s*(?:that\b|[:.,-]|$)"
)
DISCLAIMER = re.compile(
    r"\bnot (?:a|an) (?:doctor|physician|radiologist|medical|substitute)|\bmedical advice\b"
    r"|\bconsult(?:ing|ation)?\b"
    r"|\b(?:ai|language) (?:model|assistant)\b|\bprofessional\b|\bclinical correlation\b"
    r"|\bfollow[- ]up\b|\bno prior\b"
)


# -------------------------------------------------------------------------------------------------------- answer words

YES = r"(?:yes|yeah|yep|yup|yea|aye|affirmative|ja)"
NO = r"(?:no|nope|nah|nay|nein)"

# "no" is an answer word where something other than a noun follows: "no.", "no, ...", "no there is ...".
ANSWER_WORD = re.compile(
    rf"\b(?P<yes>{YES})\b|\b(?P<no>{NO})\b(?=\s*(?:$|[,.:!)\]}}'—–]|-+>|\s-|\(|(?:there|it|this"
    rf"|that|these|i|we|the|"
    r"because|since|as|but|and|is|based|given|my|for|to|with|in|sir|not|rather|instead|would|was)\b))"
)

# "yes, not no", "no rather than yes": the second word is not an answer.
DISOWNED = re.compile(
    rf"\b(?:not|rather than|instead of|as opposed to|over|and not)\s+(?:a\s+)?(?:{YES}|{NO})\b(?!\s+[a-z])"
)

# What stands between two contrary answers when the second takes back the first.
TURN = re.compile(
    r"\b(?:but|actually|wait|correction|rather|instead|however|changed?|revised?|now|finally|so"
    r"|therefore|then|hence|thus)\b"
)

# The writer does not know, or says what may be.
UNDECIDED = re.compile(
    r"\bcan not (?:be )?(?:\w+ )?(?:exclude|rule|determin|assess|confirm|tell|say|answer|decid"
    r"|conclu|know|provide|help|assist|evaluat|interpret|"
    r"diagnos|make|give|view|analy[sz]e|comment|be (?:sure|certain)|sure|certain|with|see (?:the"
    r"|this|an?) image|establish|judge)"
    r"|\b(?:could|may|might) (?:well |also |possibly |potentially |still )?(?:be|represent|have"
    r"|indicate|suggest|reflect|go|mean)\b"
    r"|\b(?:possibl[ey]|possibility|perhaps|maybe|conceivabl[ey]|potentially|questionable|equivocal"
    r"|indeterminate|inconclusive|ambiguous|undecided|undetermined)\b"
    r"|\b(?:no|not any|not \w+ any) information\b|\b(?:unclear|uncertain|unsure|unknown|depends"
    r"|debatable)\b|\bnot (?:entirely |completely |fully |quite |totally )?(?:sure|certain"
    r"|clear whether|clear if|clear|possible|"
    r"enough|sufficient|conclusive|definitive|able|necessarily|definitively|applicable"
    r"|answerable|known|determinable|decidable)\b"
    r"|\bnot (?:\w+ ){0,3}(?:enough|sufficient|adequate)\b"
    r"|\b(?:unable|impossible|difficult|hard|challenging|insufficient|inadequate|not able)\b[^,;]*\b(?:to|for)\b"
    r"|\bnot (?:be |been )?(?:rul(?:e|ed|ing) out|exclud(?:e|ed|ing))\b"
    r"|\bdo not know\b|\bno (?:clear |definite |definitive )?(?:answer|way|conclusion)\b"
    r"|\bneither\s+(?:yes|no)\b|\binsufficient\b"
)

# Looked and found nothing: that is a no, not a doubt.
UNABLE_TO_SEE = re.compile(
    r"\b(?:can not|unable to|not able to|could not|do not|did not|does not|fail(?:s"
    r"|ed)? to)\s+(?:be\s+)?(?:\w+ly\s+)?"
    r"(?:see|seen|find|found|identif\w+|detect\w*|appreciate\w*|observe\w*|visuali[sz]e\w*"
    r"|notice\w*|discern\w*|spot)\b(?!\s+(?:the|this|an?|your) (?:image|picture|x-ray))"
)

# What may stand before an answer word that opens a sentence: "So, most likely, yes".
HEDGED_LEAD = (
    r"(?:(?:most|very|quite|highly|more|rather|well|hmm+|okay|ok|oh|so|then|therefore|thus|hence"
    r"|and|but|i|we|would|will|do|"
    r"say|think|believe|conclude|lean|leaning|towards?|to|answer|is|with|that|probably|likely"
    r"|presumably|apparently|definitely|clearly|"
    r"certainly|absolutely|actually|in|fact|conclusion|summary|short|overall|finally|a|an|my|the"
    r"|clear|definite|definitive|simple|"
    r"resounding|confident|strong|firm|tentative|unequivocal|cautious|qualified|again|would be"
    r"|also|sure|of|course)[\s,:]+)*"
)
LEAD = re.compile(rf"^[\s'(\[{{:,=–—>-]*{HEDGED_LEAD}['(\[]*(?P<word>{YES}|{NO})\b")

# "Probably not."
BARE_NOT = re.compile(
    r"^(?:(?:i|we|would|say|think|believe|so|but|therefore|thus|hence|most|very|of|course"
    r"|probably|likely|certainly|definitely|absolutely|"
    r"clearly|apparently|presumably|obviously|surely|it is|there is|there are|it does"
    r"|no)[\s,]+)+not(?: really| at all)?(?:$|\s*[,:(–—-])"
    r"|^not (?:really|at all|in this (?:image|case)|that i can see|here)\b"
)

# Answers without yes or no, where they are the whole text.
AGREEMENT = re.compile(
    r"^(?:absolutely|definitely|certainly|of course|indeed|sure|correct|exactly|right|true|y"
    r"|(?:most |very )?likely|probably|it is|it does|there is|there are|"
    r"(?:that|this|the statement) is (?:correct|true|right))$"
)
DISAGREEMENT = re.compile(
    r"^(?:incorrect|wrong|false|n|(?:that|this|the statement) is (?:incorrect|false|wrong|not (?:correct|true)))$"
)


# ------------------------------------------------------------------------------------------------------ marked answers

NOUN = r"(?:answer|ans|antwort|response|verdict|conclusion|final)"
WEAK_NOUN = (
    r"(?:prediction|decision|result|label|output|determination|impression|assessment"
    r"|classification|finding|present|presence|diagnosis|evidence|a)"
)
LINK = r"(?:is|was|would be|should be|must be|has to be|will be|remains|becomes|lautet|ist|:|=|-+>|-|—|–|→|⇒)"
MARKER = re.compile(
    rf"\b(?P<noun>{NOUN})\b(?!-)'?(?:\s+(?:to|for|of|regarding|here"
    rf"|in)\b[^:=]{0, 300}?)?\s*(?P<link>{LINK}|could be|might be|may be|can be)"
    r"(?:\s*(?::|=|-|therefore|thus|hence|as follows|then|,)+)*\s*"
)
WEAK_MARKER = re.compile(rf"(?:^|[{{,\s(])'?(?P<noun>{WEAK_NOUN})'?\s*(?::|=|-+>|→)\s*")
ANSWERED = re.compile(
    rf"\b(?:answer|respond|reply|say|conclude|choose|select)(?:ed|s|ing)?\s+(?:is\s+|with\s+"
    rf"|as\s+|:\s*|in\s+)*(?:an?\s+|the\s+)?(?P<rest>'?(?:{YES}|{NO})\b(?!\s+(?:evidence|sign"
    rf"|effusion)).*)"
)
REVERSED = re.compile(
    rf"\b(?P<word>{YES}|{NO})\b'?\s*[,:–—-]*\s*(?:(?:this|that|it|which)\s+)?(?:is|as|would be"
    rf"|being|should be)\s+(?:therefore\s+|thus\s+)?(?:my|the|our)\s+(?:\w+\s+)?(?:answer"
    rf"|response|conclusion|verdict)\b"
)
BARE_MARKER = re.compile(
    rf"(?:(?:so|therefore|thus|hence|the|my|final|short|direct|overall|correct|in|and|a|i"
    rf"|then),?\s+)*{NOUN}\b(?:(?:\s+is)?\s*[:=–—-]*|\s+to\b[^:]*:)"
)


# --------------------------------------------------------------------------------------------------- several sentences

CORRECTION = re.compile(
    r"^(?:(?:but|however|and|no),? )?(?:actually|correction|wait|on second thoughts?|on (?:further )?reflection|sorry"
    r"|rather|(?:up)?on (?:a )?(?:closer|further|careful|second) (?:look|inspection|review|examination)|looking again"
    r"|i (?:was|am) (?:wrong|mistaken))\b"
)

# Somebody else's answer, or one that is not to be given.
OTHERS = re.compile(
    r"\b(?:some|others?|many|one|someone|people|it is (?:wrong|incorrect) to|(?:would|should|do"
    r"|can|could) not)\b[^,;]*$"
)

# "There is no evidence that the answer is ..."
NO_REASON = re.compile(r"\b(?:no|not|nothing|never)\b[^,;:]*\bthat(?: the| my)?\s*$")


# ---------------------------------------------------------------------------------------------------------- statements

CONCLUDES = (
    r"(?:therefore|thus|hence|so|in conclusion|in summary|to conclude|to summari[sz]e|in short"
    r"|consequently|accordingly|as a result|conclusion|overall|finally|impression|(?:i"
    r"|we) conclude that)"
)
CONCLUSION = re.compile(
    rf"^(?:{CONCLUDES}\b|based on\b)[\s,:]*|[,;:]?\s+(?:and\s+)?(?:therefore|thus|hence|so"
    rf"|consequently|(?:i|we) conclude that|which means(?: that)?|meaning(?: that)?"
    rf"|indicating that)\s*,?\s+(?!far|that\b|as to)"
)

# What is to be done, or what is so in general: nothing about this image.
PROCEDURE = re.compile(
    r"\bwhether\b|\b(?:question|task|user|prompt)\b|\blet (?:us|me)\b|\b(?:i|we) (?:will|need to"
    r"|should|must|have to)\b|\bneed(?:s|ed)? to\b|\blook(?:ing)? (?:for|at)\b"
    r"|\bcheck(?:ing)? (?:for|if)\b"
    r"|^(?:if|when|to)\b|\bwould (?:be|show|see|expect|appear|have|manifest)\b|\b(?:typically"
    r"|usually|generally|commonly|often)\b|\b(?:is|are) (?:defined|characteri[sz]ed|diagnosed|caused|called"
    r"|known|when)\b"
    r"|\brefers? to\b|\b(?:is|are) (?:an?|the) (?:\w+ ){0,2}(?:enlargement|accumulation|collection|condition"
    r"|collapse|term|type"
    r"|form|build-?up|thickening|inflammation|widening|dilatation|dilation|disease|disorder|sign) (?:of|that|in"
    r"|where|which|for)\b"
    r"|\b(?:examin|assess|evaluat|search)(?:e|ing)? (?:for"
    r"|the image)\b|^step\b"
)

LOOKING = re.compile(
    r"^(?:looking|on looking|(?:up)?on (?:\w+ )?(?:inspection|review|examination|reviewing|examining|inspecting)"
    r"|after (?:\w+ )?(?:reviewing|examining|inspecting|looking|review|examination|inspection)|examining"
    r"|reviewing|inspecting)"
    r"\b[^,]*,\s*"
)

# Reasons, concessions and asides: the main clause decides.
SUBORDINATE_FIRST = re.compile(
    r"^(?:(?:al)?though|while|even though|despite|in spite of|since|because|as|given(?: that)?"
    r"|due to|considering)\b[^,]*,\s*"
)
SUBORDINATE_LAST = re.compile(
    r",?\s*\b(?:(?:al)?though|while|whereas|even though|despite|in spite of|since|because"
    r"|as (?:there|the|no|it|both|they)|given|due to|considering|which (?:is|was|are|were)"
    r"|that (?:is|was|were|are) not|compared)\b.*$"
)
ADDENDUM = re.compile(
    r"(?:,\s*(?:but|and|with|without)?\s*|\s+(?:but|and|with)\s+(?:there (?:is|are) )?|\s+)(?:no"
    r"|without)\b.*$|(?:,|\b(?:but|and))\s+not\b.*$"
)

# A clause cut here would lack its object: "There appears to be | no effusion".
DANGLING = re.compile(
    r"\b(?:is|are|be|was|were|been|has|have|had|shows?|reveals?|demonstrates?|suggests?|indicates?|confirms?"
    r"|see|sees|find|finds|found|of|for|to|that|with)[\s,]*$"
)
BUT = re.compile(r"\b(?:but|however|nevertheless|nonetheless|still)\b")
NEGATIVE = re.compile(
    r"\b(?:no|not|nor|neither|none|nothing|never|nowhere|without"
    r"|little(?: to no)? evidence|hardly any|scarcely|absen(?:t|ce)|lack(?:s|ing|ed)?"
    r"|free of|negative|devoid|unlikely|resolved|"
    r"(?:ruled|rules?) out|exclude[sd]?|fail(?:s|ed)? to|denie[sd]|denied)\b"
)
DOUBLE = re.compile(
    r"\bnot (?:absent|negative|lacking|free of|unlikely|without|devoid)\b"
    r"|\bnot (?:the )?absence\b|\bnot (?:\w+ly )?(?:normal|unremarkable|healthy)\b"
)
NO_NORMAL = re.compile(r"\b(?:no|without|absence of|lack of|loss of) normal\b")
FALSE_THAT = re.compile(r"^.*\b(?:not (?:true|correct|the case)|false|incorrect|wrong|untrue)(?: to say)? that\b")
_PLACE = (
    r"(?:heart|cardiac|cardiomediastinal|mediastin\w+|lungs?|pulmonary|pleura\w*|costophrenic|hil\w+|bones?|bony"
    r"|osseous|ribs?"
    r"|diaphragm\w*|chest|thora\w+|x-?rays?|radiographs?|films?|images?|scans?|stud(?:y|ies)|anatomy|parenchyma"
    r"|vascul\w+"
    r"|appearances?|size|limits|findings?|airways?|trachea|aorta|person|adult|patient|individual|silhouettes?"
    r"|contours?|fields?"
    r"|bases?|apices|structures?|tissues?|examination|exam)"
)
NORMAL = re.compile(
    rf"\b(?:is|are|was|were|be|appears?|look|looks|seems?|remains?|within)\s+(?:both\s+|all\s+)?(?:to"
    rf" be\s+)?(?:\w+ly\s+|\w+wise\s+)?"
    rf"(?:within\s+)?(?:normal|clear|unremarkable|healthy|intact|sharp|well[- ]aerated"
    rf"|well[- ]expanded)\b(?!\s+that|\s+(?:evidence|signs?|increase))"
    rf"|(?<!than )\b(?:normal|unremarkable|healthy)[- ](?:\w+[- ]){{0,3}}?{_PLACE}\b|\b{_PLACE} (?:\w+"
    rf" )?(?:within|with)?"
    rf" ?normal\b"
    rf"|\b(?:clear|sharp|intact|well[- ]aerated|well[- ]expanded) (?:and \w+ )?(?:\w+ ){{0,2}}?(?:lungs?"
    rf"|costophrenic|pleural|bones?|ribs?|bony|heart|cardiac|lung)\b"
    r"|^(?:normal|unremarkable|clear|healthy)\b"
)

# Where one clause ends and another begins, whatever it says.
CLAUSE = re.compile(
    r",?\s*(?=\b(?:but|however|whereas|while|(?:al)?though|even though|despite|in spite of|yet|except|without"
    r"|because|since)\b)"
    r"|,?\s*(?:and\s+)?(?=\bwith (?:no|clear|normal)\b)|,\s*(?=(?:and\s+)?(?:no|not|nor)\b)|\s+(?=and (?:no|not)\b)"
    r"|(?<=\w)\s+(?=\bbut\b)|;"
)
COORDINATION = re.compile(r"(,\s*(?:and\s+)?(?!or\b)|\s+and\s+)")
FINITE = re.compile(
    r"(?<!that )(?<!which )\b(?:is|are|was|were|has|have|shows?|reveals?|demonstrates?|suggests?|indicates?"
    r"|appears?|looks?|seems?"
    r"|remains?|can|cannot|could|exists?|see|sees|do|does|measures?)\b"
)
CONTRAST = re.compile(r",?\s*\b(?:but|however|whereas|while|although|though|yet)\b,?\s*")
LABELLED = re.compile(r"^[|'\s]*(?P<label>[a-z][^:=|–—]{1,80}?)\s*(?::|=|\||-+>|→|–|—|\s-\s)\s*(?P<value>.+)$")

# What a statement may hold and still speak of nothing but the question's finding, or of the picture itself.
# "It is visible in the left lung."
ANAPHOR = re.compile(
    r"(?:it|they|this finding|these findings)\b[^,]*\b(?:visible|seen|present|evident|apparent|noted|identified"
    r"|observed|detected)\b"
)
IN_THE_IMAGE = re.compile(
    r"\b(?:in|on|from|of|within|throughout|by|at) (?:the |this |these |that |an? |your )?(?:\w+ ){0,2}?(?:image"
    r"|picture|x-?ray|radiograph|film|scan"
    r"|study|photo|chest)s?(?: (?:image|x-?ray|radiograph|film|cavity))?\b|\b(?:thoracic|chest) cavity\b"
)
FUNCTION = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "there",
        "here",
        "it",
        "its",
        "he",
        "she",
        "they",
        "them",
        "their",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "may",
        "might",
        "must",
        "in",
        "on",
        "of",
        "at",
        "to",
        "from",
        "for",
        "with",
        "within",
        "by",
        "as",
        "and",
        "or",
        "also",
        "both",
        "all",
        "each",
        "any",
        "some",
        "such",
        "i",
        "we",
        "you",
        "one",
        "my",
        "our",
        "your",
        "who",
        "which",
        "what",
        "where",
        "so",
        "then",
        "just",
        "very",
        "quite",
        "well",
        "clearly",
        "clear",
        "visible",
        "seen",
        "see",
        "shows",
        "show",
        "showing",
        "displays",
        "display",
        "displayed",
        "depict",
        "depicts",
        "depicting",
        "depicted",
        "demonstrates",
        "demonstrate",
        "demonstrating",
        "reveals",
        "reveal",
        "revealing",
        "presents",
        "presented",
        "contains",
        "contain",
        "containing",
        "features",
        "feature",
        "featuring",
        "provides",
        "provided",
        "exhibits",
        "exhibit",
        "includes",
        "include",
        "including",
        "observe",
        "observed",
        "identify",
        "identified",
        "noted",
        "note",
        "appears",
        "appear",
        "seems",
        "seem",
        "taken",
        "obtained",
        "captures",
        "captured",
        "capture",
        "illustrates",
        "illustrate",
        "illustrated",
        "portrays",
        "portray",
        "visualizes",
        "visualized",
        "visualize",
        "visualise",
        "visualised",
        "represents",
        "represent",
        "shown",
        "looks",
        "look",
        "find",
        "found",
        "notice",
        "detect",
        "detected",
        "present",
        "apparent",
        "evident",
        "appreciated",
        "good",
        "adequate",
        "lie",
        "lies",
        "located",
        "indeed",
        "overall",
        "able",
        "currently",
        "given",
        "like",
    ]
)
DESCRIPTION = frozenset(
    [
        "image",
        "picture",
        "photo",
        "photograph",
        "x-ray",
        "xray",
        "radiograph",
        "radiography",
        "radiographic",
        "film",
        "scan",
        "study",
        "view",
        "projection",
        "exam",
        "examination",
        "medical",
        "chest",
        "thorax",
        "thoracic",
        "frontal",
        "posteroanterior",
        "anteroposterior",
        "pa",
        "ap",
        "lateral",
        "portable",
        "upright",
        "supine",
        "erect",
        "black",
        "white",
        "grey",
        "gray",
        "grayscale",
        "greyscale",
        "digital",
        "standard",
        "typical",
        "single",
        "plain",
        "adult",
        "child",
        "person",
        "human",
        "man",
        "woman",
        "male",
        "female",
        "patient",
        "individual",
        "subject",
        "age",
        "aged",
        "old",
        "young",
        "year",
        "middle-aged",
        "elderly",
        "body",
        "upper",
        "torso",
        "lung",
        "pulmonary",
        "lobe",
        "zone",
        "field",
        "base",
        "apex",
        "parenchyma",
        "heart",
        "cardiac",
        "silhouette",
        "shadow",
        "contour",
        "border",
        "mediastinum",
        "mediastinal",
        "trachea",
        "tracheal",
        "carina",
        "bronchus",
        "bronchi",
        "airway",
        "aorta",
        "aortic",
        "arch",
        "knob",
        "hilum",
        "hila",
        "hilar",
        "structure",
        "structures",
        "diaphragm",
        "hemidiaphragm",
        "costophrenic",
        "angle",
        "rib",
        "cage",
        "bone",
        "bony",
        "clavicle",
        "spine",
        "vertebra",
        "vertebral",
        "sternum",
        "scapula",
        "shoulder",
        "humerus",
        "stomach",
        "bubble",
        "pleura",
        "pleural",
        "soft",
        "tissue",
        "vessel",
        "vascular",
        "anatomy",
        "anatomical",
        "organ",
        "region",
        "area",
        "midline",
        "behind",
        "beside",
        "left",
        "right",
        "bilateral",
        "upper",
        "lower",
        "middle",
        "central",
        "side",
        "two",
        "pair",
        "both",
        "marking",
        "anatomic",
        "ribcage",
        "lungs",
        "skeleton",
        "skeletal",
        "neck",
        "abdomen",
        "position",
        "rotation",
        "inspiration",
        "quality",
        "exposure",
        "technique",
    ]
)
_ANY_FINDING = frozenset(
    [
        "evidence",
        "sign",
        "indication",
        "finding",
        "condition",
        "feature",
        "presence",
        "present",
        "absent",
        "absence",
        "positive",
        "negative",
        "confirmed",
        "such",
        "clear",
        "definite",
        "definitive",
        "obvious",
        "strong",
        "convincing",
        "visible",
        "suspicious",
        "likely",
        "probable",
        "confirm",
        "suggest",
        "support",
        "suggests",
        "confirms",
        "supports",
        "suggested",
        "detectable",
        "identifiable",
        "discernible",
        "question",
        "asked",
        "described",
        "mentioned",
        "specified",
        "attribute",
        "itself",
        "said",
        "above",
        "radiological",
        "imaging",
        "visual",
        "thing",
        "consistent",
        "suggestive",
        "indicative",
        "compatible",
        "mild",
        "moderate",
        "severe",
        "small",
        "large",
        "subtle",
        "slight",
        "minimal",
        "mildly",
        "moderately",
        "slightly",
        "think",
        "believe",
        "suspect",
        "conclude",
        "say",
        "yes",
        "no",
        "not",
        "true",
        "correct",
        "case",
        "indicating",
        "therefore",
        "thus",
        "hence",
    ]
)
GENERAL = FUNCTION | _ANY_FINDING | DESCRIPTION
GENERAL_NO = GENERAL | frozenset(
    [
        "abnormality",
        "abnormal",
        "abnormalities",
        "pathology",
        "pathological",
        "pathologic",
        "disease",
        "process",
        "acute",
        "cardiopulmonary",
        "significant",
        "focal",
        "anomaly",
        "problem",
        "issue",
        "suspicious",
        "concerning",
        "anything",
        "nothing",
        "none",
        "never",
        "neither",
        "nor",
        "without",
        "free",
        "lack",
        "lacking",
        "lacks",
        "unlikely",
        "unremarkable",
        "normal",
        "healthy",
        "change",
        "gross",
        "active",
        "chronic",
        "intrathoracic",
        "doe",
        "little",
        "hardly",
        "scarcely",
        "ruled",
        "out",
        "rule",
        "excluded",
    ]
)
POSITIVE = re.compile(
    r"\bthere (?:is|are|appears?|seems?|exists?|was|were|does|do)\b|\b(?:is|are|was|were|be"
    r"|being|been|appears?|seems?)\s+(?:to be\s+)?(?:\w+ly\s+)*(?:present|seen|visible|noted"
    r"|identified|evident|observed|"
    r"demonstrated|detected|found|apparent|visuali[sz]ed|appreciated|shown|likely|probable"
    r"|suspected|confirmed|indicated|suggested|recogni[sz]ed|enlarged|blunted|elevated|thickened"
    r"|increased|widened)\b"
    r"|\b(?:show|demonstrate|reveal|indicate|suggest|confirm|exhibit|display|support|depict"
    r"|contain|feature|reflect)(?:s|ed|ing)?\b|\b(?:consistent|compatible|in keeping) with\b"
    r"|\bsuggestive of\b|\bindicative of\b|\bpositive\b"
    r"|\b(?:i|we|one) (?:can |do |could )?(?:clearly )?(?:see|observe|identify|note|detect|find"
    r"|notice)\b|\bpresence of\b|\b(?:has|have) (?:an?|some|signs?|evidence|clear|bilateral|left"
    r"|right|mild|moderate|small|large)\b|\bpresent\b|\b(?:clear |definite "
    r"|strong )?evidence (?:of|for)\b|\bvisible\b|\bevident\b"
    r"|\b(?:i|we) (?:think|believe|suspect)\b|\bit (?:does|is)$|\b(?:suspicious|concerning|worrisome) for\b"
    r"|\b(?:patient|image|film|x-ray|radiograph|lung|lungs|heart|he|she) (?:also )?(?:has|have|had)\b"
)
INFERENCE = re.compile(
    r"\b(?:indicates?|suggests?|confirms?|is (?:consistent|compatible) with|(?:is"
    r"|are) (?:suggestive|indicative) of|points? to|supports?)\b"
)
MISSING = re.compile(r"^(?:the\s+)?(?:\w+\s+)?(?:absence|lack|loss) of\b")
