"""The artefact: built once, the same wherever it is built, whole or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ops import artefact, errors, provenance, reproduction
from ops.artefact import build
from ops.release import Schema
from tests.ops.checkouts import checkout, commit, must, write

INIT = "packages/health/src/mltrading_health/__init__.py"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = commit(checkout(tmp_path_factory.mktemp("original")))
    build(root, full=False)
    return root


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tree")


@pytest.mark.integration
def test_the_manifest_names_every_file_with_its_digest(tree: Path) -> None:
    made = build(tree, full=False)
    manifest = artefact.verify(made.path)
    assert set(manifest["files"]) == {
        "mltrading_dashboard-0.1.0-py3-none-any.whl",
        "mltrading_health-0.1.0-py3-none-any.whl",
        "mltrading_marketdata-0.1.0-py3-none-any.whl",
        "provenance.json",
        "requirements.txt",
    }
    assert made.path.name == made.digest[:12] == manifest["digest"][:12]
    assert manifest["commit"] == made.commit and not manifest["dirty"]


@pytest.mark.integration
def test_another_place_gives_the_same_bytes(tree: Path, original: Path) -> None:
    shutil.rmtree(tree / "dist")
    for file in tree.rglob("*.py"):
        file.touch()
    assert build(tree, full=False).digest == build(original, full=False).digest


@pytest.mark.integration
def test_nothing_changed_builds_nothing(tree: Path) -> None:
    assert build(tree, full=False).reused


@pytest.mark.integration
def test_one_changed_package_gives_another_artefact(tree: Path) -> None:
    before = build(tree, full=False)
    write(tree, INIT, "X = 1\n")
    after = build(tree, full=False, allow_dirty=True)
    assert before.digest != after.digest and not after.reused
    kept = [
        wheel.name
        for wheel in after.wheels
        if wheel.read_bytes() == (before.path / wheel.name).read_bytes()
    ]
    assert len(kept) == 2
    assert artefact.verify(before.path)


@pytest.mark.integration
def test_changes_that_are_not_committed_are_refused_by_name(tree: Path) -> None:
    write(tree, INIT, "X = 1\n")
    with pytest.raises(errors.Refused, match="1 files are not committed") as refused:
        build(tree)
    assert INIT in refused.value.detail
    assert "--allow-dirty" in refused.value.next


@pytest.mark.integration
def test_a_dirty_artefact_is_marked(tree: Path) -> None:
    write(tree, "README.md", "changed")
    made = build(tree, full=False, allow_dirty=True)
    assert made.dirty and artefact.verify(made.path)["dirty"]


@pytest.mark.integration
def test_a_committed_change_of_the_same_content_cleans_the_mark(tree: Path) -> None:
    write(tree, "README.md", "changed")
    build(tree, full=False, allow_dirty=True)
    commit(tree)
    made = build(tree, full=False)
    assert artefact.verify(made.path)["commit"] == made.commit
    assert not artefact.verify(made.path)["dirty"]


def test_a_source_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Refused, match="not a git checkout"):
        build(tmp_path)


def test_a_folder_inside_another_checkout_is_refused(tmp_path: Path) -> None:
    must(tmp_path, "git", "init", "--quiet")
    (tmp_path / "inner").mkdir()
    with pytest.raises(errors.Refused, match="not a git checkout"):
        build(tmp_path / "inner")


def test_a_checkout_without_a_commit_is_refused(tmp_path: Path) -> None:
    must(tmp_path, "git", "init", "--quiet")
    with pytest.raises(errors.Refused, match="there is no commit yet"):
        build(tmp_path)


@pytest.mark.integration
def test_a_package_that_does_not_build_leaves_no_artefact(tree: Path) -> None:
    before = set((tree / "dist").iterdir())
    settings = tree / "packages/health/pyproject.toml"
    settings.write_text(settings.read_text().replace("hatchling.build", "nothing"))
    with pytest.raises(errors.StepFailed, match="packages/health does not build"):
        build(tree, full=False, allow_dirty=True)
    assert set((tree / "dist").iterdir()) == before


@pytest.mark.integration
def test_a_full_build_proves_the_wheels_and_lists_what_ships(tree: Path) -> None:
    manifest = artefact.verify(build(tree).path)
    assert len([name for name in manifest["files"] if name.endswith(".tar.gz")]) == 3
    assert manifest["proof"]["imported"] == [
        "mltrading_dashboard",
        "mltrading_health",
        "mltrading_marketdata",
    ]
    bill = json.loads(
        (tree / "dist" / manifest["digest"][:12] / "sbom.cdx.json").read_text()
    )
    assert bill["bomFormat"] == "CycloneDX" and "timestamp" not in bill["metadata"]


@pytest.mark.integration
def test_a_deploy_after_a_full_build_keeps_all_its_files(tree: Path) -> None:
    full = artefact.verify(build(tree).path)
    assert artefact.verify(build(tree, full=False).path) == full


@pytest.mark.integration
def test_wheels_that_do_not_import_are_refused(tree: Path) -> None:
    write(tree, INIT, "import nothing_like_this\n")
    with pytest.raises(errors.StepFailed, match="do not prove themselves") as failed:
        build(tree, allow_dirty=True)
    assert "nothing_like_this" in failed.value.detail


@pytest.mark.integration
def test_a_file_that_was_changed_after_the_build_is_found(tree: Path) -> None:
    made = build(tree, full=False)
    made.wheels[0].write_bytes(b"something else")
    with pytest.raises(errors.Refused, match="is not the file that was built"):
        artefact.verify(made.path)
    assert artefact.verify(build(tree, full=False).path)


def test_a_folder_without_a_manifest_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(errors.Refused, match="is not an artefact"):
        artefact.verify(tmp_path)


@pytest.mark.integration
def test_the_task_prints_the_folder_as_data(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = artefact.build_task(full=False, root=tree)
    shown = capsys.readouterr()
    assert shown.out == f"dist/{made.digest[:12]}\n"
    assert "mltrading_health-0.1.0-py3-none-any.whl" in shown.err


@pytest.mark.integration
def test_the_provenance_names_every_other_file_and_the_commit(tree: Path) -> None:
    made = build(tree, full=False)
    said = json.loads((made.path / "provenance.json").read_text())
    files = artefact.verify(made.path)["files"]
    subjects = {item["name"]: item["digest"]["sha256"] for item in said["subject"]}
    assert subjects == {
        name: file["sha256"]
        for name, file in files.items()
        if name != "provenance.json"
    }
    source, *_ = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": made.commit}


@pytest.mark.integration
def test_building_again_elsewhere_gives_the_same_bytes(tree: Path) -> None:
    made = artefact.build_task(root=tree, again=True)
    assert artefact.verify(made.path)["reproduced"]["builds"] == reproduction.TIMES


@pytest.mark.integration
def test_a_build_that_reads_the_clock_is_found(tree: Path) -> None:
    settings = tree / "packages/health/pyproject.toml"
    hook = "\n[tool.hatch.build.targets.wheel.hooks.custom]\npath = 'clock.py'\n"
    settings.write_text(settings.read_text() + hook)
    write(
        tree,
        "packages/health/clock.py",
        "import pathlib, time\n"
        "from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n\n\n"
        "class Hook(BuildHookInterface):\n"
        "    def initialize(self, version, build_data):\n"
        "        file = pathlib.Path(self.root, 'now.txt')\n"
        "        file.write_text(str(time.time_ns()))\n"
        "        place = 'mltrading_health/now.txt'\n"
        "        build_data['force_include'][str(file)] = place\n",
    )
    made = build(tree, full=False, allow_dirty=True)
    with pytest.raises(errors.StepFailed, match="not the same when built again") as bad:
        reproduction.reproduce(made, tree)
    assert "mltrading_health" in bad.value.detail


@pytest.mark.integration
def test_the_bill_of_materials_is_the_same_wherever_it_is_made(
    tree: Path, original: Path
) -> None:
    bills = [
        (build(root).path / "sbom.cdx.json").read_bytes() for root in (tree, original)
    ]
    assert bills[0] == bills[1] and str(tree).encode() not in bills[0]


def test_the_builder_is_the_workflow_where_there_is_one() -> None:
    manifest = {"files": {}, "builders": {}, "commit": "c", "digest": "d"}
    manifest |= {"lock_sha256": "l", "dirty": False, "python": "3.13"}
    environ = {
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "a/b",
        "GITHUB_WORKFLOW_REF": "a/b/.github/workflows/ci-cd.yml@refs/heads/main",
    }
    said = json.loads(provenance.statement(manifest, environ))
    builder = said["predicate"]["runDetails"]["builder"]["id"]
    assert builder == f"https://github.com/{environ['GITHUB_WORKFLOW_REF']}"


@pytest.mark.integration
def test_an_artefact_of_before_is_found_whole_with_what_it_states(tree: Path) -> None:
    made = build(tree, full=False)
    found = artefact.find(made.digest, tree)
    assert (found.digest, found.commit, found.wheels) == (
        made.digest,
        made.commit,
        made.wheels,
    )
    made.wheels[0].write_bytes(b"something else")
    with pytest.raises(errors.Refused, match="is not the file that was built"):
        artefact.find(made.digest, tree)


@pytest.mark.integration
def test_another_artefact_under_a_known_name_is_refused(tree: Path) -> None:
    made = build(tree, full=False)
    other = made.digest[:12] + "0" * 52
    with pytest.raises(errors.Refused, match="under the name"):
        artefact.find(other, tree)
    with pytest.raises(errors.Refused, match="is not in dist/ any more"):
        artefact.find("f" * 64, tree)


@pytest.mark.integration
def test_the_manifest_states_what_the_migrations_in_the_wheel_do(tree: Path) -> None:
    folder = "packages/marketdata/src/mltrading_marketdata/migrations"
    bounds = 'min_supported = "0001"\nmax_supported = "0099"\n'
    write(tree, f"{folder}/schema.toml", bounds)
    write(tree, f"{folder}/versions/0001_a.py", "")
    write(tree, f"{folder}/versions/0002_b.py", "")
    made = build(tree, full=False, allow_dirty=True)
    assert made.schema == Schema("0002", "0001", "0099")
    assert artefact.find(made.digest, tree).schema == made.schema
