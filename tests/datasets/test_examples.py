"""The example that comes with the repository: a table of Korean sentences on four topics."""

from collections import Counter

from helpers import ROOT

import flaxrnn
from flaxrnn.datasets import custom
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields

ASKED = {
    "중부 지방은 대체로 맑겠으나, 남부 지방은 구름이 많겠습니다.": "날씨",
    "올 초부터 유동성의 힘으로 주가가 일정하게 상승했습니다.": "주식",
    "이번 선거에서는 누가 이길 것 같아?": "정치",
    "퍼셉트론의 한계를 극복한 신경망이 다시 뜨고 있대.": "딥러닝",
}


def test_its_topics_are_learned(no_plots):
    path = ROOT / "examples" / "ko_topics.csv"
    examples = custom.find_source(str(path), Fields("text", "label"), Format()).read()
    texts, labels, *_ = zip(*examples, strict=True)
    assert Counter(labels) == {"날씨": 20, "주식": 20, "정치": 20, "딥러닝": 20}
    assert len(set(texts)) == 80
    assert not set(texts) & set(ASKED)
    small = {"max_padding": 1.0, "maxlen": 40, "embedding_size": 8, "hidden_size": 8}
    model = flaxrnn.fit(texts, labels, epochs=2, **small)
    assert model.predict(ASKED)[0] == list(ASKED.values())
