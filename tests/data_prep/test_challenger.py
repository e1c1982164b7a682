"""Sentences and series: the files' forms, generated sets that give nothing away, downloads, bad input."""

import hashlib
import re

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from data_prep import DataError, booking_requests, download, sentences, sst2, trec, ucr, waves
from data_prep.__main__ import main

GUN = """#about
@problemName Gun
@equalLength true
@classLabel true draw point
@data
1,2,3:point
4,5,6.5:draw
"""


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- downloads


def test_a_download_lies_in_its_place_once_it_is_verified(tmp_path):
    source, target = tmp_path / "published", tmp_path / "new" / "file"
    source.write_text("content")
    download(source.as_uri(), target, digest("content"))
    assert target.read_text() == "content" and [p.name for p in target.parent.iterdir()] == ["file"]
    source.unlink()
    download(source.as_uri(), target, digest("content"))  # what is there is not downloaded again


@pytest.mark.parametrize("damage", ["another", "absent"])
def test_a_failed_download_names_the_address_and_keeps_what_was_there(tmp_path, damage):
    source, target = tmp_path / "published", tmp_path / "file"
    target.write_text("old")
    if damage == "another":
        source.write_text("x")
    with pytest.raises(DataError, match=f"^{re.escape(source.as_uri())} could not be downloaded"):
        download(source.as_uri(), target, digest("content"))
    assert target.read_text() == "old" and {p.name for p in tmp_path.iterdir()} <= {"file", "published"}


# ---------------------------------------------------------------- sentences


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Small files in the form of both sets' publishers: their folder."""
    files = {
        "TREC.train.all": "1 Who was\xe9 Who\n0 what is a b c\n",
        "TREC.test.all": "0 is who new\n",
        "stsa.binary.train": "1 good good film\n0 bad\n",
        "stsa.binary.dev": "0 good worse\n",
        "stsa.binary.test": "1 a film , a good one\n",
    }
    folder = tmp_path / "published"
    folder.mkdir()
    for module in (trec, sst2):
        for name in module.FILES:
            (folder / name).write_text(files[name], "latin-1" if module is trec else "utf-8")
        sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in module.FILES}
        monkeypatch.setattr(module, "FILES", sums)
    return folder


def test_sentences_are_word_numbers_by_frequency_in_the_training_part_alone(published, tmp_path):
    trec.prepare(tmp_path, published.as_uri() + "/")
    data, words = trec.load(tmp_path), trec.words(tmp_path)
    assert words == ["<padding>", "<unknown>", "who", "a", "b", "c", "is", "wasé", "what"]
    assert data["train_x"].tolist() == [[2, 7, 2, 0, 0], [8, 6, 3, 4, 5]] and data["train_y"].tolist() == [1, 0]
    assert data["test_x"].tolist() == [[6, 2, 1, 0, 0]] and data["test_y"].tolist() == [0]
    assert trec.load(tmp_path, length=2)["train_x"].tolist() == [[2, 7], [8, 6]]


def test_long_test_sentences_are_cut_to_the_longest_of_training_and_sst2_has_a_validation_part(published, tmp_path):
    sst2.prepare(tmp_path, published.as_uri() + "/")
    data = sst2.load(tmp_path)
    assert data["val_x"].tolist() == [[2, 1, 0]] and data["test_x"].tolist() == [[1, 4, 1]]
    assert data["train_x"].tolist() == [[2, 2, 4], [3, 0, 0]]


@pytest.mark.parametrize("module", [trec, sst2])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_damaged_sentences_are_an_error_with_the_remedy_and_prepare_mends_them(published, tmp_path, module, damage):
    folder = module.prepare(tmp_path, published.as_uri() + "/")
    file = folder / list(module.FILES)[-1]
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-3])
    for read in (module.load, module.words, module.checksums):
        with pytest.raises(DataError, match=rf"is (missing|corrupt).*run `python -m data_prep {module.NAME}`"):
            read(tmp_path)
    module.prepare(tmp_path, published.as_uri() + "/")
    assert len(module.load(tmp_path)["train_y"]) == 2


def test_a_line_without_a_label_is_named_and_so_is_a_length_of_nothing(tmp_path):
    file = tmp_path / "file"
    file.write_text("who was it\n")
    with pytest.raises(DataError, match=r"file must hold one `label word word …` a line.*'who'"):
        sentences.read(file)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        booking_requests.load(length=0)


@pytest.mark.parametrize(("module", "train", "test"), [(trec, (5452, 37), (500, 37)), (sst2, (6920, 52), (1821, 52))])
def test_the_publishers_files_have_their_well_known_sizes(module, train, test):
    try:
        data = module.load()
    except DataError as error:
        pytest.skip(f"needs {module.NAME}: {error}")
    assert data["train_x"].shape == train and data["test_x"].shape == test
    assert data["train_y"].unique().tolist() == list(range(len(module.CLASSES)))
    assert len(module.words()) == data["train_x"].max() + 1 and (data["test_x"] == 1).any()


def test_requests_are_the_same_each_time_all_different_and_balanced():
    data, again, words = booking_requests.load(), booking_requests.load(), booking_requests.words()
    assert all(torch.equal(data[key], again[key]) for key in data)
    both = torch.cat([data["train_x"], data["test_x"]])
    assert len(both) == 1200 == len(both.unique(dim=0)) and both.max() < len(words) and not (both == 1).any()
    assert data["train_y"].bincount().tolist() == [200] * 4 and data["test_y"].bincount().tolist() == [100] * 4


def test_single_words_tell_the_topic_of_a_request_but_not_whether_it_is_wanted():
    data, words = booking_requests.load(), booking_requests.words()
    text = {part: [" ".join(words[i] for i in x if i) for x in data[f"{part}_x"]] for part in ("train", "test")}

    def accuracy(label, pairs):
        counts = CountVectorizer(ngram_range=(1, 4 if pairs else 1), token_pattern=r"\S+").fit(text["train"])
        fitted = LogisticRegression(max_iter=500).fit(counts.transform(text["train"]), label(data["train_y"]))
        return fitted.score(counts.transform(text["test"]), label(data["test_y"]))

    topic, unwanted = (lambda y: y // 2), (lambda y: y % 2)
    assert accuracy(topic, pairs=False) > 0.99
    assert accuracy(unwanted, pairs=False) < 0.6 and accuracy(unwanted, pairs=True) > 0.95


# ---------------------------------------------------------------- series


def test_waves_are_standardised_the_same_each_time_and_of_their_shapes():
    data, again = waves.load(), waves.load()
    assert data["train_x"].shape == (160, 1, 64) and data["test_x"].shape == (400, 1, 64)
    assert all(torch.equal(data[key], again[key]) for key in data)
    assert data["train_y"].bincount().tolist() == [40] * 4
    torch.testing.assert_close(data["test_x"].mean(-1), torch.zeros(400, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(data["test_x"].std(-1, correction=0), torch.ones(400, 1))
    turns = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.25])
    expected = [[0, 1, 0, -1, 1], [1, 1, -1, -1, 1], [-1, 0, 1, 0, 0], [-1, -0.5, 0, 0.5, -0.5]]
    torch.testing.assert_close(waves._shapes(turns), torch.tensor(expected), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="noise must be >= 0, got -1"):
        waves.load(noise=-1)


def test_a_ts_file_has_values_labels_in_the_headers_order_and_names(tmp_path):
    file = tmp_path / "Gun_TRAIN.ts"
    file.write_text(GUN)
    x, y, classes = ucr.parse(file)
    assert x.tolist() == [[1, 2, 3], [4, 5, 6.5]] and y.tolist() == [1, 0] and classes == ("draw", "point")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("@data\n", ""), "must have a line `@classLabel true …`.*and a line `@data`"),
        (("@classLabel true draw point", "@classLabel false"), "must have a line `@classLabel true …`"),
        (("4,5,6.5", "4,5"), "line 7: all series must have the same length.*got 2 values after 3"),
        (("4,5,6.5", "4,5,nan"), "line 7: all series must have the same length and finite values"),
        (("1,2,3:", "1,2,3:4,5,6:"), "line 6: a univariate series without gaps"),
        (("1,2,3:", "1,?,3:"), "line 6: a univariate series without gaps"),
        (("5:draw", "5:other"), "line 7: a univariate series.*"),
        (("1,2,3:point\n4,5,6.5:draw\n", ""), "holds no series"),
    ],
)
def test_a_ts_file_of_another_form_is_an_error_that_says_where(tmp_path, change, message):
    file = tmp_path / "Gun_TRAIN.ts"
    file.write_text(GUN.replace(*change))
    with pytest.raises(DataError, match=message):
        ucr.parse(file)


@pytest.fixture
def gun(tmp_path, monkeypatch):
    """A published set of two series: the folder that it lies in."""
    folder = tmp_path / "published" / "Gun"
    folder.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        (folder / f"Gun_{part}.ts").write_text(GUN)
    monkeypatch.setattr(ucr, "SETS", {"Gun": (folder.parent.as_uri() + "/", digest(GUN), digest(GUN))})
    return folder


def test_a_ucr_set_is_downloaded_verified_and_standardised(gun, tmp_path):
    ucr.prepare(tmp_path)
    data = ucr.load(tmp_path, "Gun")
    assert data["train_x"].shape == (2, 1, 3) and data["test_y"].tolist() == [1, 0]
    torch.testing.assert_close(data["train_x"][0, 0], torch.tensor([-1.5, 0, 1.5]) * (2 / 3) ** 0.5, atol=1e-6, rtol=0)
    file = tmp_path / "ucr" / "Gun_TEST.ts"
    file.write_text(GUN[:-1])
    with pytest.raises(DataError, match=r"Gun_TEST\.ts is corrupt.*run `python -m data_prep ucr`"):
        ucr.load(tmp_path, "Gun")
    ucr.prepare(tmp_path)
    assert ucr.checksums(tmp_path, ["Gun"]) == {f"ucr/Gun_{part}.ts": digest(GUN) for part in ("TRAIN", "TEST")}


def test_an_unknown_ucr_set_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown UCR set 'Guns'; there are ACSF1, .*GunPoint"):
        ucr.load(name="Guns")


def test_a_series_that_never_changes_becomes_zero():
    assert ucr.standardised(torch.full((2, 5), 3.0)).tolist() == [[0.0] * 5] * 2


@pytest.mark.parametrize("name", ucr.SETS)
def test_the_publishers_series_are_as_the_archive_describes_them(name):
    known = {"SyntheticControl": (300, 300, 60, 6), "GunPoint": (50, 150, 150, 2), "ECG200": (100, 100, 96, 2)}
    try:
        data = ucr.load(name=name)
    except DataError as error:
        pytest.skip(f"needs {name}: {error}")
    found = len(data["train_y"]), len(data["test_y"]), data["test_x"].shape[-1], int(data["test_y"].max()) + 1
    assert found == known.get(name, found) and data["train_y"].unique().tolist() == list(range(found[3]))


def test_generated_text_and_series_are_ready_without_a_download(tmp_path, capsys):
    assert main(["booking_requests", "waves", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "booking_requests: ready\nwaves: ready\n"
