"""MNIST is read or downloaded, verified against the published checksums, and split by the seed."""

import gzip
import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from neuralode.data.download import find_file
from neuralode.data.mnist import FASHION_MNIST, MNIST, Source, fashion_mnist, mnist

HOME = os.environ.get("NEURALODE_DATA")


real = pytest.mark.skipif(
    HOME is None or not (Path(HOME) / "mnist").is_dir(),
    reason="NEURALODE_DATA names no folder with mnist/: the images are read from there",
)
# Published number of images of each digit.
LEARNED = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
REPORTED = torch.tensor([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])

CONTENT = gzip.compress(b"what was published", mtime=0)
MD5 = md5(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9/"  # the port of the discard service, which does not answer


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@contextmanager
def served(folder: Path):
    """Serve the folder at a local URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache, with NEURALODE_DATA unset."""
    monkeypatch.delenv("NEURALODE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache"


@pytest.fixture
def site(tmp_path):
    """Return a folder with one file, to be served."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "some.gz").write_bytes(CONTENT)
    return tmp_path / "site"


def histogram(part) -> torch.Tensor:
    return torch.bincount(part.tensors[1], minlength=10)


@pytest.fixture(scope="module")
def split():
    return mnist()


@real
def test_counts_and_labels_are_those_published(split):
    assert [len(part) for part in (split.train, split.validation, split.test)] == [55_000, 5_000, 10_000]
    assert torch.equal(histogram(split.train) + histogram(split.validation), LEARNED)
    assert torch.equal(histogram(split.test), REPORTED)


@real
def test_images_are_floats_between_zero_and_one_with_the_published_mean(split):
    for part in (split.train, split.validation, split.test):
        images, labels = part.tensors
        assert images.shape == (len(part), 1, 28, 28)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert (images.min(), images.max()) == (0, 1)
    learned = torch.cat([split.train.tensors[0], split.validation.tensors[0]])
    assert float(learned.double().mean()) == pytest.approx(0.1307, abs=5e-5)  # the usual constants for MNIST
    assert float(learned.double().std()) == pytest.approx(0.3081, abs=5e-5)


@real
def test_an_image_keeps_its_label(split):
    """Compare class means: that of a class in the training set is closest to that of the same class in the test set."""

    def means(part):
        images, labels = part.tensors
        return torch.stack([images[labels == digit].mean(0).flatten() for digit in range(10)])

    assert torch.cdist(means(split.train), means(split.test)).argmin(1).tolist() == list(range(10))


@real
def test_the_split_is_disjoint_and_stratified(split):
    def rows(part):
        return {image.numpy().tobytes() for image in part.tensors[0]}

    assert not rows(split.train) & rows(split.validation)
    assert (histogram(split.validation) - LEARNED / 12).abs().max() <= 1


@real
def test_the_seed_decides_the_validation_set_and_not_the_test_set(split):
    again, other = mnist(0), mnist(1, validation=1000)
    assert torch.equal(again.validation.tensors[0], split.validation.tensors[0])
    assert len(other.validation) == 1000
    assert not torch.equal(other.validation.tensors[0], split.validation.tensors[0][:1000])
    assert torch.equal(other.test.tensors[0], split.test.tensors[0])


@real
def test_fashion_mnist_has_the_same_form_and_another_folder(tmp_path, monkeypatch, split):
    """Use the digits instead of the clothes, with their checksums."""
    shutil.copytree(Path(str(HOME)) / "mnist", tmp_path / "fashion-mnist")
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path))
    monkeypatch.setattr("neuralode.data.mnist.FASHION_MNIST", Source("fashion-mnist", (), MNIST.md5))
    assert torch.equal(fashion_mnist().validation.tensors[0], split.validation.tensors[0])


@real
def test_digits_are_rejected_as_fashion_mnist(tmp_path, monkeypatch):
    shutil.copytree(Path(str(HOME)) / "mnist", tmp_path / "fashion-mnist")
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz has the md5 f68b3c2d.*; wanted 8d4fb7e6"):
        fashion_mnist()


@pytest.mark.parametrize("validation", [-1, 0, 9, 59_991, 60_000])
def test_a_validation_set_too_small_for_every_class_is_rejected(validation):
    with pytest.raises(ValueError, match=f"validation is {validation}; wanted a number of images from 10 to 59,990"):
        mnist(validation=validation)


@real
def test_a_file_with_another_checksum_is_rejected(tmp_path, monkeypatch):
    shutil.copytree(Path(str(HOME)) / "mnist", tmp_path / "mnist", copy_function=os.symlink)
    labels = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.unlink()
    labels.write_bytes(CONTENT)
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"train-labels-idx1-ubyte.gz has the md5 {MD5}; wanted d53e105e"):
        mnist()


@real
def test_all_four_files_are_downloaded_to_the_cache(cache, monkeypatch, split):
    with served(Path(str(HOME)) / "mnist") as url:
        monkeypatch.setattr("neuralode.data.mnist.MNIST", Source("mnist", (url,), MNIST.md5))
        found = mnist()
    assert torch.equal(found.train.tensors[0], split.train.tensors[0])
    assert sorted(path.name for path in (cache / "neuralode" / "mnist").iterdir()) == sorted(MNIST.md5)


def test_without_files_and_network_the_error_names_variable_and_url(cache, monkeypatch):
    monkeypatch.setattr("neuralode.data.mnist.FASHION_MNIST", Source("fashion-mnist", (NOWHERE,), FASHION_MNIST.md5))
    with pytest.raises(
        FileNotFoundError, match="NEURALODE_DATA is not set, and .* downloaded from http://127.0.0.1:9/"
    ):
        fashion_mnist()


def test_a_local_file_is_used_without_a_download(cache, site, tmp_path, monkeypatch):
    shutil.copytree(site, tmp_path / "home" / "set")
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path / "home"))
    assert find_file("set", "some.gz", MD5, [NOWHERE]) == tmp_path / "home" / "set" / "some.gz"
    assert not cache.exists()


def test_a_file_is_downloaded_once_and_then_found_in_the_cache(cache, site, monkeypatch, tmp_path):
    monkeypatch.setenv("NEURALODE_DATA", str(tmp_path / "empty home"))
    with served(site) as url:
        path = find_file("set", "some.gz", MD5, [url])
    assert path == cache / "neuralode" / "set" / "some.gz"
    assert path.read_bytes() == CONTENT
    assert find_file("set", "some.gz", MD5, [url]) == path  # the server has stopped


def test_the_next_mirror_is_used_where_one_fails(cache, site):
    with served(site) as url:
        assert find_file("set", "some.gz", MD5, [NOWHERE, f"{url}nothing/here/", url]).read_bytes() == CONTENT


def test_a_download_with_another_checksum_is_rejected_and_not_stored(cache, site):
    (site / "some.gz").write_bytes(CONTENT + b"!")
    with served(site) as url, pytest.raises(FileNotFoundError, match=f"some.gz .*does not match.*{MD5}"):
        find_file("set", "some.gz", MD5, [url])
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_damaged_file_in_the_cache_is_downloaded_again(cache, site):
    with served(site) as url:
        path = find_file("set", "some.gz", MD5, [url])
        path.write_bytes(b"spoilt")
        assert find_file("set", "some.gz", MD5, [url]).read_bytes() == CONTENT


def test_the_error_names_every_mirror(cache):
    with pytest.raises(
        FileNotFoundError, match="127.0.0.1:9/a/some.gz .* nor from http://127.0.0.1:9/b/some.gz"
    ) as error:
        find_file("set", "some.gz", MD5, [f"{NOWHERE}a/", f"{NOWHERE}b/"])
    assert "NEURALODE_DATA should name a folder that holds set/some.gz" in str(error.value)
