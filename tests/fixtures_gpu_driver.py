"""The systems that install_gpu_driver.py may meet, and a made machine that answers it: no test can install a driver."""

import fnmatch
import sys
from pathlib import Path

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
        text, _, kernel = SYSTEMS.get(name) or (UNSUPPORTED[name], None, "6.0.0")
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


def planned(name, **found):
    text, _, kernel = SYSTEMS[name]
    return igd.plan(igd.read_os_release(text), kernel, **found)
