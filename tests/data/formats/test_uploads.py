import pytest

from tlx.data.formats.uploads import image_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.png", ["a.png"]),
        ("", [""]),
        ("https://host/x%2Fa%201.png?token=1/2", ["x%2Fa%201.png", "x/a 1.png"]),
        ("s3://bucket/folder/a.png", ["a.png"]),
        ("/data/upload/1/0123abcd-a.png", ["/data/upload/1/0123abcd-a.png", "a.png"]),
        ("/data/local-files/?d=x%2Fa.png", ["x%2Fa.png", "x/a.png"]),
        ("cfae6a3e-b927-814d-2a42-f8b7a9b5d3c4-a.png", ["cfae6a3e-b927-814d-2a42-f8b7a9b5d3c4-a.png", "a.png"]),
        ("0123abc-a.png", ["0123abc-a.png"]),
        ("0123abcd-", ["0123abcd-"]),
    ],
)
def test_names_as_tools_write_them(text, names):
    assert image_names(text) == names


def test_an_image_in_base64_is_no_long_name():
    assert max(map(len, image_names("data:image/png;base64," + "A/" * 1_000_000))) < 10_000
