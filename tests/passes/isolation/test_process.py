"""The process of its own: what it answers, and that nothing which a model does there ends or hangs this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.isolation import process
from kcompiler.passes.isolation.process import Ended, Limits
from kcompiler.runtime.foreign import ForeignFailure

LIMITS = Limits(20.0, 2 << 30)


def single(operator, *constants, **attributes):
    """A model of one node of constants alone."""
    weights = [numpy_helper.from_array(np.asarray(values), f"c{number}") for number, values in enumerate(constants)]
    node = helper.make_node(operator, [weight.name for weight in weights], ["y"], **attributes)
    graph = helper.make_graph([node], "single", [], [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)], weights)
    graph.output[0].type.ClearField("tensor_type")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


OVERFLOW = single("Div", np.array([-(1 << 63)]), np.array([-1]))


def endless():
    """A Loop without an end, of the image."""
    value, go = (
        helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
    )
    number, on = (
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
    )
    nodes = [helper.make_node("Abs", ["v"], ["w"]), helper.make_node("Identity", ["go"], ["on"])]
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    loop = helper.make_node(
        "Loop", ["", "yes", "x"], ["y"], body=helper.make_graph(nodes, "b", [number, go, value], [on, output])
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([loop], "endless", values[:1], values[1:], [numpy_helper.from_array(np.array(True), "yes")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def sums():
    (outputs,) = process.run(single("Add", np.array([1, 2]), np.array([3, 4])), [{}], LIMITS)
    return outputs[0].tolist()


def test_it_answers():
    assert sums() == [4, 6]
    with pytest.raises(ForeignFailure, match=r"ModelProto|Protobuf|protobuf"):
        process.run(b"no model", [{}], LIMITS)
    assert sums() == [4, 6]


def test_a_task_that_ends_it_is_an_error_and_the_next_one_is_answered(tmp_path):
    with pytest.raises(Ended, match=r"it ends the process that loads it \(SIGFPE\): a division that overflows"):
        process.write_optimised(OVERFLOW, tmp_path, "ORT_ENABLE_BASIC", tmp_path / "folded.onnx", 1024, LIMITS)
    assert sums() == [4, 6]


def test_a_task_that_takes_too_long_is_an_error():
    with pytest.raises(Ended, match="it takes more than 1 s"):
        process.run(endless(), [{"x": np.ones(1, np.float32)}], Limits(1.0, 2 << 30))
    assert sums() == [4, 6]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what is allocated")
def test_a_task_that_takes_too_much_memory_is_an_error():
    zeros = single("ConstantOfShape", np.array([1 << 31]))
    with pytest.raises(ForeignFailure):
        process.run(zeros, [{}], Limits(20.0, 1 << 30))
    assert sums() == [4, 6]


def test_a_forked_child_has_its_own():
    assert sums() == [4, 6]
    child = os.fork()
    if not child:
        os._exit(0 if sums() == [4, 6] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sums() == [4, 6], "the child's end leaves the parent's"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="only where processes can be killed so")
def test_it_ends_with_its_parent():
    program = (
        "import time; from kcompiler.passes.isolation import process; process.begin();"
        "print(process._shared(__import__('os').getpid())._running.pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        number = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while alive(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(number)


def test_at_the_end_of_the_program_nothing_is_left_running():
    """Python warns of processes that nobody waited for."""
    program = "from kcompiler.passes.isolation import process; process.begin()"
    ended = subprocess.run([sys.executable, "-P", "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{number}/stat") as stat:  # one that nobody waited for has ended all the same
        return stat.read().rpartition(")")[2].split()[0] != "Z"
