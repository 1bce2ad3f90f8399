"""A built network as a list of operations in order: its weight layers, and where it can be cut in two."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbone import Tap


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


def prune(base: Any, taps: Sequence[Tap]) -> Any:
    """Return what of a built backbone these taps need, with their outputs in this order.

    A tap that is pooled gives [b, c], any other [b, h, w, c]. Layers are shared with `base`. What lies behind the
    last tap is not part of the network, so that no freeze policy counts it.
    """
    outputs = [_pooled(base.get_layer(tap.layer).output, tap) for tap in taps]
    return keras.Model(base.inputs[0], outputs, name="backbone")


def _pooled(x: Any, tap: Tap) -> Any:
    if tap.pool is None:
        return x
    pooling = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[tap.pool]
    return pooling(name=f"{tap.name}_{tap.pool}_pool")(x)


def describe_taps(network: Any, taps: Sequence[Tap]) -> dict[str, tuple[int, int, int, int]]:
    """Return (height, width, channels, stride) of a pruned network's outputs by the names of their taps.

    Height and width of a pooled tap are 1, though its output is [b, c].
    """
    shapes = [tuple(output.shape[1:]) for output in network.outputs]
    return {
        tap.name: (*((1, 1) if tap.pool else shape[:2]), shape[-1], tap.stride)
        for tap, shape in zip(taps, shapes, strict=True)
    }


def split_after(base: Any, tap: Tap) -> tuple[Any, Any]:
    """Return a built backbone in two parts that share its layers: up to a tap, and from there to the end.

    The second takes maps [n, h, w, c] of any height and width that its own strides leave something of, such as what
    RoI pooling cuts out, and gives what is behind the last layer. The padding of a network that looks at the side
    (EfficientNet, MobileNet 2 and 3, NASNet) stays as it is at the tap's own size.

    Raises:
      ModelError: something else than the tap's output is needed behind it.
    """
    front = prune(base, [replace(tap, pool=None)])
    try:
        inner = keras.Model(front.outputs[0], base.outputs[0])
    except ValueError as error:
        raise ModelError(f"{base.name} cannot be split after {tap.layer}: what follows needs more than that") from error
    free = keras.Input((None, None, front.outputs[0].shape[-1]), name=f"from_{tap.name}")
    rest = keras.models.clone_model(inner, free, clone_function=lambda layer: layer)
    return front, keras.Model(free, rest.outputs[0], name=f"after_{tap.name}")


def steps(network: Any) -> list[Step]:
    """Return the operations of a functional `keras.Model` in the order in which they run, inputs left out.

    Raises:
      ModelError: a layer is used twice, so that freezing or cutting could not tell its uses apart.
    """
    found = []
    # An operation has further nodes where another network has it too, such as a part that was cut out of this one.
    own = {id(node) for nodes in network._nodes_by_depth.values() for node in nodes}
    for operation in network.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        node = next(node for node in operation._inbound_nodes if id(node) in own)
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

    Whatever lies between the cut and the first thing that trains stays frozen and is only computed again. What has
    no weights and only makes the boundary smaller, such as pooling, is before the cut wherever it stands.
    """
    order = steps(network)
    first = next((i for i, step in enumerate(order) if _trains(step.operation)), len(order))
    places = range(_block_start(order, first, blocks), first + 1) if first < len(order) else [first]
    crossings = {place: _crossing(network, order, place) for place in places}
    place = min(reversed(places), key=lambda p: sum(_size(t) for t in crossings[p]))
    order, place = _with_what_shrinks(network, order, place)
    boundary = _crossing(network, order, place)
    at = {id(t): i for i, t in enumerate(boundary)}
    # Two taps may be the output of one layer.
    later = list({id(t): t for t in network.outputs if id(t) not in at}.values())
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


def _with_what_shrinks(network: Any, order: list[Step], place: int) -> tuple[list[Step], int]:
    """Return the steps and the place of the cut, after moving those before it that make the boundary smaller."""
    ready = {id(t) for t in network.inputs} | {id(t) for step in order[:place] for t in step.outputs}
    least = sum(_size(t) for t in _crossing(network, order, place))
    for step in order[place:]:
        if getattr(step.operation, "weights", None) or any(id(t) not in ready for t in step.inputs):
            continue
        moved = [*order[:place], step, *(other for other in order[place:] if other is not step)]
        size = sum(_size(t) for t in _crossing(network, moved, place + 1))
        if size < least:
            order, place, least = moved, place + 1, size
            ready |= {id(t) for t in step.outputs}
    return order, place


def _size(tensor: Any) -> int:
    return int(np.prod(tensor.shape[1:]))
