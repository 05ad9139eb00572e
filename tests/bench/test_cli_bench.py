"""`flowerfast bench` as a user meets it."""

import json
from pathlib import Path

import pytest

TINY = (
    "--set", "model.name=test_resnet", "--set", "data.image_size=32", "--set", "train.batch_size=4",
    "--set", "data.kernels=torchvision", "--set", "train.device=cpu", "--backend", "cpu",
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("short_rounds")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines shall not wrap."""
    monkeypatch.setenv("COLUMNS", "200")


def test_tables_verdict_and_json(cli, photo_folder, tmp_path):
    code, out, _ = cli("bench", photo_folder(), "--quick", *TINY, "--json", "now.json")
    assert code == 0
    result = json.loads((tmp_path / "now.json").read_text())
    for text in ("decode", "crop+resize", "cpu, ram cache", "training step", "15 photos"):
        assert text in out
    assert f"verdict: {result['verdict']['findings'][0]}" in out

    code, again, err = cli("bench", "--from", "now.json")
    assert (code, err) == (0, "")
    assert again == out  # measures nothing anew

    code, text, _ = cli("bench", "--from", "now.json", "--json", "-")
    assert code == 0
    assert json.loads(text) == result


def test_one_suite(cli, photo_folder):
    code, text, _ = cli("bench", photo_folder(), "--quick", "--suite", "stages", *TINY, "--json", "-")
    assert code == 0
    assert {"stages", "loader", "model", "train"} & {*json.loads(text)} == {"stages"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "speed"), "--suite speed: no such suite; give any of stages, loader, model, train"),
        (("--set", "data.worker=2"), "did you mean 'data.workers'?"),
        (("--set", "model.name=resnet1800"), "resnet1800"),
        (("--from", "absent.json"), "absent.json"),
        (("--compare", "absent.json"), "absent.json"),
    ],
)
def test_bad_input_is_one_line(cli, photo_folder, arguments, said):
    where = () if arguments[0] == "--from" else (photo_folder(),)
    code, out, err = cli("bench", *where, "--quick", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_what_is_no_result_is_refused(cli, tmp_path):
    for content in ("{", "[]", "{}", '{"kind": "bench", "schema": 1}'):
        Path(tmp_path / "other.json").write_text(content)
        code, _, err = cli("bench", "--from", "other.json")
        assert code == 2
        assert err.startswith("flowerfast: error: other.json: ")
        assert err.count("\n") == 1


def test_a_folder_and_an_earlier_result_are_one_too_many(cli, photo_folder):
    assert cli("bench", photo_folder(), "--from", "x.json")[0] == 2
