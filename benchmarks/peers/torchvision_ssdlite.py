"""torchvision's ssdlite320_mobilenet_v3_large, as `timed.py` says; torchvision has no tuner."""

import torch
from PIL import Image
from timed import BATCH, TRAINING, VALIDATION, Timed, classes, pictures
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms.functional import pil_to_tensor


class Pictures(torch.utils.data.Dataset):
    """A split as torchvision's detectors take it: pictures in 0..1, boxes by their corners, classes from 1."""

    def __init__(self, data, split):
        self.pictures = pictures(data, split)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        file, boxes, labels = self.pictures[i]
        boxes = torch.tensor(boxes).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        picture = pil_to_tensor(Image.open(file).convert("RGB")) / 255
        return picture, {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64) + 1}


def main() -> None:
    """Do what the command line says, with a training loop as short as it can be."""
    timed = Timed("torch", "torchvision")
    if timed.given.what == "versions":
        return timed.tell()
    if timed.given.threads:
        torch.set_num_threads(timed.given.threads)
    names = classes(timed.given.data)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(names) + 1)
    model.train()
    if timed.frozen:
        model.backbone.features.requires_grad_(False).eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01, 0.9, weight_decay=5e-4)
    training, validation = (_loader(timed.given.data, split) for split in (TRAINING, VALIDATION))
    for _ in range(timed.given.epochs):
        for images, targets in training:
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            timed.update()
    model.eval()
    _predict(model, validation)
    timed.judged()
    if not timed.frozen:
        timed.predict(len(validation.dataset), lambda: _predict(model, validation))
    return timed.tell()


def _loader(data, split):
    together = lambda batch: tuple(zip(*batch, strict=True))  # noqa: E731
    return torch.utils.data.DataLoader(
        Pictures(data, split), BATCH, shuffle=split == TRAINING, num_workers=2, collate_fn=together
    )


def _predict(model, loader):
    with torch.inference_mode():
        return [model(images) for images, _ in loader]


if __name__ == "__main__":
    main()
