"""What install_gpu_driver.py recognises and plans; nothing here runs a command."""

import ast

import pytest

from tests.fixtures_gpu_driver import AUDIO, L4, OTHER, SCRIPT, SYSTEMS, UNSUPPORTED, FakeHost, igd, planned


def position(commands, *parts):
    """Index of the one command that holds all the parts."""
    found = [i for i, command in enumerate(commands) if all(part in command for part in parts)]
    assert len(found) == 1, (parts, commands)
    return found[0]


# --- what is read ----------------------------------------------------------------------------------------------------


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


# --- what is planned -------------------------------------------------------------------------------------------------


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


# --- the source ------------------------------------------------------------------------------------------------------


def test_source_is_python_3_6_standard_library_and_at_most_120_wide():
    source = SCRIPT.read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"argparse", "collections", "glob", "os", "platform", "re", "shlex", "subprocess", "sys"}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not keywords & {"capture_output", "text"}  # subprocess has them from 3.7 on
    assert max(len(line) for line in source.splitlines()) <= 120
