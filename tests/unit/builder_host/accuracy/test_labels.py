"""Label files in the forms that people have, folders per class, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.cases import DATA

from builder_host.accuracy.labels import class_names, folder_labels, labels_of, load_classes
from builder_host.calibration.batches import open_data
from builder_host.calibration.preprocessing import Preprocessing, load_preprocessing
from builder_host.errors import BuilderError
from builder_host.network.network import Network

NAMES = ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG", "val/b c.png"]


def pictures(folder, names, limit=None):
    network = Network()
    network.add_input("x", (1, 1, 2, 2))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / name)
    return open_data(folder, network, preprocessing=Preprocessing(channels="gray"), limit=limit)


@pytest.fixture
def samples(tmp_path):
    return pictures(tmp_path / "data", NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.txt", "ILSVRC2012_val_00000001.JPEG 65\nILSVRC2012_val_00000002.JPEG 970\n"
                    "b c.png 3\n"),
        ("val.txt", "\ufeff# picture class\nval/ILSVRC2012_val_00000001.JPEG\t65\n"
                    "./val/ILSVRC2012_val_00000002.JPEG\t970\nb c.png\t3\n"),
        ("synsets.txt", "ILSVRC2012_val_00000001 n01751748\nILSVRC2012_val_00000002 n09193705\n"
                        "b c n01491361\n"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\n"
                                 "ILSVRC2012_val_00000001,n01751748 111 108 354 450\n"
                                 "ILSVRC2012_val_00000002,n09193705 1 2 3 4 n09193705 5 6 7 8\n"
                                 "b c,n01491361 0 0 1 1\n"),
        ("l.csv", 'label,path\n65,val\\ILSVRC2012_val_00000001.JPEG\n"alp",val/'
                  'ILSVRC2012_val_00000002.JPEG\n3,"val/b c.png"\n'),
        ("names.csv", "ILSVRC2012_val_00000001.JPEG, sea snake\n"
                      "ILSVRC2012_val_00000002.JPEG, alp\nb c.png, tiger shark\n"),
        ("order.txt", "65\n970\n3\n"),
    ],
)  # fmt: skip
def test_usual_forms(tmp_path, samples, name, text):
    classes = load_classes(DATA / "labels/imagenet_synset_words.txt")
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [p.name for p in samples.paths] == [n.split("/")[1] for n in NAMES]
    assert labels_of(samples, tmp_path / name, classes) == [65, 970, 3]


def test_numbers_may_count_from_one(tmp_path, samples):
    (tmp_path / "l.txt").write_text("1 2 3")
    (tmp_path / "n.txt").write_text("1\n2\n3\n")
    np.save(tmp_path / "a.npy", np.array([1, 2, 3]))
    for name in ("n.txt", "a.npy"):
        assert labels_of(samples, tmp_path / name, offset=-1) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b c.png 1\nb c.png 2\n", "l.txt:2: 'b c.png' is listed twice, as '1' and '2'"),
        ("b c.png 1\n", "no label for picture 'ILSVRC2012_val_00000001.JPEG'"),
        ("1\n2\n", "2 labels for 3 samples"),
        ("1\n2\n3\n4\n", "4 labels for 3 samples"),
        ("a b\nb c.png,\n", "l.txt:2: 'b c.png ' is not a picture and its class"),
        ("1\n2\ncrane bird\n", "l.txt:1: '1' is not a picture and its class"),
        ("1\n2\ncrane\n", "l.txt:3: 'crane' names several classes"),
        ("1\n2\nunicorn\n", "l.txt:3: class 'unicorn' is no number and not in --classes"),
    ],
)
def test_what_is_refused(tmp_path, samples, text, message):
    classes = load_classes(DATA / "labels/imagenet_synset_words.txt")
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(BuilderError) as error:
        labels_of(samples, tmp_path / "l.txt", classes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.json", "[" * 100_000, "cannot read the labels"),
        ("l.csv", f"a.png,{'1' * 200_000}\n", "l.csv:1: field larger than field limit"),
    ],
)
def test_hostile_text(tmp_path, samples, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(BuilderError, match=message):
        labels_of(samples, tmp_path / name)
    if name.endswith("json"):
        for read in (load_classes, load_preprocessing):
            with pytest.raises(BuilderError, match="cannot read the"):
                read(tmp_path / name)


def test_one_name_for_two_pictures_needs_their_folders(tmp_path):
    samples = pictures(tmp_path / "data", ["a/1.png", "b/1.png"])
    (tmp_path / "l.txt").write_text("1.png 3\n")
    with pytest.raises(BuilderError, match=r"'1.png' is the name of 2 pictures"):
        labels_of(samples, tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("a/1.png 3\nb/1.png 4\n")
    assert labels_of(samples, tmp_path / "l.txt") == [3, 4]


def test_the_first_of_many_pictures(tmp_path):
    samples = pictures(tmp_path / "data", NAMES, limit=2)
    (tmp_path / "l.txt").write_text("7\n8\n9\n")
    assert labels_of(samples, tmp_path / "l.txt") == [7, 8]


def test_a_folder_per_class(tmp_path):
    samples = pictures(tmp_path / "s", ["n01440764/x.png", "n01491361/y/z.png", "n01491361/w.png"])
    classes = load_classes(DATA / "labels/imagenet_synset_words.txt")
    assert folder_labels(samples, classes, num_classes=1000) == [0, 3, 3]
    assert folder_labels(samples, num_classes=2) == [0, 1, 1]
    with pytest.raises(BuilderError, match="2 folders for 1000 classes; name the classes"):
        folder_labels(samples, num_classes=1000)
    with pytest.raises(BuilderError, match="folder 'n01440764': class 'n01440764' is no number"):
        folder_labels(samples, class_names(["cat", "dog"]), num_classes=2)
    numbered = pictures(tmp_path / "n", ["1/x.png", "12/y.png"])
    assert folder_labels(numbered, num_classes=1000, offset=-1) == [0, 11]
    loose = pictures(tmp_path / "l", ["x.png"])
    with pytest.raises(BuilderError, match="not in the folder of a class"):
        folder_labels(loose, num_classes=2)


def test_classes_in_json(tmp_path):
    file = tmp_path / "index.json"
    file.write_text(json.dumps({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}))
    classes = load_classes(file)
    assert [classes.number_of(n, "") for n in ("n01443537", "goldfish", "tench")] == [1, 1, 0]
    file.write_text(json.dumps(["tench", "goldfish"]))
    assert load_classes(file).number_of("goldfish", "") == 1
