from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tlx.data.scenes import draw_scene
from tlx.data.similarity import Looks, join, looks, relations, same, similar

DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(scope="module")
def scene():
    return draw_scene(7, 0)[0]


def captioned(image):
    image = image.copy()
    ImageDraw.Draw(image).text((image.width // 2, 8), "MEOW?", fill="white", font_size=image.height // 10)
    return image


CHANGES = {
    "recompressed": lambda image: image,
    "smaller": lambda image: image.resize((image.width // 3, image.height // 3)),
    "squeezed": lambda image: image.resize((200, 200)),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gray": ImageOps.grayscale,
    "captioned": captioned,
    "trimmed": lambda image: image.crop((3, 3, image.width - 3, image.height - 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_looks_like_its_original(tmp_path, scene, change):
    scene.save(tmp_path / "a.png")
    CHANGES[change](scene).save(tmp_path / "b.jpg", quality=60)
    (relation,) = relations([tmp_path / "a.png", tmp_path / "b.jpg"])
    assert (relation.exact, relation.image, relation.others) == (False, 0, (1,))


def test_a_copied_file_is_exact_and_not_near_as_well(tmp_path, scene):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        scene.save(path)
    for near in (True, False):
        (relation,) = relations(paths, near=near)
        assert (relation.exact, relation.image, relation.others) == (True, 0, (1, 2))


def test_drawn_scenes_are_strangers_to_one_another(tmp_path):
    paths = [tmp_path / f"{index}.jpg" for index in range(40)]
    for index, path in enumerate(paths):
        draw_scene(0, index)[0].save(path)
    assert relations(paths) == []


def test_pictures_of_one_tone_are_like_nothing(tmp_path):
    for level in (0, 255):
        Image.new("L", (40, 40), level).save(tmp_path / f"{level}.png")
    assert relations(sorted(tmp_path.iterdir())) == []


def test_no_images_have_no_relations():
    assert relations([]) == []


def test_pairs_are_found_across_blocks():
    # Two random halves that repeat: i looks like i + 300, and only like that.
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (300, 32, 32)).astype(np.float32)
    thumbs = (small - small.mean(axis=(1, 2), keepdims=True)).reshape(300, -1)
    thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True)
    bits, other = (rng.integers(0, 2**64, (300, 4), dtype=np.uint64) for _ in range(2))
    twice = Looks(np.tile(bits, (2, 1)), np.tile(thumbs, (2, 1)), np.tile(other, (2, 1)), np.tile(thumbs, (2, 1)))
    assert [(i, others.tolist()) for i, others in similar(twice)] == [(i, [i + 300]) for i in range(300)]


def test_join_follows_chains():
    pairs = [(0, np.array([3])), (1, np.array([4])), (3, np.array([4])), (2, np.array([], np.int64))]
    assert join(np.arange(6), pairs).tolist() == [0, 0, 2, 0, 0, 5]


def test_same_ignores_empty_keys():
    assert [(i, others.tolist()) for i, others in same(["a", "", "b", "a", "", "a"])] == [(0, [3, 5])]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data in ../shared/data is absent")
@pytest.mark.parametrize(
    ("folder", "exact", "near"),
    [
        ("voc_raccoon/images", 4, {("21", "45"), ("50", "52"), ("50", "74"), ("51", "85")}),
        ("voc_star_wars/images", 1, {("100", "89"), ("72", "73")}),
        ("voc_bccd/JPEGImages", 0, {("00037", "00038")}),
        ("kitti/training/image_2", 0, set()),
        ("coco_tiny/images", 0, set()),
    ],
)
def test_real_folders_have_these_and_no_others(folder, exact, near):
    paths = sorted(path for path in (DATA / folder).rglob("*") if path.suffix in (".jpg", ".png"))
    assert len(paths) >= 20
    found = relations(paths)
    short = [path.stem.replace("-", "_").rpartition("_")[2] for path in paths]
    assert sum(len(relation.others) for relation in found if relation.exact) == exact
    pairs = {(short[one.image], short[other]) for one in found if not one.exact for other in one.others}
    assert pairs == near


def test_looks_have_the_documented_shapes(tmp_path, scene):
    scene.save(tmp_path / "a.png")
    seen = looks([tmp_path / "a.png"])
    assert (seen.bits.shape, seen.bits.dtype) == ((1, 4), np.uint64)
    assert (seen.thumbs.shape, seen.thumbs.dtype) == ((1, 1024), np.float32)
    assert np.linalg.norm(seen.thumbs) == pytest.approx(1, abs=1e-5)
