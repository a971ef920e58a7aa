"""When the kubernetes stand-in calls an object ready, and what it blames if not."""

from __future__ import annotations

from typing import Any

import pytest

from lab.plugins.kubernetes.objects import Object
from lab.plugins.kubernetes.readiness import REVISION, RULES, Readiness, Related, pod_problems

NOT_PULLED = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}


def judge(api_version: str, kind: str, obj: Object, related: Related | None = None) -> Readiness:
    rule = RULES[api_version, kind]
    nothing: dict[str, list[Object]] = {name: [] for _, name in rule.related}
    return rule.judge({"apiVersion": api_version, "kind": kind} | obj, nothing | dict(related or {}))


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def owned(name: str, owner: str, **more: Any) -> Object:
    metadata = {"name": name, "namespace": "n", "uid": name, "ownerReferences": [{"uid": owner}]}
    return {"metadata": metadata} | more


def pod(name: str, owner: str, *conditions: Object, **status: Any) -> Object:
    return owned(name, owner, status={"phase": "Pending", "conditions": list(conditions), **status})


# Deployments.


def deployment(
    *,
    revision: str = "2",
    observed: int = 3,
    available: str = "True",
    progress: str = "NewReplicaSetAvailable",
) -> Object:
    return {
        "metadata": {"name": "d", "uid": "d", "generation": 3, "annotations": {REVISION: revision}},
        "spec": {"selector": {"matchLabels": {"app": "d"}}},
        "status": {
            "observedGeneration": observed,
            "conditions": [
                condition("Available", available, "MinimumReplicasUnavailable", "no minimum availability"),
                condition("Progressing", "True", progress),
            ],
        },
    }


def replica_set(ready: int, revision: str = "2") -> Object:
    made = owned("rs", "d", spec={"replicas": 2}, status={"readyReplicas": ready})
    made["metadata"]["annotations"] = {REVISION: revision}
    return made


def test_a_deployment_is_ready_with_its_new_replica_set() -> None:
    ready = judge("apps/v1", "Deployment", deployment(), {"ReplicaSet": [replica_set(2)]})
    assert ready == Readiness(done=True, message="Deployment initialization complete")


@pytest.mark.parametrize(
    ("obj", "replica_sets", "problem"),
    [
        (deployment(available="False"), [replica_set(0)], "Minimum number of live Pods was not attained"),
        (
            deployment(progress="ReplicaSetUpdated"),
            [replica_set(0)],
            "Minimum number of Pods to consider the application live was not attained",
        ),
        (
            deployment(),
            [replica_set(1)],
            "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live",
        ),
        (
            deployment(),
            [replica_set(2, revision="1")],
            "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live",
        ),
    ],
)
def test_a_deployment_says_what_is_missing(obj: Object, replica_sets: list[Object], problem: str) -> None:
    broken = pod("p", "rs", condition("Ready", "False", message="not ready: "), containerStatuses=[waiting()])
    foreign = pod("other", "another", condition("Ready", "False", message="not ours"))
    judged = judge("apps/v1", "Deployment", obj, {"ReplicaSet": replica_sets, "Pod": [broken, foreign]})
    assert not judged.done
    assert problem in judged.problems
    known = replica_sets[0]["metadata"]["annotations"][REVISION] == "2"
    blamed = "[Pod n/p]: not ready: [ImagePullBackOff] Back-off pulling image"
    assert judged.problems[-1] == (blamed if known else problem)


def test_the_status_of_an_earlier_generation_says_nothing() -> None:
    judged = judge("apps/v1", "Deployment", deployment(observed=2), {"ReplicaSet": [replica_set(2)]})
    assert (judged.done, judged.problems) == (False, ())


def test_the_first_revision_has_no_rollout() -> None:
    first = deployment(revision="1", progress="ReplicaSetUpdated")
    assert judge("apps/v1", "Deployment", first, {"ReplicaSet": [replica_set(2, "1")]}).done


def test_a_deployment_that_does_not_progress_gives_its_reason() -> None:
    stuck = deployment()
    stuck["status"]["conditions"][1] = condition(
        "Progressing", "False", "ProgressDeadlineExceeded", "too slow"
    )
    judged = judge("apps/v1", "Deployment", stuck, {"ReplicaSet": [replica_set(0)]})
    assert judged.problems[0] == "[ProgressDeadlineExceeded] too slow"


# DaemonSets.


def daemon_set(**status: int) -> Object:
    counts = {
        "observedGeneration": 2,
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 3,
        "updatedNumberScheduled": 3,
        "numberAvailable": 3,
        "numberReady": 3,
    }
    return {"metadata": {"name": "ds", "uid": "ds", "generation": 2}, "status": counts | status}


def test_a_daemon_set_is_ready_when_every_node_has_the_new_pod_available() -> None:
    ready = judge("apps/v1", "DaemonSet", daemon_set())
    assert ready == Readiness(done=True, message="All replicas scheduled as expected. Replicas: 3")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"observedGeneration": 1}, "DaemonSet generation is 2, but latest observed generation is 1"),
        ({"currentNumberScheduled": 2}, "Current: 2/3"),
        ({"updatedNumberScheduled": 1, "numberAvailable": 1}, "Updated: 1/3"),
        ({"numberAvailable": 0}, "Available: 0/3"),
        ({"numberReady": 2}, "Ready: 2/3"),
    ],
)
def test_a_daemon_set_counts_what_is_missing(status: dict[str, int], message: str) -> None:
    broken = pod("p", "ds", condition("Ready", "False"), containerStatuses=[waiting()])
    judged = judge("apps/v1", "DaemonSet", daemon_set(**status), {"Pod": [broken]})
    assert (judged.done, judged.message) == (False, message)
    assert judged.problems == [message, "[Pod n/p]: [ImagePullBackOff] Back-off pulling image"]


def test_a_daemon_set_that_no_controller_has_seen_is_not_ready() -> None:
    judged = judge("apps/v1", "DaemonSet", {"metadata": {"uid": "ds", "generation": 1}})
    assert (judged.done, judged.message) == (False, "DaemonSet status.observedGeneration not found")


# Services.


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ({"selector": {"a": "b"}}, "kubernetes.io/service-name=s"),
        ({}, None),
        ({"selector": {}}, None),
        ({"selector": {"a": "b"}, "clusterIP": "None"}, None),
        ({"selector": {"a": "b"}, "type": "ExternalName"}, None),
    ],
)
def test_a_service_with_a_selector_waits_for_an_endpoint(spec: Object, selector: str | None) -> None:
    service = {"metadata": {"name": "s"}, "spec": spec}
    assert RULES["v1", "Service"].selector(service) == selector
    assert judge("v1", "Service", service).done == (selector is None)
    unready: list[Object] = [{"endpoints": [{"conditions": {"ready": False}}]}, {"endpoints": None}]
    assert judge("v1", "Service", service, {"EndpointSlice": unready}).done == (selector is None)
    ready: list[Object] = [{"endpoints": [{"conditions": {"ready": True}}]}]
    assert judge("v1", "Service", service, {"EndpointSlice": ready}).done


def test_a_load_balancer_waits_for_its_address() -> None:
    service = {"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer"}}
    (problem,) = judge("v1", "Service", service).problems
    assert problem.startswith("Service was not allocated an IP address")
    assert judge(
        "v1", "Service", service | {"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}
    ).done


# Other kinds.


def test_a_definition_is_ready_when_established() -> None:
    group = "apiextensions.k8s.io/v1"
    kind = "CustomResourceDefinition"
    assert not judge(group, kind, {}).done
    assert judge(group, kind, {"status": {"conditions": [condition("Established", "True")]}}).done
    taken = {
        "status": {"conditions": [condition("NamesAccepted", "False", "PluralConflict", "things is taken")]}
    }
    judged = judge(group, kind, taken)
    assert judged.failed
    assert judged.problems == ["[PluralConflict] things is taken"]


def test_a_job_is_ready_when_complete_and_lost_when_failed() -> None:
    job = {"metadata": {"name": "j", "uid": "j"}}
    assert not judge("batch/v1", "Job", job).done
    assert judge("batch/v1", "Job", job | {"status": {"conditions": [condition("Complete", "True")]}}).done
    failed = job | {
        "status": {"conditions": [condition("Failed", "True", "BackoffLimitExceeded", "too often")]}
    }
    broken = pod("p", "j", condition("Ready", "False", message="gone "), containerStatuses=[ended()])
    judged = judge("batch/v1", "Job", failed, {"Pod": [broken]})
    assert judged.failed
    assert judged.problems == [
        "[BackoffLimitExceeded] too often",
        '[Pod n/p]: gone container "c" completed with exit code 3',
    ]


def test_a_pod_is_ready_when_ready_or_done() -> None:
    assert judge("v1", "Pod", {"status": {"conditions": [condition("Ready", "True")]}}).done
    assert judge("v1", "Pod", {"status": {"phase": "Succeeded"}}).done
    assert judge("v1", "Pod", {"status": {"phase": "Failed"}}).failed
    pending = judge("v1", "Pod", {"metadata": {"name": "p"}})
    assert (pending.done, pending.failed, pending.message) == (
        False,
        False,
        "Waiting for Pod 'p' to be ready",
    )


# Pods' problems.


def waiting(reason: str = "ImagePullBackOff") -> Object:
    state = {"waiting": NOT_PULLED | {"reason": reason}}
    return {"name": "c", "ready": False, "state": state}


def ended(**more: Any) -> Object:
    return {"name": "c", "ready": False, "state": {"terminated": {"exitCode": 3, "reason": "Error", **more}}}


def test_the_first_condition_that_fails_is_named() -> None:
    unscheduled = pod("a", "x", condition("PodScheduled", "False", message="0/1 nodes are available"))
    starting = pod(
        "b",
        "x",
        condition("Initialized", "False", message="init "),
        condition("Ready", "False", message="later"),
        initContainerStatuses=[ended(message="no such file")],
    )
    assert pod_problems([starting, unscheduled]) == [
        "[Pod n/a]: 0/1 nodes are available",
        "[Pod n/b]: init [Error] no such file",
    ]


def test_a_container_that_only_starts_is_no_problem() -> None:
    statuses = [waiting("ContainerCreating"), {"name": "d", "ready": True}]
    assert pod_problems([pod("a", "x", condition("Ready", "False"), containerStatuses=statuses)]) == []
    assert pod_problems([pod("a", "x", condition("Ready", "False"), phase="Succeeded")]) == []


def test_a_crash_loop_shows_how_the_container_ended() -> None:
    last = {"finishedAt": "2026-11-21T10:00:00Z", "reason": "Error", "exitCode": 2, "message": "bad flag"}
    status = waiting("CrashLoopBackOff") | {"lastState": {"terminated": last}}
    (problem,) = pod_problems([pod("a", "x", condition("Ready", "False"), containerStatuses=[status])])
    assert problem.splitlines() == [
        "[Pod n/a]: [CrashLoopBackOff] Back-off pulling image",
        'container "c" terminated at 2026-11-21T10:00:00Z (Error: exit code 2)',
        "bad flag",
    ]
