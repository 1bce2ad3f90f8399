"""What can be registered, what is found, and what is said of plugins that fail."""

import sys
from importlib.metadata import EntryPoint

import pytest

from tlx import registry
from tlx.errors import ConfigError
from tlx.registry import Registry

PLUGIN = """
from tlx.registry import heads

@heads.register({name!r})
def factory(width: int = 3) -> int:
    "A head from outside."
    return width
"""


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """Leave the real registries and the list of failed plugins as they were."""
    # What is imported for the first time inside a test would be forgotten for good.
    registry.discover()
    monkeypatch.setattr(registry, "registries", dict(registry.registries))
    for real in registry.registries.values():
        monkeypatch.setattr(real, "entries", dict(real.entries))
    monkeypatch.setattr(registry, "failed_plugins", {})


@pytest.fixture
def plugins(monkeypatch, tmp_path):
    """Return a function that installs a plugin module of this name, or only promises it where there is no code."""
    monkeypatch.syspath_prepend(tmp_path)
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "tlx.plugins" else [])

    def install(name, code=None):
        if code is not None:
            (tmp_path / f"{name}_module.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
        points.append(EntryPoint(name, f"{name}_module", "tlx.plugins"))

    return install


def test_a_factory_is_left_unchanged_and_found_by_any_ending():
    @registry.freezes.register("own")
    def own(k: int, share: float = 0.5) -> int:
        """Own rule.

        More about it.
        """
        return k

    assert own(3) == 3
    entry = registry.find("freezes.own")
    assert (entry.factory, entry.full_name, entry.summary) == (own, "freezes.own", "Own rule.")
    assert entry.file == __file__
    assert {name: p.annotation for name, p in entry.parameters.items()} == {"k": int, "share": float}
    assert registry.find("last_layers") is registry.find("freezes.last_layers")
    assert registry.find("fit").kind == ""


def test_a_name_taken_twice_names_both_files(plugins):
    plugins("one", PLUGIN.format(name="same"))
    plugins("other", PLUGIN.format(name="same"))
    with pytest.warns(UserWarning, match="plugin other") as warned:
        registry.discover()
    message = str(warned[0].message)
    assert "heads.same is registered twice" in message
    assert "one_module.py" in message
    assert "other_module.py" in message
    assert registry.find("heads.same").file.endswith("one_module.py")


def test_a_name_taken_twice_is_an_error():
    widgets = Registry("widgets")

    @widgets.register("a")
    def one():
        """One."""

    with pytest.raises(ConfigError, match=r"widgets\.a is registered twice.*test_registry\.py.*test_registry\.py"):

        @widgets.register("a")
        def other():
            """Other."""


def test_a_module_may_be_imported_again():
    source = "widgets = Registry('widgets')\ndef f(a: int): pass\nwidgets.register('f')(f)"
    for _ in range(2):
        exec(source, {"Registry": Registry, "__name__": __name__})
        assert list(registry.registries["widgets"].entries) == ["f"]


REGISTRY = """
from tlx.registry import Registry

widgets = Registry("widgets")

@widgets.register("round")
def round_one(width: int = 3) -> int:
    "A round widget."
    return width
"""


def test_a_plugin_brings_a_registry_of_its_own(plugins):
    plugins("shop", REGISTRY)
    registry.discover()
    assert registry.find("widgets.round").package == "shop_module"
    with pytest.raises(ConfigError, match=r"did you mean 'round'\? \(widgets: round\)"):
        registry.find("widgets.ronud")


def test_a_registry_made_twice_names_both_files(plugins):
    plugins("shop", REGISTRY)
    plugins("rival", REGISTRY)
    with pytest.warns(UserWarning, match="plugin rival") as warned:
        registry.discover()
    message = str(warned[0].message)
    assert "the registry 'widgets' is made twice" in message
    assert "shop_module.py:4" in message
    assert "rival_module.py:4" in message


def test_what_no_gin_file_names_stands_apart():
    tools = Registry("tools", apart=True)

    @tools.register("fcos")
    def fcos(arguments: list[str]):
        """tlx fcos: do something."""

    assert registry.find("fcos").kind == "heads"
    assert "tools.fcos" not in registry.catalogue()
    with pytest.raises(ConfigError, match=r"nothing is registered as 'tools\.fcos'"):
        registry.find("tools.fcos")


def test_an_argument_along_which_memory_grows_is_one_of_the_factory():
    with pytest.raises(ConfigError, match=r"widgets\.x \(.*test_registry\.py\): grows names no argument of it: 'k'"):
        Registry("widgets").register("x", grows="k")(lambda: None)


def keywords(**options: int):
    """Takes anything."""


def untyped(a, b: int = 3):
    """Does not say what a is."""


def positional(*values: int):
    """Takes any number."""


@pytest.mark.parametrize(("factory", "argument"), [(keywords, "options"), (untyped, "a"), (positional, "values")])
def test_a_factory_that_could_not_be_checked_is_refused(factory, argument):
    widgets = Registry("widgets")
    with pytest.raises(ConfigError, match=rf"widgets\.x \(.*test_registry\.py\): argument .*{argument}"):
        widgets.register("x")(factory)
    assert widgets.entries == {}


def test_an_unknown_name_lists_what_there_is_and_the_closest():
    with pytest.raises(ConfigError) as error:
        registry.find("freezes.last_layer")
    message = str(error.value)
    assert "did you mean 'last_layers'?" in message
    assert "(freezes: backbone, head_then_last_layers, last_blocks, last_layers, none, patterns)" in message
    with pytest.raises(ConfigError, match=r"did you mean 'readers\.voc'\?"):
        registry.find("reader.voc")


def test_an_ambiguous_name_lists_its_meanings():
    with pytest.raises(ConfigError, match=r"'none' is ambiguous: augmentations\.none, freezes\.none"):
        registry.find("none")


def test_a_plugin_registers_by_being_imported(plugins):
    plugins("good", PLUGIN.format(name="outside"))
    registry.discover()
    entry = registry.find("heads.outside")
    assert (entry.package, entry.summary) == ("good_module", "A head from outside.")


@pytest.mark.parametrize(
    ("code", "why"),
    [(None, "ModuleNotFoundError"), ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError")],
)
def test_a_plugin_that_fails_is_named_and_the_rest_go_on(plugins, code, why):
    plugins("broken", code)
    plugins("good", PLUGIN.format(name="outside"))
    with pytest.warns(UserWarning, match=r"plugin broken \(broken_module\) failed to import"):
        registry.discover()
    assert registry.find("heads.outside")
    with pytest.raises(ConfigError, match=rf"plugin broken might have, but failed to import: {why}"):
        registry.find("heads.of_the_broken_one")
    registry.discover()  # A second warning would be an error here.


@pytest.mark.parametrize(
    ("value", "found"),
    [("good", ["good"]), ("good,other", ["good", "other"]), ("good, other", ["good", "other"]), ("", [])],
)
def test_an_environment_variable_limits_plugins(plugins, monkeypatch, value, found):
    for name in ("good", "other"):
        plugins(name, PLUGIN.format(name=name))
    monkeypatch.setenv("TLX_PLUGINS", value)
    registry.discover()
    assert [name for name in ("good", "other") if f"heads.{name}" in registry.catalogue()] == found


def test_everything_registered_says_what_it_is():
    known = registry.catalogue()
    assert len(known) > 60
    assert [name for name, entry in known.items() if not entry.summary.endswith(".")] == []


def test_discovery_does_not_import_tensorflow(output_of):
    code = "import sys; from tlx import registry; registry.discover(); assert registry.find('backbones.resnet50');"
    code += "print([m for m in ('tensorflow', 'keras', 'optuna', 'torch') if m in sys.modules])"
    assert output_of(code).strip() == "[]"
