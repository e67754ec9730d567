"""Words that carry no meaning of their own, by language, and the articles among them."""

from __future__ import annotations

from functools import cache

STOPWORDS = frozenset(  # English
    "a about after all also an and any are as at be because been before between both but by can did do does each for "
    "from had has have he her his how if in into is it its may more most must no not of on one only or other out over "
    "she so some such than that the their them then there these they this those to two under up very was we were what "
    "when where which who why will with would you your many much long year percentage".split()
)
# What questions ask with and hardly an answer says; the lists that `bm25s` ships have little of it.
QUESTION_WORDS = {
    "ar": "ما ماذا من متى أين كيف لماذا هل كم أي في على إلى عن مع هذا هذه ذلك التي الذي كان كانت هو هي و أو أن",
    "da": "hvem hvad hvornår hvor hvorfor hvordan hvilken hvilket hvilke mange meget stor høj lang",
    "de": "wer wen wem wessen wann woher wohin woraus womit wodurch worin worauf wofür wozu warum weshalb wieso "
    "wieviel welchen viele vielen groß hoch lang lange weit tief oft wurde wurden worden beim seit",
    "el": "ο η το οι τα του της των τον την τους τις και σε στο στη στην στον από με για που να δεν είναι ήταν ένα "
    "ένας μια τι ποιος ποια ποιο ποιοι πότε πού πώς γιατί πόσο πόσα πόσοι",
    "es": "quién quiénes cuál cuáles cuándo dónde cómo cuánto cuánta cuántos cuántas",
    "fr": "quel quelle quels quelles quoi quand où comment pourquoi combien lequel laquelle",
    "it": "cosa quando quali come",
    "nl": "waar wanneer waarom welke welk hoeveel wiens waaruit waarmee groot hoog lang",
    "no": "hvem hva når hvor hvorfor hvordan hvilken hvilket hvilke mange mye stor høy lang",
    "pl": "kto co kiedy gdzie jak dlaczego jaki jaka jakie który która które ile czy i w z na do od po za nie się jest "
    "był była było były że o u to",
    "pt": "quais onde porque quanto quanta quantos quantas",
    "ru": "какая какие какое каком каких каким чему сколько почему откуда чей",
    "sv": "vem vad när var varför hur vilken vilket vilka många mycket stor hög lång",
    "tr": "kim ne zaman nerede nasıl neden hangi kaç",
    "uk": "хто що коли де як чому який яка яке які скільки і в у на з до за не та є був була було були це",
}
# as the lists of `bm25s` and the stemmers of `nltk` call the languages; each has those of some
NAMES = {
    "ar": "arabic", "da": "danish", "de": "german", "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian",
    "it": "italian", "ko": "korean", "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
# Characters that join or ask, in scripts that put no space between words: they part the others.
PARTICLES = {
    "zh": "什么|什麼|多少|多大|多高|多长|多久|怎么|怎麼|怎样|如何|为何|为什么|為什麼|何时|何時|"
    "哪|谁|誰|吗|嗎|呢|的|了|是|在|和|与|與|被|把",
    "ja": "ですか|ますか|ました|です|ます|いつ|どこ|なぜ|どの|どう|いくつ|いくら|誰|何|は|が|を|に|で|と|の|へ|も|か",
}
ARTICLES = {
    "de": "der|die|das|den|dem|des|ein|eine|einen|einem|einer|eines",
    "en": "a|an|the",
    "es": "el|la|los|las|lo|un|una|unos|unas",
    "fr": "le|la|les|l|un|une|des|du",
    "it": "il|lo|la|i|gli|le|l|un|uno|una",
    "nl": "de|het|een",
    "pt": "o|a|os|as|um|uma|uns|umas",
}


@cache
def stopwords(language: str) -> frozenset[str]:
    """The stop words of a language by its ISO 639-1 code, in lower case; none for one that we have no list of."""
    if language == "en":
        return STOPWORDS
    words = QUESTION_WORDS.get(language, "").split()
    if language in NAMES:
        import bm25s.stopwords

        words += getattr(bm25s.stopwords, f"STOPWORDS_{NAMES[language].upper()}", ())
    return frozenset(word.casefold() for word in words)
