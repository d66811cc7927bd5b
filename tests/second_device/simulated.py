"""A second device, made of the CPU's memory. What mixes tensors of both devices fails, as on a GPU.

A tensor of the device "second" holds an ordinary tensor, its twin; operations run on the twins. So
results are those of the CPU, to the last bit, and only their place differs. Importing this module
changes torch for the whole process: import it where nothing else runs.

It finds what is made on the CPU, or left there. It does not find what a GPU cannot do, such as
an operation without a kernel, too little memory, or another rounding.
"""

import gc

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import Accelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)


class _Module(_DummyBackendModule):
    """What stands for `torch.cuda`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("second", backend_module=_Module())
SECOND = torch.device("second", 0)
aten = torch.ops.aten

# A GPU takes indices from the CPU, and copies from it when told to.
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
INDEXED += (aten._index_put_impl_.default, aten._unsafe_index.Tensor)
COPIES = (aten._to_copy.default, aten.copy.default, aten.copy_.default)


class MixedDevicesError(RuntimeError):
    """An operation got tensors, or a generator, of two devices."""


class SecondTensor(Tensor):
    """A tensor of the second device."""

    twin: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, twin: Tensor) -> "SecondTensor":
        tensor = Tensor._make_wrapper_subclass(
            cls,
            twin.size(),
            strides=twin.stride(),
            storage_offset=twin.storage_offset(),
            dtype=twin.dtype,
            device=SECOND,
        )
        tensor.twin = twin
        return tensor

    def __repr__(self) -> str:
        return f"second({self.twin!r})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: int) -> tuple:  # saved as a tensor of the CPU
        return self.twin.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _run(operation, args, kwargs):
    """An operation that has to do with the second device."""
    leaves = tree_leaves((args, kwargs))
    ours = [x for x in leaves if isinstance(x, SecondTensor)]
    to_ours = bool(ours)
    if kwargs.get("device") is not None:
        to_ours = torch.device(kwargs["device"]).type == SECOND.type
    elif operation in (aten.copy_.default, *INDEXED):
        to_ours = isinstance(args[0], SecondTensor)
    if ours and operation not in COPIES:
        _require_one_device(operation, args, leaves)
    for x in leaves:
        if isinstance(x, _CPUGenerator) and to_ours != _is_generator(x):
            raise MixedDevicesError(f"{operation}: the generator is of another device")
    results = operation(*tree_map(_twin, args), **tree_map(_twin, kwargs))
    if not to_ours:
        return results
    known = {id(x.twin): x for x in ours}  # what works in place returns what it got

    def place(x):
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else SecondTensor(x)

    return tree_map(place, results)


def _require_one_device(operation, args, leaves):
    strangers = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, SecondTensor)]
    if operation in INDEXED and isinstance(args[0], SecondTensor):
        strangers = [x for x in args[2:3] if not isinstance(x, SecondTensor)]  # the values
    for x in strangers:
        if x.dim() > 0 or operation in INDEXED:  # single numbers of the CPU are taken by a GPU
            raise MixedDevicesError(
                f"{operation}: a tensor {tuple(x.shape)} of the CPU among others"
            )


def _twin(x):
    if isinstance(x, torch.device) and x.type == SECOND.type:
        return torch.device("cpu")
    return x.twin if isinstance(x, SecondTensor) else x


class _Everywhere(TorchDispatchMode):
    """Sees what is made on the device, or with a generator of it, from nothing."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for x in tree_leaves((args, kwargs)):
            is_device = isinstance(x, torch.device) and x.type == SECOND.type
            if isinstance(x, SecondTensor) or is_device or _is_generator(x):
                return _run(operation, args, kwargs)
        return operation(*args, **kwargs)


_Everywhere().__enter__()


# Where torch itself makes tensors, below every Python.
_library = torch.library.Library("aten", "IMPL")


def _copy_from(source: Tensor, destination: Tensor, non_blocking: bool = False) -> Tensor:
    _twin(destination).copy_(_twin(source))
    return destination


def _empty(size, **options):
    return _run(aten.empty.memory_format, (size,), options | {"device": SECOND})


def _empty_strided(size, stride, **options):
    return _run(aten.empty_strided.default, (size, stride), options | {"device": SECOND})


_library.impl("_copy_from", _copy_from, "PrivateUse1")
_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")

_CPUGenerator = torch.Generator
_GENERATORS: dict[int, torch.Generator] = {}  # those of the second device


def _is_generator(x: object) -> bool:
    return isinstance(x, _CPUGenerator) and x._cdata in _GENERATORS


class _SecondGenerator(_CPUGenerator):
    """Draws on the CPU and says that it is elsewhere."""

    device = SECOND


class _AnyGenerator(type):
    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, _CPUGenerator)


class _Generator(metaclass=_AnyGenerator):
    """Stands for `torch.Generator`, which knows no device that is written in Python."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        if torch.device(device).type != SECOND.type:
            return _CPUGenerator()
        generator = _SecondGenerator()
        _GENERATORS[generator._cdata] = generator
        return generator


torch.Generator = _Generator
# A module that is moved keeps its parameters, as it does between a CPU and a GPU.
torch.__future__.set_swap_module_params_on_conversion(True)
_to = nn.Module.to


def _collect_and_move(module: nn.Module, *target: object, **options: object) -> nn.Module:
    gc.collect()  # only a parameter that no old graph refers to can be kept
    return _to(module, *target, **options)


nn.Module.to = _collect_and_move
# Tensors that are written in Python have no views in inference mode.
torch.inference_mode = torch.no_grad


class _SecondAccelerator(Accelerator):
    def setup_device(self, device): ...

    def teardown(self): ...

    @staticmethod
    def parse_devices(devices):
        return devices

    @staticmethod
    def get_parallel_devices(devices):
        return [SECOND]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return SECOND.type


def second_fabric(*, accelerator: str, precision: str, **_: object) -> Fabric:
    """What stands for the `Fabric` of a machine with an accelerator."""
    if accelerator == "cpu":
        return Fabric(accelerator="cpu", devices=1, precision=precision)
    strategy = SingleDeviceStrategy(device=SECOND, accelerator=_SecondAccelerator())
    return Fabric(strategy=strategy, devices=1, precision=precision)
