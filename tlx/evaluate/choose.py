"""Which evaluator an experiment is judged by, known before anything of it is built."""

from tlx import registry
from tlx.config import Experiment, build
from tlx.evaluate.evaluator import Evaluator
from tlx.tasks.task import task_of


def default_evaluator(task: str) -> Evaluator:
    """Return the evaluator that a task, by its registered name, is judged by where none is given."""
    name = task_of(task).evaluator
    if name not in registry.evaluators.entries:
        registry.discover()
    return registry.find(f"evaluators.{name}").factory()


def evaluator_of(experiment: Experiment) -> Evaluator:
    """Return `run.evaluator`, or that of the task which `run.head` learns."""
    arguments = experiment.trees["run"].arguments
    if (given := arguments.get("evaluator")) is not None:
        return build(given)
    return default_evaluator(arguments["head"].makes.task)
