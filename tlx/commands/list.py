"""The command that shows what a gin file can name."""

import inspect

from rich.text import Text

from tlx import registry
from tlx.commands.shared import CONSOLE
from tlx.errors import ConfigError
from tlx.ginfile import show
from tlx.registry import commands
from tlx.typecheck import describe


@commands.register("list")
def list_registered(arguments: list[str]) -> None:
    """tlx list [REGISTRY[.NAME]]: show what a gin file can name.

    `tlx list` shows everything there is, `tlx list readers` one registry, and `tlx list readers.voc` the
    arguments of one entry, with their types and defaults.
    """
    registry.discover()
    wanted = arguments[0] if arguments else ""
    of_kind = registry.registries.get(wanted) if wanted else None
    if of_kind:
        of_kind.load()
    listed = list((of_kind.entries if of_kind else {} if wanted else registry.catalogue()).values())
    if listed:
        for entry in listed:
            CONSOLE.print(Text.assemble((f"{entry.full_name:<32}", "bold"), f" {entry.summary}"), soft_wrap=True)
            CONSOLE.print(Text(f"{'':<33}{entry.package}: {entry.file}", style="dim"), soft_wrap=True)
        return
    try:
        entry = registry.find(wanted)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; the registries are {', '.join(sorted(filter(None, registry.registries)))}"
        ) from None
    CONSOLE.print(Text.assemble((entry.full_name, "bold"), f"\n\n{inspect.getdoc(entry.factory)}\n"), soft_wrap=True)
    for name, parameter in entry.parameters.items():
        default = "" if parameter.default is parameter.empty else f" = {show(parameter.default)}"
        CONSOLE.print(Text(f"    {entry.full_name}.{name}: {describe(parameter.annotation)}{default}"), soft_wrap=True)
