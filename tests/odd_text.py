"""Text for properties of encoders, of what they may trip over as often as of letters."""

from __future__ import annotations

import re

from hypothesis import strategies as st

# Characters that some encoder or parser has taken for the end of a line, a field or a string, or
# that no encoding has: all of them as likely as a letter.
ODD = "\r\n\0 :\t\v\f\x1c\x1d\x1e\x85\u2028\u2029\ufeff\ud800\udfff\ud83d\ude00é𝄞"
texts = st.text(st.sampled_from("ab" + ODD) | st.characters(codec=None), max_size=30) | st.lists(
    st.sampled_from(["data:", "data: x", "id: 1", "event: x", "retry: 1", ":", "\n", "\r", "\r\n"])
).map("".join)
lines = texts.map(lambda text: re.sub("[\r\n\0]", "", text))
