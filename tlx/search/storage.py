"""A study as Optuna keeps it: its journal, its sampler, its pruner, and what it learns from an earlier one."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

from tlx.config import Experiment
from tlx.errors import ConfigError
from tlx.search import ranges
from tlx.search.pruning import Median, first_cut
from tlx.search.settings import Search
from tlx.search.space import Space
from tlx.tree import Node, walk

JOURNAL = "study.journal"
# In place of a journal: which study on which server a folder takes part in, and under what name.
SHARED = "storage.json"
# The user attribute of a trial that an earlier study finished.
WARM = "warm_start"
# The user attribute of a study that names the metric it goes by.
METRIC = "metric"
# And the one that lists what is to be small beside it.
OBJECTIVES = "objectives"
# The constraint that a trial which cannot be trained violates; others are named by what they limit.
INFEASIBLE = "infeasible"
# Which one it was there: its number, and when it was finished.
_ORIGIN = "warm_start_trial"
# With fewer different results, importances would be chance.
_ENOUGH = 4


def open_study(search: Search, storage: Any, name: str, evaluations: int, host: str | None = None) -> Any:
    """Return an Optuna study, made or gone on with, as the host of that name sees it.

    Raises:
      ConfigError: the sampler needs a package that is not installed.
    """
    study = quiet_optuna().create_study(
        storage=storage,
        study_name=name,
        directions=["maximize", *("minimize" for _ in search.objectives)],
        load_if_exists=True,
        pruner=_pruner(search, evaluations),
    )
    # Taking up the same random numbers again after an interruption would propose the same points again, and so
    # would two hosts with the same ones.
    seed = search.seed + len(study.trials)
    study.sampler = _sampler(search, _digest(f"{seed} {host}") if host else seed)
    return study


def read_study(folder: Path, server: Any = None) -> Any:
    """Return the Optuna study of a search's folder, to be read alone; one that is shared comes from its server.

    Raises:
      ConfigError: there is none, or its server was not given.
    """
    if (folder / JOURNAL).exists():
        return quiet_optuna().load_study(study_name="tlx", storage=journal(folder))
    if not (folder / SHARED).exists():
        raise ConfigError(f"{folder} holds no study: it has no {JOURNAL}")
    known = json.loads((folder / SHARED).read_text())
    if str(server) != known["storage"]:
        raise ConfigError(f"the study of {folder} is kept by {known['storage']}: give --storage")
    return quiet_optuna().load_study(study_name=known["study"], storage=server.storage(kept_open=False))


def identity(experiment: Experiment) -> str:
    """Return all that makes an experiment this one and no other, as text: the same on every host that runs it.

    Paths are left out, for they are a machine's own, and so is what a host decides for itself or may extend.
    """
    nodes = [node for root, tree in experiment.trees.items() for node in walk([tree])]
    lines = [
        f"{node.scope}/{node.entry.full_name}.{key} = {_named(node.arguments.get(key, parameter.default))}"
        for node in nodes
        for key, parameter in node.entry.parameters.items()
        if node.entry.full_name != "memory" and f"{node.entry.full_name}.{key}" not in _OWN
    ]
    return "\n".join(sorted(set(lines)))


_OWN = (
    *("search.trials", "search.minutes", "search.workers", "search.warm_start"),
    *("features.folder", "features.cap_gb", "features.cache"),
)


def _named(value: Any) -> str:
    if isinstance(value, Path):
        return "a path"
    if isinstance(value, Node):
        return f"@{value.scope}/{value.entry.full_name}"
    if isinstance(value, dict):
        return str({key: _named(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return str([_named(item) for item in value])
    return repr(value)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def quiet_optuna() -> Any:
    """Return the module `optuna`, told to keep its voice down; its import takes a third of a second."""
    import optuna  # noqa: PLC0415  Commands that only answer must not spend that.

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A run asks again about a look if it died before it had the answer.
    warnings.filterwarnings("ignore", "The reported value is ignored")
    return optuna


def learn_from(study: Any, earlier: Path, space: Space, server: Any = None) -> int:
    """Add the finished trials of the study in `earlier` that lie in this space, each once, and return how many.

    They are tagged with the user attribute `WARM`, steer the sampler, and are no trials of this study otherwise. An
    earlier study that hosts share comes from its `server`.

    Raises:
      ConfigError: the earlier study went by another metric.
    """
    known = [t.user_attrs.get(_ORIGIN) for t in study.trials if WARM in t.user_attrs]
    if known and not earlier.exists():
        # It has been learnt from, maybe by another host, which alone has it.
        return len(known)
    optuna = quiet_optuna()
    distributions = {name: ranges.distribution(optuna, bounds) for name, bounds in space.bounds.items()}
    before = read_study(earlier, server)
    metrics = [one.user_attrs.get(METRIC) for one in (before, study)]
    if None not in metrics and len(set(metrics)) > 1:
        raise ConfigError(f"search.warm_start: {earlier} went by {metrics[0]}, and this search goes by {metrics[1]}")
    if before.directions != study.directions:
        raise ConfigError(
            f"search.warm_start: {earlier} had other search.objectives, which this search cannot learn from"
        )
    for trial in before.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        # Not the folder: another host may have it under another path.
        origin = [trial.number, str(trial.datetime_complete)]
        params = space.parameters(trial.user_attrs.get("bindings", []))
        if params is not None and WARM not in trial.user_attrs and origin not in known:
            known.append(origin)
            study.add_trial(
                optuna.trial.create_trial(
                    values=trial.values,
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    user_attrs={WARM: str(earlier), _ORIGIN: origin},
                    constraints=trial.constraints,
                )
            )
    return len(known)


def asked(trial: Any) -> dict[str, Any]:
    """Return the parameters of a trial, also of one whose driver died before it had asked for them all."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def root(trial: Any) -> int:
    """Return the number of the trial that this one repeats, if it does, or its own."""
    return trial.user_attrs.get("retry_of", trial.number)


def place(trial: Any) -> str:
    """Return a trial's folder within the search's; a second attempt takes up the checkpoints of the first."""
    return f"trials/{root(trial):04d}"


def rows(study: Any) -> list[dict[str, Any]]:
    """Return every trial of an Optuna study as `result.json` lists it, but none that an earlier study finished."""
    return [
        {
            "trial": t.number,
            "state": t.state.name.lower(),
            "bindings": t.user_attrs.get("bindings", []),
            "validation": _metrics(t.user_attrs.get("metrics")),
            "score": t.values[0] if t.state.name == "COMPLETE" else None,
            "costs": t.user_attrs.get("costs"),
            "over": [name for name, by in t.constraints.items() if by > 0 and name != INFEASIBLE],
            "look": t.user_attrs.get("look"),
            "seconds": t.user_attrs.get("seconds"),
            "folder": place(t),
            "host": t.user_attrs.get("host"),
            "retry_of": t.user_attrs.get("retry_of"),
            "cause": t.user_attrs.get("cause"),
        }
        for t in study.get_trials(deepcopy=False)
        if WARM not in t.user_attrs
    ]


def _metrics(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a trial's metrics; in older studies they are flat, and AP is the primary one."""
    if metrics is None or "values" in metrics:
        return metrics
    return {"primary": "AP", "values": {name: metrics.get(name) for name in ("AP", "AP50", "AP75", "AR")}}


def importances(study: Any) -> dict[str, float]:
    """Return how much each parameter matters, most first; empty where too few trials are finished to say."""
    optuna = quiet_optuna()
    finished = [t for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]) if WARM not in t.user_attrs]
    if len({tuple(t.values) for t in finished}) < _ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    # What has one value only, such as the alternatives that were chosen, distinguishes nothing.
    varied = {name for t in finished for name, range_ in t.distributions.items() if not range_.single()}
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varied)) if varied else {}


def mend(journal: Path) -> None:
    """Cut off what a killed driver left half written at the end of its journal: a last line that is no record."""
    if journal.exists():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        while whole and not _is_record(content[content.rfind(b"\n", 0, whole - 1) + 1 : whole]):
            whole = content.rfind(b"\n", 0, whole - 1) + 1
        if whole < len(content):
            os.truncate(journal, whole)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def journal(folder: Path) -> Any:
    """Return the storage of the study that is kept in a folder."""
    file = (folder / JOURNAL).absolute()
    backend = quiet_optuna().storages.journal.JournalFileBackend(str(file), _NoLock())
    return quiet_optuna().storages.JournalStorage(_Whole(backend, file))


class _NoLock:
    """In place of Optuna's lock, whose file nobody would remove after a kill: one process has the folder, in turns."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _Whole:
    """The file of a journal, to which its one writer appends records as a whole or, on a full disk, not at all."""

    def __init__(self, backend: Any, file: Path):
        self._backend, self._file = backend, file
        self.read_logs = backend.read_logs

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = self._file.stat().st_size
        try:
            self._backend.append_logs(logs)
        except OSError:
            os.truncate(self._file, size)
            raise


def _pruner(search: Search, evaluations: int) -> Any:
    pruners = quiet_optuna().pruners
    if search.pruner == "median":
        return Median()
    if search.pruner == "hyperband":
        first = first_cut(search, evaluations)
        return pruners.HyperbandPruner(min_resource=first, max_resource=evaluations, reduction_factor=2)
    return pruners.NopPruner()


def _sampler(search: Search, seed: int) -> Any:
    optuna = quiet_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, search.trials // 4))
        if search.sampler in ("random", "grid"):
            # A grid's points are put in the queue; Optuna's own sampler of that name cannot be asked for them.
            return optuna.samplers.RandomSampler(seed=seed)
        try:
            import cmaes  # noqa: F401, PLC0415  Optuna itself would say so only at the first trial.
        except ImportError:
            raise ConfigError(
                "search.sampler = 'cmaes' needs the package cmaes; install it with: pip install 'tlx[cmaes]'"
            ) from None
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=max(3, search.trials // 4))
