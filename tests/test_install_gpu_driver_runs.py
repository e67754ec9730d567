"""What install_gpu_driver.py does on a made machine: fresh, again, after a failure, and where it has to refuse."""

import pytest

from tests.fixtures_gpu_driver import AUDIO, OLD, OTHER, SMI, SYSTEMS, FakeHost, igd


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
