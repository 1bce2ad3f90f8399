"""The inspection as values, as a page and on a terminal, with hostile names in all of them."""

import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.targets import ANY_CLASS, Boxes, ImageClass
from tlx.report import overview, page
from tlx.report.histogram import counted, doubling
from tlx.report.inspection import inspect
from tlx.report.text import printable

HOSTILE = "<script src=http://evil.example/x.js>alert('&')</script>\x1b[31m\udcff"
VOID = {"meta", "img", "br"}


class Structure(HTMLParser):
    """Collects what is not closed, or closed without being open, and every attribute and tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.attributes, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def drawn(folder, count=5, classes=("cat", "dog")):
    examples = []
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (120, 160, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        boxes = np.array([[0, 0, 20, 20], [10, 10, 90, 90], [20, 10, 130, 110]], np.float32)
        truth = Boxes(boxes, np.array([0, i % 2, ANY_CLASS], np.int32), np.array([False, False, True]))
        split = ("train", "validation")[i % 2]
        examples.append(Example(folder / f"{i}.png", 160, 120, truth, f"{i}.xml", split=split))
    odd = Finding("odd-thing", "warning", "1.xml", f"object {HOSTILE}", HOSTILE)
    return Dataset("drawn", classes, tuple(examples), (odd,))


def inspected(folder, **settings):
    return inspect(drawn(folder, **settings), (64, 64), folder, "voc", folder)


def test_counts_are_by_class_part_and_size(tmp_path):
    inspection = inspected(tmp_path)
    cat, dog, total = inspection.rows
    assert cat == {
        "class": "cat",
        "images": 5,
        "boxes": 8,
        "ignored": 0,
        "sizes": {"small": 5, "medium": 3, "large": 0},
        "parts": {"train": 6, "validation": 2},
    }
    assert (dog["images"], dog["boxes"], dog["sizes"]["medium"]) == (2, 2, 2)
    assert (total["images"], total["boxes"], total["ignored"]) == (5, 10, 5)
    assert inspection.parts["train"] == {"images": 3, "boxes": 6, "empty": 0}
    assert inspection.image_kinds() == {"PNG, RGB": 5}
    assert inspection.severity == 1


def test_a_classification_has_the_sizes_of_its_images_alone(tmp_path):
    data = drawn(tmp_path)
    examples = tuple(Example(e.image, e.width, e.height, ImageClass(0)) for e in data.examples)
    inspection = inspect(Dataset("drawn", ("cat",), examples, (), "classification"), (64, 64), tmp_path, "folder")
    assert [one.title.partition(":")[0] for one in inspection.histograms] == ["image size"]
    assert len(inspected(tmp_path).histograms) == 4


def test_labels_are_called_what_the_task_calls_them(tmp_path):
    data, words = drawn(tmp_path), Console(file=io.StringIO(), width=100)
    examples = tuple(Example(e.image, e.width, e.height, ImageClass(0), split=e.split) for e in data.examples)
    classes = inspect(Dataset("drawn", ("cat",), examples, (), "classification"), (64, 64), tmp_path, "folder")
    overview.show(words, classes)
    told, html = words.file.getvalue(), page.page(classes)
    assert "5 images, 5 labels, 1 classes" in told
    assert "labels by class and part" in told
    assert "train: 3 images, 0 of them without labels" in told
    assert "<th>labels</th><th>train</th><th>validation</th></tr>" in html
    for text in (told, html):
        assert not re.search("box|small|ignored", text.partition("<body>")[2].partition("<h2>Pictures")[0] or text)
    overview.show(words, inspected(tmp_path))
    assert "boxes by class, part and size (COCO's small and large)" in words.file.getvalue()
    assert "0 of them without boxes" in words.file.getvalue()


def test_json_has_everything(tmp_path):
    told = json.loads(json.dumps(inspected(tmp_path).to_json(), allow_nan=False))
    assert (told["format"], told["task"], told["severity"]) == ("voc", "detection", "warning")
    assert told["counts"][-1]["boxes"] == 10
    assert {"code": "odd-thing", "severity": "warning", "count": 1} in told["codes"]
    assert [f["message"] for f in told["findings"] if f["code"] == "odd-thing"] == [HOSTILE]
    assert sum(told["histograms"][1]["counts"]) == 10


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=30))
def test_doubling_edges_hold_every_value(values):
    one = doubling("sizes", values)
    assert sum(one.counts) == len(values)
    assert len(one.edges) == len(one.counts) + 1
    assert one.edges[0] <= min(values)
    assert max(values) < one.edges[-1]
    assert one.counts[0]
    assert one.counts[-1]


@given(st.lists(st.integers(0, 100_000), max_size=30))
def test_counted_ranges_hold_every_number(values):
    one = counted("numbers", values)
    assert sum(one.counts) == len(values)
    assert len(one.counts) <= 12
    assert max(values, default=0) < one.edges[-1]


def test_a_histogram_is_drawn_to_scale():
    one = counted("a < b", [0, 1, 1, 1, 3])
    assert one.text() == "0 ▃█ ▃ 4"
    root = ElementTree.fromstring(one.svg())
    heights = [float(bar.get("height")) for bar in root.iter("rect")]
    assert heights == pytest.approx([max(heights) / 3, max(heights), 0, max(heights) / 3], abs=0.1)
    assert [text.text for text in root.iter("text")] == ["1", "0", "3", "1", "2", "1", "3", "4"]
    assert doubling("none", []).text().startswith("1 ")


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    inspection = inspected(folder, classes=(HOSTILE, 'b" onload="x'))
    page.write(inspection, tmp_path / "out", "{}")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    seen = Structure(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert not {"script", "link", "iframe", "object", "a"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(
        value.startswith("data:image/jpeg;base64,") for name, value in seen.attributes if name in ("src", "href")
    )
    assert not re.search(r"url\(|@import", text)
    assert ("content", page._POLICY) in seen.attributes
    assert "&lt;script src=http://evil.example" in text
    assert text.count("<img ") >= 5 + 1
    assert not {"\x1b", "\udcff"} & set(text)


def test_the_sheet_shows_every_class(tmp_path):
    inspection = inspected(tmp_path, count=40)
    chosen = page.chosen(inspection, 24)
    assert 12 <= len(chosen) <= 24
    assert {0, 1} <= {label for i in chosen for label in inspection.patient.examples[i].objects.labels.tolist()}
    page.write(inspection, tmp_path / "out", "{}")
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert np.ptp(np.asarray(sheet)) > 100
    assert (tmp_path / "out" / "inspection.json").read_text() == "{}"


def test_pictures_that_cannot_be_read_are_left_out_of_the_sheet(tmp_path):
    data = drawn(tmp_path)
    (tmp_path / "0.png").write_text("no picture")
    inspection = inspect(data, (64, 64), tmp_path, "voc", tmp_path)
    assert inspection.severity == 2
    assert 0 not in page.chosen(inspection, 24)
    text = page.page(inspection)
    assert '<details class="error" open>' in text
    assert (Structure(text).open, Structure(text).wrong) == ([], [])


def test_the_terminal_shows_counts_findings_and_no_control_codes(tmp_path):
    out = io.StringIO()
    overview.show(Console(file=out, width=100), inspected(tmp_path, classes=(HOSTILE, "[bold]dog[/]")))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "Warnings: look at these" in text
    assert "1 x odd-thing" in text
    assert "[bold]dog[/]" in text
    text.encode("utf-8")


def test_many_findings_of_one_kind_are_one_line_and_three_cases():
    findings = [Finding("odd", "warning", f"{i}.png", "", "is odd") for i in range(50)]
    lines = [line.plain for line in overview.findings_text({"odd": findings})]
    assert [line.strip() for line in lines] == [
        *("Warnings: look at these", "50 x odd", "0.png: is odd", "1.png: is odd", "2.png: is odd", "and 47 more"),
    ]


@given(st.text())
def test_printable_text_can_be_encoded_and_controls_nothing(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable("Katze 猫 [x]") == "Katze 猫 [x]"
