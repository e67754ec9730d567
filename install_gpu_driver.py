#!/usr/bin/env python3
"""Install the NVIDIA driver on a fresh cloud VM, so that the notebooks can run on its GPU (an L4).

Cloud images come without the driver. This script takes it from NVIDIA's signed package repository, so that later
updates come through apt or dnf like any other package, and it builds the kernel module for the running kernel.

    sudo python3 install_gpu_driver.py             install; safe to run again, also after a reboot
    python3 install_gpu_driver.py --dry-run        print the commands in order, change nothing, needs no root
    sudo python3 install_gpu_driver.py --force     install even if a working driver is there
    python3 install_gpu_driver.py verify           print GPU name, driver version and memory

The word `install` may be written out.

Systems: Debian 11-13, Ubuntu 20.04, 22.04 and 24.04, RHEL 8-9, Rocky 8-9, all on x86_64.
Standard library only, Python 3.6 or later. A RHEL 8 image without `python3` runs it as
`sudo /usr/libexec/platform-python install_gpu_driver.py`.

Exit status: 0 done (the last line says whether a reboot is still needed); 1 a command failed, or verify found no
working driver or one that is too old for PyTorch; 2 refused, nothing was changed. A dry run only reads: it looks with
nvidia-smi and mokutil, and in files.
"""

import argparse
import glob
import os
import platform
import re
import shlex
import subprocess
import sys
from collections import namedtuple

REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos/{}/x86_64"
KEYRING = "cuda-keyring_1.1-1_all.deb"
# Only root writes there, unlike /tmp, so nobody can swap the file between download and install.
KEYRING_PATH = "/var/cache/apt/archives/" + KEYRING
# A VM that has just booted often has unattended-upgrades holding the lock, hence the timeout.
APT_INSTALL = "env DEBIAN_FRONTEND=noninteractive apt-get install -y -o DPkg::Lock::Timeout=300".split()
CURL = "curl --fail --silent --show-error --location --proto =https --output".split()
DNF_INSTALL = "dnf install -y".split()
# For sed: adds contrib to the lines of either apt format that have main and not contrib.
ADD_CONTRIB = r"/\bcontrib\b/! s/^(deb .*|Components:.*)\bmain\b/\1main contrib/"
# The oldest driver branch that runs PyTorch built for CUDA 13, as requirements.lock installs it; with an older one it
# computes on the CPU and says nothing. Source: "CUDA Toolkit and Corresponding Driver Versions" in
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes
OLDEST_DRIVER = 580
SMI_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]

# The L4 (Ada) runs with the open and with the proprietary kernel module. The open one is NVIDIA's own choice for Turing
# and later, so it is used wherever the repository is still maintained. `cuda-drivers` (proprietary) is used on the two
# oldest systems, for which NVIDIA makes no new branches: that name has always been in their repositories, `nvidia-open`
# is recent. Their last driver may be older than 580, the oldest that runs CUDA 13 builds; CUDA 12 builds are fine.
OPEN, PROPRIETARY = ("nvidia-open",), ("cuda-drivers",)
# Compute-only set: nvidia-smi, libcuda and the module, without the X and desktop packages (and what those pull in from
# CodeReady Builder) that `nvidia-open` brings on these systems.
COMPUTE = ("nvidia-driver-cuda", "kmod-nvidia-open-dkms")
SUPPORTED = {  # (ID, VERSION_ID): (name of NVIDIA's repository, package family, driver packages)
    ("debian", "11"): ("debian11", "apt", PROPRIETARY),
    ("debian", "12"): ("debian12", "apt", OPEN),
    ("debian", "13"): ("debian13", "apt", OPEN),
    ("ubuntu", "20.04"): ("ubuntu2004", "apt", PROPRIETARY),
    ("ubuntu", "22.04"): ("ubuntu2204", "apt", OPEN),
    ("ubuntu", "24.04"): ("ubuntu2404", "apt", OPEN),
    ("rhel", "8"): ("rhel8", "dnf", COMPUTE),
    ("rhel", "9"): ("rhel9", "dnf", COMPUTE),
    ("rocky", "8"): ("rhel8", "dnf", COMPUTE),  # NVIDIA serves the RHEL rebuilds from the RHEL repository
    ("rocky", "9"): ("rhel9", "dnf", COMPUTE),
}

System = namedtuple("System", "id version repo family packages")
# `otherwise`: None = a failure ends the run; () = a failure is tolerated; a command = it is run instead.
Step = namedtuple("Step", "why command otherwise")
Step.__new__.__defaults__ = (None,)


class Refusal(Exception):
    """This machine is not one the script can work on; nothing has been changed."""


class Failed(Exception):
    """Something that was tried did not work."""


class Host:
    """All that touches the machine: files (below `root`), commands, and who and where we are."""

    def __init__(self, root="/", uid=None, kernel=None, machine=None):
        self.root = root
        self.uid = os.geteuid() if uid is None else uid
        self.kernel = kernel or platform.release()
        self.machine = machine or platform.machine()

    def read(self, path):
        """The text of a file; "" where it cannot be read."""
        try:
            with open(os.path.join(self.root, path.lstrip("/")), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

    def glob(self, pattern):
        found = glob.glob(os.path.join(self.root, pattern.lstrip("/")))
        return ["/" + os.path.relpath(path, self.root) for path in sorted(found)]

    def look(self, command):
        """Run a command that only reads; return its exit status and standard output."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        plain = {"encoding": "utf-8", "errors": "replace", "env": dict(os.environ, LC_ALL="C")}
        try:
            done = subprocess.run(command, **pipes, **plain)
        except OSError:
            return 127, ""
        return done.returncode, done.stdout

    def run(self, command):
        """Run a command that changes the machine, its output going to the terminal; return its exit status."""
        try:
            return subprocess.call(command)
        except OSError:
            return 127  # what a shell answers for a command that is not there


# What is there


def read_os_release(text):
    """Return the System that /etc/os-release describes, or refuse."""
    fields = dict(re.findall(r"""^([A-Z_]+)=["']?([^"'\n]*)["']?\s*$""", text, re.M))
    name, version = fields.get("ID", ""), fields.get("VERSION_ID", "")
    key = (name, version.split(".")[0] if name in ("rhel", "rocky") else version)
    if key not in SUPPORTED:
        found = " ".join(part for part in (name, version) if part) or "no ID and VERSION_ID in /etc/os-release"
        supported = ", ".join(" ".join(pair) for pair in sorted(SUPPORTED))
        raise Refusal(f"unsupported system: found {found}; supported: {supported}")
    return System(key[0], key[1], *SUPPORTED[key])


def has_nvidia_device(host):
    """Whether there is an NVIDIA display device: class 03xx, so that a card's audio function alone is not one."""
    devices = [os.path.dirname(path) for path in host.glob("/sys/bus/pci/devices/*/vendor")]
    nvidia = [device for device in devices if host.read(device + "/vendor").strip() == "0x10de"]
    return any(host.read(device + "/class").startswith("0x03") for device in nvidia)


def file_without_contrib(host):
    """The file of apt's sources in which Debian's contrib is to be enabled; "" if it is enabled already."""
    active = {}
    for path in ["/etc/apt/sources.list"] + host.glob("/etc/apt/sources.list.d/*"):
        active[path] = re.findall(r"^(?:deb|Components:)\s.*\bmain\b.*$", host.read(path), re.M)
    if any(re.search(r"\bcontrib\b", line) for lines in active.values() for line in lines):
        return ""
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if active.get(path):
            return path
    raise Refusal("cannot find where Debian's own apt sources are listed; enable the contrib component by hand first")


def gpus(host):
    """What nvidia-smi says, as (list of [name, driver, memory], reason there is none)."""
    status, text = host.look(SMI_QUERY)
    found = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.count(",") == 2]
    if status == 0 and found:
        return found, ""
    said = (text.strip().splitlines() or ["no output"])[0]
    return [], "nvidia-smi is not there" if status == 127 else f"nvidia-smi exit status {status}: {said}"


def is_too_old(driver):
    """Whether a driver version such as 535.104.05 is older than PyTorch needs; one that is no number is let pass."""
    branch = driver.split(".")[0]
    return branch.isdigit() and int(branch) < OLDEST_DRIVER


def built_modules(host):
    """The kernels for which an NVIDIA module is there: in updates/dkms (Debian, Ubuntu), extra (RHEL), or prebuilt."""
    places = ("updates/dkms/nvidia*.ko*", "extra/nvidia*.ko*", "kernel/nvidia-*/nvidia*.ko*")
    found = [path for place in places for path in host.glob("/lib/modules/*/" + place)]
    return sorted({path.split("/")[3] for path in found})


# What is to be done: apt and dnf leave alone what is there already, so every step may be taken again


def plan(system, kernel, contrib_in="", nouveau=False):
    """Return the steps in order. Pure: it looks at nothing but its arguments.

    Args:
        contrib_in: the file in which Debian's contrib component is still to be enabled, or "".
        nouveau: the free driver holds the GPU.
    """
    steps = plan_apt(system, kernel, contrib_in) if system.family == "apt" else plan_dnf(system, kernel)
    # rpm does not fail when a build inside a package's script does; what was built is not built again
    steps.append(Step("the kernel module, if it is not built yet", ["dkms", "autoinstall", "-k", kernel], ()))
    if not nouveau:
        steps.append(Step("load the module; if it cannot be loaded yet, a reboot does it", ["modprobe", "nvidia"], ()))
    return steps


def plan_apt(system, kernel, contrib_in):
    steps = []
    if contrib_in:
        # NVIDIA's Debian packages depend on a few from contrib. Debian 13 has no add-apt-repository any more.
        steps.append(Step("Debian's contrib component", ["sed", "-i.bak", "-E", ADD_CONTRIB, contrib_in]))
    otherwise = None
    if system.id == "debian" and "bpo" not in kernel:
        # Debian drops the headers of superseded kernels. The current kernel with its headers then has to come, and
        # a reboot into it. (A backports kernel is newer than that one, and would be booted again: no way out.)
        flavour = next((f for f in ("cloud-amd64", "rt-amd64") if kernel.endswith(f)), "amd64")
        otherwise = APT_INSTALL + ["linux-image-" + flavour, "linux-headers-" + flavour]
    update = Step("refresh the package lists", ["apt-get", "update"])
    # NVIDIA publishes no checksum for the keyring that we know of. Trust in it rests on TLS to NVIDIA's host; from
    # then on apt checks every package against the key it brings.
    return steps + [
        update,
        Step("headers of the running kernel", APT_INSTALL + ["linux-headers-" + kernel], otherwise),
        Step("tools to fetch the keyring", APT_INSTALL + ["ca-certificates", "curl"]),
        Step("NVIDIA's keyring", CURL + [KEYRING_PATH, REPOSITORY.format(system.repo) + "/" + KEYRING]),
        Step("NVIDIA's repository", APT_INSTALL + [KEYRING_PATH]),
        update,
        Step("the driver", APT_INSTALL + list(system.packages)),
    ]


def plan_dnf(system, kernel):
    # Mirrors drop superseded kernels; then the current kernel with its headers has to come, and a reboot into it.
    headers = DNF_INSTALL + ["kernel-devel-" + kernel, "kernel-headers"]
    # On RHEL the release package comes over TLS from Fedora's host, and brings the key for the rest.
    epel = f"https://dl.fedoraproject.org/pub/epel/epel-release-latest-{system.version}.noarch.rpm"
    url = f"{REPOSITORY.format(system.repo)}/cuda-{system.repo}.repo"
    # NVIDIA's .repo file says gpgcheck=1; the option holds dnf to it whatever the file says.
    gpgcheck = f"--setopt=cuda-{system.repo}-x86_64.gpgcheck=1"
    # EPEL packages may need CodeReady Builder. Tolerated, because the clouds' RHEL images name it differently; should
    # something from it be missing, the driver step fails and says so.
    return [
        Step("headers of the running kernel", headers, DNF_INSTALL + ["kernel", "kernel-devel", "kernel-headers"]),
        Step("dnf config-manager", DNF_INSTALL + ["dnf-plugins-core"]),
        Step("EPEL, which has dkms", DNF_INSTALL + ["epel-release" if system.id == "rocky" else epel]),
        Step("CodeReady Builder, for EPEL", ["crb", "enable"], ()),
        Step("NVIDIA's repository", ["dnf", "config-manager", "--add-repo", url]),
        Step("leave another driver stream, if any", ["dnf", "module", "reset", "-y", "nvidia-driver"]),
        Step("stream with the open module", ["dnf", "module", "enable", "-y", "nvidia-driver:open-dkms"]),
        Step("the driver", DNF_INSTALL + [gpgcheck] + list(system.packages)),
    ]


def shown(command):
    return " ".join(shlex.quote(word) for word in command)


def say(text):
    print(text, flush=True)  # flushed, so that it stays in order with what the commands print


def run_steps(host, steps, dry_run):
    """Print each command and, unless this is a dry run, run it; the first failure that matters ends it."""
    for step in steps:
        say("# " + step.why)
        say(shown(step.command))
        if dry_run:
            if step.otherwise is not None:
                say("# if that fails: " + (shown(step.otherwise) or "go on without it"))
            continue
        status, command = host.run(step.command), step.command
        if status and step.otherwise is not None:
            say("# exit status {}: {}".format(status, shown(step.otherwise) or "going on without it"))
            command = step.otherwise
            status = host.run(command) if command else 0
        if status:
            raise Failed(f"command failed with exit status {status}: {shown(command)}")


def install(host, dry_run, force):
    system = read_os_release(host.read("/etc/os-release"))
    if host.machine != "x86_64":
        raise Refusal(f"unsupported architecture: found {host.machine}; supported: x86_64")
    if not has_nvidia_device(host):
        raise Refusal("no NVIDIA GPU among this machine's PCI devices")
    if host.uid != 0 and not dry_run:
        raise Refusal("install needs root: run it with sudo (or look first, with --dry-run)")
    working = gpus(host)[0]
    old = bool(working) and is_too_old(working[0][1])
    if working and not (old or force):
        say("a working driver is there, nothing to do: {}, driver {}, {}".format(*working[0]))
        return
    if old:
        say(f"# driver {working[0][1]} works but is older than {OLDEST_DRIVER}: installing a newer one")
    contrib_in = file_without_contrib(host) if system.id == "debian" else ""
    if "SecureBoot enabled" in host.look(["mokutil", "--sb-state"])[1]:
        say("# warning: Secure Boot is on; the module loads only if its signing key is enrolled (mokutil --import)")
    nouveau = bool(host.glob("/sys/module/nouveau"))
    if nouveau:
        say("# nouveau is in use and holds the GPU: a reboot is needed after the install")
    run_steps(host, plan(system, host.kernel, contrib_in, nouveau), dry_run)
    if not dry_run:
        say_what_came_of_it(host, old)


def say_what_came_of_it(host, was_old):
    (working, reason), modules = gpus(host), built_modules(host)
    if working and was_old and is_too_old(working[0][1]):
        say(f"installed; the driver in use is still {working[0][1]}: reboot, then run verify")
    elif working:
        check_age(working[0][1])
        say("done: {}, driver {}, {}".format(*working[0]))
    elif not modules:
        # dnf reports success even where the build inside a package's script failed.
        raise Failed("packages are installed but no NVIDIA kernel module was built; see `dkms status`")
    else:
        if host.kernel not in modules:
            say("the module is built for {}, not for the running kernel {}".format(", ".join(modules), host.kernel))
        say(f"installed, but not in use yet ({reason}): reboot, then run verify")


def check_age(driver):
    if is_too_old(driver):
        text = f"driver {driver} is older than {OLDEST_DRIVER}, which PyTorch for CUDA 13 needs"
        raise Failed(text + ": run install, or take a PyTorch for CUDA 12")


def verify(host, dry_run):
    if dry_run:
        say(shown(SMI_QUERY))
        return
    found, reason = gpus(host)
    if not found:
        raise Failed("no working driver: " + reason)
    for name, driver, memory in found:
        say(f"GPU {name}, driver {driver}, memory {memory}")
    check_age(found[0][1])


def main(argv=None, host=None):
    parser = argparse.ArgumentParser(description="Install or verify the NVIDIA driver on a fresh cloud VM.")
    parser.add_argument("command", nargs="?", default="install", choices=["install", "verify"])
    parser.add_argument("--dry-run", action="store_true", help="print the commands in order and run none of them")
    parser.add_argument("--force", action="store_true", help="install even if a working driver is there")
    options = parser.parse_args(argv)
    host = host or Host()
    try:
        if options.command == "install":
            install(host, options.dry_run, options.force)
        else:
            verify(host, options.dry_run)
    except Refusal as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
