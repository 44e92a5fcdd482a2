"""What `cassava tune` searches, written in Hydra's own grammar of sweeps: `train.lr=tag(log, interval(1e-4, 1e-2))`.

`interval(a, b)` is a number between both, `range(a, b, step)` a whole one below b, `choice(…)` one of a list;
`tag(log, …)` draws by the logarithm. Hydra's Optuna sweeper reads them alike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cassava_leaf_disease.config.load import parse_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool

_NOT_SEARCHED = ("data.split.", "data.limits.", "data.synthetic.", "paths.", "tune.", "train.resume", "train.run_dir")
_EXAMPLES = (
    "train.lr=tag(log, interval(1e-4, 1e-2)), data.sampling=choice(none, inverse), train.epochs=range(10, 40, 5)"
)


def read_space(lines: Sequence[str], config: AppConfig) -> dict[str, "BaseDistribution"]:
    """Optuna's distribution of each key, whose ends and choices `config` accepts.

    Raises:
        ConfigError: One line for each that cannot be searched.
    """
    space: dict[str, BaseDistribution] = {}
    mistakes: list[str] = []
    for line in lines:
        try:
            key, distribution = _read_line(line)
            if key.startswith(_NOT_SEARCHED):
                raise ConfigError(f"{key}: trials that differ in it do not compare; leave it out")  # noqa: TRY301
            for value in _extremes(distribution):
                configured(config, {key: value})
            if key in space:
                raise ConfigError(f"{key}: stands there twice")  # noqa: TRY301  all mistakes at once
            space[key] = distribution
        except ConfigError as error:
            mistakes.append(f"tune.space: {error}")
    if not lines:
        mistakes.append(f"tune.space=[]: nothing to search; expected such as {_EXAMPLES}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return space


def configured(config: AppConfig, values: Mapping[str, Value]) -> AppConfig:
    """The configuration with some dotted keys changed.

    Raises:
        ConfigError: There is no such key, or it does not accept the value.
    """
    from omegaconf import OmegaConf

    settings = config.model_dump(mode="json")
    for key, value in values.items():
        *path, name = key.split(".")
        section: Any = settings
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or name not in section:
            raise ConfigError(f"{key}: no such key; `cassava tune --cfg job` prints all")
        if isinstance(section[name], dict):
            raise ConfigError(f"{key}: a section; name one of its keys: {', '.join(section[name])}")
        section[name] = value
    return parse_config(OmegaConf.create(settings))


def _read_line(line: str) -> tuple[str, "BaseDistribution"]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(line)
    except HydraException as error:
        raise ConfigError(f"{line}: {str(error).splitlines()[0]}; for example {_EXAMPLES}") from None
    distribution = _distribution(override)
    if distribution is None:
        raise ConfigError(f"{line}: not a range of values; for example {_EXAMPLES}")
    return override.key_or_group, distribution


def _distribution(override: "Override") -> "BaseDistribution | None":
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([part.text if isinstance(part, QuotedString) else part for part in value.list])  # type: ignore[misc]
    try:
        if isinstance(value, IntervalSweep):
            return FloatDistribution(value.start or 0.0, value.end or 0.0, log="log" in value.tags)
        if isinstance(value, RangeSweep):
            numbers = range(int(value.start or 0), int(value.stop or 0), int(value.step))
            return IntDistribution(numbers[0], numbers[-1], step=numbers.step, log="log" in value.tags)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{override.input_line}: {str(error).rstrip('.')}; the lower end stands first") from None
    return None


def _extremes(distribution: "BaseDistribution") -> Iterable[Value]:
    """The values that show whether a key accepts all of them: both ends and a broken number, or each choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return [choice for choice in distribution.choices if choice is not None]
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101  for the type checker
    ends: list[Value] = [distribution.low, distribution.high]
    if isinstance(distribution, FloatDistribution):
        ends.append(distribution.low + (distribution.high - distribution.low) / math.e)
    return ends
