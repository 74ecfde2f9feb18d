"""`melodi measure` gives what the meters' scripts say, and is to its command what a shell is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command import Shell, is_clear
from nvml_stub import compile_stub, in_real_time
from powercap_tree import PowercapTree
from waiting import PATIENCE_SECONDS, wait_for
from warm import MELODI

SECONDS = float(os.environ.get("MEASURE_TEST_SECONDS", "2.5"))
WATTS = {
    "intel-rapl:0": 90.0,
    "intel-rapl:0:0": 40.0,
    "intel-rapl:0:1": 12.0,
    "intel-rapl:1": 300.0,
    "intel-rapl-mmio:0": 90.0,
}
FIRST, SECOND = (f"gpu:GPU-{n:08x}-0000-4000-8000-000000000000" for n in range(2))


@pytest.fixture
def metered(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a host with two GPUs, at 250 W and on a ramp, and a full RAPL tree."""
    tree = PowercapTree(tmp_path_factory.mktemp("sys"))
    for zone, name in zip(WATTS, ("package-0", "core", "dram", "psys", "package-0"), strict=True):
        tree.add(zone, name)
    library = compile_stub(tmp_path_factory.mktemp("nvml"))
    ramp = [(0, 100), (20, 500)]
    gpus = in_real_time(library, [(0, 250)], ramp, origin_ns=time.monotonic_ns())
    with tree.drawing(WATTS):
        yield gpus | {"MELODI_COLLECTORS__SYSFS_ROOT": str(tree.root)}


def test_each_domain_is_within_3_percent_of_its_script(
    shell: Shell, metered: dict[str, str]
) -> None:
    """Two GPUs and RAPL over `sleep`; the sum is without core, psys and mmio."""
    origin_ns = int(metered["NVML_STUB_SCRIPT"].partition(";")[0])
    now = "print(time.monotonic_ns(), flush=True)"
    script = f"import time; {now}; time.sleep({SECONDS}); {now}"
    command = (sys.executable, "-S", "-c", script)
    ended = shell.melodi(
        "measure", "--json", "--samples", "10", "--macs", "1000", "--", *command, **metered
    )
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    seconds = found["duration_seconds"]
    assert seconds > SECONDS
    domains = found["domains"]
    assert set(domains) == {FIRST, SECOND, "package:0", "dram:0", "psys:0"}
    middle = sum(int(one) for one in ended.stderr.split()[:2]) / 2
    ramp_watts = 100 + 20 * (middle - origin_ns) / 1e9
    watts = {FIRST: 250, SECOND: ramp_watts, "package:0": 90, "dram:0": 12, "psys:0": 300}
    for name, one in domains.items():
        assert one["joules"] == pytest.approx(watts[name] * seconds, rel=0.03), name
        assert one["low_joules"] <= watts[name] * seconds * 1.001, name
        assert one["high_joules"] >= watts[name] * seconds * 0.999, name
        assert one["mean_watts"] == pytest.approx(watts[name], rel=0.03)
        assert one["quality"] == "measured"
    added = [FIRST, SECOND, "package:0", "dram:0"]
    assert found["joules"] == pytest.approx(sum(domains[name]["joules"] for name in added))
    assert found["joules_per_sample"] == pytest.approx(found["joules"] / 10)
    assert found["work_per_joule"] == pytest.approx(10_000 / found["joules"])
    assert found["macs_per_parameter"] is None


@pytest.fixture
def rapl(shell: Shell) -> Iterator[dict[str, str]]:
    """The environment of a host with one package at 50 W and nothing else."""
    tree = PowercapTree(shell.folder / "sys")
    tree.add("intel-rapl:0", "package-0")
    with tree.drawing({"intel-rapl:0": 50}):
        yield {
            "MELODI_COLLECTORS__SYSFS_ROOT": str(tree.root),
            "MELODI_COLLECTORS__USE": '["rapl"]',
        }


def test_a_command_that_fails_is_measured_and_its_status_passed_on(
    shell: Shell, rapl: dict[str, str]
) -> None:
    """Its output stays on stdout, labels are shown, the exit code is its own."""
    ended = shell.melodi(
        "measure", "--label", "try=one", "--", "sh", "-c", "echo out; echo talk >&2; exit 7", **rapl
    )
    assert ended.code == 7
    assert ended.stdout.startswith("out\n")
    assert "talk" in ended.stderr
    assert "package:0" in ended.stdout
    assert "try: one" in ended.stdout


def test_a_command_reads_what_is_piped_in_and_json_has_stdout_alone(
    shell: Shell, rapl: dict[str, str]
) -> None:
    """With --json the command's own output goes to stderr."""
    ended = subprocess.run(
        [MELODI, "measure", "--json", "--", "cat"],
        input="through\n",
        cwd=shell.folder,
        env=shell.environment | rapl,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert "through" in ended.stderr
    found = json.loads(ended.stdout)
    assert found["exit_code"] == 0
    assert found["labels"] == {}
    assert found["domains"]["package:0"]["quality"] == "sub_sensor"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_the_energy_is_told(
    shell: Shell, rapl: dict[str, str], number: signal.Signals
) -> None:
    """The command decides what a signal means; one that it dies of gives 128 + n."""
    mark = shell.folder / "started"
    script = f"touch {mark}; exec sleep 60"
    with started(shell, rapl, "--json", "--", "sh", "-c", script) as process:
        wait_for(mark.exists)
        process.send_signal(number)
        out, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert json.loads(out)["exit_code"] == 128 + number
    assert json.loads(out)["joules"] is not None
    assert "Traceback" not in talk


def test_a_command_that_handles_the_signal_ends_as_it_likes(
    shell: Shell, rapl: dict[str, str]
) -> None:
    """SIGTERM is not the end of the measuring."""
    mark = shell.folder / "started"
    script = f"trap 'exit 5' TERM; touch {mark}; while :; do sleep 0.02; done"
    with started(shell, rapl, "--json", "--", "sh", "-c", script) as process:
        wait_for(mark.exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 5


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such-program",), 127, "there is no command 'no-such-program'; check its name"),
        (("/etc/passwd",), 126, "cannot run '/etc/passwd': Permission denied"),
    ],
)
def test_what_cannot_be_started_gives_the_shells_codes(
    shell: Shell, rapl: dict[str, str], words: tuple[str, ...], code: int, message: str
) -> None:
    """127 where there is none, 126 where it is no program."""
    ended = shell.melodi("measure", "--", *words, **rapl)
    assert ended.code == code
    assert message in ended.stderr
    assert is_clear(ended.stderr)
    assert ended.stdout == ""


def test_strict_ends_with_3_where_nothing_was_measured_and_the_command_was_well(
    shell: Shell,
) -> None:
    """Unknown is null, never 0; the command's own failure comes first."""
    nothing = {"MELODI_COLLECTORS__USE": '["rapl"]', "MELODI_COLLECTORS__SYSFS_ROOT": "/nowhere"}
    for strict, script, code in ((True, "true", 3), (True, "exit 4", 4), (False, "true", 0)):
        words = ["--strict"] if strict else []
        ended = shell.melodi("measure", "--json", *words, "--", "sh", "-c", script, **nothing)
        assert ended.code == code
        assert json.loads(ended.stdout)["joules"] is None
        assert "see: melodi doctor" in ended.stderr


@contextmanager
def started(shell: Shell, meters: dict[str, str], *words: str) -> "Iterator[subprocess.Popen[str]]":
    """`melodi measure` in a session of its own, so that no terminal sends signals too."""
    with subprocess.Popen(
        [MELODI, "measure", *words],
        cwd=shell.folder,
        env=shell.environment | meters,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
