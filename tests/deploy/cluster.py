"""A real control plane (tests/controlplane), the clients for it, and a router with an account of it."""

import base64
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import requests
import yaml
from rendering import CHART, NAMESPACE, ROOT, run, tool
from support.process import Process, free_port
from support.router import binary

MODULE = ROOT / "tests/controlplane"
# Building it once takes minutes; starting takes seconds.
START_SECONDS_MAX = 900


class Cluster:
    """etcd, kube-apiserver and the controllers, where every namespace enforces the level `restricted`."""

    def __init__(self, folder):
        self.folder = folder
        self.kubectl_path = self.program("kubectl")
        self.output = (folder / "controlplane.out").open("wb")
        self.child = subprocess.Popen(
            [tool("controlplane"), "up", "--dir", str(folder / "data"), "--pod-security", "restricted"],
            cwd=MODULE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.output,
        )  # fmt: skip
        self.kubeconfig = self.first_line()
        cluster = yaml.safe_load(Path(self.kubeconfig).read_text())["clusters"][0]["cluster"]
        self.server, self.authority = cluster["server"], cluster["certificate-authority-data"]

    def program(self, name):
        done = subprocess.run(
            [tool("controlplane"), "build"], cwd=MODULE, capture_output=True, text=True, timeout=START_SECONDS_MAX
        )
        assert done.returncode == 0, done.stderr
        (path,) = [line for line in done.stdout.splitlines() if line.endswith(f"/{name}")]
        return path

    def first_line(self):
        """What it prints when everything is at work. It is ended if that takes too long."""
        guard = threading.Timer(START_SECONDS_MAX, self.child.kill)
        guard.start()
        line = self.child.stdout.readline().decode().strip()
        guard.cancel()
        assert line, f"the control plane did not start:\n{(self.folder / 'controlplane.out').read_text()[-4000:]}"
        return line

    def stop(self):
        """Ends it at once, with the programs that it started: nothing of it is kept, and an API server that is asked
        nicely waits for its clients."""
        self.child.kill()
        self.child.wait(60)
        self.output.close()

    def tried(self, *arguments, stdin="", kubeconfig=None):
        """What kubectl says, as the admin or with another kubeconfig."""
        return run(self.kubectl_path, "--kubeconfig", kubeconfig or self.kubeconfig, *arguments, stdin=stdin)

    def kubectl(self, *arguments, stdin="", kubeconfig=None):
        done = self.tried(*arguments, stdin=stdin, kubeconfig=kubeconfig)
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def items(self, kind, namespace=NAMESPACE):
        return json.loads(self.kubectl("get", kind, "--namespace", namespace, "--output", "json"))["items"]

    def helm(self, verb, *arguments, values=None):
        file = self.folder / "values.json"
        file.write_text(json.dumps(values or {}))
        command = [tool("helm"), verb, *arguments, "--kubeconfig", self.kubeconfig, "--namespace", NAMESPACE]
        command += ["--values", file] if values is not None else []
        done = run(*command)
        assert done.returncode == 0, f"helm {verb}: {done.stderr}"
        return done.stdout

    def install(self, values):
        return self.helm("upgrade", "scorefront", str(CHART), "--install", values=values)

    def token(self, account="azureml-fe-v2", namespace=NAMESPACE):
        return self.kubectl("create", "token", account, "--namespace", namespace).strip()

    def account(self, name="azureml-fe-v2", namespace=NAMESPACE):
        """A kubeconfig with the token of an account and nothing else."""
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        named = {
            "clusters": [
                {"name": "c", "cluster": {"server": self.server, "certificate-authority-data": self.authority}}
            ],
            "users": [{"name": "u", "user": {"token": self.token(name, namespace)}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        return path

    def rights(self, account, namespace):
        """What `auth can-i --list` says for an account: (verb, group, resource, name or nothing)."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        arguments = ["create", "--validate=false", "--filename", "-", "--output", "json"]
        text = self.kubectl(*arguments, stdin=json.dumps(review), kubeconfig=account)
        status = json.loads(text)["status"]
        assert not status.get("incomplete") and not status.get("evaluationError")
        return {
            (verb, group, resource, name)
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for group in rule.get("apiGroups", [""])
            for resource in rule["resources"]
            for name in rule.get("resourceNames", [""])
        }


class PodProcess:
    """A router as its pod runs it: the arguments of the chart, the token where a pod has it, and nothing else of this
    machine's account. Only the addresses differ: there is no network of pods here. With `root` it is the one of an
    image, which then is all that it sees."""

    # Over the folder in which a pod finds its token, seen by this process alone.
    SCRIPT = (
        "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && "
        'cp -r "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@"'
    )

    def __init__(self, cluster, arguments, folder, root=None, user="65532:65532"):
        self.url, self.admin_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.tls_port = free_port()
        state = folder if root is None else root / "var/lib/scorefront"
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o777)
        local = self.localised(arguments, state if root is None else Path("/var/lib/scorefront"))
        if root is None:
            # Where a test lays the files of the Secret.
            local = (argument.replace("/etc/scorefront/tls", str(folder / "tls")) for argument in local)
        host, _, port = cluster.server.removeprefix("https://").partition(":")
        environment = {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        token = folder / "token" if root is None else root / "var/run/secrets/kubernetes.io/serviceaccount"
        write_token(cluster, token)
        if root is None:
            command = [shutil.which("unshare"), "--mount", "sh", "-c", self.SCRIPT, token, binary(), *local]
        else:
            command = [shutil.which("chroot"), f"--userspec={user}", root, "/scorefront", *local]
        self.start = lambda: Process("router", command, folder, environment)
        self.process = self.start()

    def restart(self):
        """Ends it and starts it anew in the same pod: with the same token and the same volumes."""
        assert self.process.stop() == 0, self.process.printed()
        self.process = self.start()

    def localised(self, arguments, state):
        """The arguments with addresses of this machine, and the folder for the state file."""
        tls = f"127.0.0.1:{self.tls_port}"
        places = {"--listen": self.url, "--admin": self.admin_url, "--listen-tls": tls}
        for argument in arguments:
            flag, _, value = argument.partition("=")
            if flag in places and value != "off":
                value = places[flag].removeprefix("http://")
            elif flag == "--state-file":
                value = str(state / Path(value).name)
            yield f"{flag}={value}" if value else flag

    def page(self, path):
        return requests.get(f"{self.admin_url}{path}", timeout=10)


def write_token(cluster, folder):
    """What a pod finds in the folder of its account."""
    folder.mkdir(parents=True)
    (folder / "token").write_text(cluster.token())
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster.authority))
    (folder / "namespace").write_text(NAMESPACE)
