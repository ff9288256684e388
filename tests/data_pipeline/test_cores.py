import pytest

from ibot_cli.data.cores import LoadPlan, best_share, cgroup_cores, choose_workers, crowded, free_cores


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


@pytest.mark.parametrize(
    ("own", "limits", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000"}, 4.0),  # Docker, version 2, its own name space
        ("0::/system.slice/docker-ab.scope\n", {"cpu.max": "400000 100000"}, 4.0),  # the machine's name space
        ("0::/kubepods.slice/pod1/c1\n", {"kubepods.slice/pod1/cpu.max": "150000 100000"}, 1.5),  # limit of the pod
        ("0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
         {"system.slice/slurmstepd.scope/job_7/cpu.max": "800000 100000"}, 8.0),
        ("3:cpuacct,cpu:/docker/ab\n0::/\n",
         {"cpuacct,cpu/cpu.cfs_quota_us": "300000", "cpuacct,cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ("1:cpu:/slurm/uid_0/job_7\n0::/x\n",  # both versions at once
         {"cpu/slurm/uid_0/cpu.cfs_quota_us": "600000", "cpu/slurm/uid_0/cpu.cfs_period_us": "100000",
          "cpu.max": "max 100000"}, 6.0),
        ("4:cpuset:/docker/ab\n", {"cpu.max": "nonsense"}, None),
    ],
)  # fmt: skip
def test_layouts_of_containers_and_clusters(tmp_path, own, limits, cores):
    files(tmp_path, {"own": own, **{f"fs/{name}": text for name, text in limits.items()}})
    assert cgroup_cores(tmp_path / "fs", tmp_path / "own") == cores


def test_no_control_groups(tmp_path):
    assert cgroup_cores(tmp_path / "none", tmp_path / "none") is None


def test_free_cores_are_shared_by_the_processes_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("ibot_cli.data.cores.OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr("ibot_cli.data.cores.CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert free_cores() == 8
    files(tmp_path, {"own": "0::/\n", "cpu.max": "650000 100000"})
    assert free_cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert free_cores() == 4
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


def test_the_best_share_is_the_least_of_all():
    for load, compute, cores in [(0.03, 0.01, 4), (0.001, 1.0, 8), (0.15, 0.01, 4), (0.02, 0.02, 1)]:
        workers, threads, seconds = best_share(load, compute, cores)
        times = {w: load + compute / cores if w == 0 else max(load / w, compute / (cores - w)) for w in range(cores)}
        assert workers + threads == cores and seconds == times[workers] == min(times.values())


def test_loader_processes_beyond_the_cores_are_told():
    assert crowded(0, 64, 2, on_device=False) is None
    assert crowded(1, 1, 2, on_device=False) is None and crowded(7, 9, 8, on_device=True) is None
    warning = crowded(2, 1, 1, on_device=False)
    assert warning is not None and "need 3 cores, but 1 is free" in warning
