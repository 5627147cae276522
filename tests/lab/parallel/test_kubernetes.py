"""The manifest on the page for Kubernetes: pods by Kubernetes' own schema, and a command that bisam takes."""

import re

import kubernetes_validate
import pytest
import yaml

from tests.pages import ROOT, blocks, check_command

PAGE = "docs/lab/kubernetes.md"
KUBERNETES = "1.30"
#: Fields of KubeRay's ray.io/v1 (ray-operator/apis/ray/v1, read 2026-11-26), whose schema is in no package.
JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load(next(block.text for block in blocks(PAGE) if block.language == "yaml"))


def groups(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check_pod(template):
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "one"}, "template": template}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_pods_are_those_of_kubernetes(manifest):
    for group in groups(manifest):
        check_pod(group["template"])
    group["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        check_pod(group["template"])


def test_fields_are_those_of_kuberay(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert manifest["spec"].keys() <= JOB
    assert manifest["spec"]["rayClusterSpec"].keys() <= CLUSTER
    head, *workers = groups(manifest)
    assert head.keys() <= GROUP - {"groupName", "replicas", "minReplicas", "maxReplicas"}
    assert all({"groupName", "rayStartParams", "template"} <= group.keys() <= GROUP for group in workers)
    assert all(isinstance(value, str) for group in groups(manifest) for value in group["rayStartParams"].values())


def test_its_command_is_one_and_writes_where_all_pods_see_it(manifest):
    command = manifest["spec"]["entrypoint"]
    assert command.startswith("bisam ")
    check_command(command.removeprefix("bisam "))
    (out,) = re.findall(r"--out (\S+)", command)
    for group in groups(manifest):
        (container,) = group["template"]["spec"]["containers"]
        assert any(out.startswith(f"{mount['mountPath']}/") for mount in container["volumeMounts"])


def test_ray_is_the_image_s():
    text = (ROOT / PAGE).read_text()
    assert len(set(re.findall(r"ray[^ \n]*[:=]+ ?\"?(\d+\.\d+\.\d+)", text))) == 1
    assert len(re.findall(r"\d+\.\d+\.\d+", text)) == 3
