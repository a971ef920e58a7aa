"""When an object counts as ready: pure judgements over the object and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.plugins.kubernetes.objects import Object, annotation, metadata, name_of, namespace_of

REVISION = "deployment.kubernetes.io/revision"

Related = Mapping[str, Sequence[Object]]
"""Objects that belong to the one judged, by kind."""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """A judgement: done or not, what to show meanwhile, what to blame in the end."""

    done: bool
    message: str
    problems: Sequence[str] = ()
    failed: bool = False
    """Whether waiting on is pointless."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one kind is judged, and which objects are needed for it: (apiVersion, kind)."""

    judge: Callable[[Object, Related], Readiness]
    related: Sequence[tuple[str, str]] = ()
    selector: Callable[[Object], str | None] = field(default=lambda obj: _match_labels(obj))
    """The label selector of what is related; None when there is nothing to look for."""


def _deployment(deployment: Object, related: Related) -> Readiness:
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < metadata(deployment).get("generation", 1):
        return Readiness(done=False, message="Waiting for the Deployment controller to see the change")
    available, progressing = _condition(deployment, "Available"), _condition(deployment, "Progressing")
    revision = annotation(deployment, REVISION)
    replica_set: Object = next(
        (
            item
            for item in _owned(related["ReplicaSet"], deployment)
            if annotation(item, REVISION) == revision
        ),
        {},
    )
    wanted = replica_set.get("spec", {}).get("replicas", 1)
    ready = replica_set.get("status", {}).get("readyReplicas", 0)
    is_available = available.get("status") == "True"
    rolled_out = revision == "1" or (
        progressing.get("status") == "True" and progressing.get("reason") == "NewReplicaSetAvailable"
    )
    updated = bool(replica_set) and ready >= wanted
    if is_available and rolled_out and updated:
        return Readiness(done=True, message="Deployment initialization complete")
    problems = [
        f"[{condition['reason']}] {condition['message']}"
        for condition in (progressing, available)
        if condition.get("status", "True") != "True" and condition.get("reason")
    ]
    message = f"Waiting for app ReplicaSet to be available ({ready}/{wanted} Pods available)"
    if not is_available:
        problems.append("Minimum number of live Pods was not attained")
    elif not rolled_out or revision == "1":
        problems.append("Minimum number of Pods to consider the application live was not attained")
    else:
        problems.append(
            "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"
        )
    problems += pod_problems(_owned(related["Pod"], replica_set))
    return Readiness(done=False, message=message, problems=problems)


def _daemon_set(daemon_set: Object, related: Related) -> Readiness:
    status = daemon_set.get("status", {})
    generation, observed = metadata(daemon_set).get("generation", 1), status.get("observedGeneration")
    wanted = status.get("desiredNumberScheduled", 0)
    if observed is None:
        message = "DaemonSet status.observedGeneration not found"
    elif observed != generation:
        message = f"DaemonSet generation is {generation}, but latest observed generation is {observed}"
    else:
        for label, name in (
            ("Current", "currentNumberScheduled"),
            ("Updated", "updatedNumberScheduled"),
            ("Available", "numberAvailable"),
            ("Ready", "numberReady"),
        ):
            if status.get(name, 0) < wanted:
                message = f"{label}: {status.get(name, 0)}/{wanted}"
                break
        else:
            return Readiness(done=True, message=f"All replicas scheduled as expected. Replicas: {wanted}")
    return Readiness(
        done=False, message=message, problems=[message, *pod_problems(_owned(related["Pod"], daemon_set))]
    )


def _service(service: Object, related: Related) -> Readiness:
    spec = service.get("spec", {})
    balancer = spec.get("type") == "LoadBalancer"
    if balancer and not service.get("status", {}).get("loadBalancer", {}).get("ingress"):
        problem = "Service was not allocated an IP address; does your cloud provider support this?"
        return Readiness(
            done=False, message="[2/3] Attempting to allocate IP address to Service", problems=[problem]
        )
    endpoints = [endpoint for part in related["EndpointSlice"] for endpoint in part.get("endpoints") or []]
    ready = any(endpoint.get("conditions", {}).get("ready", True) for endpoint in endpoints)
    if ready or _service_selector(service) is None:
        return Readiness(done=True, message="Service initialization complete")
    problem = (
        "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not "
        "match labels on any Pods"
    )
    return Readiness(done=False, message="[1/3] Finding Pods to direct traffic to", problems=[problem])


def _service_selector(service: Object) -> str | None:
    spec = service.get("spec", {})
    if not spec.get("selector") or spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return None
    return f"kubernetes.io/service-name={name_of(service)}"


def _definition(definition: Object, related: Related) -> Readiness:
    if _condition(definition, "Established").get("status") == "True":
        return Readiness(done=True, message="Established")
    names = _condition(definition, "NamesAccepted")
    refused = names.get("status") == "False"
    problems = [f"[{names['reason']}] {names['message']}"] if refused else []
    return Readiness(
        done=False, message="Waiting for the definition to be established", problems=problems, failed=refused
    )


def _job(job: Object, related: Related) -> Readiness:
    failed = _condition(job, "Failed")
    if _condition(job, "Complete").get("status") == "True":
        return Readiness(done=True, message="Job initialization complete")
    problems = pod_problems(_owned(related["Pod"], job))
    if failed.get("status") == "True":
        problems = [
            f"[{failed.get('reason', 'Failed')}] {failed.get('message', 'Job has failed')}",
            *problems,
        ]
    message = f"Waiting for Job {name_of(job)!r} to succeed"
    return Readiness(done=False, message=message, problems=problems, failed=failed.get("status") == "True")


def _pod(pod: Object, related: Related) -> Readiness:
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded" or _condition(pod, "Ready").get("status") == "True":
        return Readiness(done=True, message="Pod initialization complete")
    message = f"Waiting for Pod {_full_name(pod)!r} to be ready"
    return Readiness(done=False, message=message, problems=pod_problems([pod]), failed=phase == "Failed")


def pod_problems(pods: Sequence[Object]) -> list[str]:
    """Why pods are not ready, one text each: the first condition that fails, with the containers' reasons."""
    problems = []
    for pod in sorted(pods, key=name_of):
        status = pod.get("status", {})
        if status.get("phase") == "Succeeded":
            continue
        for kind in ("PodScheduled", "Initialized", "Ready"):
            condition = _condition(pod, kind)
            if condition.get("status", "True") == "True":
                continue
            containers = (
                status.get("initContainerStatuses" if kind == "Initialized" else "containerStatuses") or []
            )
            reasons = "\n".join(text for item in containers for text in _container_problems(item))
            if reasons or condition.get("message"):
                problems.append(f"[Pod {_full_name(pod)}]: {condition.get('message', '')}{reasons}")
            break
    return problems


def _container_problems(status: Mapping[str, Any]) -> list[str]:
    if status.get("ready"):
        return []
    problems = []
    waiting, ended = status.get("state", {}).get("waiting"), status.get("state", {}).get("terminated")
    last = status.get("lastState", {}).get("terminated")
    if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
        problems.append(f"[{waiting.get('reason')}] {waiting.get('message', '')}")
    if ended and ended.get("message"):
        problems.append(f"[{ended.get('reason')}] {ended['message']}")
    elif ended and ended.get("exitCode"):
        problems.append(f'container "{status["name"]}" completed with exit code {ended["exitCode"]}')
    if last:
        problems.append(
            f'container "{status["name"]}" terminated at {last.get("finishedAt")} '
            f"({last.get('reason')}: exit code {last.get('exitCode')})"
        )
        if last.get("message"):
            problems.append(last["message"])
    return problems


def _condition(obj: Object, kind: str) -> Mapping[str, Any]:
    conditions = obj.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _owned(candidates: Sequence[Object], owner: Object) -> list[Object]:
    uid = metadata(owner).get("uid")
    return [
        item
        for item in candidates
        if any(reference["uid"] == uid for reference in metadata(item).get("ownerReferences") or [])
    ]


def _full_name(obj: Object) -> str:
    space = namespace_of(obj)
    return name_of(obj) if space in ("", "default") else f"{space}/{name_of(obj)}"


def _match_labels(obj: Object) -> str:
    labels = obj.get("spec", {}).get("selector", {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


_PODS = ("v1", "Pod")

RULES: Mapping[tuple[str, str], Rule] = {
    ("apps/v1", "Deployment"): Rule(judge=_deployment, related=(("apps/v1", "ReplicaSet"), _PODS)),
    ("apps/v1", "DaemonSet"): Rule(judge=_daemon_set, related=(_PODS,)),
    ("batch/v1", "Job"): Rule(judge=_job, related=(_PODS,)),
    ("v1", "Pod"): Rule(judge=_pod),
    ("v1", "Service"): Rule(
        judge=_service, related=(("discovery.k8s.io/v1", "EndpointSlice"),), selector=_service_selector
    ),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): Rule(judge=_definition),
}
"""The kinds that are waited for, by apiVersion and kind; every other one is ready once it exists."""
