"""A filter of system calls for the box: what a notebook never needs and an attack might.

Memory that no limit counts (files in memory, shared segments, large socket buffers), every kind of
socket but those between processes of the box, namespaces and mounts of its own, looking into other
processes, and the kernel's rarely used doors. Refused calls fail with EPERM, as they would for lack
of a permission, and sockets with EAFNOSUPPORT, as on a system without that network; torch and
IPython need none of them. Calls that are newer than this list do not exist in the box.
"""

import errno
import platform
import struct

# Numbers of the calls: the kernel's table for each architecture. From 424 on they are the same.
NEW = {
    **{"pidfd_getfd": 438, "process_madvise": 440, "process_mrelease": 448, "memfd_secret": 447},
    **{"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432},
    **{"fspick": 433, "mount_setattr": 442, "quotactl_fd": 443, "io_uring_setup": 425},
    **{"io_uring_enter": 426, "io_uring_register": 427},
}
REFUSED = {
    "x86_64": {
        **{"memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240},
        **{"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312},
        **{"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155},
        **{"chroot": 161, "name_to_handle_at": 303, "open_by_handle_at": 304, "bpf": 321},
        **{"userfaultfd": 323, "perf_event_open": 298, "add_key": 248, "request_key": 249},
        **{"keyctl": 250, "io_setup": 206, "inotify_init": 253, "inotify_init1": 294},
        **{"fanotify_init": 300, "quotactl": 179, "acct": 163, "swapon": 167, "swapoff": 168},
        **{"reboot": 169, "kexec_load": 246, "kexec_file_load": 320, "init_module": 175},
        **{"finit_module": 313, "delete_module": 176, "syslog": 103, "vhangup": 153},
        **{"personality": 135, "migrate_pages": 256, "move_pages": 279, "vmsplice": 278},
        **{"remap_file_pages": 216, "lookup_dcookie": 212, "modify_ldt": 154, "iopl": 172},
        **{"ioperm": 173, "uselib": 134, **NEW},
    },
    "aarch64": {
        **{"memfd_create": 279, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180},
        **{"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272},
        **{"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41},
        **{"chroot": 51, "name_to_handle_at": 264, "open_by_handle_at": 265, "bpf": 280},
        **{"userfaultfd": 282, "perf_event_open": 241, "add_key": 217, "request_key": 218},
        **{"keyctl": 219, "io_setup": 0, "inotify_init1": 26},
        **{"fanotify_init": 262, "quotactl": 60, "acct": 89, "swapon": 224, "swapoff": 225},
        **{"reboot": 142, "kexec_load": 104, "kexec_file_load": 294, "init_module": 105},
        **{"finit_module": 273, "delete_module": 106, "syslog": 116, "vhangup": 58},
        **{"personality": 92, "migrate_pages": 238, "move_pages": 239, "vmsplice": 75},
        **{"remap_file_pages": 234, "lookup_dcookie": 18, **NEW},
    },
}
UNKNOWN = 463  # calls from this number on are newer than the lists above
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
SOCKETS = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
SOCKET_OPTION = {"x86_64": 54, "aarch64": 208}
LOCAL = 1  # AF_UNIX; the box has no network, and other families are doors to the kernel
BUFFERS = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and the same with FORCE, all of level 1
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET

# Classic BPF: what is loaded, compared, returned. See the kernel's seccomp_filter documentation.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE_FIELD, ARGUMENTS = 0, 4, (16, 24, 32)  # offsets in struct seccomp_data
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
X32 = 0x40000000  # calls of x86-64's second interface carry this bit


def program(machine: str | None = None) -> bytes | None:
    """The filter as bubblewrap reads it; ``None`` for an architecture whose numbers are not listed.

    Args:
        machine: the architecture, this machine's own by default.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in REFUSED:
        return None

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    def unless(code: int, value: int, outcome: int) -> list[bytes]:
        """Return `outcome` where the comparison holds, else continue after it."""
        return [step(code, value, 0, 1), step(RETURN, outcome)]

    def when(number: int, then: list[bytes]) -> list[bytes]:
        """For this call alone go through `then`, which ends by allowing what it has not refused."""
        then = [*then, step(RETURN, ALLOW)]
        return [step(EQUAL, number, 0, len(then)), *then]

    refuse = REFUSE | errno.EPERM
    steps = [step(LOAD, ARCHITECTURE_FIELD)]
    steps += [step(EQUAL, ARCHITECTURE[machine], 1, 0), step(RETURN, KILL)]
    steps += [step(LOAD, NUMBER)]
    if machine == "x86_64":
        steps += unless(AT_LEAST, X32, refuse)
    steps += unless(AT_LEAST, UNKNOWN, REFUSE | errno.ENOSYS)
    for number in sorted(REFUSED[machine].values()):
        steps += unless(EQUAL, number, refuse)
    # The arguments of clone3 lie in memory, where a filter cannot look: as if it did not exist,
    # so that the C library falls back to clone.
    steps += unless(EQUAL, CLONE3, REFUSE | errno.ENOSYS)
    new_namespaces = unless(ANY_BIT, NEW_NAMESPACES, refuse)
    steps += when(CLONE[machine], [step(LOAD, ARGUMENTS[0]), *new_namespaces])
    for number in SOCKETS[machine]:
        other = [step(EQUAL, LOCAL, 1, 0), step(RETURN, REFUSE | errno.EAFNOSUPPORT)]
        steps += when(number, [step(LOAD, ARGUMENTS[0]), *other])
    options = [step(LOAD, ARGUMENTS[1]), step(EQUAL, 1, 1, 0), step(RETURN, ALLOW)]
    options += [step(LOAD, ARGUMENTS[2])]
    for option in BUFFERS:
        options += unless(EQUAL, option, refuse)
    steps += when(SOCKET_OPTION[machine], options)
    return b"".join([*steps, step(RETURN, ALLOW)])
