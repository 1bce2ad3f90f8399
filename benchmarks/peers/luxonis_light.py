"""luxonis-train's light detection model, as `timed.py` says.

It is not timed as a predictor: its `infer` draws every picture. Its tuner gets one trial of the learning rate.
"""

import os
from pathlib import Path
from typing import Any

from timed import BATCH, SIZE, TRAINING, VALIDATION, Timed, classes, pictures

DATASET = "peers"


def main() -> None:
    """Do what the command line says."""
    timed = Timed("luxonis-train", "luxonis-ml", "torch", "lightning")
    given = timed.given
    os.environ["LUXONISML_BASE_PATH"] = str(Path.home() / "luxonis_ml")
    import lightning  # noqa: PLC0415
    from luxonis_ml.data import LuxonisDataset  # noqa: PLC0415
    from luxonis_train import LuxonisModel  # noqa: PLC0415
    from luxonis_train.registry import CALLBACKS  # noqa: PLC0415

    if given.what == "versions":
        _write(LuxonisDataset(DATASET, delete_local=True), given.data)
        return timed.tell()

    class Following(lightning.Callback):
        """Notes down when updates were done, and the validation split judged."""

        def on_train_batch_end(self, *_: Any) -> None:
            timed.update()

        def on_validation_end(self, *_: Any) -> None:
            timed.judged()

    CALLBACKS.register(module=Following)
    settings = _settings(given.out, given.epochs, timed.frozen)
    if given.what == "trial":
        rate = {"trainer.optimizer.params.lr_loguniform": [2e-4, 2e-2]}
        LuxonisModel(settings | {"tuner": {"n_trials": 1, "storage": {"active": False}, "params": rate}}).tune()
    else:
        LuxonisModel(settings).train()
    return timed.tell()


def _settings(out: Path, epochs: int, frozen: bool) -> dict[str, Any]:
    # Without parameters of its own, the variant would download weights.
    parts = {"backbone_params": {"freezing": {"active": frozen}}, "neck_params": {}}
    model = {"name": "DetectionModel", "variant": "light", "params": parts}
    return {
        "model": {"name": "detection_light", "predefined_model": model},
        "loader": {"params": {"dataset_name": DATASET}, "test_view": [VALIDATION]},
        "tracker": {"save_directory": str(out)},
        "rich_logging": False,
        "trainer": {
            "preprocessing": {"train_image_size": [SIZE, SIZE], "keep_aspect_ratio": True},
            "accelerator": "cpu",
            "batch_size": BATCH,
            "epochs": epochs,
            "n_workers": os.cpu_count(),
            "n_sanity_val_steps": 0,
            "validation_interval": 1,
            "smart_cfg_auto_populate": False,
            "callbacks": [{"name": "Following"}],
        },
    }


def _write(dataset: Any, data: Path) -> None:
    """Bring the pictures into luxonis' own store, which later commands read."""
    names = classes(data)
    files = {split: pictures(data, split) for split in (TRAINING, VALIDATION)}
    dataset.add(_records([one for found in files.values() for one in found], names))
    dataset.make_splits({split: [str(file) for file, *_ in found] for split, found in files.items()})


def _records(found: list[tuple], names: list[str]) -> Any:
    from PIL import Image  # noqa: PLC0415

    for file, boxes, labels in found:
        width, height = Image.open(file).size
        for (x, y, w, h), label in zip(boxes, labels, strict=True):
            box = {"x": x / width, "y": y / height, "w": w / width, "h": h / height}
            yield {"file": str(file), "annotation": {"class": names[label], "boundingbox": box}}


if __name__ == "__main__":
    main()
