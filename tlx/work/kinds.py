"""What an experiment says about the memory that its runs take, before any of them is run."""

from collections.abc import Iterator

from tlx.augment import arranged, pictures_of
from tlx.config import Experiment, build_value, given
from tlx.pipeline import height_width
from tlx.sizing import USUAL
from tlx.tree import walk

# What these arguments of `run` say makes no difference to the memory that a step takes.
_WITHOUT = ("fit", "seed", "judge", "evaluator", "metric", "augment", "resize", "memory")


def changes(experiment: Experiment) -> Iterator[tuple[list[str], list[str]]]:
    """Yield bindings by which an experiment takes less memory, each with others that only measuring it needs.

    Beside a smaller picture they are what the experiment's factories say of themselves.
    """
    size = experiment.value("run.image_size")
    if size == "auto":
        # Which one that is, only a run knows, which has read its data.
        yield [f"run.image_size = {USUAL}"], []
    elif min(smaller := tuple(side * 3 // 4 // 32 * 32 for side in height_width(size))) > 0:
        yield [f"run.image_size = {smaller}"], []
    for node in walk([experiment.trees["run"]]):
        if node.entry.smaller:
            yield from node.entry.smaller(**given(node, node.entry.smaller))


def wanted(experiment: Experiment) -> int:
    """Return how many examples are to be taken at once, if they fit."""
    batch = experiment.value("fit.batch_size")
    return min(batch, experiment.value("fit.micro_batch") or batch)


def phases(experiment: Experiment) -> int:
    return len(build_value(experiment.trees["run"].arguments["freeze"]).phases)


def describe(experiment: Experiment) -> str:
    """Return in words the kind of run that an experiment is: all that the memory of its steps depends on."""
    arguments = experiment.trees["run"].arguments
    parts = [f"{name} = {value}" for name, value in arguments.items() if name not in _WITHOUT]
    strategy = f"strategy = {experiment.value('fit.strategy')}"
    chosen = experiment.value("fit.optimizer")
    # Its numbers may well be searched, and hardly matter to the memory.
    optimizer = f"optimizer = {chosen.entry.full_name if hasattr(chosen, 'entry') else type(chosen).__name__}"
    # What is drawn makes no difference, but for how many pictures' objects there is room.
    pictures = f"pictures a view = {pictures_of(arranged(build_value(arguments.get('augment'))))}"
    parts.append(f"phases = {phases(experiment)}")
    if (matmul := experiment.value("fit.matmul")) != "float32":
        parts.append(f"matmul = {matmul}")
    return "\n".join([*parts, f"ema = {experiment.value('fit.ema') is not None}", optimizer, strategy, pictures])


def grows(experiment: Experiment) -> str | None:
    """Return the binding along which the memory of an experiment grows, if it has one."""
    node = next((node for node in walk([experiment.trees["run"]]) if node.entry.grows), None)
    return f"{node.target}.{node.entry.grows}" if node else None


def family(experiment: Experiment, target: str) -> str:
    """Return in words what is the same in all runs that differ in nothing but the value of `target`."""
    name = target.rpartition(".")[2]
    return describe(experiment).replace(f"{name}={experiment.value(target)}", f"{name}=*")
