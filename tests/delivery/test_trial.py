"""What an empty write tells a person of a token, a bucket and an address."""

import pytest

from agent.delivery.trial import try_out
from agent.registration.target import Target
from agent.util.secret import Secret
from tests.servers import InfluxServer


@pytest.fixture(scope="module")
def server():
    with InfluxServer() as running:
        yield running


def tried(server, status=204, body=b"", path=""):
    server.always = None if status == 204 else server.answer(status, body)
    target = Target(server.url + path, server.org, server.bucket, Secret(server.token))
    return try_out(target, 5.0, "get a new token")


def said(code, message):
    return {"code": code, "message": message}


def test_a_token_that_may_write_is_good_and_an_empty_write_stores_nothing(server):
    found = tried(server)
    assert found.good
    assert found.seen == f"the token may write to bucket 'iot_center' of organization 'my-org' at {server.url}"
    assert server.points == {} or not server.points


@pytest.mark.parametrize(
    ("status", "body", "seen", "remedy"),
    [
        (401, said("unauthorized", "unauthorized access"), "the token is not known at URL (401): it was", "get a new"),
        (403, said("forbidden", "insufficient permissions"), "the token may not write to bucket 'iot_c", "get a new"),
        (404, said("not found", 'bucket "x" not found'), "there is no bucket 'iot_center' of org", "make the bucket"),
        (
            404,
            said("not found", 'organization name "x" not found'),
            "there is no organization 'my-org'",
            "make the org",
        ),
        (404, said("path not found", 'bucket "x"'), "there is no /api/v2/write at URL (404)", "correct the url: is it"),
        (404, {"message": "organization"}, "there is no /api/v2/write at URL (404)", "correct the url: is it URL?"),
        (404, b"", "there is no /api/v2/write at URL (404)", "correct the url: is it URL?"),
        (500, said("internal error", "broken"), "URL: 500 broken", "is this the address of an InfluxDB? See its log"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(server, status, body, seen, remedy):
    found = tried(server, status, body)
    assert not found.good
    assert found.seen.startswith(seen.replace("URL", server.url))
    assert found.remedy.startswith(remedy.replace("URL", server.url))


def test_a_path_that_is_not_there_is_named(server):
    found = tried(server, 404, path="/garden")
    assert found.seen == f"there is no /garden/api/v2/write at {server.url} (404)"
    assert found.remedy == f"correct the url: is it {server.url} without the path?"


def test_where_nobody_answers_that_is_said_and_what_is_asked_for():
    with InfluxServer() as gone:
        pass
    found = tried(gone)
    assert not found.good
    assert found.seen.startswith(f"{gone.url} gives no answer: ")
    assert found.remedy == "is this the address of an InfluxDB?"
