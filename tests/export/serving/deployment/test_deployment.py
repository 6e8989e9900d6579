"""What is written beside the models: complete, valid, and fitting together."""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from check_jsonschema import main as check_jsonschema

from emotion_ai.client.protos import GET_MODEL_METADATA, GET_MODEL_STATUS, PREDICT
from emotion_ai.client.request_limits import MAX_BYTES
from emotion_ai.contract import MAX_FACES, SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai_export.convert.saved_model import MAX_SCANS
from emotion_ai_export.registry.model_config import parse, render
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.serving.deployment import FILES, write_deployment
from emotion_ai_export.serving.engines import IMAGE, served_models
from tests.export.serving.deployment.deployment_files import MIB, container, manifests, put_version, rendered, seen_as


def test_the_files_are_complete_and_clean(base: Path, target: str) -> None:
    texts = rendered(base, target)
    assert sorted(texts) == sorted(FILES)
    assert all(line == line.rstrip() for text in texts.values() for line in text.splitlines())
    assert all(text.endswith("\n") and not text.startswith("\n") for text in texts.values())


def test_compose_follows_its_schema(base: Path, target: str, tmp_path: Path) -> None:
    rendered(base, target)
    command = ["--builtin-schema", "vendor.compose-spec", "--quiet"]
    assert exit_code([*command, str(base / "deployment/compose.yaml")]) == 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((base / "deployment/compose.yaml").read_text().replace("cap_drop", "cap_dorp"))
    assert exit_code([*command, str(wrong)]) == 1


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        check_jsonschema(arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_the_manifests_follow_their_schemas(base: Path, target: str, version: str) -> None:
    found = manifests(rendered(base, target)["kubernetes.yaml"])
    for manifest in found.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    assert sorted(found) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    ]
    found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found["Deployment"], version, strict=True)


def test_the_manifests_fit_together(base: Path, target: str) -> None:
    found = manifests(rendered(base, target)["kubernetes.yaml"])
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    (server,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {p["targetPort"]: p["port"] for p in found["Service"]["spec"]["ports"]} == ports
    claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {"models": {"claimName": found["PersistentVolumeClaim"]["metadata"]["name"], "readOnly": True}}
    assert {mount["name"] for mount in server["volumeMounts"]} == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_server_runs_with_minimal_rights(base: Path, target: str) -> None:
    texts = rendered(base, target)
    pod = manifests(texts["kubernetes.yaml"])["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert not pod["automountServiceAccountToken"]
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    services = yaml.safe_load(texts["compose.yaml"])["services"]
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert services["server"]["user"] == user
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)


def test_nothing_is_published_beyond_this_machine(base: Path, target: str) -> None:
    services = yaml.safe_load(rendered(base, target)["compose.yaml"])["services"]
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert ports == {
        "server": ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"],
        "page": ["127.0.0.1:7860:7860"],
        "prometheus": [],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    settings = services["grafana"]["environment"]
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true", "otherwise it is admin with admin"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert {settings["GF_AUTH_BASIC_ENABLED"], settings["GF_AUTH_DISABLE_LOGIN_FORM"]} == {"false", "true"}
    assert not any("PASSWORD" in name for name in settings)
    for service in services.values():
        for volume in service.get("volumes", []):
            assert isinstance(volume, str) or (volume["read_only"] and volume["type"] == "bind")


def test_the_server_sees_what_the_configuration_names(base: Path, target: str) -> None:
    texts = rendered(base, target)
    inside = seen_as(base, target)
    assert [c.base_path for c in parse((base / "models.config").read_text())] == [f"{inside}/{n}" for n in SERVABLES]
    server = yaml.safe_load(texts["compose.yaml"])["services"]["server"]
    (volume,) = server["volumes"]
    assert volume == {"type": "bind", "source": "..", "target": inside, "read_only": True}
    pod = container(texts["kubernetes.yaml"])
    assert {"name": "models", "mountPath": inside, "readOnly": True} in pod["volumeMounts"]
    assert server["image"] == pod["image"] == IMAGE
    shell = re.search(r"```\n(tensorflow_model_server.*?)```", texts["README.md"], re.DOTALL)
    assert shell is not None
    assert shlex.split(shell[1].replace("\\\n", ""))[1:] == server["command"] == pod["args"]
    named = [flag.partition("=")[2] for flag in pod["args"] if flag.partition("=")[0].endswith("_file")]
    assert [Path(path.replace(inside, str(base), 1)).is_file() for path in named] == [True, True]
    assert "--enable_profiler=false" in pod["args"]
    assert not any("batching" in flag for flag in pod["args"])


def test_batching_is_two_comment_signs_away(base: Path, target: str) -> None:
    texts = rendered(base, target)
    file = f"{seen_as(base, target)}/deployment/batching_parameters.txt"
    on = ["--enable_batching=true", f"--batching_parameters_file={file}"]
    switched = {name: re.sub(r"# (- \"--)", r"\1", text) for name, text in texts.items()}
    assert yaml.safe_load(switched["compose.yaml"])["services"]["server"]["command"][-2:] == on
    assert container(switched["kubernetes.yaml"])["args"][-2:] == on
    assert shlex.join(on) in texts["README.md"]


def test_the_proxy_limits_what_the_server_does_not(base: Path, target: str) -> None:
    text = rendered(base, target)["nginx.conf"]
    size = re.search(r"client_max_body_size (\d+)m;", text)
    assert size is not None
    assert MAX_BYTES * 4 / 3 < int(size[1]) * MIB < 32 * MIB, "a request of FaceClient's in base64"
    assert text.count("{") == text.count("}")
    assert "$$" not in text
    (rpc, rest) = (re.compile(pattern) for pattern in re.findall(r"location ~ (\S+) {", text))
    assert all(rpc.search(method) for method in (PREDICT, GET_MODEL_METADATA, GET_MODEL_STATUS))
    for method in ("ModelService/HandleReloadConfigRequest", "PredictionService/Classify", "SessionService/SessionRun"):
        assert not rpc.search(f"/tensorflow.serving.{method}")
    for path in ("face", "emotion/metadata", "face:predict", "face/versions/2:predict", "face/labels/stable:predict"):
        assert rest.search(f"/v1/models/{path}")
    for path in ("other", "face/../other", "face:regress", "face/versions/2/labels/stable"):
        assert not rest.search(f"/v1/models/{path}")
    assert not rest.search("/monitoring/prometheus/metrics")


def test_nginx_accepts_the_file(base: Path, target: str, tmp_path: Path) -> None:
    if not (nginx := shutil.which("nginx")):
        pytest.skip("nginx is not installed")
    text = re.sub(r"(?m)^ *ssl_certificate.*\n| ssl", "", rendered(base, target)["nginx.conf"])
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"events {{}}\npid {tmp_path}/pid;\nhttp {{\naccess_log off;\n{folders}{text}\n}}\n"
    )
    command = [nginx, "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_the_readme_says_what_no_proxy_setting_can(base: Path, target: str) -> None:
    text = " ".join(rendered(base, target)["README.md"].split())
    assert f"more than {MAX_FACES} faces" in text
    assert f"more than {MAX_SCANS} scans" in text
    assert "nested 25,000 deep" in text
    assert "nginx cannot check it" in text


@pytest.mark.parametrize("name", ["with space", "dollar$HOME", "quote\"'", "ümlaut #1: x"])
def test_folders_of_any_name_work(tmp_path: Path, name: str) -> None:
    base = tmp_path / name
    for model in SERVABLES:
        put_version(base / model / "1", 1)
    texts = rendered(base, "host")
    server = yaml.safe_load(texts["compose.yaml"])["services"]["server"]
    assert server["volumes"][0]["target"].replace("$$", "$") == str(base)
    assert f"--model_config_file={base}/models.config".replace("$", "$$") in server["command"]
    pod = container(texts["kubernetes.yaml"])
    assert f"--model_config_file={base}/models.config" in pod["args"]


def test_memory_is_twice_the_configured_models(base: Path, target: str) -> None:
    def limits() -> set[str]:
        texts = rendered(base, target)
        resources = container(texts["kubernetes.yaml"])["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        compose = yaml.safe_load(texts["compose.yaml"])["services"]["server"]["mem_limit"]
        return {resources["limits"]["memory"], f"{compose[:-1]}Mi"}

    assert limits() == {"2176Mi"}  # 2048 + 2 × 3, to the next 128
    for model, size in (("keypoints", 0), ("emotion", 0), ("face", 62 * MIB)):
        put_version(base / model / "2", size)  # the first stays labelled, so both are loaded
    put_version(base / "face" / "2.partial", 999 * MIB)
    assert limits() == {"2304Mi"}  # 2048 + 2 × 65
    config = base / "models.config"
    config.write_text(render([replace(entry, labels={"stable": 2}) for entry in parse(config.read_text())]))
    write_config(base, target)
    assert limits() == {"2176Mi"}  # version 1 is no longer loaded: 2048 + 2 × 64


def test_the_same_models_give_the_same_bytes_and_nothing_else(base: Path, target: str) -> None:
    first = rendered(base, target)
    assert rendered(base, target) == first
    assert sorted(path.name for path in (base / "deployment").iterdir()) == sorted(FILES)


def test_the_folder_is_not_served_as_a_model(base: Path, target: str) -> None:
    rendered(base, target)
    assert sorted(served_models(base)) == sorted(SERVABLES)
    (base / "models.config").unlink()
    assert sorted(served_models(base)) == sorted(SERVABLES)


def test_a_write_that_fails_leaves_the_files_whole(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rendered(base, "host")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emotion_ai.files.os.fsync", full)
    with pytest.raises(ExportError, match=r"deployment: not writable \(No space left on device\)"):
        write_deployment(base, "host")
    assert {path.name: path.read_text() for path in (base / "deployment").iterdir()} == first


def test_a_folder_that_cannot_be_made_is_one_clear_error(base: Path) -> None:
    write_config(base, "host")
    (base / "deployment").write_text("in the way")
    with pytest.raises(ExportError, match=r"deployment: not writable \(File exists\)"):
        write_deployment(base, "host")


def test_a_wrong_target_fails_before_anything_is_written(base: Path) -> None:
    with pytest.raises(ExportError, match="target=moon: choose one of host, container"):
        write_deployment(base, "moon")
    with pytest.raises(ExportError, match=r"models\.config: no such file"):
        write_deployment(base, "host")
    write_config(base, "host")
    with pytest.raises(ExportError, match=r"models\.config: names .*, not /models/keypoints"):
        write_deployment(base, "container")
    assert not (base / "deployment").exists()


def test_a_configuration_without_versions_counts_the_newest(base: Path) -> None:
    put_version(base / "face" / "2", 100 * MIB)
    write_config(base, "container")
    config = base / "models.config"
    newest = [type(c)(c.name, c.base_path, ()) for c in parse(config.read_text())]
    config.write_text(render(newest))
    write_deployment(base, "container")
    memory = container((base / "deployment/kubernetes.yaml").read_text())["resources"]["limits"]["memory"]
    assert memory == "2304Mi"  # 2048 + 2 × 102
