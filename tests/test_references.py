"""Titles of reference entries, which questions ask about."""

import pandas as pd
import pytest

from llama_qna.project.variant import REPOSITORY
from llama_qna.text.titles import title_of


@pytest.mark.parametrize(
    ("entry", "title"),
    [
        ("D. P. Kingma and J. Ba. Adam: A Method for Stochastic Optimization. In ICLR, 2015.", "Adam: A Method for"),
        ("F. Iandola, K. He. SqueezeNet: 50x Fewer Parameters and <0.5MB Size. arXiv:1602.07360.", "SqueezeNet: 50x"),
        ("A. Éluard and B. Guéret. Is It Over? Journal of Ends, 1999.", "Is It Over?"),
        ("He, K., Zhang, X. and Ren, S. (2016). Deep residual learning. In CVPR.", "Deep residual learning"),
        ("C. O’Neill.\nA Title on Two\nLines. Somewhere, 2001.", "A Title on Two Lines"),
    ],
)
def test_title_is_the_sentence_after_the_authors(entry, title):
    assert title_of(entry).startswith(title)
    assert title_of(entry) in " ".join(entry.split())


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "https://example.org/data",
        "K. He",
        "Unpublished.",
        "K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning, in: Proc. IEEE Conf. Comput. Vis.",
        "A. Vaswani et al., “Attention is all you need,” in Proc. NeurIPS, 2017, pp. 5998–6008.",
        "Yu. Nesterov and A. Nemirovskii. Interior Point Polynomial Methods. SIAM, 1994.",
        "S. Pan and Q. Yang, “A survey on transfer learning,” IEEE Trans. Knowl. Data Eng., vol. 22, 2010.",
    ],
)
def test_entry_of_another_form_has_none(entry):
    assert title_of(entry) == ""


def test_every_reference_of_the_paper_has_its_own():
    chunks = pd.read_csv(REPOSITORY / "data/paper/chunks.csv", keep_default_na=False)
    titles = [title_of(text.split("] ", 1)[1]) for text in chunks[chunks.kind == "reference"].text]
    assert len(set(titles)) == len(titles) == 35 and "" not in titles
