"""install_gpu_driver.py as a process, with a PATH that holds nothing but fakes which record how they were called."""

import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures_gpu_driver import L4, SCRIPT, SYSTEMS, igd, planned

READ_ONLY = {"nvidia-smi", "mokutil"}
CHANGING = {"env", "apt-get", "curl", "sed", "modprobe", "dkms", "dnf", "crb", "dpkg", "sh", "bash", "sudo", "reboot"}
# Runs the real Host on files below a made root, so that the result does not depend on the machine the tests run on.
DRIVER = """import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {folder!r})
import install_gpu_driver as igd
sys.exit(igd.main(sys.argv[1:], igd.Host(root={root!r}, uid={uid}, kernel={kernel!r}, machine="x86_64")))
"""


@pytest.fixture
def machine(tmp_path):
    """A function that runs the script as a process on a made machine, and returns (result, recorded calls)."""
    binaries, log = tmp_path / "bin", tmp_path / "calls"
    binaries.mkdir()
    answers = {"nvidia-smi": "echo broken; exit 9"}

    def run(arguments, name="debian12", uid=0, script=None, remove=(), **changed):
        for tool in remove:
            if (binaries / tool).exists():
                (binaries / tool).unlink()
        for tool in (READ_ONLY | CHANGING) - set(remove):
            path = binaries / tool
            body = changed.get(tool.replace("-", "_")) or answers.get(tool, "exit 0")
            path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"{tool} $*\" >> '{log}'\n{body}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        text, _, kernel = SYSTEMS[name]
        (tmp_path / "etc/apt").mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/os-release").write_text(text)
        device = tmp_path / "sys/bus/pci/devices/0000:00:04.0"
        device.mkdir(parents=True, exist_ok=True)
        (device / "class").write_text(L4[0])
        (device / "vendor").write_text(L4[1])
        (tmp_path / "etc/apt/sources.list").write_text("deb http://deb.debian.org/debian x main\n")
        code = ["-c", DRIVER.format(folder=str(SCRIPT.parent), root=str(tmp_path), uid=uid, kernel=kernel)]
        log.write_text("")
        result = subprocess.run(
            [sys.executable] + (script or code) + arguments, env={"PATH": str(binaries)}, capture_output=True, text=True
        )
        assert "Traceback" not in result.stderr
        return result, log.read_text().splitlines()

    return run


@pytest.mark.parametrize("name", ["debian11", "debian13", "ubuntu24", "rhel8", "rocky9"])
def test_process_dry_run_prints_the_commands_of_the_install_and_runs_none(machine, name):
    dry, calls = machine(["--dry-run"], name=name, uid=1000)
    assert dry.returncode == 0, dry.stderr
    assert {call.split()[0] for call in calls} <= READ_ONLY
    printed = [line for line in dry.stdout.splitlines() if not line.startswith("#")]
    assert len(printed) >= 5 and any("nvidia" in line or "cuda-drivers" in line for line in printed)

    # The same commands, in the same order, are what an install then runs (all the fakes succeed).
    result, calls = machine(["install"], name=name)
    assert result.returncode == 1  # fakes build no module
    ran = [call for call in calls if call.split()[0] not in READ_ONLY]
    assert ran == [" ".join(shlex.split(line)) for line in printed]


def test_process_failed_command(machine):
    result, calls = machine(["install"], curl="exit 22")
    assert result.returncode == 1
    assert "curl " in result.stderr.splitlines()[-1]
    assert [call for call in calls if call.split()[0] in CHANGING][-1].startswith("curl ")


def test_process_command_that_is_not_there(machine):
    result, _ = machine(["install"], name="rocky9", remove=["dnf"])
    assert result.returncode == 1
    assert "dnf install" in result.stderr


def test_process_verify(machine):
    result, _ = machine(["verify"], nvidia_smi="echo 'NVIDIA L4, 580.95.05, 23034 MiB'")
    assert result.returncode == 0 and "580.95.05" in result.stdout
    assert machine(["verify"])[0].returncode == 1


def test_process_of_the_file_itself_on_this_machine(machine):
    result, calls = machine(["install", "--dry-run"], script=[str(SCRIPT)])
    assert {call.split()[0] for call in calls} <= READ_ONLY
    try:
        text = Path("/etc/os-release").read_text() if os.path.exists("/etc/os-release") else ""
        system = igd.read_os_release(text)
        if platform.machine() != "x86_64":
            raise igd.Refusal
        if not igd.has_nvidia_device(igd.Host()):
            raise igd.Refusal
        if system.id == "debian":  # a container's sources may be kept anywhere
            igd.file_without_contrib(igd.Host())
    except igd.Refusal:
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    else:
        assert result.returncode == 0 and "# the driver" in result.stdout
    result, _ = machine(["verify"], script=[str(SCRIPT)], remove=["nvidia-smi"])
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "before, after",
    [
        (
            "deb http://deb.debian.org/debian bullseye main\n# deb x y main\n",
            "deb http://deb.debian.org/debian bullseye main contrib\n# deb x y main\n",
        ),
        (
            "Types: deb\nSuites: trixie\nComponents: main non-free-firmware\n",
            "Types: deb\nSuites: trixie\nComponents: main contrib non-free-firmware\n",
        ),
    ],
)
@pytest.mark.skipif(not shutil.which("sed") or sys.platform != "linux", reason="needs GNU sed")
def test_the_contrib_edit_itself(tmp_path, before, after):
    path = tmp_path / "sources"
    path.write_text(before)
    command = planned("debian12", contrib_in=str(path))[0].command
    assert command[0] == "sed"
    for _ in range(2):  # the second time nothing is left to change
        subprocess.check_call(command)
        assert path.read_text() == after
