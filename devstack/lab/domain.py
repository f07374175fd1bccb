"""The domain XML of a guest, with what Nova 34 writes into it."""

import dataclasses
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from .host import CONSOLE_DIRECTORY, CONTROL_DIRECTORY
from .image import Image

NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"
PROJECT = "5f705155-1bd7-4dbe-9d3c-6d1b3d3f6a01"
KERNEL_ARGUMENTS = "console=ttyS0 quiet audit=0 apparmor=0 mitigations=off"


@dataclasses.dataclass(kw_only=True)
class Nic:
    """A port of a guest: `addresses` with prefix length; the rest is made up when not given."""

    addresses: Sequence[str]
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    mac: str = ""
    tap: str = ""
    mtu: int = 1500
    queues: int = 1
    txqueuelen: int | None = None
    gateway: str | None = None

    def __post_init__(self) -> None:
        # As Neutron and Nova make them: a fixed prefix, and the start of the port's UUID.
        self.mac = (self.mac or ":".join(["fa", "16", "3e", *_pairs(self.uuid)[:3]])).lower()
        self.tap = self.tap or f"tap{self.uuid[:11]}"


def _pairs(text: str) -> list[str]:
    digits = text.replace("-", "")
    return [digits[i : i + 2] for i in range(0, len(digits), 2)]


@dataclasses.dataclass(kw_only=True)
class Spec:
    """What a guest is made of. `on_crash` is libvirt's: destroy, restart, preserve."""

    name: str
    nics: Sequence[Nic]
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    project: str = PROJECT
    memory_mib: int = 96
    on_crash: str = "destroy"
    nova: bool = True


def build_domain_xml(spec: Spec, image: Image) -> str:
    """The XML to define; with `spec.nova` false it has no metadata, as without OpenStack."""
    domain = ET.Element("domain", type="qemu")
    _add(domain, "name", spec.name)
    _add(domain, "uuid", spec.uuid)
    if spec.nova:
        _add_metadata(_add(domain, "metadata"), spec)
    _add(domain, "memory", str(spec.memory_mib), unit="MiB")
    _add(domain, "vcpu", "1")
    _add_boot(domain, spec, image)
    _add(_add(domain, "features"), "acpi")
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", spec.on_crash)
    devices = _add(domain, "devices")
    _add(devices, "emulator", "/usr/bin/qemu-system-x86_64")
    for nic in spec.nics:
        devices.append(build_interface(nic))
    _add_other_devices(devices, spec)
    return ET.tostring(domain, encoding="unicode")


def build_interface(nic: Nic) -> ET.Element:
    """What Nova writes for a port with vif_type=tap; also what attachDevice takes."""
    interface = ET.Element("interface", type="ethernet")
    _add(interface, "mac", address=nic.mac)
    _add(interface, "target", dev=nic.tap, managed="no")
    _add(interface, "model", type="virtio")
    if nic.queues > 1:
        _add(interface, "driver", queues=str(nic.queues))
    _add(interface, "mtu", size=str(nic.mtu))
    _add(interface, "rom", enabled="no")
    return interface


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_metadata(metadata: ET.Element, spec: Spec) -> None:
    ET.register_namespace("nova", NOVA)
    instance = _add(metadata, f"{{{NOVA}}}instance")
    _add(instance, f"{{{NOVA}}}package", version="34.0.0")
    _add(instance, f"{{{NOVA}}}name", spec.name)
    _add(instance, f"{{{NOVA}}}creationTime", "2026-01-01 00:00:00")
    owner = _add(instance, f"{{{NOVA}}}owner")
    _add(owner, f"{{{NOVA}}}user", "lab", uuid=spec.project)
    _add(owner, f"{{{NOVA}}}project", "lab", uuid=spec.project)
    ports = _add(instance, f"{{{NOVA}}}ports")
    for nic in spec.nics:
        port = _add(ports, f"{{{NOVA}}}port", uuid=nic.uuid)
        for address in nic.addresses:
            version = "6" if ":" in address else "4"
            plain = address.partition("/")[0]
            _add(port, f"{{{NOVA}}}ip", type="fixed", address=plain, ipVersion=version)


def _add_boot(domain: ET.Element, spec: Spec, image: Image) -> None:
    arguments = [KERNEL_ARGUMENTS, f"vnet.name={spec.name}"]
    for nic in spec.nics:
        via = [f"via={nic.gateway}"] if nic.gateway else []
        arguments.append("vnet.port=" + ",".join([nic.mac, *nic.addresses, *via]))
    boot = _add(domain, "os")
    _add(boot, "type", "hvm", arch="x86_64", machine="pc")
    _add(boot, "kernel", str(image.kernel))
    _add(boot, "initrd", str(image.initrd))
    _add(boot, "cmdline", " ".join(arguments))


def _add_other_devices(devices: ET.Element, spec: Spec) -> None:
    console = _add(devices, "serial", type="file")
    _add(console, "source", path=f"{CONSOLE_DIRECTORY}/{spec.name}.log", append="on")
    _add(console, "target", port="0")
    control = _add(devices, "serial", type="unix")
    _add(control, "source", mode="bind", path=f"{CONTROL_DIRECTORY}/{spec.name}")
    _add(control, "target", port="1")
    _add(devices, "panic", model="isa")
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "memballoon", model="none")
    _add(_add(devices, "video"), "model", type="none")
