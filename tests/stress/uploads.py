# SPDX-License-Identifier: LGPL-2.1-or-later
"""Uploads to Glance, and what Glance says of them: status, hash, and the bytes themselves.

An image is called DOMAIN--SNAPSHOT--TARGET--FORMAT--N, so that each that is found can be judged,
whoever began it.
"""
import hashlib
import json
import os
import time
import urllib.error
import urllib.request

from world import QUIET_S, Failure, run

IDENTITY, IMAGES = "http://127.0.0.1:5000/v3", "http://127.0.0.1:9292/v2/images"


class Cloud:
    """Glance as its user sees it."""

    def __init__(self):
        self.token, self.since = None, 0.0

    def login(self):
        if time.time() - self.since < 1200:
            return self.token
        domain = {"name": "Default"}
        user = {"name": os.environ["OS_USERNAME"], "domain": domain,
                "password": os.environ["OS_PASSWORD"]}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                         "scope": {"project": {"name": os.environ["OS_PROJECT_NAME"],
                                               "domain": domain}}}}
        request = urllib.request.Request(IDENTITY + "/auth/tokens", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            self.token, self.since = answer.headers["X-Subject-Token"], time.time()
        return self.token

    def call(self, method, path):
        request = urllib.request.Request(IMAGES + path, method=method,
                                         headers={"X-Auth-Token": self.login()})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def list(self):
        return json.loads(self.call("GET", "?limit=500"))["images"]

    def delete(self, image):
        try:
            self.call("DELETE", "/" + image["id"])
        except urllib.error.HTTPError as e:
            if e.code != 404:
                raise


class Uploader:
    def __init__(self, name, world, daemon, domains, pause_s):
        self.world, self.daemon, self.pause_s = world, daemon, pause_s
        self.domains = {domain.name: domain for domain in domains}
        self.name, self.rng, self.cloud = name, world.random(name), Cloud()
        self.n = 0

    def upload_forever(self):
        while True:
            self.world.sleep(self.rng.uniform(*self.pause_s))
            with self.world.readers:
                if self.daemon.ending_since is not None:
                    continue
                try:
                    self.upload()
                except Failure as e:
                    self.world.note_fault(str(e))

    def upload(self):
        domain = self.rng.choice(list(self.domains.values()))
        has_content = hasattr(domain, "content") and domain.content
        snapshot, target = self.rng.choice(list(domain.content)) if has_content else \
            ("now", self.rng.choice(["vda", "vdb"]))
        form = self.rng.choice(["raw", "qcow2"])
        self.n += 1
        image = f"{domain.name}--{snapshot}--{target}--{form}--{self.name}.{self.n}"
        poll = self.rng.choice([" --poll", ""])
        began, generation = time.time(), self.daemon.generation
        self.world.count("uploads begun")
        try:
            self.write(domain, f"{snapshot} {image} disk={target} format={form}{poll}")
            state = "active" if poll else self.wait_end(domain, image)
        except OSError as e:
            state = repr(e)
        self.world.say(f"upload {image}: {state}")
        if state == "active":
            self.judge(image)
            return
        self.world.count("uploads refused or cut off")
        if self.daemon.generation == generation and self.daemon.ending_since is None and \
                snapshot != "now" and domain.kind == "off":
            raise Failure(f"upload of {image}: {state}, which nothing explains")
        if not domain.content and not self.world.was_disturbed(began - QUIET_S, domain.name) and \
                "EBUSY" not in state and "16" not in state:
            self.world.say(f"upload {image} failed without a disturbance: {state}")

    def write(self, domain, line):
        fd = os.open(f"{self.daemon.mountpoint}/{domain.name}/upload", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def wait_end(self, domain, image):
        """The state in which the job ends, and why."""
        for _ in range(1200):
            with open(f"{self.daemon.mountpoint}/{domain.name}/upload", encoding="utf-8") as f:
                rows = [line for line in f if image in line]
            if not rows:
                return "no row in the table"
            for state in ("active", "failed"):
                if f" {state} " in rows[0]:
                    return state if state == "active" else " ".join(rows[0].split())
            self.world.sleep(0.25)
        raise Failure(f"upload of {image} does not end: {rows[0]}")

    def judge(self, name):
        found = [image for image in self.cloud.list() if image["name"] == name]
        if len(found) != 1 or found[0]["status"] != "active":
            raise Failure(f"image '{name}' is active for us, Glance has {found}")
        self.judge_image(found[0])
        self.cloud.delete(found[0])

    def judge_image(self, image):
        """Its bytes are what Glance's hash says, and what the disk has."""
        data = self.cloud.call("GET", f"/{image['id']}/file")
        if hashlib.new(image["os_hash_algo"], data).hexdigest() != image["os_hash_value"] or \
                len(data) != image["size"]:
            raise Failure(f"image {image['name']}: another hash or size than Glance has")
        name, snapshot, target, form, _ = image["name"].split("--")
        path = self.world.path("work", f"image.{self.name}")
        with open(path, "wb") as f:
            f.write(data)
        domain = self.domains[name]
        if domain.content:
            status, out, err = run("qemu-img", "compare", "-q", "-f", form, "-F", "raw", path,
                                   domain.content_path(snapshot, target))
            if status != 0:
                raise Failure(f"image {image['name']} has another content: {out} {err}")
        else:
            status, _, err = run("qemu-img", "convert", "-f", form, "-O", "raw", path,
                                 path + ".raw")
            if status != 0:
                raise Failure(f"image {image['name']}: {err}")
            domain.check_one_copy(path + ".raw", ["vda", "vdb"].index(target))
        self.world.count("uploads verified byte for byte")
        self.world.count("bytes uploaded and verified", len(data))

    def sweep(self, was_killed):
        """Nobody uploads any more: what is there is whole, or was left by a kill."""
        for image in self.cloud.list():
            if image["status"] == "active":
                self.judge_image(image)
            elif not was_killed:
                raise Failure(f"image {image['name']} was left in the state {image['status']}")
            else:
                self.world.count("images left unfinished by a kill")
            self.cloud.delete(image)
