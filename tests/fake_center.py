"""Stand-ins for the device registration APIs in the wild, on a real HTTP server; they count live authorizations."""

import itertools
import json
import re
from pathlib import Path

from werkzeug import Request, Response

CASES = json.loads((Path(__file__).parent / "data" / "iot-center-v2.json").read_text())
RECORDED = {case["name"].partition(":")[0]: case["response"] for case in CASES}
FIRST = RECORDED["first registration"]["body"]
AGAIN = RECORDED["the same device asks again"]["body"]


def answer(status, body, **headers):
    if isinstance(body, str):
        return Response(body, status, headers, content_type=headers.pop("content_type", "text/plain"))
    return Response(json.dumps(body), status, headers, content_type="application/json")


class FakeCenter:
    """`api` as in the settings. `tokens` are the live authorizations by device: a list, to see when there are two."""

    def __init__(self, server, api="iot-center", enrollment_key=None):
        self.api, self.enrollment_key = api, enrollment_key
        self.url = server.url_for("")
        self.tokens, self.secrets, self.requests = {}, {}, []
        self.place = {"influx_url": "http://127.0.0.1:8086", "influx_org": "my-org", "influx_bucket": "iot_center"}
        self.extra = {"measurement_interval": 60, "configuration_refresh": 3600}
        self.heard = None  # a list: what the devices tell, if it wants to know
        self.scripted = []  # answers given before anything else
        self.keys = itertools.count(1)
        server.expect_request(_any_path()).respond_with_handler(self.handle)

    def asked(self):
        return [(request.method, request.full_path.rstrip("?")) for request in self.requests]

    def behind(self, server, prefix):
        """Also there under a path, as behind a reverse proxy that takes it off."""

        def handle(request):
            environ = request.environ | {"PATH_INFO": request.path.removeprefix(prefix)}
            return self.handle(Request(environ))

        server.expect_oneshot_request(re.compile(re.escape(prefix) + "/.*")).respond_with_handler(handle)
        self.url = server.url_for(prefix)

    def handle(self, request):
        request.get_data()
        self.requests.append(request)
        if self.scripted:
            scripted = self.scripted.pop(0)
            if scripted is not None:
                return scripted if isinstance(scripted, Response) else scripted(request)
        if request.method == "HEAD":
            return answer(200, "")
        found = getattr(self, f"_{request.method.lower()}_{self.api.replace('-', '_')}")(request)
        return found if isinstance(found, Response) else answer(*found)

    def issue(self, device_id):
        key = f"{next(self.keys):016x}"
        token = f"tok-{key}-{'x' * 60}=="
        self.tokens[device_id] = [*self.tokens.get(device_id, []), token]
        return {"key": key, "token": token}

    def _delete(self, request):
        device_id = request.path.rsplit("/", 1)[1]
        if not self.tokens.pop(device_id, None):
            return 404, f"Device {device_id} not found!"
        return 204, ""

    # ours, and the tutorial's
    def _post_iot_center(self, request):
        if not request.path.startswith("/api/devices/"):
            return 404, "Not Found!"
        if request.path.endswith("/configuration"):
            return self._configuration(request)
        device_id, secret = request.path.rsplit("/", 1)[1], request.headers.get("X-Device-Secret")
        known = self.secrets.get(device_id)
        if known is None and self.enrollment_key not in (None, request.headers.get("X-Enrollment-Key")):
            return 403, {"code": "forbidden", "message": "the enrollment key is missing or wrong"}
        if known not in (None, secret):
            return 409, {"code": "conflict", "message": f"{device_id} is registered with another secret"}
        self.secrets[device_id] = secret
        self.tokens[device_id] = []  # a re-issue deletes what was
        body = {"deviceId": device_id, "createdAt": "2026-11-24T06:31:00Z", "serverTime": "2026-11-24T06:31:00.122Z"}
        return (200 if known else 201), body | self.issue(device_id) | self.place | self.extra

    def _configuration(self, request):
        """Of a center that hears what devices tell; an older one knows no such address."""
        device_id = request.path.split("/")[-2]
        if self.heard is None:
            return 404, {"code": "not found", "message": "Not Found"}
        if device_id not in self.secrets:
            return 403, {"id": device_id, "registered": False}
        self.heard.append(json.loads(request.get_data()))
        return 200, {"deviceId": device_id} | self.place | self.extra

    def _get_iot_center(self, request):
        device_id = request.path.rsplit("/", 1)[1]
        if not request.path.startswith("/api/env/"):
            return 404, "Not Found!"
        if device_id not in self.secrets:
            return 403, {"id": device_id, "registered": False}
        return 200, {"id": device_id, "influx_token": "", "newlyRegistered": False} | self.place | self.extra

    def _delete_iot_center(self, request):
        device_id = request.path.rsplit("/", 1)[1]
        if self.secrets.get(device_id) not in (None, request.headers.get("X-Device-Secret")):
            return 409, {"code": "conflict", "message": "another secret"}
        self.secrets.pop(device_id, None)
        return self._delete(request)

    # iot-center-v2, as recorded
    def _get_iot_center_v2(self, request):
        if request.path == "/api/devices":
            return 200, [{"key": "1", "deviceId": device_id, "createdAt": "x"} for device_id in self.tokens]
        device_id = request.path.rsplit("/", 1)[1]
        if not request.path.startswith("/api/env/"):
            return 200, "<!doctype html><html><head><title>IoT Center</title></head></html>"
        if any(known.startswith(device_id) for known in self.tokens):
            return 200, AGAIN | {"id": device_id} | self.place | self.extra
        if request.args.get("register") == "false":
            return 403, {"id": device_id, "registered": False}
        token = self.issue(device_id)["token"]
        return 200, FIRST | {"id": device_id, "influx_token": token} | self.place | self.extra

    def _post_iot_center_v2(self, _):
        return 404, "Not Found!"

    def _delete_iot_center_v2(self, request):
        return self._delete(request)

    # the tutorial's JS server
    def _post_iot_api(self, request):
        if request.path != "/api/devices/create":
            return 200, []
        device_id = json.loads(request.get_data())["deviceId"]
        if self.tokens.get(device_id):
            return 500, {"error": "This device ID is already registered and has an authorization."}
        self.issue(device_id)
        return 200, {"deviceId": device_id}

    def _get_iot_api(self, request):
        if not request.path.startswith("/api/devices/"):
            return answer(404, "<!DOCTYPE html><html>This page could not be found</html>", content_type="text/html")
        device_id = request.path.rsplit("/", 1)[1]
        tokens = self.tokens.get(device_id, [])
        return 200, [{"deviceId": device_id, "key": "1", "token": token, "updatedAt": "x"} for token in tokens]

    def _delete_iot_api(self, request):
        return self._delete(request)


def _any_path():
    return re.compile(r"/.*")
