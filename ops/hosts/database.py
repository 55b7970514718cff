"""What a database host must have: PostgreSQL, a role and a database that it owns.

Pure, like `plan`, whose values it uses. Whatever else the cluster holds stays: rules of
access are put before the others and name our database only, and an address is added to
those that the cluster listens on.
"""

from __future__ import annotations

import re

from ops.errors import Refused
from ops.hosts import plan
from ops.hosts.plan import Facts, Step, Wish

PSQL = (
    *("runuser", "-u", "postgres", "--", "psql"),
    *("-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"),
)
_CLUSTER = re.compile(r"/etc/postgresql/([0-9]+)/([A-Za-z0-9_-]+)/postgresql\.conf")
# Divides by zero, which is an error, where PostgreSQL can't read its rules of access.
_RULES_ARE_READ = (
    "SELECT 1 / (CASE WHEN EXISTS (SELECT FROM pg_hba_file_rules"
    " WHERE error IS NOT NULL) THEN 0 ELSE 1 END)"
)

QUESTION = """\
SELECT current_setting('listen_addresses'), current_setting('port'),
  current_setting('ssl'), current_setting('hba_file'), current_setting('config_file'),
  EXISTS (SELECT FROM pg_roles WHERE rolname = :'account'),
  EXISTS (SELECT FROM pg_database WHERE datname = :'account');
"""


def account(env: str) -> str:
    """Return the name of an environment's role and database."""
    return "mltrading_" + re.sub(r"[^a-z0-9]", "_", env.lower())


def asking(wish: Wish) -> tuple[str, ...]:
    """Return the program that answers QUESTION with one row, which `seen` reads."""
    return (*PSQL, "-v", f"account={wish.account}")


def seen(row: str) -> dict[str, object]:
    """Return the facts in the row that PostgreSQL has answered with."""
    listens, port, tls, hba, config, role, base = row.strip().split("|")
    return {
        "listens": listens,
        "served": int(port),
        "tls": tls == "on",
        "rules_path": hba,
        "cluster": config,
        "account": role == "t",
        "database": base == "t",
    }


def steps(wish: Wish, facts: Facts, host: str = "") -> tuple[Step, ...]:
    """Return what is to be done, in order; nothing where all is as wished.

    While PostgreSQL does not answer, the steps after its start are a forecast.

    Raises:
        Refused: the host can't be a database, or its cluster is not Debian's.
    """
    plan.refuse(wish, facts, host)
    todo = [*plan.packages(wish, facts)]
    if not facts.active:
        start = ("systemctl", "enable", "--now", "postgresql.service")
        todo.append(Step("postgresql", "start it, now and with the host", start))
    elif not _CLUSTER.fullmatch(facts.cluster):
        raise Refused(
            f"PostgreSQL's configuration is {facts.cluster or 'not found'}",
            where=host,
            allowed="a cluster as Debian makes it, below /etc/postgresql",
            next="prepare it by hand, by docs/how-to/prepare-hosts.md",
        )
    if not facts.tls:
        make = ("make-ssl-cert", "generate-default-snakeoil")
        said = "switch TLS on, with a certificate of its own where there is none"
        alter = "ALTER SYSTEM SET ssl = on;\nSELECT pg_reload_conf();\n"
        todo += [
            Step("tls", said, make),
            Step("tls", "let PostgreSQL speak it", PSQL, text=alter),
        ]
    if not _listening(wish, facts):
        todo += _listen(wish, facts)
    text = rules(wish, facts.rules or "")
    if facts.rules != text:
        names = ", ".join(wish.clients)
        arguments = {"files": [[facts.rules_path, text]]}
        read = (*PSQL[:-2], "-c", "SELECT pg_reload_conf()")
        check = (*PSQL[:-2], "-c", _RULES_ARE_READ)
        said = f"let {names} in to {wish.account}, by password over TLS"
        todo += [
            Step(
                "access",
                said,
                verb="files",
                arguments=arguments,
                check=check,
                undo="put_back",
            ),
            Step("access", "read the rules", read),
        ]
    if not facts.account:
        said = f"make {wish.account}: may log in, and nothing else"
        make = f"CREATE ROLE {wish.account} LOGIN PASSWORD '{wish.verifier}';"
        todo.append(Step("role", said, PSQL, text=make))
    if not facts.database:
        said = f"make {wish.account}, owned by the role"
        make = (
            f"CREATE DATABASE {wish.account} OWNER {wish.account};\n"
            f"REVOKE ALL ON DATABASE {wish.account} FROM PUBLIC;\n"
        )
        todo.append(Step("database", said, PSQL, text=make))
    return tuple(todo)


def table(wish: Wish, facts: Facts) -> list[tuple[str, str, str]]:
    """Return (part, what is there, what will be) for people to read."""
    todo = {step.name: step.said for step in reversed(steps(wish, facts))}
    same = facts.rules == rules(wish, facts.rules or "")
    there = {
        "packages": plan.present(wish, facts),
        "postgresql": "running" if facts.active else "does not answer",
        "tls": "on" if facts.tls else "off" if facts.active else "?",
        "address": f"{facts.listens or 'none'}, port {facts.served or '?'}",
        "access": "as wished" if same else "other rules",
        "role": wish.account if facts.account else "none",
        "database": wish.account if facts.database else "none",
    }
    return [(part, said, todo.get(part, "stays")) for part, said in there.items()]


def firewall(wish: Wish) -> str:
    """Return the hint for whoever has a firewall; nothing here touches one."""
    lines = "; ".join(
        f"ufw allow from {client} to any port {wish.port} proto tcp"
        for client in wish.clients
    )
    return f"a firewall: let SSH in, and the hosts to PostgreSQL ({lines})"


def rules(wish: Wish, text: str) -> str:
    """Return the rules of access with ours before the others, once."""
    begin, end = f"# {wish.account}: begin\n", f"# {wish.account}: end\n"
    ours = "".join(
        f"hostssl {wish.account} {wish.account} {client} scram-sha-256\n"
        for client in wish.clients
    )
    others = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", "", text, flags=re.S)
    note = f"# Written by inv host-setup --env {wish.env} --role database.\n"
    return f"{begin}{note}{ours}{end}{others}"


def _listening(wish: Wish, facts: Facts) -> bool:
    found = {word.strip() for word in facts.listens.split(",")}
    return bool(found & {"*", "0.0.0.0", wish.listen})  # nosec B104 - asked, not bound


def _listen(wish: Wish, facts: Facts) -> list[Step]:
    """Return the steps that add an address: a restart, as PostgreSQL wants it."""
    wanted = ",".join(filter(None, (facts.listens or "localhost", wish.listen)))
    match = _CLUSTER.fullmatch(facts.cluster)
    unit = f"postgresql@{match[1]}-{match[2]}" if match else "postgresql"
    alter = f"ALTER SYSTEM SET listen_addresses = '{wanted}';"
    restart = ("systemctl", "restart", f"{unit}.service")
    return [
        Step("address", f"listen on {wish.listen} too", PSQL, text=alter),
        Step("address", "restart PostgreSQL: its connections are cut", restart),
    ]
