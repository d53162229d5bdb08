"""The ledger: nothing finished is lost, nothing is done twice, and what cannot be used is said."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from leaktight import cli
from leaktight.errors import UsageError
from leaktight.verify.run import ledger as ledgers
from leaktight.verify.run.ledger import Ledger, Recorded, status_of

ANSWER = {"schema": "leaktight.verdict/1", "status": "proved", "margin": {"lower": 1.25, "upper": None}}


def found(key: str, document: dict[str, object] | None = ANSWER) -> Recorded:
    return Recorded(key, document, None if document else {"kind": "crash", "message": "gone"}, 0.5)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def opened(url: str, *, resume: bool = True) -> Ledger:
    ledger = Ledger(url)
    ledger.begin("suite.toml", resume=resume)
    return ledger


def record(ledger: Ledger, key: str, document: dict[str, object] | None = ANSWER) -> bool:
    return ledger.record(found(key, document), name=f"job {key}", network="n")


def both(url: str) -> tuple[Ledger, Ledger]:
    return opened(url), opened(url)


def check_two_runners(url: str) -> None:
    """What must hold on every database."""
    first, second = both(url)
    assert first.claim(["a", "b"]) == (["a", "b"], {})
    assert second.claim(["a", "b", "c"]) == (["c"], {}), "what another has claimed is left alone"
    assert not record(second, "a"), "an answer without a claim is not recorded"
    assert record(first, "a")
    assert second.claim(["a"]) == ([], {"a": found("a")})
    assert second.claim(["b"]) == ([], {})
    first.close()
    assert second.claim(["b"]) == (["b"], {}), "a runner that ends gives its claims up"
    assert record(second, "b", None)
    assert second.results(["a", "b", "c"]) == {"a": found("a"), "b": found("b", None)}
    second.close()
    third = opened(url)
    assert third.results(["a", "b"]) == {"a": found("a")}, "an error of an earlier run is tried again"
    third.close()
    fresh = opened(url, resume=False)
    assert fresh.results(["a", "b"]) == {}, "without resume, earlier answers do not count"
    assert fresh.claim(["a"]) == (["a"], {})
    assert record(fresh, "a", {**ANSWER, "status": "refuted"})
    assert fresh.results(["a"])["a"].status == "refuted"
    assert [(one["name"], one["status"]) for one in fresh.history()] == [
        ("job a", "refuted"),
        ("job b", "error"),
        ("job a", "proved"),
    ]
    assert [one["document"]["margin"]["lower"] for one in fresh.history("job a")] == [1.25, 1.25]
    fresh.close()


def test_two_runners_share_a_ledger(url: str) -> None:
    check_two_runners(url)


def test_a_lease_that_is_over_is_taken_over_and_the_late_answer_is_dropped(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "LEASE", 0.2)
    first, second = both(url)
    assert first.claim(["a"])[0] == ["a"]
    assert second.claim(["a"])[0] == []
    first.renew()
    time.sleep(0.25)
    assert second.claim(["a"])[0] == ["a"]
    assert not record(first, "a")
    assert record(second, "a")
    assert len(second.history()) == 1
    first.close()
    second.close()


CLAIMER = """
import sys, time
from leaktight.verify.run.ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.begin("s", resume=True)
ledger.claim(["a"])
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="whether a process is over is known on Linux only")
def test_the_claims_of_a_killed_runner_are_free_at_once(url: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", CLAIMER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "claimed\n"
    ledger = opened(url)
    assert ledger.claim(["a"])[0] == [], "its runner lives"
    child.kill()
    child.wait()
    assert ledger.claim(["a"])[0] == ["a"]
    child.stdout.close()
    ledger.close()


RECORDER = """
import sys
from leaktight.verify.run.ledger import Ledger, Recorded
ledger = Ledger(sys.argv[1])
ledger.begin("s", resume=True)
for number in range(100_000):
    key = f"{number:08}"
    ledger.claim([key])
    assert ledger.record(Recorded(key, {"status": "proved", "n": "x" * 3000}, None, 0.0), name=key, network="n")
    print(key, flush=True)
"""


@pytest.mark.parametrize("after", [0.05, 0.3])
def test_a_kill_loses_nothing_that_was_said_to_be_recorded(url: str, after: float) -> None:
    child = subprocess.Popen([sys.executable, "-c", RECORDER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline().strip()]
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    said += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    ledger = opened(url)
    held = ledger.results(said)
    assert set(held) == set(said)
    assert all(one.document == {"status": "proved", "n": "x" * 3000} for one in held.values())
    assert len(ledger.history(limit=100_000)) - len(said) in (0, 1), "at most the one that it was just about to say"
    ledger.close()


def test_a_full_disk_ends_the_run_and_loses_nothing(url: str) -> None:
    ledger = opened(url)
    with ledger.database.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 20}")
    done: list[str] = []

    def work() -> None:
        for number in range(1000):
            ledger.claim([f"{number}"])
            assert record(ledger, f"{number}", {"status": "proved", "n": "x" * 4000})
            done.append(f"{number}")

    with pytest.raises(UsageError, match=r"--ledger: .*full; make room"):
        work()
    assert done
    again = opened(url)
    assert set(again.results([f"{number}" for number in range(1000)])) == set(done)
    again.close()


def test_a_ledger_of_a_newer_version_is_left_alone(url: str) -> None:
    opened(url).close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE leaktight_meta SET version = 99")
    with pytest.raises(UsageError, match=r"written by a newer leaktight \(its version is 99"):
        Ledger(url)


@pytest.mark.parametrize("writable", [True, False])
def test_what_a_ledger_holds_is_read_without_writing_anything(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a folder?#%41"
    place.mkdir()
    url = f"sqlite:///{quote(str(place))}/ledger.sqlite"
    ledger = opened(url)
    ledger.claim(["a"])
    record(ledger, "a")
    ledger.close()
    content = (place / "ledger.sqlite").read_bytes()
    if not writable:
        monkeypatch.setattr("leaktight.verify.run.tables.os.access", lambda *_: False)
        for path in (*place.iterdir(), place):
            path.chmod(path.stat().st_mode & 0o555)
    assert cli.run(["history", "--ledger", url]) == 0
    told = capfd.readouterr()
    assert "job a" in told.out
    assert (place / "ledger.sqlite").read_bytes() == content
    assert writable or len(list(place.iterdir())) == 1
    place.chmod(0o755)


def test_a_job_that_the_ledger_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = opened("sqlite:///ledger.sqlite")
    ledger.claim(["a"])
    assert record(ledger, "a")
    ledger.close()
    ask = ["history", "--ledger", "sqlite:///ledger.sqlite", "--job"]
    assert cli.run([*ask, "job b"]) == 2
    says = "--job: the ledger has no answer of 'job b'; it has 1 job, such as 'job a'"
    assert capfd.readouterr() == ("", f"leaktight: error: {says}\n")
    assert cli.run([*ask, "job a"]) == 0


def test_there_is_no_history_where_there_is_no_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("other.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (x INTEGER)")
    before = Path("other.sqlite").read_bytes()
    for arguments, name in (([], ".leaktight/ledger.sqlite"), (["--ledger", "sqlite:///other.sqlite"], "other.sqlite")):
        assert cli.run(["history", *arguments]) == 2
        says = f"--ledger: sqlite:///{name}: there is no ledger; 'leaktight run' makes one, and --ledger names another"
        assert capfd.readouterr() == ("", f"leaktight: error: {says}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["other.sqlite"]
    assert Path("other.sqlite").read_bytes() == before


def bad_ledgers(folder: Path) -> dict[str, tuple[str, str]]:
    (folder / "text.sqlite").write_text("this is no database " * 100)
    (folder / "folder.sqlite").mkdir()
    Ledger(f"sqlite:///{folder / 'read.sqlite'}").close()
    return {
        "no database": (f"sqlite:///{folder / 'text.sqlite'}", "file is not a database; give another file"),
        "a folder": (f"sqlite:///{folder / 'folder.sqlite'}", "unable to open database file"),
        "no such folder": (f"sqlite:///{folder / 'a' / 'b.sqlite'}", "unable to open database file"),
        "read-only": (f"sqlite:///file:{folder / 'read.sqlite'}?mode=ro&uri=true", "readonly"),
        "nobody there": ("postgresql://user:secret@127.0.0.1:9/x", "127.0.0.1"),
        "no URL": ("what is this", "this is no URL of a ledger"),
        "unknown database": ("oracle://x/y", "this is no URL of a ledger"),
    }


@pytest.mark.parametrize(
    "name", ["no database", "a folder", "no such folder", "read-only", "nobody there", "no URL", "unknown database"]
)
def test_a_ledger_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    url, fragment = bad_ledgers(tmp_path)[name]
    with pytest.raises(UsageError) as caught:
        opened(url)
    told = str(caught.value)
    assert told.startswith("--ledger: ")
    assert fragment in told
    assert "secret" not in told
    assert len(told.splitlines()) == 1


def test_the_status_of_an_answer_is_its_worst() -> None:
    assert status_of({"inputs": [{"status": "proved"}, {"status": "timeout"}, {"status": "unknown"}]}) == "timeout"
    assert status_of({"inputs": [{"status": "timeout"}, {"status": "refuted"}]}) == "refuted"
    assert status_of({"upper": 3.0}) == "done"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server, started for these tests."""
    control = shutil.which("pg_ctl") or next(iter(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), None)
    if control is None:
        pytest.skip("no PostgreSQL server is installed")
    pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
    programs = Path(control).resolve().parent
    folder = Path(tmp_path_factory.mktemp("postgres"))
    user = "nobody" if os.getuid() == 0 else None  # the server refuses to run as root
    if user:
        import pwd

        for place in (folder, *folder.parents[:3]):
            place.chmod(place.stat().st_mode | 0o011)
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def call(*arguments: str) -> None:
        subprocess.run(
            arguments,
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

    data = str(folder / "data")
    call(str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    call(str(programs / "pg_ctl"), "-D", data, "-w", "-o", settings, "-l", str(folder / "log"), "start")
    yield f"postgresql://tester@/postgres?host={folder}"
    call(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")


def test_two_runners_share_a_postgresql_server(server: str) -> None:
    with pytest.raises(UsageError, match="there is no ledger; 'leaktight run' makes one"):
        Ledger(server, reading=True)
    check_two_runners(server)
    reader = Ledger(server, reading=True)
    assert len(reader.history()) == 3
    reader.close()
