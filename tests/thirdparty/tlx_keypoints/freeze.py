"""A freeze policy of its own."""

from tlx.errors import ConfigError, MisfitError
from tlx.freeze import Freeze
from tlx.registry import freezes


def _check(frozen: int) -> None:
    if frozen < 0:
        raise ConfigError(f"freezes.first_blocks.frozen = {frozen} makes no sense: give 0 or more")


@freezes.register("first_blocks", check=_check)
def first_blocks(frozen: int) -> Freeze:
    """All of the backbone trains but its first `frozen` blocks."""

    def choose(layers):
        blocks = list(dict.fromkeys(layer.block for layer in layers))
        if frozen > len(blocks):
            raise MisfitError(f"freezes.first_blocks.frozen = {frozen}: the backbone has {len(blocks)} blocks")
        return [blocks.index(layer.block) >= frozen for layer in layers]

    return Freeze.always(f"first_blocks({frozen})", choose)
