"""What is read of the machine; a GPU need not be there."""

import pytest

from machineshop.runtime.machine import Machine, gpu_type


def test_a_machine_has_cores_and_memory_and_maybe_gpus() -> None:
    machine = Machine()
    assert machine.capacity.cpu >= 1
    assert machine.capacity.memory_gib > 0.1
    assert machine.capacity.gpus == len(machine.gpus)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H200", "h200-140gb"),
        ("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"),
    ],
)
def test_gpus_have_the_names_of_the_api_where_it_has_one(name: str, expected: str) -> None:
    assert gpu_type(name) == expected


def test_the_gpus_that_the_server_may_not_use_are_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.runtime.machine._gpu_names", lambda: dict.fromkeys(range(4), "NVIDIA H100"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Machine().gpus == (0, 1, 2, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert Machine().gpus == (1, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = Machine()
    assert (machine.gpus, machine.capacity.gpu_types) == ((), ())
