"""A worker whose data lies in a volume: code and data change apart from each other."""

from collections import defaultdict
from pathlib import Path

import sprocket

WORDS = Path("/machineshop-examples/words")  # where the config mounts the volume


class Anagrams(sprocket.Sprocket):
    """Finds the words that have the same letters as another."""

    def setup(self) -> None:
        """Read all word lists of the volume; each has one word a line."""
        self.by_letters: dict[str, set[str]] = defaultdict(set)
        for path in sorted(WORDS.glob("*.txt")):
            for word in path.read_text(encoding="utf-8").split():
                self.by_letters["".join(sorted(word))].add(word)

    def predict(self, args: dict) -> dict:
        """Turn `{"word": "listen"}` into `{"anagrams": ["enlist", "inlets", "silent", "tinsel"]}`."""
        word = args.get("word")
        if not isinstance(word, str) or not word:
            raise ValueError('say for which word: the payload needs a "word", for example {"word": "listen"}')
        return {"anagrams": sorted(self.by_letters.get("".join(sorted(word)), set()) - {word})}
