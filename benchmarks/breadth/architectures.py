"""The architectures of timm, and which of them stand for the others.

timm lists more than a thousand names. Those that begin with the same letters and come from the same
module file differ in size, image and options; two of each such group, the smaller ones first, are
looked at in every run.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

import timm

OF_EACH = 2
# Words in a name that say how small a model is, the smallest first. A name without any comes last.
SMALLER = (
    *("test", "zepto", "atto", "femto", "pico", "nano", "xxs", "xxtiny", "xs", "xtiny"),
    *("t", "tiny", "mini", "s", "small", "m", "base"),
)


def chosen() -> frozenset[str]:
    """Names of some architectures of every group, and so of every module file of timm."""
    groups = defaultdict(list)
    for module, name in _listed():
        groups[module, re.match("[a-z]+", name)[0]].append(name)
    return frozenset(
        name for names in groups.values() for name in sorted(names, key=_size)[:OF_EACH]
    )


def _listed() -> Iterator[tuple[str, str]]:
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            yield module, name


def _size(name: str) -> int:
    words = re.findall("[a-z]+", name)
    return min((SMALLER.index(word) for word in words if word in SMALLER), default=len(SMALLER))
