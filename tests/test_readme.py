"""The README says what is true."""

import re
from pathlib import Path

from tlx import config, registry
from tlx.search import space

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_its_ten_lines_are_an_experiment_that_can_be_searched(tmp_path):
    lines = re.search(r"Ten lines.*?```\n(.*?)```", README, re.DOTALL).group(1)
    assert len(lines.splitlines()) == 10
    (tmp_path / "mine.gin").write_text(lines)
    experiment = config.load([tmp_path / "mine.gin"])
    space.check(experiment, config.build(experiment.trees["search"]))


def test_it_names_every_command():
    registry.commands.load()
    own = {name for name, entry in registry.commands.entries.items() if entry.package == "tlx"}
    assert set(re.findall(r"^\| `tlx (\w+)", README, re.MULTILINE)) == own


def test_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(__file__).parents[1] / link).exists()] == []
