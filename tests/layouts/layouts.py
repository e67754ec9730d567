"""The layouts, and the function that builds one."""

from pathlib import Path

from . import drawn_writer, typst_writer
from .model import Case, Layout
from .texts import prepare, truth

MIDDLE = "middle:Downloaded from archive.example by reader 4471 on 3 May 2021"
SIDE = "side:openpapers:2103.01234v2 [hist.econ] 3 May 2021"
WIDE_MARGIN = (62, 130, 70, 70)
BOTH = "en_salt+en_clocks"
LAYOUTS: list[Layout] = []


def typst(name: str, text: str, tries: str, **settings) -> None:
    """Add a layout set by Typst."""
    LAYOUTS.append(Layout(f"t_{name}", "typst", text, tries, **settings))


def drawn(name: str, text: str, tries: str, **settings) -> None:
    """Add a layout drawn with reportlab."""
    LAYOUTS.append(Layout(f"r_{name}", "reportlab", text, tries, **settings))


def build(layout: Layout, folder: Path | str) -> Case:
    """Write the PDF of a layout into the folder and tell what is in it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, document = folder / f"{layout.name}.pdf", prepare(layout)
    writer = typst_writer if layout.producer == "typst" else drawn_writer
    absent, notes = writer.write(document, layout, path)
    known = truth(document, layout)
    known["notes"] += notes
    return Case(layout.name, path, document.title, absent=absent, language=document.language, **known)


# Typst: English

typst("en_article", BOTH, "two columns, numbered heads, figure and table floats, footnotes, changing running head",
      page="letter", columns=2, numbering="decimal", running="chapter",
      extras="notes abstract figure table float outline", margins=(54, 54, 120, 110))
typst("en_essay", "en_salt", "one column, bold unnumbered heads, long footnotes, page number in the foot",
      size=11.5, leading=1.4, folio="center", extras="notes outline tags", front="title")
typst("en_pocket", "en_clocks", "A5, two-sided margins, alternating capitals in the running head with the number",
      page="a5", two_sided=True, margins=(62, 40, 58, 52), running="outer", first_page=191, head="smallcaps",
      extras="notes equation")
typst("en_wide_gap", BOTH, "two columns far apart, ragged, sans, blank lines between paragraphs", columns=2, gap=44,
      font="sans", size=9, justify=False, hyphen="", indent=0, head="size", head_scale=1.6, folio="of",
      extras="equation figure float", margins=(50, 50, 90, 90))
typst("en_three", BOTH, "three narrow columns, hyphenated, bold heads hardly larger than the text", columns=3,
      gap=14, size=9, head_scale=1.05, margins=(40, 40, 150, 150), running="center", extras="notes")
typst("en_line_numbers", "en_clocks", "every line numbered at the margin, wide leading, draft manuscript",
      page="letter", size=12, leading=1.9, line_numbers=1, margins=(90, 72, 72, 72), hyphen="", justify=False,
      folio="center", extras="equation")
typst("en_fifth_lines", "en_salt", "every fifth line numbered", size=11, leading=1.6, line_numbers=5,
      numbering="roman", running="corners", extras="", page="b5", margins=(64, 56, 70, 70))
typst("en_runin", "en_clocks", "second-level heads run in, first-level centred", font="modern", head="runin",
      center_heads=True, numbering="decimal", size=11, margins=(90, 90, 90, 90), folio="dash",
      extras="notes equation figure outline")
typst("en_caps", "en_salt", "heads in capitals of the size of the text, italics at the second level", font="modern",
      head="caps", head_scale=1.0, size=11, leading=1.35, running="author", extras="notes", page="b5",
      margins=(56, 56, 70, 70))
typst("en_mono", "en_clocks", "typewriter face, ragged, underlined heads", font="mono", size=9, justify=False,
      hyphen="", indent=0, head="underline", head_scale=1.0, folio="dash", extras="itemnumbers",
      margins=(72, 72, 72, 72))
typst("en_draft", "en_salt", "big grey DRAFT across every page", watermark="diagonal:DRAFT", size=11, leading=1.4,
      folio="of", numbering="dotted", extras="notes table", front="masthead")
typst("en_stamp", BOTH, "two columns with a stamp at the left edge and a masthead", watermark=SIDE, columns=2,
      margins=(60, 52, 90, 90), front="masthead", numbering="section",
      extras="abstract notes equation table float wide", page="letter", running="number")
typst("en_slides", "en_salt", "slides with bullets", page="slide", font="sans", size=15, leading=1.35,
      head_scale=1.6, front="titlepage", justify=False, hyphen="", headings=4, folio="of", margins=(50, 50, 45, 40),
      extras="slides")
typst("en_margin_notes", "en_clocks", "notes in the outer margin", extras="side figure", size=10.5, head="italic",
      head_scale=1.4, running="corners", page="b5", margins=(50, 118, 70, 70))
typst("en_middle", "en_salt", "small text at the middle of every page, through the body", watermark=MIDDLE, size=11,
      leading=1.45, extras="notes", head="spaced", folio="center")

# Typst: German, French, Spanish, Polish, Russian

typst("de_buch", "de_bruecken", "A5 book, Kapitel on a line above, two-sided, chapter in the running head",
      page="a5", two_sided=True, margins=(60, 42, 60, 56), numbering="chapter", running="chapter", first_page=41,
      extras="notes")
typst("de_bericht", "de_bruecken", "report with § numbers, sans, list with numbers, table", font="sans", size=9.5,
      numbering="section", indent=0, folio="of", extras="table itemnumbers outline", leading=1.5)
typst("de_zweispaltig", "de_bruecken", "two columns with a gap of one letter, much hyphenation", columns=2, gap=11,
      size=9.5, page="a5", margins=(34, 34, 50, 50), numbering="decimal", extras="notes abstract", running="outer",
      first_page=7)
typst("de_titelblatt", "de_bruecken", "title page, roman page numbers, spaced-out heads", front="titlepage",
      size=12, folio="roman", head="spaced", head_scale=1.1, center_heads=True, leading=1.35, extras="notes")
typst("fr_revue", "fr_abeilles", "review in two columns, heads in italics, running authors", columns=2, size=10,
      head="italic", head_scale=1.2, running="author", extras="notes abstract figure float", page="b5",
      margins=(46, 46, 70, 70))
typst("fr_memoire", "fr_abeilles", "memoir with Chapitre and roman numbers, tables turned on their own page",
      size=12, leading=1.45, numbering="chapter", center_heads=True, folio="center",
      extras="notes table turned outline tags")
typst("fr_manuscrit", "fr_abeilles", "line numbers, ragged, blank lines between paragraphs", line_numbers=5,
      size=12, leading=1.8, justify=False, hyphen="", indent=0, numbering="dotted", margins=(85, 80, 75, 75),
      extras="")
typst("es_articulo", "es_rios", "two columns, numbered, wide figure and table over both", columns=2,
      numbering="decimal", extras="notes abstract figure table float wide", running="outer", first_page=58,
      page="b5", margins=(46, 46, 70, 70))
typst("es_libro", "es_rios", "small book, small caps, page number at the top right, stars for footnotes",
      page="book", head="smallcaps", head_scale=1.15, running="number", extras="notes stars",
      margins=(55, 55, 62, 58), two_sided=True)
typst("es_bare", "es_rios", "chapter from a book without title, starts in the running text", front="bare",
      page="a5", running="corners", first_page=112, margins=(46, 46, 60, 50), head="size", extras="notes")
typst("pl_referat", "pl_bursztyn", "one column, roman and letter numbers, footnotes, figure", numbering="roman",
      size=11.5, leading=1.45, folio="dash", extras="notes figure outline", page="b5", margins=(56, 56, 64, 64))
typst("pl_gazeta", "pl_bursztyn", "three columns, narrow, sans", columns=3, gap=12, font="sans", size=8, page="a5",
      margins=(30, 30, 42, 40), head_scale=1.25, folio="center", extras="")
typst("pl_konspekt", "pl_bursztyn", "handout on a landscape page in two columns", landscape=True, page="a5",
      columns=2, gap=30, numbering="dotted", folio="of", extras="itemnumbers table", margins=(40, 40, 44, 44),
      size=9.5)
typst("ru_statya", "ru_chai", "article in two columns with abstract, footnotes, changing running head", columns=2,
      numbering="decimal", running="chapter", extras="notes abstract figure float outline", page="b5",
      margins=(46, 46, 70, 70))
typst("ru_kniga", "ru_chai", "A5 book with Глава, two-sided margins", page="a5", two_sided=True,
      numbering="chapter", margins=(60, 40, 58, 54), running="corners", first_page=73, extras="notes")
typst("ru_kursovaya", "ru_chai", "student paper at 13 points, deep first-line indents, § numbers", font="dejavu",
      size=13, leading=1.7, numbering="section", center_heads=True, folio="center", extras="notes table", indent=36)
typst("ru_polya", "ru_chai", "notes in the margin, heads in capitals", head="caps", head_scale=1.05,
      extras="side figure", size=11, leading=1.5, running="author", page="b5", margins=(50, 118, 70, 70))

# reportlab: English

drawn("en_journal", BOTH, "two columns, masthead, abstract across both, footnotes at the foot of each column",
      columns=2, front="masthead", numbering="decimal", running="outer", first_page=190, size=10, page="letter",
      extras="notes abstract figure table outline", margins=(56, 56, 110, 110))
drawn("en_backwards", BOTH, "two columns, stored from the last block to the first", columns=2, order="reversed",
      margins=(50, 50, 90, 90), running="corners", extras="notes equation", numbering="decimal")
drawn("en_shuffled", "en_salt", "one column, blocks stored in random order", order="shuffled", size=11.5,
      leading=1.4, folio="center", extras="notes figure", head="italic")
drawn("en_across", BOTH, "two columns stored line by line across both", columns=2, order="across", gap=16,
      margins=(50, 50, 90, 90), font="sans", size=9, folio="of", extras="", numbering="dotted")
drawn("en_across_three", BOTH, "three columns stored line by line across all", columns=3, order="across", gap=13,
      page="letter", margins=(40, 40, 130, 130), size=9, running="number", extras="")
drawn("en_turned", BOTH, "landscape stored upright with /Rotate 90, two columns", landscape=True, rotate=90,
      columns=2, page="a4", size=11, folio="of", extras="table", gap=36)
drawn("en_upside", "en_clocks", "stored upside down with /Rotate 180", rotate=180, size=11.5, leading=1.4,
      running="corners", extras="notes equation", numbering="roman")
drawn("en_dropcap", "en_salt", "large initials over three lines after each head, small book", page="book",
      head="smallcaps", center_heads=True, extras="dropcap notes", running="outer", first_page=12, two_sided=True,
      margins=(60, 48, 64, 58))
drawn("en_words", "en_clocks", "each word placed by itself, no spaces stored", draw="word", size=11, leading=1.4,
      folio="center", extras="notes equation table", numbering="decimal")
drawn("en_letters", "en_salt", "each letter placed by itself, two columns", draw="char", columns=2, page="a5",
      size=9, margins=(36, 36, 50, 46), gap=14, folio="dash", extras="", head="size")
drawn("en_soft", "en_salt", "soft hyphens U+00AD stored at the line ends", hyphen="\u00ad", font="dejavu", size=9.5,
      columns=2, margins=(46, 46, 90, 90), extras="tightmarks notes", running="author")
drawn("en_u2010", "en_clocks", "hyphens stored as U+2010", hyphen="\u2010", font="dejavu", size=10, extras="notes",
      page="a5", margins=(50, 50, 60, 56), folio="center")
drawn("en_stamped", BOTH, "small text through the middle of every page, two columns", columns=2, watermark=MIDDLE,
      margins=(50, 50, 80, 80), size=10.5, extras="equation notes", numbering="decimal", running="chapter")
drawn("en_preprint", "en_salt", "stamp at the left edge, numbered lines restarting on every page", watermark=SIDE,
      line_numbers=1, size=11, leading=1.7, extras="restart notes abstract", page="letter",
      margins=(84, 72, 72, 72), numbering="decimal", folio="center")
drawn("en_fifth", "en_clocks", "every fifth line numbered throughout, no hyphenation", line_numbers=5, size=11,
      leading=1.55, hyphen="", margins=(80, 70, 72, 72), extras="equation", running="number", head="italic")
drawn("en_confidential", "en_clocks", "CONFIDENTIAL across every page, report in sans",
      watermark="diagonal:CONFIDENTIAL", font="sans", size=10.5, leading=1.45, indent=0, numbering="decimal",
      folio="of", extras="table figure itemnumbers")
drawn("en_picture_page", "en_salt", "a page with nothing but a picture, and a turned table on its own page",
      page="a5", margins=(50, 50, 60, 56), extras="picture table turned notes", running="corners",
      numbering="roman", first_page=23)
drawn("en_stranded", "en_clocks", "heads left alone at the foot of the page", extras="strand notes", size=11.5,
      leading=1.4, page="letter", folio="center", head="bold", head_scale=1.2, margins=(80, 80, 80, 80))
drawn("en_chapters", "en_clocks", "Chapter One above the words, page numbers in roman", page="book",
      numbering="chapter", center_heads=True, folio="roman", extras="notes stars", margins=(56, 56, 60, 60),
      head="caps", head_scale=1.15)
drawn("en_typed", "en_salt", "typewriter, wide lines, underlined heads", font="mono", size=10.5, leading=1.7,
      hyphen="", justify=False, indent=36, head="underline", head_scale=1.0, folio="dash", extras="notes",
      page="letter", margins=(80, 70, 72, 72))
drawn("en_talk", "en_clocks", "slides with bullets and no title page, stored backwards", page="slide", font="sans",
      size=14.5, leading=1.3, head_scale=1.7, front="bare", justify=False, hyphen="", headings=5, folio="outer",
      margins=(50, 50, 40, 40), extras="slides", order="reversed")
drawn("en_sidenotes", "en_salt", "notes in the outer margin, alternating with two-sided margins", two_sided=True,
      extras="side figure axis", size=10.5, leading=1.45, running="outer", first_page=8, page="b5",
      margins=(50, 110, 64, 64))
drawn("en_plain", "en_clocks", "heads in bold of the size of the text, nothing else on the pages", head_scale=1.0,
      size=12, leading=1.3, extras="", front="bare", page="letter", margins=(72, 72, 72, 72))
drawn("en_runin", BOTH, "run-in heads in bold at the second level, two columns", head="runin", columns=2, size=10,
      margins=(54, 54, 100, 100), numbering="decimal", running="center", extras="notes abstract")

# reportlab: German, French, Spanish, Polish, Russian

drawn("de_akzente", "de_bruecken", "umlauts made of a letter and a dieresis drawn over it", draw="accents", size=11,
      leading=1.35, numbering="decimal", folio="center", extras="notes")
drawn("de_zeitschrift", "de_bruecken", "two columns stored in random order, footnotes, masthead", columns=2,
      order="shuffled", front="masthead", extras="tightmarks notes abstract table", running="chapter",
      numbering="roman", page="b5", margins=(46, 46, 70, 70))
drawn("de_quer", "de_bruecken", "landscape with /Rotate 270, three columns", landscape=True, rotate=270, columns=3,
      gap=18, page="a5", margins=(36, 36, 46, 40), size=9, folio="of", extras="", head="size")
drawn("de_initial", "de_bruecken", "initials, spaced-out heads, small pages", page="a5", extras="dropcap",
      head="spaced", head_scale=1.1, running="corners", margins=(48, 48, 60, 56), first_page=301)
drawn("fr_accents", "fr_abeilles", "accents drawn over letters, two columns", draw="accents", columns=2, size=10.5,
      extras="notes", head="italic", head_scale=1.3, running="outer", first_page=33, page="b5",
      margins=(46, 46, 64, 64))
drawn("fr_livre", "fr_abeilles", "small book, roman numbers, stars for notes, chapter in the running head",
      page="book", numbering="roman", extras="notes stars", running="chapter", two_sided=True,
      margins=(60, 46, 62, 58), center_heads=True, head="smallcaps", first_page=64)
drawn("fr_rapport", "fr_abeilles", "report in sans with figure, axis label, table and page number at the top",
      font="sans", size=11, leading=1.4, indent=0, numbering="dotted", running="number",
      extras="figure axis table outline")
drawn("es_acentos", "es_rios", "accents drawn over letters, one column, title page", draw="accents",
      front="titlepage", size=11.5, leading=1.4, folio="center", extras="notes", head="caps", head_scale=1.1)
drawn("es_periodico", "es_rios", "newspaper in three columns with narrow gaps, stored backwards", columns=3, gap=10,
      size=8.5, page="a5", margins=(28, 28, 44, 40), order="reversed", extras="", head_scale=1.35, running="center")
drawn("es_palabras", "es_rios", "two columns, each word placed by itself, wide figure", draw="word", columns=2,
      extras="notes abstract figure wide", numbering="section", folio="of", page="b5", margins=(46, 46, 70, 70))
drawn("pl_ksiazka", "pl_bursztyn", "book with Rozdział, two-sided, footnotes", font="dejavu", page="a5", size=9,
      numbering="chapter", two_sided=True, margins=(54, 38, 58, 52), running="outer", first_page=88, extras="notes")
drawn("pl_dwie", "pl_bursztyn", "two columns line by line across, sans, soft hyphens", font="dejavusans", size=8.5,
      columns=2, page="a5", order="across", hyphen="\u00ad", margins=(34, 34, 48, 44), gap=14, extras="",
      numbering="dotted", folio="dash")
drawn("ru_gazeta", "ru_chai", "two columns stored line by line across, serif", font="dejavu", size=9, columns=2,
      page="a5", order="across", margins=(34, 34, 50, 46), gap=14, extras="", running="corners", first_page=5)
drawn("ru_zhurnal", "ru_chai", "two columns, masthead, footnotes, figure", font="dejavu", size=9.5, columns=2,
      front="masthead", extras="tightmarks notes abstract figure outline", numbering="decimal", running="chapter",
      page="b5", margins=(42, 42, 70, 70))
drawn("ru_doklad", "ru_chai", "one column in sans, numbered lines", font="dejavusans", size=10, leading=1.7,
      line_numbers=1, extras="", margins=(80, 60, 70, 70), numbering="roman", folio="of")

# reportlab: Chinese and Japanese

drawn("zh_wenzhang", "zh_cha", "one column, 第一章 and 第一节, footnotes", font="song", size=12, leading=1.7,
      numbering="cjk", indent=24, folio="center", extras="notes outline", hyphen="")
drawn("zh_xuebao", "zh_cha", "journal in two columns, masthead, abstract, footnotes", font="song", columns=2,
      size=10.5, leading=1.6, front="masthead", numbering="decimal", indent=21,
      extras="notes abstract figure table", hyphen="", running="corners", first_page=101, page="b5",
      margins=(46, 46, 70, 70))
drawn("zh_xiaoshu", "zh_cha", "small book with 一、 and （一）, heads by size only", font="song", page="a5", size=10.5,
      leading=1.65, numbering="comma", indent=21, head="size", running="outer", hyphen="", extras="notes",
      margins=(52, 46, 60, 56), two_sided=True)
drawn("zh_luan", "zh_cha", "two columns stored backwards", font="song", columns=2, size=10, leading=1.55,
      order="reversed", indent=20, hyphen="", page="a5", margins=(36, 36, 50, 46), gap=18, extras="", folio="dash")
drawn("ja_kiyou", "ja_washi", "bulletin, 第1章, gothic heads, footnotes, chapter in the running head", font="mincho",
      size=11.5, leading=1.7, numbering="cjk", indent=11.5, hyphen="", running="chapter", extras="notes table")
drawn("ja_nidan", "ja_washi", "two columns stored line by line across", font="mincho", columns=2, size=9.5,
      leading=1.6, order="across", indent=9.5, hyphen="", page="a5", margins=(36, 36, 50, 46), gap=18, extras="",
      folio="of", numbering="dotted")
drawn("ja_suraido", "ja_washi", "slides in gothic", font="gothic", page="slide", size=17, leading=1.45,
      front="titlepage", justify=False, hyphen="", headings=4, head_scale=1.6, folio="of", margins=(50, 50, 45, 40),
      extras="slides")
drawn("ja_chosha", "ja_washi", "notes in the margin and a stamp through the middle of the page", font="mincho",
      size=11, leading=1.7, indent=11, hyphen="", margins=WIDE_MARGIN, extras="side figure", watermark=MIDDLE,
      running="corners")
