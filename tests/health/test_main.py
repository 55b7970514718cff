"""A person or a hook takes a service out of traffic by a command."""

import pytest

from mltrading_health import Health
from mltrading_health.__main__ import RUNTIME, main


def test_drain_and_undrain_are_seen_by_the_service(tmp_path, capsys):
    service = Health("dashboard", runtime_dir=tmp_path)
    environ = {RUNTIME: str(tmp_path)}
    for verb, away in (
        ("drain", True),
        ("drain", True),
        ("undrain", False),
        ("undrain", False),
    ):
        assert main([verb], environ) == 0
        assert service.draining is away
    assert "503 draining" in capsys.readouterr().out


def test_the_folder_can_be_named(tmp_path):
    assert main(["drain", "--runtime-dir", str(tmp_path)], {}) == 0
    assert (tmp_path / "drain").exists()


@pytest.mark.parametrize("arguments", [["drain"], ["stop"], []])
def test_what_is_no_question_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments, {})
    assert ended.value.code == 2


def test_without_the_folder_it_says_so(tmp_path, capsys):
    gone = tmp_path / "gone"
    assert main(["drain"], {RUNTIME: str(gone)}) == 1
    assert capsys.readouterr().err == f"{gone}: No such file or directory\n"
