"""From one environment to the next: two on this machine, as staging and prod are."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Project, copy_checkout

pytestmark = pytest.mark.e2e

REASON = "the site is down"


class Promotion(Project):
    """A checkout whose environments qa and live are both on this machine."""

    def state_of(self, name: str) -> dict[str, Any]:
        return json.loads(self.inv("status", "--env", name, "--json").stdout)

    def artefact(self, name: str) -> str:
        return self.state_of(name)["release"]["artefact"]

    def begins(self, name: str) -> list[dict[str, Any]]:
        """Return what the journal of an environment says when runs begin."""
        path = self.state / name / "state" / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event["facts"] for event in events if event["phase"] == "begin"]

    def to(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.inv("deploy", "--env", name, *words)

    def with_database(self, path: Path) -> subprocess.CompletedProcess[str]:
        url = f"sqlite:///{path}"
        return self.inv("deploy", "--env", "qa", DATABASE_URL=url)

    def approve(self, artefact: str) -> subprocess.CompletedProcess[str]:
        return self.inv("approve", "--env", "live", "--artefact", artefact[:8])


def row(text: str, name: str, **changes: str) -> str:
    """Return the row of an environment like local, with other values."""
    made = text.replace("[local", f"[{name}").replace("port = 8050", "port = 0")
    made = made.replace('gates = ["quality"]', 'gates = ["migrations"]')
    made = made.replace("dirty = true", "dirty = false")
    for key, value in changes.items():
        before, _, after = made.partition(f"\n{key} = ")
        made = f"{before}\n{key} = {value}\n{after.partition(chr(10))[2]}"
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promotion]:
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    file = folder / "ops" / "environments.toml"
    text = file.read_text()
    local = text[text.index("[local]") : text.index("[staging]")]
    live = row(local, "live", promotes_from='"qa"', approval="true")
    file.write_text(f"{text}\n{row(local, 'qa')}\n{live}")
    with tempfile.TemporaryDirectory(prefix="mlt-") as state:
        project = Promotion(folder, Path(state))
        project.commit()
        yield project
        for name in ("qa", "live"):
            assert project.inv("down", "--env", name).returncode == 0


def test_what_the_first_one_has_passed_comes_to_the_second_by_three_commands(
    project: Promotion,
) -> None:
    early = project.to("live", "--dry-run")
    assert project.to("qa").returncode == 0
    wanted = project.artefact("qa")
    approved = project.approve(wanted)
    came = project.to("live")
    assert (early.returncode, approved.returncode, came.returncode) == (1, 0, 0)
    assert "live takes what qa has passed: qa was never given" in early.stderr
    assert "qa passed it as v1" in approved.stderr
    assert project.artefact("live") == wanted
    (begun,) = project.begins("live")
    assert begun["approval"]["how"] == "stored" and "@" in begun["approval"]["by"]
    assert (begun["promotion"]["release"], begun["promotion"]["how"]) == (1, "journal")


def test_what_it_has_not_passed_is_refused_and_costs_no_approval(
    project: Promotion,
) -> None:
    project.change()
    built = json.loads(project.inv("build", "--json").stdout)["digest"]
    before = project.begins("live")
    warned = project.approve(built)
    refused = project.to("live")
    assert "a deploy will be refused: qa was never given" in warned.stderr
    assert refused.returncode == 1, refused.stderr
    assert "inv deploy --env qa" in refused.stderr and "--emergency" in refused.stderr
    assert project.begins("live") == before
    assert project.to("qa").returncode == 0
    came = project.to("live")
    assert came.returncode == 0, came.stderr
    again = project.to("live", "--force")
    assert again.returncode == 1 and "was used before" in again.stderr


def test_an_emergency_is_let_through_and_journalled(project: Promotion) -> None:
    project.change()
    built = json.loads(project.inv("build", "--json").stdout)["digest"]
    project.approve(built)
    nothing = project.to("live", "--emergency", " ")
    came = project.to("live", "--emergency", REASON)
    assert (nothing.returncode, came.returncode) == (2, 0), came.stderr
    assert f"EMERGENCY, {REASON}: qa was never given" in came.stderr
    begun = project.begins("live")[-1]
    assert begun["reason"] == f"EMERGENCY: {REASON}"
    assert begun["promotion"]["how"] == "emergency"


def test_one_that_was_built_before_is_chosen_by_name(project: Promotion) -> None:
    first = project.begins("live")[0]["artefact"]
    project.approve(first)
    came = project.to("live", "--artefact", first[:8])
    assert came.returncode == 0, came.stderr
    assert project.artefact("live") == first
    (project.folder / "dist" / first[:12] / "gates.proof").unlink()
    unproved = project.to("live", "--artefact", first[:8], "--force")
    assert unproved.returncode == 1
    assert "not known to be green for artefact" in unproved.stderr
    (project.folder / "README.md").write_text("Not committed.\n")
    dirty = project.to("live", "--artefact", first[:8], "--force")
    subprocess.run(["git", "checkout", "-q", "."], cwd=project.folder, check=True)
    assert dirty.returncode == 1 and "1 files are not committed" in dirty.stderr


def test_what_was_rolled_back_there_comes_no_further(project: Promotion) -> None:
    left = project.artefact("qa")
    assert project.inv("rollback", "--env", "qa").returncode == 0
    project.approve(left)
    refused = project.to("live", "--artefact", left[:8])
    assert refused.returncode == 1, refused.stderr
    assert "of it was rolled back on qa" in refused.stderr


def test_a_rollback_brings_no_rotated_secret_back(
    project: Promotion, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    project.change()
    assert project.with_database(old).returncode == 0
    warm = project.state_of("qa")["current"]
    # The old address is dead from here on, as a password would be.
    old.rename(new)
    for ending in ("-wal", "-shm"):
        old.with_name(old.name + ending).rename(new.with_name(new.name + ending))
    rotated = project.with_database(new)
    plan = project.inv("rollback", "--env", "qa", "--dry-run")
    back = project.inv("rollback", "--env", "qa")
    assert (rotated.returncode, back.returncode) == (0, 0), back.stderr
    assert f"start {warm} again: DATABASE_URL changed" in plan.stderr
    after = project.state_of("qa")
    assert (after["current"], after["healthy"]) == (warm, True)
    serving = Path(f"/proc/{after['processes'][-1]}/environ").read_bytes()
    assert bytes(new) in serving and bytes(old) not in serving
    assert not old.exists()
    journal = (project.state / "qa" / "state" / "journal.jsonl").read_text()
    assert str(new) not in journal and str(old) not in journal
