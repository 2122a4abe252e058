import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, python
from jax.sharding import PartitionSpec

from flaxrnn.errors import OutOfMemoryError
from flaxrnn.runtime import devices


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 1), (15, 1), (16, 2), (1_000, 2)])
def test_a_small_batch_is_sharded_over_fewer_devices(batch_size, expected):
    assert jax.device_count() == 2
    mesh = devices.make_mesh(batch_size)
    assert (mesh.size, mesh.axis_names) == (expected, ("data",))


def mesh_of(platform, count):
    """Stands for a mesh of devices that are not there."""
    device = types.SimpleNamespace(platform=platform)
    return types.SimpleNamespace(devices=np.array([device] * count), size=count)


@pytest.mark.parametrize(("batch_size", "expected"), [(20, 1), (511, 1), (512, 2), (4_000, 4)])
def test_an_accelerator_has_at_least_256_rows(batch_size, expected, monkeypatch):
    chips = [types.SimpleNamespace(platform="tpu", id=i) for i in range(4)]
    monkeypatch.setattr(jax, "devices", lambda: chips)
    monkeypatch.setattr(devices, "Mesh", lambda found, axes: found)
    assert len(devices.make_mesh(batch_size)) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS: cuda: there is no such device"),
        ({"JAX_PLATFORMS": "toaster"}, "JAX_PLATFORMS: toaster: there is no such device (Unable"),
        ({"JAX_ENABLE_X64": "1"}, "JAX_ENABLE_X64: must be off: flaxrnn computes in float32"),
        ({"JAX_DISABLE_JIT": "1"}, "JAX_DISABLE_JIT: must be off: flaxrnn compiles its steps"),
    ],
)
def test_settings_of_jax_that_cannot_work_are_one_line(environment, message, imdb_workdir):
    command = [sys.executable, "-m", "flaxrnn.predict", "--workdir", imdb_workdir, "good film"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_each_core_that_the_process_may_use_is_a_device():
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{core}])\n"
        "from flaxrnn.runtime import devices; devices.initialize()\n"
        "import jax; print(jax.device_count())"
    )
    done = subprocess.run([*python(), "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def fork_and_exit():
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


def test_a_fork_after_jax_has_started_is_warned_of():
    jax.devices()
    with pytest.warns(RuntimeWarning, match="incompatible with multithreaded code, and JAX is"):
        fork_and_exit()


def test_specs_are_a_prefix_of_the_tree():
    mesh = devices.make_mesh(16)
    tree = {"rows": np.arange(6), "others": (np.ones(3), np.int32(2))}
    specs = {"rows": PartitionSpec("data"), "others": PartitionSpec()}
    sharded = devices.shard(tree, mesh, specs)
    jax.tree.map(np.testing.assert_array_equal, sharded, tree)
    assert [shard.data.shape for shard in sharded["rows"].addressable_shards] == [(3,), (3,)]
    assert sharded["others"][0].is_fully_replicated


def test_a_compiled_program_computes_what_the_jitted_one_does():
    program = jax.jit(lambda x, y: jnp.sin(x) @ y)
    x, y = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.ones((3, 1), np.float32)
    compiled = devices.compiled(program, x, y)
    np.testing.assert_allclose(compiled(x + 1, y), program(x + 1, y), rtol=1e-6)
    with pytest.raises(TypeError):  # of other shapes
        compiled(x[:1], y)


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("--xla_cpu_max_isa=AVX2", {"xla_backend_optimization_level": "2"}),
        ("--xla_backend_optimization_level=0", {}),
    ],
)
def test_cpu_programs_are_compiled_at_level_2_or_that_of_the_user(flags, options, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert devices.compiler_options(devices.make_mesh(1)) == options


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_this_release_of_xla_knows_the_options_of_every_platform(platform, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    options = devices.compiler_options(mesh_of(platform, 1))
    assert bool(options) == (platform != "tpu")
    jax.jit(lambda x: x + 1, compiler_options=options)(1.0)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
    ],
)
def test_out_of_memory_says_what_to_change(error):
    with pytest.raises(OutOfMemoryError, match=r"^lower it$"), devices.raise_on_oom("lower it"):
        raise error


def test_other_errors_are_not_out_of_memory():
    with pytest.raises(jax.errors.JaxRuntimeError), devices.raise_on_oom("lower it"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_folder_of_the_compilation_cache(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = []
    try:
        for folder, current in (
            (None, "/current"),
            (None, None),
            (str(tmp_path / "x"), "/current"),
        ):
            jax.config.update("jax_compilation_cache_dir", current)
            devices.enable_compilation_cache(folder)
            found.append(jax.config.values["jax_compilation_cache_dir"])
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert found == ["/current", str(tmp_path / "flaxrnn"), str(tmp_path / "x")]
