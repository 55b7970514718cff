"""The menu: everything that people and the workflow do to this project.

One task a verb, a few statements each; the work is in ops/, imported when asked for.
"""

from ops.menu import contract_usage_errors, keep_bytecode, verb

keep_bytecode()
contract_usage_errors()

_ENV = {"env": "environment, a row of ops/environments.toml"}
_HOST = {"host": "one host of several, as inv status names it"}
_DRY = {"dry-run": "show the plan and change nothing"}
_JSON = {"json": "print one JSON document instead of text"}


@verb(
    help={
        "yes": "do not ask before installing",
        "keys": "instead: put a workflow's SSH keys from its variables in place",
        **_DRY,
    }
)
def setup(c, yes=False, keys=False, dry_run=False):
    """Install what the tests need of this machine, and the commit hooks."""
    from ops import keys as given
    from ops import machine

    if keys:
        given.install()
    else:
        machine.setup(yes=yes, dry_run=dry_run)


@verb(
    help={
        "env": "environment, a row of ops/environments.toml",
        "hosts": "comma-separated user@host:port; default: the environment's own",
        "role": "app, balancer or database: what the hosts are for",
        "user": "who may prepare a host: root, or a user with sudo",
        "door": "nginx or none",
        "port": "port of the front door; 0 is the environment's own",
        "key": "public key that may log in as deploy; default: your ed25519 key",
        "listen": "address that a database listens on; default: the host's",
        "url-file": "file for the database's address, which holds its password",
        "yes": "do not ask",
        **_DRY,
    }
)
def host_setup(
    c,
    env,
    hosts="",
    role="app",
    user="root",
    door="nginx",
    port=0,
    key="",
    listen="",
    url_file="",
    yes=False,
    dry_run=False,
):
    """Prepare bare Debian hosts for deploys: a user, a folder, a front door."""
    from ops.hosts import host_setup as prepare

    prepare(
        env,
        hosts,
        role=role,
        user=user,
        door=door,
        port=port or None,
        key=key,
        listen=listen,
        url_file=url_file,
        dry_run=dry_run,
        yes=yes,
    )


@verb(help={**_ENV, **_JSON})
def doctor(c, env="local", json=False):
    """Check this machine and every host; name the command that mends each fault."""
    from ops import doctor as looking

    looking.look(env, as_json=json)


@verb(
    help={
        "only": "comma-separated names of gates",
        "cache": "use verdicts of files that did not change",
        "since": "ask only about what differs from a revision such as origin/main",
        "jobs": "tools at once; default: one per processor",
        "fail-fast": "end at the first red gate",
        "explain": "say what changed since each gate's last green run",
        "watch": "ask again whenever a file changes, until Ctrl-C",
        "allow-stale-advisories": "why an old advisory database may do",
        "dry-run": "show what would be asked and start no tool",
        **_JSON,
    }
)
def quality(
    c, only="quality", cache=True, since="", jobs=0, fail_fast=False, explain=False,
    watch=False, allow_stale_advisories="", dry_run=False, json=False,
):  # fmt: skip
    """Ask every quality gate, side by side: format, lint, security, layers."""
    from ops import quality as judged

    names = only.split(",")
    shared = {"use_cache": cache, "since": since, "explain": explain, "as_json": json}
    if dry_run:
        judged.plan(names, **shared)
        return
    ask = judged.watch if watch else judged.quality
    ask(
        names, jobs=jobs or None, fail_fast=fail_fast,
        reason=allow_stale_advisories, **shared,
    )  # fmt: skip


@verb(
    help={"fetch": "ask the network for a newer one", **_JSON},
)
def advisories(c, fetch=True, json=False):
    """Fetch the advisory database of the dependency gate; say how old it is."""
    from ops import advisories as known

    known.show(fetch=fetch, as_json=json)


@verb
def fmt(c):
    """Fix formatting and imports."""
    from ops import fixes

    fixes.fmt()


@verb
def lock(c):
    """Bring uv.lock and requirements.txt in line with pyproject.toml."""
    from ops import fixes

    fixes.relock()


@verb(
    help={
        "unit": "only tests without a marker",
        "smoke": "only the smoke tests",
        "regression": "only the browser tests",
        "integration": "only tests against real servers",
        "e2e": "only whole deploys and rollbacks",
        "python": "comma-separated versions, each in its own environment",
        "fail-fast": "stop at the first failure",
        "coverage": "measure coverage",
        "cache": "leave out files that did not change since they passed",
        "explain": "say for each file that runs what changed since it passed",
        "jobs": "workers side by side; default: three for two processors",
        "shard": "a part of the test files such as 1/3",
        "url": "ask the service at this address: with --smoke or --integration",
        "record": "write the seconds of each file to tests/times.json",
        **_JSON,
    }
)
def test(
    c,
    unit=False,
    smoke=False,
    regression=False,
    integration=False,
    e2e=False,
    python="",
    fail_fast=False,
    coverage=True,
    cache=True,
    explain=False,
    jobs=0,
    shard="",
    url="",
    record=False,
    json=False,
):
    """Run the tests that what changed concerns; reports go to reports/."""
    from ops import suite

    asked = {
        "unit": unit,
        "smoke": smoke,
        "regression": regression,
        "integration": integration,
        "e2e": e2e,
    }
    kinds = [kind for kind, wanted in asked.items() if wanted]
    suite.run(
        kinds,
        python=python,
        fail_fast=fail_fast,
        coverage=coverage,
        use_cache=cache,
        explain=explain,
        jobs=jobs,
        shard=shard,
        url=url,
        record=record,
        as_json=json,
    )


@verb(
    help={
        "allow-dirty": "build from files that are not committed",
        "verify": "build twice more, elsewhere, and compare every byte",
        "python": "with --verify: also by these comma-separated versions",
        **_JSON,
    }
)
def build(c, allow_dirty=False, verify=False, python="", json=False):
    """Build the artefact: wheels, sdists, manifest, SBOM, proved by importing it."""
    from ops import artefact

    artefact.build_task(
        allow_dirty=allow_dirty, again=verify, python=python, as_json=json
    )


@verb(
    help={
        "cache": "use verdicts of what did not change",
        "check": "instead: read the reports in this folder, all must be green",
        "expect": "comma-separated folders in it that must hold one; for --check",
        **_JSON,
    }
)
def ci(c, cache=True, check="", expect="", json=False):
    """Do what CI does: quality, tests, build; one table, one exit code."""
    from pathlib import Path

    from ops import pipeline

    if check:
        wanted = [name for name in expect.split(",") if name]
        pipeline.check(Path(check), expected=wanted, as_json=json)
    else:
        pipeline.ci(use_cache=cache, as_json=json)


@verb(
    help={
        **_ENV,
        "port": "port of the local front door, 0 picks a free one",
        "force": "deploy even when nothing changed",
        "canary": "shares that a first host gets and is watched with: 10%,50%",
        "allow-inconclusive": "go on where a canary gets too few requests to judge by",
        "artefact": "one that was built before: 8 or more characters of its sha256",
        "emergency": "ship what the environment before has not passed; the reason why",
        "wait": "seconds to wait for whoever holds the lease",
        "allow-stale-advisories": "why an old advisory database may do",
        **_DRY,
        **_JSON,
    }
)
def deploy(
    c,
    env="local",
    port=None,
    force=False,
    canary="",
    allow_inconclusive=False,
    artefact=None,
    emergency=None,
    wait=0,
    allow_stale_advisories="",
    dry_run=False,
    json=False,
):
    """Put this checkout in front of the users: prove, build, boot, gate, switch."""
    from ops import delivery

    delivery.deploy(
        env,
        port=port,
        force=force,
        canary=canary,
        allow_inconclusive=allow_inconclusive,
        artefact=artefact,
        emergency=emergency,
        wait=wait,
        dry_run=dry_run,
        as_json=json,
        stale_because=allow_stale_advisories,
    )


@verb(
    help={
        **_ENV,
        "to": "a release such as v7; default: the last good one",
        "minority": "act though most hosts are out of reach; the reason why",
        "wait": "seconds to wait for whoever holds the lease",
        **_DRY,
        **_JSON,
    }
)
def rollback(c, env="local", to=None, minority=None, wait=0, dry_run=False, json=False):
    """Move traffic back to the last good release."""
    from ops import delivery

    delivery.rollback(
        env, to=to, minority=minority, wait=wait, dry_run=dry_run, as_json=json
    )


@verb(help={**_ENV, "all": "one line for every environment", **_JSON})
def status(c, env="local", all=False, json=False):
    """Say what serves, since when, by whom; exit 0 where all is well, else 1."""
    from ops import status as standing

    standing.show_all(as_json=json) if all else standing.show(env, as_json=json)


@verb(
    help={
        **_ENV,
        "host": "only of one host",
        "release": "only of one release such as v7",
        "lines": "entries of each log; 50, or all with --since",
        "since": "such as 10m, 2h, 2026-03-01, 2026-03-01T12:30Z",
        "follow": "go on printing what comes",
        "grep": "only entries that hold this text",
        "json": "print one JSON object a line",
    }
)
def logs(
    c, env="local", host="", release=None, lines="", since="", follow=False, grep="",
    json=False,
):  # fmt: skip
    """Print what all hosts wrote, in the order of time."""
    from ops import logs as written

    written.show(
        env, host=host, release=release, lines=lines, since=since, follow=follow,
        grep=grep, as_json=json,
    )  # fmt: skip


@verb(
    help={
        **_ENV,
        "lines": "how many of the last runs",
        "release": "the runs of one release such as v7, with their steps",
        **_JSON,
    }
)
def history(c, env="local", lines=20, release=None, json=False):
    """Tell every run: when, what, how it ended, how long, by whom, why."""
    from ops import operate

    operate.history(env, lines=lines, release=release, as_json=json)


@verb(
    help={
        **_ENV,
        "since": "such as 90d, 12w, 24h, 2026-03-01, all",
        "pipeline": "only runs of inv ci",
        **_JSON,
    }
)
def report(c, env="local", since="90d", pipeline=False, json=False):
    """Tell how well deploys and the pipeline went: success, durations, DORA keys."""
    from ops import operate, trend

    if not pipeline:
        operate.report_task(env, since=since, as_json=json)
    if pipeline or not json:
        trend.show(since=since, as_json=json)


@verb(help={**_ENV, **_JSON})
def config(c, env="local", json=False):
    """Compare the variables that serve with those of the next deploy."""
    from ops import operate

    operate.config(env, as_json=json)


@verb(
    help={
        "env": "environment to let it onto",
        "artefact": "the first 8 or more characters of its sha256",
        "hours": "how long the approval holds",
        **_JSON,
    }
)
def approve(c, env, artefact, hours=4.0, json=False):
    """Let one artefact onto one environment, once."""
    from ops import approval, delivery

    approval.approve(env, artefact, by=delivery.by_whom(), hours=hours, as_json=json)


@verb(help={**_ENV, **_HOST, **_DRY})
def restart(c, env="local", host="", dry_run=False):
    """Renew the workers of what serves, without a failed request."""
    from ops import operate

    operate.restart(env, host=host, dry_run=dry_run)


@verb(
    help={
        **_ENV,
        "days": "how long what a reset has set aside is kept",
        **_DRY,
    }
)
def prune(c, env="local", days=7.0, dry_run=False):
    """Remove old releases, environments, backups, and databases set aside."""
    from ops import operate

    operate.prune(env, days=days, dry_run=dry_run)


@verb(
    help={
        **_ENV,
        "force": "end whoever holds the lease; needs --reason",
        "reason": "why it can't wait, for the journal",
        **_JSON,
    }
)
def unlock(c, env="local", force=False, reason="", json=False):
    """Show who may act now; end that holder when forced to."""
    from ops import operate

    operate.unlock(env, force=force, reason=reason, as_json=json)


@verb(
    help={
        "wish": "on or off",
        **_ENV,
        "message": "what people read",
        "for": "how long they are told it takes, such as 30m; it ends by `off` only",
        "reason": "why, for the journal",
        "wait": "seconds to wait for whoever holds the lease",
        **_DRY,
        **_JSON,
    },
    positional=["wish"],
)
def maintenance(
    c, wish, env="local", message="", for_="", reason="", wait=0, dry_run=False,
    json=False,
):  # fmt: skip
    """Show people a page that says so, on or off; probes and deploys go on."""
    from ops import maintenance as shutter

    shutter.switch(
        wish, env, message=message or shutter.MESSAGE, lasts=for_, reason=reason,
        wait=wait, dry_run=dry_run, as_json=json,
    )  # fmt: skip


@verb(
    name="exec",
    help={
        **_ENV,
        **_HOST,
        "command": 'such as "python -m pip list"',
        "all-hosts": "on every host, one after the other",
    },
)
def exec_(c, command, env="local", host="", all_hosts=False):
    """Run a program as the release that serves would; pass its exit code on."""
    from ops import operate

    raise SystemExit(operate.exec_(env, command, host=host, every=all_hosts))


@verb(help={**_ENV, **_HOST})
def shell(c, env="local", host=""):
    """Open Python as the release that serves sees it."""
    from ops import operate

    raise SystemExit(operate.shell(env, host=host))


@verb(help={**_ENV, **_HOST, "command": "one statement instead of a prompt"})
def psql(c, env="local", command="", host=""):
    """Open psql, or sqlite3, on the database of what serves."""
    from ops import operate

    raise SystemExit(operate.psql(env, command, host=host))


@verb(
    help={
        "env": "show who hears of this environment only",
        "check": "write nothing; ask promtool and amtool, exit 1 if something differs",
        "test": "instead: send a test alert through every channel of --env",
        "dry-run": "say what would be written or sent, and do neither",
        **_JSON,
    }
)
def alerts(c, env="", check=False, test=False, dry_run=False, json=False):
    """Make rules, routes and dashboards of ops/alerts.toml; show who hears of what."""
    from ops.alerts import overview, trial

    if test:
        trial.hold(env or "local", dry_run=dry_run, as_json=json)
    else:
        overview.show(env, check=check, dry_run=dry_run, as_json=json)


@verb(
    help={
        **_ENV,
        "down": "end it instead",
        "render": "instead: write what a Prometheus host needs into this new folder",
        **_DRY,
        **_JSON,
    }
)
def monitor(c, env="local", down=False, render="", dry_run=False, json=False):
    """Start Prometheus and Alertmanager on this machine beside an environment."""
    from ops.alerts import monitor as watching

    watching.watch(env, down=down, render=render, dry_run=dry_run, as_json=json)


@verb(help={**_ENV, "port": "port of the front door, 0 picks a free one", **_DRY})
def up(c, env="local", port=None, dry_run=False):
    """Start what should serve, after a reboot or `inv down`."""
    from ops import delivery

    delivery.up(env, port=port, dry_run=dry_run)


@verb(help={**_ENV, **_DRY})
def down(c, env="local", dry_run=False):
    """Stop the front door and every release; nothing is removed."""
    from ops import delivery

    delivery.down(env, dry_run=dry_run)


_SURE = {
    "yes": "do not ask; production is asked all the same",
    "force": "also a database that is production; needs its name",
    "name": "the database's name, for --force where nobody can type it",
}


@verb(
    help={**_ENV, "undo": "take back what was set aside last", **_SURE, **_DRY, **_JSON}
)
def db_reset(
    c, env="local", undo=False, yes=False, force=False, name="", dry_run=False,
    json=False,
):  # fmt: skip
    """Set the database aside for an empty one, after a backup; or take it back."""
    from ops import database

    database.reset(
        env, undo=undo, yes=yes, force=force, database=name, dry_run=dry_run,
        as_json=json,
    )  # fmt: skip


@verb(
    help={
        **_ENV,
        "path": "also bring the file to this machine: a new file, or a folder",
        "list": "instead: show the backups that the environment's hosts keep",
        **_DRY,
        **_JSON,
    }
)
def db_backup(c, env="local", path="", list=False, dry_run=False, json=False):
    """Back the database up, and prove the backup by restoring it."""
    from ops import backups

    backups.backup(env, path=path, listed=list, dry_run=dry_run, as_json=json)


@verb(
    help={
        **_ENV,
        "backup": "name of one that the environment keeps: inv db-backup --list",
        "path": "or: a file of this machine",
        **_SURE,
        **_DRY,
        **_JSON,
    }
)
def db_restore(
    c, env="local", backup="", path="", yes=False, force=False, name="", dry_run=False,
    json=False,
):  # fmt: skip
    """Put a backup in the place of the database, which is set aside."""
    from ops import backups

    backups.restore(
        env, backup=backup, path=path, yes=yes, force=force, database=name,
        dry_run=dry_run, as_json=json,
    )  # fmt: skip


@verb(help={**_ENV, "dry-run": "print the SQL and change nothing", **_JSON})
def migrate(c, env="local", dry_run=False, json=False):
    """Bring the database to the schema of what serves, after a backup."""
    from ops import database

    database.migrate(env, dry_run=dry_run, as_json=json)


@verb(
    help={
        **_ENV,
        "source": "sample, csv, parquet, yahoo, tiingo or synthetic",
        "symbols": "comma-separated symbols, default all that the source lists",
        "interval": "1d, 1h, 5m or 1m",
        "path": "folder of <SYMBOL>.csv or .parquet files",
        "start": "first time, such as 2020-01-31; default: what is not there yet",
        "end": "last time; a date is all of it; default: now",
        "full": "ask a provider for all it has, not only for what is new",
        "restart": "begin anew instead of going on with a run that was cut off",
        "seed": "of synthetic bars",
        "wait": "seconds to wait for a provider that asks to, per symbol",
        "dry-run": "do all but the writing, and say what would be taken",
        **_JSON,
    }
)
def ingest(
    c, env="local", source="sample", symbols="", interval="1d", path="", start="",
    end="", full=False, restart=False, seed=1, wait=120, dry_run=False, json=False,
):  # fmt: skip
    """Read bars into the database; the same bars again write nothing."""
    from ops import ingestion

    ingestion.ingest(
        env, source=source, symbols=symbols, interval=interval, path=path, start=start,
        end=end, full=full, restart=restart, seed=seed, wait=wait, dry_run=dry_run,
        as_json=json,
    )  # fmt: skip


@verb(
    help={
        **_ENV,
        "symbols": "comma-separated symbols, default all",
        "interval": "1d, 1h, 5m or 1m; default all",
        "limit": "list at most so many",
        **_JSON,
    }
)
def rejects(c, env="local", symbols="", interval="", limit=100, json=False):
    """List the rows that ingestion refused, and why."""
    from ops import ingestion

    ingestion.rejects(
        env, symbols=symbols, interval=interval, limit=limit, as_json=json
    )


@verb(
    help={
        **_ENV,
        "path": "folder of this machine to write to",
        "symbols": "comma-separated symbols, default all",
        "interval": "1d, 1h, 5m or 1m",
        "format": "csv or parquet",
        **_JSON,
    }
)
def data_export(
    c, path="", env="local", symbols="", interval="1d", format="csv", json=False
):
    """Write bars as traded to a folder of CSV or Parquet files."""
    from ops import ingestion

    ingestion.export(
        env, path, symbols=symbols, interval=interval, form=format, as_json=json
    )


@verb(
    help={
        "name": "menu, first-run, switch, deploy, pipeline, data, health, alerts, "
        "watch or faults",
        "runs": "how often each is measured",
        "seed": "of the faults that are drawn",
        "only": "parts: numbers of runs of faults, ci,tests, or million,latest",
    },
    positional=["name"],
)
def bench(c, name, runs=0, seed=1, only=""):
    """Measure the product; results go to bench/results/ as JSON."""
    from bench import run

    run.bench(name, runs=runs, seed=seed, only=only)


@verb(help={"file": "file that holds the message"}, positional=["file"])
def commit_message(c, file):
    """Check that a commit message follows Conventional Commits."""
    from ops import commits

    commits.check(file)
