"""Optuna's tree-structured Parzen estimator, seeded by the number of the trial.

So processes that start together draw different settings, and a search that was cut off does not draw again what it
drew at its start, while one process with the same seed always draws the same.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import optuna

_RANDOM_TRIALS: Final = 8  # before the estimator has enough to go by


def make_sampler(seed: int) -> "optuna.samplers.BaseSampler":
    """Bergstra et al., 2011; trials that still run count as bad ones, so that processes do not crowd."""
    import optuna

    class SeededByTrial(optuna.samplers.BaseSampler):
        """A sampler of its own for each trial; made by one process for one trial after another."""

        def __init__(self) -> None:
            self._current: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler()

        def before_trial(self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
            self._current = optuna.samplers.TPESampler(
                seed=(1_000_003 * seed + trial.number) % 2**32, constant_liar=True, n_startup_trials=_RANDOM_TRIALS
            )

        def infer_relative_search_space(
            self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial"
        ) -> dict[str, "optuna.distributions.BaseDistribution"]:
            return self._current.infer_relative_search_space(study, trial)

        def sample_relative(
            self,
            study: "optuna.Study",
            trial: "optuna.trial.FrozenTrial",
            search_space: dict[str, "optuna.distributions.BaseDistribution"],
        ) -> dict[str, Any]:
            return self._current.sample_relative(study, trial, search_space)

        def sample_independent(
            self,
            study: "optuna.Study",
            trial: "optuna.trial.FrozenTrial",
            param_name: str,
            param_distribution: "optuna.distributions.BaseDistribution",
        ) -> Any:  # noqa: ANN401  as Optuna declares it
            return self._current.sample_independent(study, trial, param_name, param_distribution)

    return SeededByTrial()
