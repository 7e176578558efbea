#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keystone from Debian's packages, for openstack.sh. (Debian's own Python: the modules are there.)

  identity.py prepare CONF   makes databases and keys, and in them the users of openstack.sh
  identity.py serve CONF     serves on 127.0.0.1:5000
"""
import os
import socketserver
import sqlite3
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

CONF = os.path.abspath(sys.argv[2])
IMAGES = "http://127.0.0.1:9292"
IDENTITY = "http://127.0.0.1:5000/v3"
USERS = [
    # name, password, project, role
    ("glance", "of-glance", "service", "admin"),
    ("snap", "of-snap", "vms", "member"),
]


def manage(*args):
    """keystone-manage without the seconds that it takes to load all of it again."""
    from keystone.cmd import cli

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            sys.argv = ["keystone-manage", *args]
            cli.main(argv=["keystone-manage", "--config-file", CONF, *args])
            status = 0
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"keystone-manage {args[0]} failed")


def application():
    from keystone.server.wsgi import initialize_public_application

    os.environ["OS_KEYSTONE_CONFIG_FILES"] = CONF
    sys.argv = ["keystone-wsgi-public"]
    return initialize_public_application()


class Api:
    """Requests to the application, without a network."""

    def __init__(self):
        from werkzeug.test import Client

        self.client = Client(application())
        self.token = None

    def call(self, method, path, body=None, token=None):
        headers = {"X-Auth-Token": token or self.token} if token or self.token else {}
        answer = self.client.open("/v3" + path, method=method, json=body, headers=headers)
        if answer.status_code >= 300:
            sys.exit(f"{method} {path}: {answer.status} {answer.get_data(as_text=True)}")
        return answer

    def make(self, kind, **fields):
        return self.call("POST", f"/{kind}s", {kind: fields}).get_json()[kind]["id"]

    def login(self, user, password, project):
        domain = {"name": "Default"}
        answer = self.call("POST", "/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}}}})
        return answer.headers["X-Subject-Token"]


def make_users():
    api = Api()
    api.token = api.login("admin", "of-admin", "admin")
    roles = {r["name"]: r["id"] for r in api.call("GET", "/roles").get_json()["roles"]}
    made = {}
    for name, password, project, role in USERS:
        project_id = api.make("project", name=project, domain_id="default")
        made[name] = api.make("user", name=name, password=password, domain_id="default",
                              default_project_id=project_id)
        api.call("PUT", f"/projects/{project_id}/users/{made[name]}/roles/{roles[role]}")
    service = api.make("service", type="image", name="glance")
    api.make("region", id="Other")
    for interface in ("public", "internal", "admin"):
        api.make("endpoint", interface=interface, service_id=service, url=IMAGES,
                 region_id="RegionOne")
    token = api.login("snap", "of-snap", "vms")
    answer = api.call("POST", f"/users/{made['snap']}/application_credentials",
                      {"application_credential": {"name": "snapshots", "secret": "of-credential"}},
                      token)
    with open(os.path.join(os.path.dirname(CONF), "credential"), "w", encoding="ascii") as f:
        f.write(answer.get_json()["application_credential"]["id"] + "\n")


def prepare():
    manage("db_sync")
    # Or readers and writers get into each other's way: "database is locked".
    with sqlite3.connect(os.path.join(os.path.dirname(CONF), "keystone.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    manage("fernet_setup", "--keystone-user", "root", "--keystone-group", "root")
    manage("credential_setup", "--keystone-user", "root", "--keystone-group", "root")
    manage("bootstrap", "--bootstrap-password", "of-admin", "--bootstrap-region-id", "RegionOne",
           "--bootstrap-public-url", IDENTITY, "--bootstrap-internal-url", IDENTITY,
           "--bootstrap-admin-url", IDENTITY)
    make_users()


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self):
        # Without the look-up of our own name, for which there is no network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()


class Handler(WSGIRequestHandler):
    def address_string(self):
        return self.client_address[0]


def serve():
    app = application()
    make_server("127.0.0.1", 5000, app, server_class=Server, handler_class=Handler).serve_forever()


if __name__ == "__main__":
    {"prepare": prepare, "serve": serve}[sys.argv[1]]()
