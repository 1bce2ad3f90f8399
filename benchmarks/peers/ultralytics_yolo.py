"""Ultralytics' YOLO with random weights, as `timed.py` says; --model is yolo11n or yolo26n.

Ultralytics is under AGPL-3.0: it is run here as a program in an environment of its own, and no part of tlx uses it.
"""

import os
import shutil
from pathlib import Path

from timed import BATCH, SIZE, VALIDATION, Timed, classes, pictures

# Modules 0 to 10 of both networks' files are the backbone.
BACKBONE = 11


def main() -> None:
    """Do what the command line says."""
    timed = Timed("ultralytics", "torch", "torchvision")
    given, home = timed.given, Path.home() / "ultralytics"
    home.mkdir(exist_ok=True)
    # Ultralytics reads these when it is imported; left alone it takes one thread.
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(home)}
    if given.threads:
        os.environ["OMP_NUM_THREADS"] = str(given.threads)
    from ultralytics import YOLO  # noqa: PLC0415

    if given.what == "versions":
        return timed.tell()
    _font(home / "Ultralytics")
    _font(home)
    model = YOLO(f"{given.model}.yaml")
    model.add_callback("on_train_batch_end", timed.update)
    model.add_callback("on_fit_epoch_end", timed.judged)
    settings = {"data": _described(given.data, given.out), "imgsz": SIZE, "batch": BATCH, "device": "cpu"}
    settings |= {"project": str(given.out), "epochs": given.epochs, "plots": False, "pretrained": False}
    if given.what == "trial":
        model.tune(iterations=1, **settings)
        return timed.tell()
    # Mosaics, which a run ends without, are made in most of its epochs.
    model.train(freeze=BACKBONE if timed.frozen else None, close_mosaic=0, **settings)
    if not timed.frozen:
        files = [str(file) for file, *_ in pictures(given.data, VALIDATION)]
        timed.predict(len(files), lambda: model.predict(files, imgsz=SIZE, batch=BATCH, device="cpu", verbose=False))
    return timed.tell()


def _font(folder: Path) -> None:
    """Put a font of matplotlib's where another one would be downloaded to; nothing is drawn with it."""
    import matplotlib  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", folder / "Arial.ttf")


def _described(data: Path, out: Path) -> str:
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(classes(data)))
    file = out / "data.yaml"
    file.write_text(f"path: {data}\ntrain: train.txt\nval: val.txt\nnames:\n{names}")
    return str(file)


if __name__ == "__main__":
    main()
