"""Keep a fitted estimator in a folder of plain files; reading one back never unpickles.

::

    estimator.json              which estimator, its parameters, what it learned besides tensors, versions
    weights-<digest>.safetensors

The JSON names the tensors that belong to it and is replaced last: whoever reads finds the old estimator or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.torch import load, save
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from neuralode.estimators.series_classifier.training import own_random_state, single_precision
from neuralode.training.run import versions, write_json

FORMAT = 1
FILE = "estimator.json"


class Keepable(BaseEstimator):
    """An estimator that keeps what it learned in a folder, and is read back from there.

    Each says by `_learned` what it keeps, and by `_take` how it takes that back.
    """

    def save(self, folder: str | Path) -> None:
        """Keep it in a folder: JSON and safetensors. A random state is kept if it is a number."""
        check_is_fitted(self)
        config, learned = self._learned()
        save_estimator(folder, self, {"feature_names": getattr(self, "feature_names_in_", None), **config}, learned)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` kept: it answers with the same bits. Nothing in the folder is executed."""
        config, tensors = load_estimator(folder, cls)
        try:
            loaded = cls(**config["params"])
            if config["feature_names"] is not None:
                # a property of the base class as type checkers see it
                vars(loaded)["feature_names_in_"] = np.array(config["feature_names"], dtype=object)
            with (
                single_precision(),
                own_random_state(0),
            ):  # the first weights are replaced: nobody's random numbers should go into them
                loaded._take(config, tensors)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not hold what {cls.__name__}.save() wrote: {error}.") from error
        return loaded

    def _learned(self) -> tuple[dict[str, Any], nn.Module | Mapping[str, Tensor]]:
        """What was learned: as JSON has it, and as tensors."""
        raise NotImplementedError

    def _take(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take that back."""
        raise NotImplementedError


def save_estimator(
    folder: str | Path, estimator: BaseEstimator, config: Mapping[str, Any], module: nn.Module | Mapping[str, Tensor]
) -> None:
    """Keep ``estimator``; what the folder held before of this kind is replaced.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    estimator : BaseEstimator
        Its class name and its parameters are kept; of a random state only a number is: a generator becomes None.
    config : mapping
        What else it learned, as JSON: numbers, text, lists, mappings. Numpy's numbers and arrays become plain ones.
    module : Module or mapping of tensors
        What it learned as tensors.

    Raises
    ------
    TypeError
        For parameters or ``config`` that JSON cannot hold; nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> class Nothing(BaseEstimator):
    ...     def __init__(self, size=2):
    ...         self.size = size
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_estimator(folder, Nothing(), {"names": ["a", "b"]}, nn.Linear(2, 1))
    ...     config, tensors = load_estimator(folder, Nothing)
    >>> config, sorted(tensors)
    ({'names': ['a', 'b'], 'params': {'size': 2}}, ['bias', 'weight'])
    """
    folder = Path(folder)
    found = module.state_dict() if isinstance(module, nn.Module) else module
    # copies: of tensors that share memory safetensors would refuse to keep both
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()})
    weights = folder / _named(content)
    kept = {
        "estimator": type(estimator).__name__,
        "format": FORMAT,
        "params": plain(estimator.get_params(deep=False)),
        "config": plain(config),
        "weights": weights.name,
        "versions": versions("neuralode", "torch", "numpy", "scikit-learn"),
    }
    try:
        json.dumps(kept)
    except TypeError as error:
        raise TypeError(f"{type(estimator).__name__} has something that JSON cannot hold: {error}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    partial = weights.with_name(weights.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, weights)
    write_json(folder / FILE, kept)
    for old in folder.glob("weights-*.safetensors"):
        if old != weights:
            old.unlink(missing_ok=True)


def load_estimator(folder: str | Path, kind: type[BaseEstimator]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `save_estimator` was given: its ``config``, with ``"params"`` added, and the tensors.

    Parameters
    ----------
    folder : path
        Where it is kept.
    kind : class
        What it has to be.

    Raises
    ------
    FileNotFoundError
        Where no estimator is kept.
    ValueError
        Where another kind is, or one of a later format; or where a file is not what was written.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no estimator: it has no {FILE}.")
    try:
        kept = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}; wanted it as save() wrote it.") from error
    _check_entries(kept, file, "estimator", "format")
    if kept["estimator"] != kind.__name__:
        raise ValueError(f"{folder} holds a {kept['estimator']}; wanted a {kind.__name__}.")
    if kept["format"] > FORMAT:
        raise ValueError(f"{folder} has format {kept['format']}; this version of neuralode reads up to {FORMAT}.")
    _check_entries(kept, file, "config", "params", "weights")
    return {**kept["config"], "params": kept["params"]}, load(_undamaged(file.parent / kept["weights"]))


def _check_entries(kept: Any, file: Path, *names: str) -> None:
    missing = [name for name in names if not isinstance(kept, dict) or name not in kept]
    if missing:
        raise ValueError(f"{file} is damaged: it has no {missing[0]!r}; wanted it as save() wrote it.")


def _undamaged(weights: Path) -> bytes:
    """What is in the file, which its name says a digest of."""
    if not weights.is_file():
        raise FileNotFoundError(f"{weights.parent} has lost {weights.name}, the tensors of the estimator.")
    content = weights.read_bytes()
    if weights.name != _named(content):
        raise ValueError(f"{weights} is damaged: its content is not what its name says; wanted it as save() wrote it.")
    return content


def _named(content: bytes) -> str:
    return f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def plain(value: Any) -> Any:
    """Return ``value`` as JSON has it.

    Examples
    --------
    >>> plain({"mean": np.arange(2.0), "steps": np.int64(3), "random_state": np.random.RandomState(0)})
    {'mean': [0.0, 1.0], 'steps': 3, 'random_state': None}
    """
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value
