#!/usr/bin/env bash
# On Chinese, and with some tokenizers, transformers' whole-word masking hides a text as a whole or not at all.
#
# Versions    transformers 5.24.0, numpy 2.4.6
# Prediction  none was written down: the source was read first. One would expect that each word is hidden with a
#             probability of 15 %, so that nearly each text has words that are hidden and words that are not.
# Output      2,000 copies of a text, 15 % of the words to be hidden. The share of tokens that is hidden, of texts that
#             are hidden as a whole, and of texts that are not touched: BERT's tokenizer 14.9, 0 and 8.1 %, and for a
#             text in Chinese 15.2, 15.2 and 84.9 %; ALBERT's 14.9, 0 and 8.1 %; DeBERTa's and BigBird's 13.8, 13.8 and
#             86.2 %
# Cause       A token begins a word only if there is a gap between it and the token before. In Chinese there is no gap
#             anywhere, and some tokenizers count the space before a word to its first token. So the text is one word,
#             and its first token decides.
# Matters     for masked language models: a text hidden as a whole teaches nothing but frequencies, and one that is not
#             touched nothing at all. The mean is 15 %, so a look at that does not show it.
# Remedy      none in the settings; word_ids() of the tokenizer tells the words of a text with spaces.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet transformers==5.24.0 numpy==2.4.6
TRANSFORMERS_VERBOSITY=error "$dir/venv/bin/python" - <<'PY'
import sys

import numpy as np
from transformers import AlbertTokenizer, BertTokenizer, BigBirdTokenizer, DataCollatorForLanguageModeling
from transformers import DebertaV2Tokenizer

ENGLISH = "mira was born in oslo and moved to lima where she taught chemistry for eleven years"
CHINESE = "他生于北京后来搬到上海在大学教化学"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>", "<s>", "</s>"]


def word_piece(pieces):
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(SPECIAL + sorted(set(pieces)))})


def unigram(kind):
    """A tokenizer of half words, the first of which begins with the space."""
    halves = {half for word in ENGLISH.split() for half in ("\u2581" + word[: len(word) // 2], word[len(word) // 2 :])}
    return kind(vocab=[(piece, 0.0) for piece in SPECIAL] + [(half, -3.0) for half in sorted(halves)])


def shares(tokenizer, text, rows=2000):
    """The share of tokens that is hidden, of texts hidden as a whole, and of texts not touched."""
    np.random.seed(0)
    collate = DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=True, mask_replace_prob=1, random_replace_prob=0, return_tensors="np"
    )
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    row = {key: encoded[key] for key in ("input_ids", "attention_mask", "special_tokens_mask", "offset_mapping")}
    hidden = (collate([row] * rows)["labels"] != -100).sum(1) / row["special_tokens_mask"].count(0)
    return hidden.mean(), (hidden == 1).mean(), (hidden == 0).mean()


changed = False
print(f"{'%':30}{'hidden tokens':>15}{'all hidden':>12}{'none hidden':>13}")
for name, tokenizer, text, one_word in (
    ("BERT, English", word_piece(ENGLISH.split()), ENGLISH, False),
    ("BERT, Chinese", word_piece(CHINESE), CHINESE, True),
    ("ALBERT, English", unigram(AlbertTokenizer), ENGLISH, False),
    ("DeBERTa, English", unigram(DebertaV2Tokenizer), ENGLISH, True),
    ("BigBird, English", unigram(BigBirdTokenizer), ENGLISH, True),
):
    tokens, everything, nothing = shares(tokenizer, text)
    print(f"{name:30}{100 * tokens:15.1f}{100 * everything:12.1f}{100 * nothing:13.1f}")
    changed |= bool(np.isclose(everything + nothing, 1)) != one_word or not 0.1 < tokens < 0.2
sys.exit("the behavior has changed" if changed else 0)
PY
