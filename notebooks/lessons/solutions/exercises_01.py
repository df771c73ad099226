"""Solutions of exercises_01: data. The name of each is that of its exercise."""

import re
import unicodedata
from collections import Counter

# b: its numbers differ (5 became a word). d: too few triples in common. e: another question, which has to stay.
kept_copies = {"b", "d", "e"}

NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "ten": "10"}


def same_question(first: str, second: str) -> bool:
    """The same numbers, and most of the longer words in common, in any order."""

    def read(text: str) -> tuple[Counter, set[str]]:
        words = re.findall(r"\d+|[^\W\d]+", unicodedata.normalize("NFKC", text).lower().replace("percent", "%"))
        words = [NUMBERS.get(word, word) for word in words]
        return Counter(w for w in words if w.isdigit()), {w for w in words if len(w) > 3}

    (numbers, words), (other_numbers, other_words) = read(first), read(second)
    return numbers == other_numbers and len(words & other_words) >= 0.6 * len(words | other_words)


# a and c share 13 words with the held-out text, "what was ... the whole group". Other years do not save c.
leaks = {"a", "c"}
