"""Japanese Vowels: identify which of nine men utters two vowels [1]_, from 640 series of 12 channels and 7 to 29 steps.

The files are those of the package aeon, in which series have their original lengths. They are read without importing
aeon, so its dependencies are not needed.

References
----------
.. [1] M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through regions", Pattern
   Recognition Letters 20, 1999. https://doi.org/10.24432/C5NS47
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

FOLDER = Path("datasets", "data", "JapaneseVowels")
INSTALL = "pip install --no-deps aeon==1.6.0"


@dataclass(frozen=True, eq=False)
class Vowels:
    """Utterances with their speakers.

    Attributes
    ----------
    series : list of arrays [steps, 12]
        LPC cepstrum coefficients of 7 to 29 frames of equal length.
    speakers : array [series]
        Speakers, from 1 to 9.
    """

    series: list[Float64[np.ndarray, "steps 12"]]
    speakers: Int64[np.ndarray, " series"]

    def __len__(self) -> int:
        return len(self.series)


def japanese_vowels() -> tuple[Vowels, Vowels]:
    """Return the published training set of 270 utterances, and the test set of 370.

    Raises
    ------
    ImportError
        If the files of aeon are not installed.

    Examples
    --------
    >>> train, test = japanese_vowels()  # doctest: +SKIP
    >>> len(train), len(test), train.series[0].shape  # doctest: +SKIP
    (270, 370, (20, 12))
    """
    spec = find_spec("aeon")
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations:
        raise ImportError(f"aeon, which has Japanese Vowels, is not installed; {INSTALL} brings its files.")
    folder = Path(locations[0]) / FOLDER
    train, test = (folder / f"JapaneseVowels_{part}.ts" for part in ("TRAIN", "TEST"))
    for file in (train, test):
        if not file.is_file():
            raise ImportError(f"the aeon that is installed has no {file.name}; {INSTALL} brings it.")
    return parse_ts(train.read_text()), parse_ts(test.read_text())


def parse_ts(text: str) -> Vowels:
    r"""Read the ``.ts`` format: after a header that ends with @data, a line for each series.

    Channels are separated by colons, and the label comes last.

    Examples
    --------
    >>> vowels = parse_ts("# who speaks\n@classLabel true 1 2\n@data\n1,2,3:4,5,?:2\n6:7:1\n")
    >>> vowels.series[0].tolist(), vowels.speakers.tolist()
    ([[1.0, 4.0], [2.0, 5.0], [3.0, nan]], [2, 1])
    """
    lines = [line.strip() for line in text.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.lower() == "@data") + 1
    rows = [line.split(":") for line in lines[start:] if line]
    series = [np.array([_parse_numbers(channel) for channel in channels]).T for *channels, _ in rows]
    return Vowels(series, np.array([int(label) for *_, label in rows]))


def _parse_numbers(channel: str) -> list[float]:
    return [np.nan if number == "?" else float(number) for number in channel.split(",")]
