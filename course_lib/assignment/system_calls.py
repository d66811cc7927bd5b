"""A filter of system calls for the box: what a notebook never needs and an attack might.

Memory that no limit counts (files in memory, shared segments), namespaces and mounts of its own,
looking into other processes, and the kernel's rarely used doors. Refused calls fail with EPERM,
as they would for lack of a permission; torch and IPython need none of them.
"""

import errno
import platform
import struct

# Numbers of the calls: the kernel's table for each architecture.
REFUSED = {
    "x86_64": {
        **{"memfd_create": 319, "memfd_secret": 447, "shmget": 29, "msgget": 68, "semget": 64},
        **{"mq_open": 240, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311},
        **{"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155},
        **{"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432},
        **{"mount_setattr": 442, "open_by_handle_at": 304, "userfaultfd": 323, "bpf": 321},
        **{"perf_event_open": 298, "io_uring_setup": 425, "add_key": 248, "request_key": 249},
        **{"keyctl": 250},
    },
    "aarch64": {
        **{"memfd_create": 279, "memfd_secret": 447, "shmget": 194, "msgget": 186, "semget": 190},
        **{"mq_open": 180, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271},
        **{"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41},
        **{"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432},
        **{"mount_setattr": 442, "open_by_handle_at": 265, "userfaultfd": 282, "bpf": 280},
        **{"perf_event_open": 241, "io_uring_setup": 425, "add_key": 217, "request_key": 218},
        **{"keyctl": 219},
    },
}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET

# Classic BPF: what is loaded, compared, returned. See the kernel's seccomp_filter documentation.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE_FIELD, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
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
        """Return `outcome` where the comparison holds, else go on behind it."""
        return [step(code, value, 0, 1), step(RETURN, outcome)]

    refuse = REFUSE | errno.EPERM
    steps = [step(LOAD, ARCHITECTURE_FIELD)]
    steps += [step(EQUAL, ARCHITECTURE[machine], 1, 0), step(RETURN, KILL)]
    steps += [step(LOAD, NUMBER)]
    if machine == "x86_64":
        steps += unless(AT_LEAST, X32, refuse)
    for number in sorted(REFUSED[machine].values()):
        steps += unless(EQUAL, number, refuse)
    # The arguments of clone3 lie in memory, where a filter cannot look: as if it did not exist,
    # so that the C library falls back to clone.
    steps += unless(EQUAL, CLONE3, REFUSE | errno.ENOSYS)
    steps += [step(EQUAL, CLONE[machine], 1, 0), step(RETURN, ALLOW)]
    steps += [step(LOAD, FIRST_ARGUMENT), *unless(ANY_BIT, NEW_NAMESPACES, refuse)]
    return b"".join([*steps, step(RETURN, ALLOW)])
