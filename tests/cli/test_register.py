"""`iot-agent register` and `unregister` at the terminal, towards a center of each kind."""

import pytest
from click.testing import CliRunner
from pytest_httpserver import HTTPServer

from agent.cli.register import register, unregister
from tests.fake_center import FakeCenter, answer
from tests.registering import APIS
from tests.servers import InfluxServer


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("IOT_DEVICE_ID", raising=False)
    monkeypatch.delenv("IOT_CENTER_URL", raising=False)

    def command(center, name, *options):
        place = "".join(f'{key} = "{value}"\n' for key, value in center.place.items())
        lines = '[device]\nid = "pi-7"\n[[sensor]]\ndriver = "virtual"\n[center]\n'
        (tmp_path / "agent.toml").write_text(f'{lines}url = "{center.url}"\ntimeout = "2s"\n{place}')
        arguments = [*options, "--config", str(tmp_path / "agent.toml"), "--state-dir", str(tmp_path / "state")]
        return CliRunner().invoke(name, arguments)

    return command


@pytest.mark.parametrize("api", APIS)
def test_register_says_with_whom_and_where_it_writes_and_shows_no_token(httpserver, run, api):
    center = FakeCenter(httpserver, api)
    result = run(center, register)
    assert result.exit_code == 0, result.output
    assert f"registered pi-7 with {center.url.rstrip('/')} ({api})" in result.output
    assert "http://127.0.0.1:8086, organization my-org, bucket iot_center" in result.output
    assert center.tokens["pi-7"][0] not in result.output


@pytest.fixture
def influx():
    """An InfluxDB that takes whatever token a center has issued last."""
    with InfluxServer() as server:
        yield server


class Pair(FakeCenter):
    """A center, and the InfluxDB that it issues tokens of."""

    def __init__(self, httpserver, influx, api="iot-center"):
        super().__init__(httpserver, api)
        self.influx = influx
        self.place["influx_url"] = influx.url

    def issue(self, device_id):
        issued = super().issue(device_id)
        self.influx.token = issued["token"]
        return issued


@pytest.mark.parametrize("api", APIS)
def test_register_says_what_the_token_can_do(httpserver, run, influx, api):
    result = run(Pair(httpserver, influx, api), register)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(
        f"the token may write to bucket 'iot_center' of organization 'my-org' at {influx.url}\n"
    )
    assert (len(influx.requests), len(influx.points)) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, "insufficient permissions"), "(403): it is inactive or for another bucket"),
        ((401, "unauthorized access"), "(401): it was revoked or mistyped"),
        ((404, 'bucket "iot_center" not found'), "there is no bucket 'iot_center' of organization 'my-org'"),
        ((404, 'organization name "my-org" not found'), "there is no organization 'my-org'"),
    ],
)
def test_force_fails_where_nothing_can_be_written_with_the_new_token(httpserver, run, influx, answer, said):
    center = Pair(httpserver, influx)
    status, message = answer
    influx.always = influx.answer(status, {"code": "not found" if status == 404 else "x", "message": message})
    first = run(center, register)
    assert first.exit_code == 0
    assert "warning: " in first.output
    result = run(center, register, "--force")
    assert result.exit_code == 1
    assert said in result.output
    assert center.tokens["pi-7"][0] not in result.output
    influx.always = None
    assert run(center, register, "--force").exit_code == 0


def test_force_fails_where_nobody_answers(httpserver, run, influx):
    center = Pair(httpserver, influx)
    center.place["influx_url"] = "http://127.0.0.1:1"
    assert run(center, register).exit_code == 0
    result = run(center, register, "--force")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1 gives no answer: Connection refused" in result.output


@pytest.mark.parametrize("api", APIS)
def test_register_again_asks_nobody_and_force_gets_another_token(httpserver, run, influx, api):
    center = Pair(httpserver, influx, api)
    run(center, register)
    first, asked = center.tokens["pi-7"], len(center.requests)
    again = run(center, register)
    assert "is registered with" in again.output
    assert len(center.requests) == asked
    forced = run(center, register, "--force")
    assert forced.exit_code == 0, forced.output
    assert len(center.tokens["pi-7"]) == 1
    assert center.tokens["pi-7"] != first


@pytest.mark.parametrize("api", APIS)
def test_unregister_leaves_no_authorization_and_says_what_stays(httpserver, run, tmp_path, api):
    center = FakeCenter(httpserver, api)
    run(center, register)
    result = run(center, unregister)
    assert result.exit_code == 0, result.output
    assert "pi-7" not in center.tokens
    assert not (tmp_path / "state" / "credentials.json").exists()
    assert (tmp_path / "state" / "device.secret").exists()
    assert "What stays" in result.output
    again = run(center, unregister)
    assert again.exit_code == 0
    assert "had no registration" in again.output


def test_unregister_leaves_a_token_of_another_center_alone_and_says_whose_it_is(httpserver, run, tmp_path):
    before = FakeCenter(httpserver)
    run(before, register)
    kept = (tmp_path / "state" / "credentials.json").read_bytes()
    with HTTPServer(port=0) as other:
        result = run(FakeCenter(other), unregister)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "state" / "credentials.json").read_bytes() == kept
    assert f"the token here is of pi-7 at {before.url.rstrip('/')}, and stays: name both in agent.toml" in result.stderr
    assert before.tokens["pi-7"]
    assert run(before, unregister).exit_code == 0
    assert not (tmp_path / "state" / "credentials.json").exists()


def test_unregister_says_what_a_center_may_mean_that_does_not_tell_strangers_who_is_registered(httpserver, run):
    center = FakeCenter(httpserver)
    run(center, register)
    center.scripted = [answer(403, {"message": "this is not the device secret that the device registered with"})]
    result = run(center, unregister)
    assert result.exit_code == 1
    assert "pi-7 is not registered there, or by another device secret" in result.output


def test_unregister_refuses_while_the_agent_runs(httpserver, run, tmp_path, monkeypatch):
    center = FakeCenter(httpserver)
    run(center, register)
    monkeypatch.setattr("agent.cli.register.ask", lambda _: {})
    result = run(center, unregister)
    assert result.exit_code == 1
    assert "stop it first" in result.output
    assert center.tokens["pi-7"]


def test_a_failure_is_one_line_and_an_exit_code(httpserver, run):
    center = FakeCenter(httpserver)
    center.url = "http://127.0.0.1:1"
    result = run(center, register)
    assert result.exit_code == 1
    assert result.output.startswith("iot-agent: POST http://127.0.0.1:1/api/devices/pi-7: ")
    assert "Connection refused" in result.output
    assert result.output.count("\n") == 1


def test_with_a_token_by_hand_there_is_nothing_to_register(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text('[influxdb]\nurl = "http://h:1"\norg = "o"\nbucket = "b"\ntoken_file = "/none"\n')
    result = CliRunner().invoke(register, ["--config", str(config), "--state-dir", str(tmp_path)])
    assert result.exit_code == 78
    assert "nothing to register" in result.output
