"""Checks of the image files: whether they can be read, and what is unusual about how they store a picture."""

from collections.abc import Iterator

from tlx.data.dataset import Example, Finding
from tlx.data.doctor.patient import Patient
from tlx.data.images import named_format
from tlx.data.survey import Picture


def check_pictures(patient: Patient) -> Iterator[Finding]:
    """Yield what is wrong or odd about each image file."""
    transposed = {
        f"{finding.file} ({finding.record})" if finding.record else finding.file
        for finding in patient.findings
        if finding.code == "annotated-size" and "turned" in finding.message
    }
    told = any(finding.code == "image-format" for finding in patient.findings)
    for example, picture in zip(patient.examples, patient.pictures, strict=True):
        if picture.error:
            yield patient.at(example, "unreadable-image", "error", picture.error)
            continue
        if lies(example, picture) and not told:
            message = (
                f"is named like {named_format(example.image)} but holds {picture.format}; it is read as what it is"
            )
            yield patient.at(example, "image-format", "info", message)
        if picture.orientation != 1:
            yield _turned(patient, example, picture, example.record in transposed)
        yield from _unusual(patient, example, picture)


def lies(example: Example, picture: Picture) -> bool:
    """Return whether an image's name ends as that of another format does."""
    named = named_format(example.image)
    return named not in ("", picture.format) and (named, picture.format) != ("JPEG", "MPO")


def _turned(patient: Patient, example: Example, picture: Picture, transposed: bool) -> Finding:
    stored, upright = ("{} x {}".format(*size) for size in (picture.stored, picture.size))
    message = (
        f"EXIF orientation {picture.orientation} turns the stored {stored} picture into {upright} px; "
        "boxes are taken as those of the upright one"
    )
    if not transposed:
        return patient.at(example, "exif-rotated", "info", message)
    message += (
        ", but the annotation gives the size of the stored one: its boxes are most likely misplaced; "
        "look at it on the contact sheet, then label it anew or save the picture without EXIF"
    )
    return patient.at(example, "exif-rotated", "warning", message)


def _unusual(patient: Patient, example: Example, picture: Picture) -> Iterator[Finding]:
    if picture.mode == "CMYK":
        message = "has CMYK colours, which turn into RGB only roughly; save it as RGB to be sure of them"
        yield patient.at(example, "cmyk-image", "warning", message)
    elif picture.colourless:
        yield patient.at(example, "grayscale-image", "info", "has no colours; it is read as an RGB image of greys")
    if picture.transparent:
        message = "has transparent or half-transparent pixels, or could have; it is laid on white"
        yield patient.at(example, "alpha-image", "info", message)
    if picture.deep:
        message = "has more than 8 bits a channel; only the upper 8 are used: rescale it if it is dark"
        yield patient.at(example, "deep-image", "info", message)
