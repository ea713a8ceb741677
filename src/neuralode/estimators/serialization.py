"""Save fitted estimators to a folder and load them. Loading never unpickles.

::

    estimator.json                  class, parameters, fitted attributes other than tensors, versions
    weights-<digest>.safetensors    tensors

``estimator.json`` names its tensor file and is replaced last, so a reader finds either the old estimator or the new
one.
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
from torch import Tensor

from neuralode.estimators.isolation import default_float32, forked_rng
from neuralode.training.run import versions, write_json

FORMAT = 1
FILE = "estimator.json"
PACKAGES = ("neuralode", "torch", "numpy", "scikit-learn")  # whose versions are saved

Tensors = Mapping[str, Tensor]


class SavedEstimator(BaseEstimator):
    """An estimator that can be saved to a folder and loaded from it.

    Subclasses implement `_fitted_state` and `_restore`.
    """

    def save(self, folder: str | Path) -> None:
        """Save the fitted estimator to a folder as JSON and safetensors.

        Parameters
        ----------
        folder : path
            Created if it does not exist. An estimator that it holds is replaced.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            For parameters that JSON cannot hold; nothing is written. A ``random_state`` that is a generator is saved
            as None.
        """
        check_is_fitted(self)
        config, tensors = self._fitted_state()
        names = {"feature_names": getattr(self, "feature_names_in_", None)}
        save_estimator(folder, self, config={**names, **config}, tensors=tensors)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load an estimator that `save` wrote. It predicts the same bits; nothing in the folder is executed.

        Parameters
        ----------
        folder : path
            The folder that was given to `save`.

        Raises
        ------
        FileNotFoundError
            If the folder holds no estimator, or its tensors are missing.
        ValueError
            If the folder holds another kind of estimator or a newer format, or if a file is damaged.
        """
        config, tensors = load_estimator(folder, cls)
        try:
            loaded = cls(**config["params"])
            if config["feature_names"] is not None:
                # type checkers see a read-only property of the base class
                vars(loaded)["feature_names_in_"] = np.array(config["feature_names"], dtype=object)
            # The initial weights are replaced: do not advance the global random generators for them.
            with default_float32(), forked_rng(0):
                loaded._restore(config, tensors)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not hold what {cls.__name__}.save() wrote: {error}.") from error
        return loaded

    def _fitted_state(self) -> tuple[dict[str, Any], Tensors]:
        """Return the fitted attributes: those for JSON, and tensors by name."""
        raise NotImplementedError

    def _restore(self, config: dict[str, Any], tensors: Tensors) -> None:
        """Set the fitted attributes from what `_fitted_state` returned."""
        raise NotImplementedError


def save_estimator(
    folder: str | Path, estimator: BaseEstimator, *, config: Mapping[str, Any], tensors: Tensors
) -> None:
    """Save an estimator to a folder, replacing one that it holds.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    estimator : BaseEstimator
        Its class name and parameters are saved; a random generator among them becomes None.
    config : mapping
        Fitted attributes that JSON can hold. Numbers and arrays of numpy become plain numbers and lists.
    tensors : mapping of str to Tensor
        Fitted attributes that are tensors.

    Raises
    ------
    TypeError
        For parameters or ``config`` that JSON cannot hold; nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> from torch import nn
    >>> class Model(BaseEstimator):
    ...     def __init__(self, size=2):
    ...         self.size = size
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_estimator(folder, Model(), config={"names": ["a", "b"]}, tensors=nn.Linear(2, 1).state_dict())
    ...     config, tensors = load_estimator(folder, Model)
    >>> config, sorted(tensors)
    ({'names': ['a', 'b'], 'params': {'size': 2}}, ['bias', 'weight'])
    """
    folder = Path(folder)
    # safetensors refuses tensors that share memory: copy them
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    weights = folder / _weights_name(content)
    saved = {
        "estimator": type(estimator).__name__,
        "format": FORMAT,
        "params": to_json(estimator.get_params(deep=False)),
        "config": to_json(config),
        "weights": weights.name,
        "versions": versions(*PACKAGES),
    }
    try:
        json.dumps(saved)
    except TypeError as error:
        raise TypeError(f"{type(estimator).__name__} has something that JSON cannot hold: {error}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    partial = weights.with_name(weights.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, weights)
    write_json(folder / FILE, saved)
    for old in folder.glob("weights-*.safetensors"):
        if old != weights:
            old.unlink(missing_ok=True)


def load_estimator(folder: str | Path, kind: type[BaseEstimator]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the ``config`` that `save_estimator` was given, with ``"params"`` added, and the tensors.

    Parameters
    ----------
    folder : path
        The folder of the estimator.
    kind : class
        The expected class.

    Raises
    ------
    FileNotFoundError
        If the folder holds no estimator, or its tensors are missing.
    ValueError
        If the folder holds another kind of estimator or a newer format, or if a file is damaged.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no estimator: it has no {FILE}.")
    try:
        saved = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}; wanted it as save() wrote it.") from error
    _check_entries(saved, file, ("estimator", "format"))
    if saved["estimator"] != kind.__name__:
        raise ValueError(f"{folder} holds a {saved['estimator']}; wanted a {kind.__name__}.")
    if saved["format"] > FORMAT:
        raise ValueError(f"{folder} has format {saved['format']}; this version of neuralode reads up to {FORMAT}.")
    _check_entries(saved, file, ("config", "params", "weights"))
    return {**saved["config"], "params": saved["params"]}, load(_read_weights(file.parent / saved["weights"]))


def _check_entries(saved: Any, file: Path, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not isinstance(saved, dict) or name not in saved]
    if missing:
        raise ValueError(f"{file} is damaged: it has no {missing[0]!r}; wanted it as save() wrote it.")


def _read_weights(weights: Path) -> bytes:
    """Return the content of a tensor file, verified against the digest in its name."""
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} does not exist; wanted the tensors of the estimator as save() wrote them.")
    content = weights.read_bytes()
    if weights.name != _weights_name(content):
        raise ValueError(
            f"{weights} is damaged: its content does not match the digest in its name; wanted it as save() wrote it."
        )
    return content


def _weights_name(content: bytes) -> str:
    return f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def to_json(value: Any) -> Any:
    """Return ``value`` with numpy's types and tuples replaced by those of JSON, and random generators by None.

    Examples
    --------
    >>> to_json({"mean": np.arange(2.0), "steps": np.int64(3), "random_state": np.random.RandomState(0)})
    {'mean': [0.0, 1.0], 'steps': 3, 'random_state': None}
    """
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value
