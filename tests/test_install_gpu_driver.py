"""Tests of install_gpu_driver.py. Nothing here can install a driver: commands are either answered by a fake Host, or
run with a PATH that holds nothing but fakes which record how they were called."""

import ast
import fnmatch
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "install_gpu_driver.py"
sys.path.insert(0, str(SCRIPT.parent))
import install_gpu_driver as igd  # noqa: E402

# (os-release text, expected (id, version, repository, family), kernel as such a VM runs it)
SYSTEMS = {
    "debian11": (
        'PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nVERSION_ID="11"\nID=debian\n',
        ("debian", "11", "debian11", "apt"),
        "5.10.0-32-cloud-amd64",
    ),
    "debian12": (
        'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION="12 (bookworm)"\nID=debian\n',
        ("debian", "12", "debian12", "apt"),
        "6.1.0-28-cloud-amd64",
    ),
    "debian13": (
        'VERSION_ID="13"\nVERSION="13 (trixie)"\nID=debian\nDEBIAN_VERSION_FULL=13.1\n',
        ("debian", "13", "debian13", "apt"),
        "6.12.43+deb13-amd64",
    ),
    "ubuntu20": (
        'NAME="Ubuntu"\nVERSION="20.04.6 LTS (Focal Fossa)"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="20.04"\n',
        ("ubuntu", "20.04", "ubuntu2004", "apt"),
        "5.15.0-1078-gcp",
    ),
    "ubuntu22": (
        'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\n',
        ("ubuntu", "22.04", "ubuntu2204", "apt"),
        "6.8.0-1015-gcp",
    ),
    "ubuntu24": (
        'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
        ("ubuntu", "24.04", "ubuntu2404", "apt"),
        "6.14.0-1007-aws",
    ),
    "rhel8": (
        'NAME="Red Hat Enterprise Linux"\nID="rhel"\nVERSION_ID="8.10"\nPLATFORM_ID="platform:el8"\n',
        ("rhel", "8", "rhel8", "dnf"),
        "4.18.0-553.el8_10.x86_64",
    ),
    "rhel9": (
        'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n',
        ("rhel", "9", "rhel9", "dnf"),
        "5.14.0-427.13.1.el9_4.x86_64",
    ),
    "rocky8": (
        'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n',
        ("rocky", "8", "rhel8", "dnf"),
        "4.18.0-553.el8_10.x86_64",
    ),
    "rocky9": (
        "ID='rocky'\nID_LIKE='rhel centos fedora'\nVERSION_ID='9.5'\n",
        ("rocky", "9", "rhel9", "dnf"),
        "5.14.0-503.14.1.el9_5.x86_64",
    ),
}
UNSUPPORTED = {
    "fedora 41": 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=41\n',
    "debian 10": 'ID=debian\nVERSION_ID="10"\n',
    "debian": 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\n',  # testing has no VERSION_ID
    "alpine 3.20.3": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\n',
    "almalinux 9.4": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
    "ubuntu 23.10": 'ID=ubuntu\nVERSION_ID="23.10"\n',
    "no ID and VERSION_ID": "",
}
PCI = "/sys/bus/pci/devices/"
L4, AUDIO, OTHER = ("0x030200", "0x10de"), ("0x040300", "0x10de"), ("0x030000", "0x1b36")  # class and vendor
SMI = "NVIDIA L4, 580.95.05, 23034 MiB\n"
OLD = "NVIDIA L4, 535.104.05, 23034 MiB\n"


class FakeHost(igd.Host):
    """A made machine: its files are in a dict, and its commands change a set of installed packages."""

    def __init__(
        self, name="debian12", devices=(OTHER, L4), smi=(127, ""), uid=0, machine="x86_64", fails=(), loads=False
    ):
        text, self.expected, kernel = SYSTEMS.get(name) or (UNSUPPORTED[name], None, "6.0.0")
        super().__init__(uid=uid, kernel=kernel, machine=machine)
        self.files = {"/etc/os-release": text}
        if name.startswith("debian"):
            self.files["/etc/apt/sources.list"] = "deb http://deb.debian.org/debian stable main\n"
        for number, (kind, vendor) in enumerate(devices):
            self.files |= {f"{PCI}{number}/class": kind + "\n", f"{PCI}{number}/vendor": vendor + "\n"}
        self.smi, self.fails, self.loads = smi, fails, loads
        self.builds = True
        self.packages, self.ran = set(), []

    def read(self, path):
        return self.files.get(path, "")

    def glob(self, pattern):
        # fnmatch's * also matches "/", which is harmless for the few files here.
        return sorted(path for path in self.files if fnmatch.fnmatch(path, pattern))

    def look(self, command):
        if command[0] == "nvidia-smi":
            return self.smi
        assert command[0] == "mokutil"
        return 127, ""

    def run(self, command):
        self.ran.append(" ".join(command))
        if any(part in self.ran[-1] for part in self.fails):
            return 100
        if "install" in command and command[1] != "module":
            new = [word for word in command[command.index("install") + 1 :] if not word.startswith(("-", "DPkg"))]
            self.packages.update(
                "cuda-keyring" if "cuda-keyring" in word else "epel-release" if "epel-release" in word else word
                for word in new
            )
            if self.builds and {"nvidia-open", "cuda-drivers", "kmod-nvidia-open-dkms"} & set(new):
                self.files[f"/lib/modules/{self.kernel}/extra/nvidia.ko.xz"] = ""
        elif command[0] == "sed":
            self.files[command[-1]] = self.files[command[-1]].replace("main", "main contrib")
        elif command[0] == "modprobe":
            if not self.loads:
                return 1
            self.smi = (0, SMI)
        return 0


def position(commands, *parts):
    """Index of the one command that holds all the parts."""
    found = [i for i, command in enumerate(commands) if all(part in command for part in parts)]
    assert len(found) == 1, (parts, commands)
    return found[0]


# What is read


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_supported_systems_are_recognised(name):
    text, expected, _ = SYSTEMS[name]
    system = igd.read_os_release(text)
    assert (system.id, system.version, system.repo, system.family) == expected
    assert system.packages


@pytest.mark.parametrize("found", sorted(UNSUPPORTED))
def test_unsupported_systems_are_refused_with_what_was_found_and_what_is_supported(found):
    with pytest.raises(igd.Refusal) as caught:
        igd.read_os_release(UNSUPPORTED[found])
    assert found in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "devices, expected",
    [([L4], True), ([("0x030000", "0x10de")], True), ([OTHER, L4, AUDIO], True)]
    + [([AUDIO], False), ([OTHER], False), ([OTHER, AUDIO], False), ([], False)],
)
def test_nvidia_device(tmp_path, devices, expected):
    for number, (kind, vendor) in enumerate(devices):
        device = tmp_path / f"sys/bus/pci/devices/0000:00:0{number}.0"
        device.mkdir(parents=True)
        (device / "class").write_text(kind + "\n")
        (device / "vendor").write_text(vendor + "\n")
    assert igd.has_nvidia_device(igd.Host(root=str(tmp_path))) is expected


@pytest.mark.parametrize(
    "sources, expected",
    [
        ({"/etc/apt/sources.list": "deb http://deb.debian.org/debian bullseye main\n"}, "/etc/apt/sources.list"),
        ({"/etc/apt/sources.list": "deb http://deb.debian.org/debian bullseye main contrib\n"}, ""),
        (
            {"/etc/apt/sources.list": "# deb http://x bullseye main contrib\ndeb http://x bullseye main\n"},
            "/etc/apt/sources.list",
        ),
        (
            {
                "/etc/apt/sources.list": "",
                "/etc/apt/sources.list.d/debian.sources": "Types: deb\nComponents: main non-free-firmware\n",
            },
            "/etc/apt/sources.list.d/debian.sources",
        ),
        ({"/etc/apt/sources.list.d/debian.sources": "Types: deb\nComponents: main contrib\n"}, ""),
    ],
)
def test_contrib(sources, expected):
    host = FakeHost()
    host.files = sources
    assert igd.file_without_contrib(host) == expected


def test_contrib_is_refused_where_debian_sources_are_not_found():
    host = FakeHost()
    host.files = {"/etc/apt/sources.list": "# empty\n"}
    with pytest.raises(igd.Refusal):
        igd.file_without_contrib(host)


# What is planned


def planned(name, **found):
    text, _, kernel = SYSTEMS[name]
    return igd.plan(igd.read_os_release(text), kernel, **found)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_plan_for_a_fresh_system(name):
    _, (ident, version, repo, family), kernel = SYSTEMS[name]
    commands = [" ".join(step.command) for step in planned(name)]
    base = "https://developer.download.nvidia.com/compute/cuda/repos/" + repo + "/x86_64/"
    if family == "apt":
        driver = "cuda-drivers" if name in ("debian11", "ubuntu20") else "nvidia-open"
        order = [
            position(commands, "apt-get install", "linux-headers-" + kernel),
            position(commands, "curl", "--proto =https", base + "cuda-keyring_1.1-1_all.deb"),
            position(commands, "apt-get install", igd.KEYRING_PATH),
            position(commands, "apt-get install", " " + driver),
        ]
        assert commands[0] == "apt-get update"
        # The new repository's lists are fetched between adding it and installing from it.
        assert "apt-get update" in commands[order[2] : order[3]]
    else:
        epel = "epel-release-latest-" + version if ident == "rhel" else "install -y epel-release"
        order = [
            position(commands, "kernel-devel-" + kernel, "kernel-headers"),
            position(commands, "dnf-plugins-core"),
            position(commands, epel),
            position(commands, "config-manager --add-repo " + base + "cuda-" + repo + ".repo"),
            position(commands, "module enable -y nvidia-driver:open-dkms"),
            position(commands, "cuda-" + repo + "-x86_64.gpgcheck=1", "nvidia-driver-cuda kmod-nvidia-open-dkms"),
        ]
    order.append(position(commands, "modprobe nvidia"))
    assert order == sorted(order)
    assert order[-1] == len(commands) - 1


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_nothing_is_piped_and_no_signature_check_is_switched_off(name):
    for step in planned(name, contrib_in="/etc/apt/sources.list"):
        for command in (step.command, step.otherwise or ["none"]):
            assert isinstance(command, list) and command[0] not in ("sh", "bash")
            line = " ".join(command)
            for bad in ("nogpgcheck", "gpgcheck=0", "allow-unauthenticated", "trusted=yes", "--insecure", "http://"):
                assert bad not in line


@pytest.mark.parametrize(
    "kernel, expected",
    [
        ("6.1.0-28-cloud-amd64", ["linux-image-cloud-amd64", "linux-headers-cloud-amd64"]),
        ("6.1.0-28-amd64", ["linux-image-amd64", "linux-headers-amd64"]),
        ("6.1.0-28-rt-amd64", ["linux-image-rt-amd64", "linux-headers-rt-amd64"]),
        ("6.12.9+bpo-cloud-amd64", None),
    ],
)
def test_debian_falls_back_to_the_current_kernel_and_its_headers(kernel, expected):
    steps = igd.plan(igd.read_os_release(SYSTEMS["debian12"][0]), kernel)
    step = next(step for step in steps if "linux-headers-" + kernel in step.command)
    assert step.otherwise is None if expected is None else step.otherwise[-2:] == expected


def test_ubuntu_has_no_fallback_for_headers():
    assert all(step.otherwise is None for step in planned("ubuntu22") if "linux-headers" in step.command[-1])


def test_a_module_that_was_not_built_is_built_and_nouveau_is_not_fought():
    commands = [step.command for step in planned("rocky9")]
    assert commands.index(["dkms", "autoinstall", "-k", SYSTEMS["rocky9"][2]]) == len(commands) - 2
    assert not any("modprobe" in step.command for step in planned("debian12", nouveau=True))


# What install does, on a made machine


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_install_then_again_before_and_after_the_reboot(name):
    host = FakeHost(name)
    assert igd.main([], host) == 0, "without a word it installs"
    first = list(host.ran)
    assert set(igd.read_os_release(SYSTEMS[name][0]).packages) <= host.packages
    if name.startswith("debian"):
        assert host.files["/etc/apt/sources.list"].endswith("main contrib\n") and first[0].startswith("sed ")

    assert igd.main(["install"], host) == 0
    second = host.ran[len(first) :]
    assert second == [command for command in first if not command.startswith("sed ")], "all but what cannot be repeated"

    host.smi = (0, SMI)  # as after the reboot
    assert igd.main([], host) == 0
    assert host.ran == first + second
    assert igd.main(["verify"], host) == 0


@pytest.mark.parametrize("loads", [True, False])
def test_a_reboot_is_asked_for_unless_the_module_loads(loads, capsys):
    assert igd.main([], FakeHost("ubuntu24", loads=loads)) == 0
    assert ("reboot" in capsys.readouterr().out.splitlines()[-1]) is not loads


def test_working_driver_is_left_alone_unless_forced():
    host = FakeHost("debian12", smi=(0, SMI))
    assert igd.main([], host) == 0
    assert host.ran == []
    assert igd.main(["--force"], host) == 0
    assert any("nvidia-open" in line for line in host.ran)


def test_working_driver_that_pytorch_cannot_use_is_replaced():
    host = FakeHost("debian12", smi=(0, OLD))
    assert igd.main(["verify"], host) == 1
    assert igd.main([], host) == 0
    assert any("nvidia-open" in line for line in host.ran)
    host.smi = (0, SMI)  # as after the reboot
    assert igd.main(["verify"], host) == 0


@pytest.mark.parametrize(
    "name, part",
    [
        ("debian11", "sed"),
        ("debian12", "apt-get update"),
        ("debian12", "curl"),
        ("debian13", "nvidia-open"),
        ("ubuntu20", "cuda-drivers"),
        ("ubuntu22", "linux-headers-"),
        ("rhel8", "--add-repo"),
        ("rhel9", "epel-release"),
        ("rocky8", "module enable"),
        ("rocky9", "kmod-nvidia-open-dkms"),
    ],
)
def test_a_failed_step_ends_the_run_and_is_named(name, part, capsys):
    host = FakeHost(name, fails=(part,))
    assert igd.main(["install"], host) == 1
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) == 1
    assert part in host.ran[-1], "went on after the failure"
    host.fails = ()  # the cause is gone: a rerun finishes the job
    assert igd.main(["install"], host) == 0


def test_missing_headers_take_the_fallback_and_both_failing_is_a_failure(capsys):
    kernel = SYSTEMS["debian12"][2]
    host = FakeHost("debian12", fails=("linux-headers-" + kernel,))
    assert igd.main(["install"], host) == 0
    assert "linux-headers-cloud-amd64" in host.packages
    host = FakeHost("debian12", fails=("linux-headers-",))
    assert igd.main(["install"], host) == 1
    assert "linux-headers-cloud-amd64" in capsys.readouterr().err
    assert not any("nvidia-open" in line for line in host.ran)


def test_codeready_builder_may_fail():
    assert igd.main(["install"], FakeHost("rhel9", fails=("crb enable",))) == 0


def test_packages_without_a_module_are_not_called_a_success():
    host = FakeHost("rocky9")
    host.builds = False
    assert igd.main(["install"], host) == 1
    host.files["/lib/modules/5.14.0-999.el9.x86_64/extra/nvidia.ko.xz"] = ""
    assert igd.main(["install"], host) == 0


REFUSALS = {
    "not root": (dict(uid=1000), "root"),
    "no gpu": (dict(devices=[OTHER, AUDIO]), "no NVIDIA GPU"),
    "no device at all": (dict(devices=[]), "no NVIDIA GPU"),
    "architecture": (dict(machine="aarch64"), "aarch64"),
    "fedora": (dict(name="fedora 41"), "fedora 41"),
    "empty os-release": (dict(name="no ID and VERSION_ID"), "supported: "),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals_change_nothing_and_say_one_line(case, capsys):
    arguments, part = REFUSALS[case]
    host = FakeHost(**arguments)
    assert igd.main(["install"], host) == 2
    captured = capsys.readouterr()
    assert host.ran == []
    assert part in captured.err and len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert igd.main(["install", "--dry-run"], host) == (0 if case == "not root" else 2)
    assert host.ran == []


@pytest.mark.parametrize(
    "smi, status",
    [
        ((0, SMI * 2), 0),
        ((127, ""), 1),
        ((9, "NVIDIA-SMI has failed because it couldn't communicate\nmore\n"), 1),
        ((18, SMI), 1),
        ((0, "No devices were found\n"), 1),
    ],
)
def test_verify(smi, status, capsys):
    host = FakeHost(smi=smi, uid=1000)
    assert igd.main(["verify"], host) == status
    captured = capsys.readouterr()
    lines = (captured.err if status else captured.out).splitlines()
    assert len(lines) == (1 if status else 2)
    assert host.ran == []


# As a process, with a PATH that holds only fakes

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


def test_source_is_python_3_6_standard_library_and_at_most_120_wide():
    source = SCRIPT.read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"argparse", "collections", "glob", "os", "platform", "re", "shlex", "subprocess", "sys"}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not keywords & {"capture_output", "text"}  # subprocess has them from 3.7 on
    assert max(len(line) for line in source.splitlines()) <= 120
