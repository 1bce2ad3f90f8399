"""A built network as a list of operations in order: its weight layers, and where it can be cut in two."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlx.errors import ModelError
from tlx.lazy import keras


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a network with the symbolic tensors that go in and come out.

    `constants` spells out what else it was called with, such as the 2.0 of `x * 2.0`.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    constants: str


@dataclass(frozen=True)
class WeightLayer:
    """A layer with weights and the normalizations that belong to it; `block` says which part it stands in."""

    name: str
    layers: tuple[Any, ...]
    block: str


def steps(network: Any) -> list[Step]:
    """Return the operations of a functional `keras.Model` in the order in which they run, inputs left out.

    Raises:
      ModelError: a layer is used twice, so that freezing or cutting could not tell its uses apart.
    """
    found = []
    for operation in network.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        # The first node is the one that built the network; cutting it adds further ones.
        node = operation._inbound_nodes[0]
        called = keras.tree.map_structure(_constant, (node.arguments.args, node.arguments.kwargs))
        found.append(Step(operation, tuple(node.input_tensors), tuple(node.output_tensors), repr(called)))
    made = {id(t) for step in found for t in step.outputs} | {id(t) for t in network.inputs}
    if any(id(t) not in made for t in (*network.outputs, *(t for step in found for t in step.inputs))):
        raise ModelError(f"{network.name}: a layer is used more than once; tlx cannot freeze or cut such a network")
    return found


def _constant(argument: Any) -> Any:
    if isinstance(argument, keras.KerasTensor):
        return "tensor"
    # The repr of a large array would leave out its middle.
    return argument if np.isscalar(argument) or argument is None else np.asarray(argument).tolist()


def weight_layers(network: Any, blocks: str) -> list[WeightLayer]:
    """Return the weight layers of a network in order, each with the normalizations that follow from it.

    A normalization belongs to the weight layer that computes its input; one with none before it stands
    alone. `blocks` is a regular expression: layers that give the same first group form one block, and
    the layers between two blocks belong to the one before.
    """
    owner_of: dict[int, int] = {}
    found: list[list[Any]] = []
    names: list[str] = []
    block = ""
    for step in steps(network):
        if match := re.match(blocks, step.operation.name):
            block = match.group(1)
        owner = max((owner_of[id(t)] for t in step.inputs if id(t) in owner_of), default=None)
        if _learns(step.operation):
            if owner is not None and _is_normalization(step.operation):
                found[owner].append(step.operation)
            else:
                found.append([step.operation])
                names.append(block or step.operation.name)
                owner = len(found) - 1
        if owner is not None:
            owner_of.update((id(t), owner) for t in step.outputs)
    return [WeightLayer(ls[0].name, tuple(ls), name) for ls, name in zip(found, names, strict=True)]


def _learns(operation: Any) -> bool:
    if not isinstance(operation, keras.layers.Layer) or not operation.weights:
        return False
    state = operation.trainable
    operation.trainable = True
    learns = bool(operation.trainable_weights)
    operation.trainable = state
    return learns


def _is_normalization(layer: Any) -> bool:
    return "Normalization" in type(layer).__name__ or type(layer).__name__ == "LayerScale"


@dataclass(frozen=True, eq=False)
class Cut:
    """A network in two parts: `prefix`, where nothing trains, and the rest.

    `prefix` maps the network's input to the boundary's tensors; `suffix` maps those to the outputs that
    are not boundary tensors themselves, and is None where all are. `sources` tells for each output of the
    network whether it comes from the boundary or from the suffix, and at which position.
    """

    prefix: Any
    suffix: Any
    sources: tuple[tuple[str, int], ...]
    after: str

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the boundary's tensors for one example."""
        return [tuple(t.shape[1:]) for t in self.prefix.outputs]

    def start(self, pictures: Any) -> list[Any]:
        """Return the boundary's tensors [b, ...] for float32 RGB pictures [b, h, w, 3] in 0..255."""
        # Frozen layers are in inference mode even where one, such as dropout, would act otherwise.
        return _listed(self.prefix(pictures, training=False))

    def finish(self, boundary: Sequence[Any], training: bool) -> list[Any]:
        """Return the network's outputs from the boundary's tensors [b, ...]."""
        parts = {"boundary": boundary, "suffix": []}
        if self.suffix is not None:
            inputs = list(boundary) if len(boundary) > 1 else boundary[0]
            parts["suffix"] = _listed(self.suffix(inputs, training=training))
        return [parts[part][position] for part, position in self.sources]


def cut(network: Any, blocks: str) -> Cut:
    """Cut a network before the first thing that trains, at the narrowest place in that block.

    Whatever lies between the cut and the first thing that trains stays frozen and is only computed again.
    """
    order = steps(network)
    first = next((i for i, step in enumerate(order) if _trains(step.operation)), len(order))
    places = range(_block_start(order, first, blocks), first + 1) if first < len(order) else [first]
    crossings = {place: _crossing(network, order, place) for place in places}
    place = min(reversed(places), key=lambda p: sum(_size(t) for t in crossings[p]))
    boundary = crossings[place]
    at = {id(t): i for i, t in enumerate(boundary)}
    later = [t for t in network.outputs if id(t) not in at]
    sources = tuple(
        ("boundary", at[id(t)]) if id(t) in at else ("suffix", next(i for i, o in enumerate(later) if o is t))
        for t in network.outputs
    )
    prefix = keras.Model(network.inputs[0], list(boundary), name="prefix")
    suffix = keras.Model(list(boundary), later, name="suffix") if later else None
    return Cut(prefix, suffix, sources, order[place - 1].operation.name if place else "the input")


def _listed(outputs: Any) -> list[Any]:
    # Keras returns one output as a tensor even where the model was given a list of one.
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _trains(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and bool(operation.trainable_weights)


def _block_start(order: list[Step], first: int, blocks: str) -> int:
    match = re.match(blocks, order[first].operation.name)
    if not match:
        return first
    inside = (re.match(rf"(?:{blocks})", step.operation.name) for step in order)
    return next(i for i, m in enumerate(inside) if m and m.group(1) == match.group(1))


def _crossing(network: Any, order: list[Step], place: int) -> list[Any]:
    """Return the tensors made before `place` that something later, or the network's caller, needs."""
    needed = {id(t) for step in order[place:] for t in step.inputs} | {id(t) for t in network.outputs}
    made = [*network.inputs, *(t for step in order[:place] for t in step.outputs)]
    return [t for t in made if id(t) in needed]


def _size(tensor: Any) -> int:
    return int(np.prod(tensor.shape[1:]))
