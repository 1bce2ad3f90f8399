import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from tlx.data.targets import ANY_CLASS, Boxes
from tlx.report.pictures import GREEN, GREY, PALETTE, RED, SMALLEST, caption, colour_of, contact_sheet, draw
from tlx.tasks.detection import Detections

CLASSES = ("bottle", "cup", "bowl")
GROUND = (90, 90, 90)


def blank(width=640, height=480):
    return Image.new("RGB", (width, height), GROUND)


def truth(box, label=0, ignore=False):
    return Boxes(np.array([box], np.float32), np.array([label], np.int32), np.array([ignore]))


def found(*boxes, score=0.9, label=0):
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4), np.full(n, score, np.float32), np.full(n, label, np.int32)
    )


def touched(picture, original):
    """Return the bounding box of all pixels that differ."""
    return ImageChops.difference(picture, original).getbbox()


def colours(picture):
    return {colour for _, colour in picture.getcolors(maxcolors=1 << 24)}


def test_predicted_box_has_its_class_colour_on_its_edges():
    picture = draw(blank(), found((100, 200, 300, 400), label=1), None, CLASSES)
    for edge in [(100, 300), (299, 300), (200, 399), (299, 200)]:
        assert picture.getpixel(edge) == colour_of(1)
    assert picture.getpixel((200, 300)) == GROUND


def test_draw_leaves_its_input_alone():
    image = blank()
    draw(image, found((100, 200, 300, 400)), truth((100, 100, 200, 200)), CLASSES)
    assert touched(image, blank()) is None


def test_nothing_to_draw_gives_the_picture_back():
    assert touched(draw(blank(), None, None, CLASSES), blank()) is None
    assert touched(draw(blank(), found((0, 0, 50, 50), score=0.2), None, CLASSES), blank()) is None


def test_true_box_is_dashed_in_white_beside_predictions():
    picture = draw(blank(), found(), truth((100, 100, 300, 300)), CLASSES)
    top_edge = [picture.getpixel((x, 100)) for x in range(100, 300)]
    assert top_edge[0] == top_edge[-1] == (255, 255, 255)
    assert 0.3 < top_edge.count((255, 255, 255)) / len(top_edge) < 0.8
    assert colour_of(0) not in colours(picture)


def test_true_box_alone_has_colour_and_name():
    picture = draw(blank(), None, truth((100, 100, 300, 300), label=2), CLASSES)
    assert picture.getpixel((200, 100)) == colour_of(2)
    assert touched(picture, blank())[1] < 95


@pytest.mark.parametrize("label", [0, ANY_CLASS])
def test_ignore_region_is_hatched_inside_and_nowhere_else(label):
    picture = draw(blank(), None, truth((100, 100, 300, 300), label, ignore=True), CLASSES)
    assert touched(picture, blank()) == (100, 100, 300, 300)
    inside = picture.crop((110, 110, 290, 290))
    assert len(colours(inside)) >= 2
    assert all(red == green == blue for red, green, blue in colours(inside))


def test_labels_do_not_cover_each_other_and_the_best_has_one():
    # Two identical boxes ask for the same place; a second chip must go elsewhere.
    one = draw(blank(), found((100, 200, 300, 400)), None, CLASSES)
    two = draw(blank(), found((100, 200, 300, 400), (100, 200, 300, 400)), None, CLASSES)
    assert touched(one, blank())[1] == touched(two, blank())[1] < 200
    assert touched(two, blank())[3] > touched(one, blank())[3] + 5


def test_small_picture_is_enlarged_with_its_boxes():
    picture = draw(blank(32, 24), found((8, 8, 24, 16)), None, CLASSES)
    factor = picture.width // 32
    assert picture.size == (32 * factor, 24 * factor)
    assert SMALLEST <= picture.width < SMALLEST + 32
    assert picture.getpixel((16 * factor, 16 * factor - 1)) == colour_of(0)


def test_lines_and_letters_grow_with_the_picture():
    def label_height(scale):
        picture = draw(
            blank(640 * scale, 480 * scale), found((100 * scale, 200 * scale, 300 * scale, 400 * scale)), None, CLASSES
        )
        return 200 * scale - touched(picture, blank(640 * scale, 480 * scale))[1]

    assert label_height(4) > 3 * label_height(1)


@settings(max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_any_box_on_any_picture_can_be_drawn(width, height, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (8, 2, 2)) * (width, height)
    low, high = corners.min(axis=1), np.minimum(corners.max(axis=1) + 0.01, (width, height))
    boxes = np.concatenate([np.minimum(low, high - 0.01), high], axis=1).astype(np.float32).clip(0)
    labels, ignore = rng.integers(-1, 3, 8).astype(np.int32), rng.random(8) < 0.5
    true = Boxes(boxes, labels, ignore | (labels < 0))
    assert true.fault(width, height) is None
    guesses = Detections(boxes, rng.random(8, np.float32), labels.clip(0))
    factor = max(1, -(-SMALLEST // max(width, height)))
    assert draw(blank(width, height), guesses, true, CLASSES).size == (width * factor, height * factor)


def test_zero_area_and_outside_predictions_can_be_drawn():
    draw(blank(), found((50, 50, 50, 50), (-20, -20, 700, 500), (639, 479, 639, 479)), None, CLASSES)


def test_grayscale_picture_becomes_rgb():
    assert draw(Image.new("L", (640, 480)), None, None, CLASSES).mode == "RGB"


@pytest.mark.parametrize(("right", "ground"), [(True, GREEN), (False, RED), (None, GREY)])
def test_a_caption_stands_beneath_the_picture_on_the_colour_of_its_verdict(right, ground):
    image = blank()
    image.putpixel((3, 479), (1, 2, 3))
    picture = caption(image, "cup 93%", right)
    assert picture.width == 640
    assert touched(picture.crop((0, 0, 640, 480)), image) is None
    strip = picture.crop((0, 480, *picture.size))
    assert strip.getpixel((639, strip.height - 1)) == ground
    assert len(colours(strip)) > 1
    assert touched(strip, caption(image, "cup 12%", right).crop((0, 480, *picture.size))) is not None
    assert touched(image, blank()) == (3, 479, 4, 480)


def test_a_caption_too_long_for_its_line_goes_on_in_a_second_one():
    def heights(text):
        """Return the strip's height, and how far down in it there is writing."""
        picture = caption(blank(), text, None)
        strip = picture.crop((0, 480, *picture.size))
        written = touched(strip, Image.new("RGB", strip.size, GREY))
        assert written[2] <= strip.width
        return strip.height, written[3] / strip.height

    (one, short), (same, long) = heights("cup"), heights("a cup of tea with milk and sugar and a spoon")
    assert one == same
    assert short <= 0.5 < long <= 1


def test_a_small_picture_is_enlarged_for_its_caption():
    picture = caption(Image.new("L", (32, 24), 90), "cup", True)
    factor = picture.width // 32
    assert (picture.mode, picture.width) == ("RGB", 32 * factor)
    assert SMALLEST <= picture.width < SMALLEST + 32
    assert picture.height > 24 * factor
    assert touched(picture.crop((0, 0, 32 * factor, 24 * factor)), blank(32 * factor, 24 * factor)) is None


@settings(max_examples=40)
@given(st.integers(1, 900), st.integers(1, 900), st.text(max_size=80))
@example(1, 1, "two\nlines")
def test_any_text_can_stand_beneath_any_picture(width, height, text):
    factor = max(1, -(-SMALLEST // max(width, height)))
    picture = caption(blank(width, height), text, False)
    assert picture.width == width * factor
    assert picture.height > height * factor


def test_colours_repeat_only_after_the_palette():
    assert [colour_of(i) for i in range(len(PALETTE))] == list(PALETTE)
    assert len(set(PALETTE)) == len(PALETTE)
    assert colour_of(len(PALETTE)) == colour_of(0)


def test_contact_sheet_has_uniform_tiles_and_keeps_shapes():
    red, tall = Image.new("RGB", (100, 50), (255, 0, 0)), Image.new("RGB", (10, 400), (0, 255, 0))
    sheet = contact_sheet([red, tall, red], columns=2, tile=(200, 150), gap=10)
    assert sheet.size == (2 * 210 + 10, 2 * 160 + 10)
    assert sheet.getpixel((10 + 100, 10 + 75)) == (255, 0, 0)
    # A 2:1 picture fills the tile's width and leaves bands above and below.
    assert sheet.getpixel((10 + 100, 10 + 10)) == sheet.getpixel((0, 0))
    assert sheet.getpixel((220 + 100, 10 + 75)) == (0, 255, 0)
    assert sheet.getpixel((220 + 50, 10 + 75)) == sheet.getpixel((0, 0))


def test_contact_sheet_of_few_or_no_pictures():
    assert contact_sheet([blank()], columns=4, tile=(40, 30), gap=0).size == (40, 30)
    assert contact_sheet([], columns=4, tile=(40, 30), gap=0).size == (40, 30)
