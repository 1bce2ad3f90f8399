"""A study as Optuna keeps it: its journal, its sampler, its pruner, and what it learns from an earlier one."""

import os
import warnings
from pathlib import Path
from typing import Any

from tlx.errors import ConfigError
from tlx.search.space import Search

JOURNAL = "study.journal"
# The user attribute of a trial that an earlier study finished.
WARM = "warm_start"
# With fewer different results, importances would be chance.
_ENOUGH = 4


def open_study(search: Search, folder: Path, evaluations: int) -> Any:
    """Return the Optuna study in `folder`, made or gone on with.

    Raises:
      ConfigError: the sampler needs a package that is not installed.
    """
    optuna = quiet_optuna()
    study = optuna.create_study(
        storage=_storage(folder),
        study_name="tlx",
        direction="maximize",
        load_if_exists=True,
        pruner=_pruner(search, evaluations),
    )
    # Taking up the same random numbers again after an interruption would propose the same points again.
    study.sampler = _sampler(search, search.seed + len(study.trials))
    return study


def read_study(folder: Path) -> Any:
    """Return the Optuna study in `folder`, to be read alone.

    Raises:
      ConfigError: there is none.
    """
    if not (folder / JOURNAL).exists():
        raise ConfigError(f"{folder} holds no study: it has no {JOURNAL}")
    return quiet_optuna().load_study(study_name="tlx", storage=_storage(folder))


def quiet_optuna() -> Any:
    """Return the module `optuna`, told to keep its voice down; its import takes a third of a second."""
    import optuna  # noqa: PLC0415  Commands that only answer must not spend that.

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def learn_from(study: Any, earlier: Path, space: dict[str, tuple]) -> int:
    """Add the finished trials of the study in `earlier` that lie in this space, once, and return how many there are.

    They are tagged with the user attribute `WARM`, steer the sampler, and are no trials of this study otherwise.
    """
    known = [t for t in study.trials if WARM in t.user_attrs]
    if known:
        return len(known)
    optuna = quiet_optuna()
    distributions = {name: _distribution(optuna, bounds) for name, bounds in space.items()}
    for trial in read_study(earlier).get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        fits = trial.params.keys() == space.keys() and all(
            distributions[name]._contains(distributions[name].to_internal_repr(value))
            for name, value in trial.params.items()
        )
        if fits and WARM not in trial.user_attrs:
            tagged = {WARM: str(earlier), "constraints": trial.user_attrs.get("constraints")}
            study.add_trial(
                optuna.trial.create_trial(
                    value=trial.value, params=trial.params, distributions=distributions, user_attrs=tagged
                )
            )
    return sum(WARM in t.user_attrs for t in study.trials)


def importances(study: Any) -> dict[str, float]:
    """Return how much each parameter matters, most first; empty where too few trials are finished to say."""
    optuna = quiet_optuna()
    finished = [t for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]) if WARM not in t.user_attrs]
    if len({t.value for t in finished}) < _ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def mend(journal: Path) -> None:
    """Undo what a killed driver left half done: a last line cut short, and Optuna's lock, for which it would wait."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if journal.exists():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)


def _storage(folder: Path) -> Any:
    journal = quiet_optuna().storages.journal
    # Optuna's lock is a link to this path, which must hold from wherever it is read.
    return quiet_optuna().storages.JournalStorage(journal.JournalFileBackend(str((folder / JOURNAL).absolute())))


def _pruner(search: Search, evaluations: int) -> Any:
    pruners = quiet_optuna().pruners
    if search.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    if search.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=evaluations, reduction_factor=2)
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


def _distribution(optuna: Any, bounds: tuple) -> Any:
    kind, *values = bounds
    distributions = optuna.distributions
    if kind == "choice":
        return distributions.CategoricalDistribution(list(range(len(values))))
    low, high = values
    if kind in ("float", "log"):
        return distributions.FloatDistribution(low, high, log=kind == "log")
    if kind == "power_of_two":
        return distributions.IntDistribution(low.bit_length() - 1, high.bit_length() - 1)
    return distributions.IntDistribution(low, high)
