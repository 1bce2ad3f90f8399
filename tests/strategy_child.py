"""A process of its own that trains, as its arguments say, with two CPU devices; see test_strategy.py.

    python strategy_child.py EXPERIMENT.gin FOLDER [FOLDER:BINDING;BINDING...]

Each run's folder is given with more bindings; "stop" among them interrupts it at its second look. Prints a
JSON list of what the runs returned.
"""

import json
import sys
from pathlib import Path

from tlx import config, run
from tlx.events import Listener
from tlx.lazy import keras, tf
from tlx.models.backbone import Backbone, tap_table
from tlx.registry import backbones


@backbones.register("small")
def small(dropout: float = 0.0) -> Backbone:
    """A network with a BatchNorm early on, none later, and a dropout."""

    def build(size, pretrained=True):
        image = keras.Input((*size, 3), name="image")
        x = keras.layers.Conv2D(8, 3, 4, "same", name="block1_conv", activation="relu")(image / 127.5 - 1.0)
        x = keras.layers.BatchNormalization(name="block1_bn")(x)
        for i, filters in enumerate((12, 16, 24), 2):
            x = keras.layers.Conv2D(filters, 3, 2, "same", name=f"block{i}_conv", activation="relu")(x)
        x = keras.layers.Dropout(dropout, name="block5_drop")(x)
        return keras.Model(image, x, name="small"), None

    return Backbone(
        "small", build, *tap_table({8: "block2_conv", 16: "block3_conv", 32: "block5_drop"}), r"^(block\d)_"
    )


class Stopping(Listener):
    """Remembers what it is told, and interrupts the run at its second look where it is to `stop`."""

    def __init__(self, stop):
        self.stop, self.said, self.losses = stop, [], []

    def say(self, message):
        self.said.append(message)

    def progress(self, what, done, total, note=""):
        if what == "training":
            self.losses.append(note)

    def evaluated(self, look):
        if self.stop and look.number == 2:
            raise KeyboardInterrupt
        return "continue"


def main(file, *runs):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    results = []
    for folder, _, more in (one.partition(":") for one in runs):
        bindings = [binding for binding in more.split(";") if binding]
        listener = Stopping("stop" in bindings)
        experiment = config.load([file], [binding for binding in bindings if binding != "stop"])
        settings = config.build(experiment.trees["run"])
        try:
            result = run.train(settings, Path(folder), experiment.text(), listener)
        except KeyboardInterrupt:
            result = None
        results.append({"result": result, "said": listener.said, "losses": listener.losses})
    print(json.dumps(results))


main(*sys.argv[1:])
