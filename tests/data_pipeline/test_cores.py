import pytest

from ibot_cli.data.cores import LoadPlan, cgroup_cores, choose_workers, free_cores


def files(root, contents):
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_quota_of_control_groups_version_2(tmp_path):
    files(
        tmp_path,
        {
            "own": "0::/slice/job\n",
            "fs/cpu.max": "max 100000\n",
            "fs/slice/cpu.max": "250000 100000\n",
            "fs/slice/job/cpu.max": "max 100000\n",
        },
    )
    assert cgroup_cores(tmp_path / "fs", tmp_path / "own") == 2.5


def test_quota_of_control_groups_version_1(tmp_path):
    files(
        tmp_path,
        {
            "own": "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n",
            "fs/cpu/cpu.cfs_quota_us": "150000\n",
            "fs/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup_cores(tmp_path / "fs", tmp_path / "own") == 1.5
    files(tmp_path, {"fs/cpu/cpu.cfs_quota_us": "-1\n"})
    assert cgroup_cores(tmp_path / "fs", tmp_path / "own") is None


def test_no_control_groups(tmp_path):
    assert cgroup_cores(tmp_path / "none", tmp_path / "none") is None


def test_free_cores_are_shared_by_the_processes_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("ibot_cli.data.cores.OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr("ibot_cli.data.cores.CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_cores() == 8
    files(tmp_path, {"own": "0::/\n", "cpu.max": "650000 100000"})
    assert free_cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_cores() == 1


@pytest.mark.parametrize(
    ("load", "compute", "cores", "expected"),
    [
        (0.0003, 0.001, 2, (0, 2)),  # digits: loading is trifling
        (0.03, 2.0, 2, (0, 2)),  # a large network on the CPU
        (0.15, 0.01, 4, (3, 1)),  # large photographs, small network
        (0.03, None, 8, (7, 1)),  # accelerator
        (0.03, None, 64, (16, 48)),
        (0.03, None, 1, (0, 1)),
    ],
)
def test_workers_and_threads_fit_the_cores(load, compute, cores, expected):
    plan = choose_workers(num_images=1000, load_seconds=load, compute_seconds=compute, cores=cores)
    assert isinstance(plan, LoadPlan) and plan[:2] == expected and plan.workers + plan.threads <= max(cores, 1)
    assert " ms" in plan.reason and plan.reason.endswith(".")
