"""Class names that look like misspellings of each other."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

_SEPARATORS = re.compile(r"[\s_\-./]+")
_LONG = 5
_RARE = 20
# Beyond so many names the pairs could take minutes, and typing errors are not what is wrong.
_MOST = 1000


def near_misses(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield (rarer, commoner) pairs of names that probably mean the same class.

    Two names do when only letter case and separators tell them apart, or when they are long, one letter
    more, less, changed or moved apart, and one is at least 20 times as common as the other. Digits count:
    `player1` and `player2` are two classes.
    """
    groups = defaultdict(list)
    for name in counts:
        groups[_SEPARATORS.sub("", name.casefold())].append(name)
    spellings = Counter()
    for plain, names in groups.items():
        common = max(names, key=lambda name: (counts[name], name))
        spellings[plain] = counts[common]
        if plain:
            yield from ((name, common) for name in names if name != common)
    by_plain = {plain: max(names, key=lambda name: (counts[name], name)) for plain, names in groups.items()}
    for a, b in _one_edit_apart(spellings):
        rare, common = sorted((by_plain[a], by_plain[b]), key=counts.__getitem__)
        if counts[rare] * _RARE <= counts[common]:
            yield rare, common


def _one_edit_apart(names: Mapping[str, int]) -> list[tuple[str, str]]:
    if len(names) > _MOST:
        return []
    # Names one edit apart become equal when the edited letter is left out of both.
    shortened = defaultdict(set)
    for name in names:
        if _LONG <= len(name) <= 100:
            shortened[name].add(name)
            for i, letter in enumerate(name):
                if not letter.isdigit():
                    shortened[name[:i] + name[i + 1 :]].add(name)
    pairs = {(a, b) for similar in shortened.values() for a in similar for b in similar if a < b}
    return sorted(pairs)
