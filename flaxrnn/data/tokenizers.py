"""Text → tokens, by rules or by subwords learned from texts."""

from __future__ import annotations

import functools
import importlib.util
import io
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flaxrnn.data.splitting import SPLITTERS, TO_SPACE, normalize, word_spans
from flaxrnn.errors import ConfigError, DataError

TOKENIZERS = ("words", "characters", "subword")
_SPECIAL_IDS = 4  # before the first word, as in Keras
_SPACE = "▁"  # SentencePiece's mark of a space


@dataclass(frozen=True)
class Tokenizer:
    """Text → tokens."""

    kind: str = "keras"  # keras: `tokenize` | words | characters | subword
    model: bytes = b""  # of subword: a serialized SentencePiece model

    @property
    def choice(self) -> str:
        """The value of `data.tokenizer` that stands for it."""
        return "words" if self.kind == "keras" else self.kind

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text."""
        if self.kind == "subword":
            return self._pieces.encode(normalize(text), out_type=str)
        return SPLITTERS[self.kind](text)

    def locate(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where its tokens begin and end in it.

        It is NFC for all kinds but "keras"; characters and subwords have single spaces between
        words. Case is kept, as far as each letter is still one in lower case.
        """
        if self.kind == "keras":
            spaced = text.translate(TO_SPACE)
            return text, [word.span() for word in re.finditer("[^ ]+", spaced)]
        if self.kind == "words":
            text = unicodedata.normalize("NFC", text)
            return text, word_spans(text)
        read, text = normalize(text), " ".join(unicodedata.normalize("NFC", text).split())
        if len(read) != len(text):  # the lower case of "İ" has two characters
            text = "".join(c if len(c.lower()) == 1 else c.lower() for c in text)
        if self.kind == "characters":
            return text, [(i, i + 1) for i in range(len(read))]
        return text, self._pieces.encode(read, return_type="offset_mapping")["offsets"]

    def check(self) -> None:
        """Checks that the model of subwords, which may be anybody's, can be used.

        Raises:
            ValueError: It cannot.
        """
        if self.kind == "subword":
            try:
                size = self._pieces.vocab_size()
            except RuntimeError as error:
                raise ValueError(f"no model of subwords: {error}") from None
            if not size:
                raise ValueError("an empty model of subwords")

    def join(self, tokens: Iterable[str]) -> str:
        """The text that these tokens spell."""
        if self.kind == "subword":
            return "".join(tokens).replace(_SPACE, " ").strip()
        return ("" if self.kind == "characters" else " ").join(tokens)

    def spell(self, tokens: Iterable[str]) -> tuple[str, list[tuple[int, int]]]:
        """The text that these tokens spell, and where each one begins and ends in it."""
        between = "" if self.kind in ("characters", "subword") else " "
        text, spans = "", []
        for token in tokens:
            text += between if text else ""
            shown = token.replace(_SPACE, " ") if self.kind == "subword" else token
            spans.append((len(text), len(text) + len(shown)))
            text += shown
        return text, spans

    @functools.cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=self.model)

    @classmethod
    def learn(cls, texts: Iterable[str], num_words: int) -> Tokenizer:
        """Learns subwords: a unigram language model (Kudo, 2018), by SentencePiece.

        Args:
            texts: To learn from.
            num_words: Largest size of the vocabulary, special ids included.

        Raises:
            ConfigError: SentencePiece is not installed.
            DataError: `num_words` is below the number of different characters in the texts.
        """
        model = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=map(normalize, texts),
                model_writer=model,
                vocab_size=num_words - _SPECIAL_IDS + 1,  # with its own unknown piece
                hard_vocab_limit=False,  # few texts have fewer subwords
                normalization_rule_name="identity",  # the texts are normalized already
                max_sentence_length=1 << 30,  # bytes; longer texts would be skipped
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            if needed := re.search(r"\d+ vs (\d+)", str(error)):
                least = int(needed[1]) - 1 + _SPECIAL_IDS
                raise DataError(
                    f"data.num_words: {num_words} is too few for data.tokenizer=subword; the texts"
                    f" have so many different characters that it must be at least {least}"
                ) from None
            raise DataError(f"data.tokenizer: no subwords can be learned ({error})") from None
        return cls("subword", model.getvalue())


KERAS = Tokenizer()

# Letters of scripts that write words without spaces between them, or whose words are inflected so
# much that most of a text's words are rare: Thai to Burmese, Hangul, kana, Chinese characters.
_DENSE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u9fff\uac00-\ud7a3]"
)


def suitable(texts: Iterable[str]) -> str:
    """The tokenizer for the script that most letters of some texts belong to.

    Args:
        texts: Of which at most 100,000 characters are looked at.

    Returns:
        "words"; for scripts that write no spaces between words, and for Korean, "subword", or
        "characters" if SentencePiece is not installed.
    """
    sample = ""
    for text in texts:
        sample += text
        if len(sample) > 100_000:
            break
    letters = sum(character.isalpha() for character in sample)
    if 2 * len(_DENSE.findall(sample)) <= letters:
        return "words"
    return "subword" if importlib.util.find_spec("sentencepiece") else "characters"


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise ConfigError(
            "data.tokenizer: subword needs SentencePiece; pip install 'flaxrnn[subword]'"
        ) from None
    return sentencepiece
