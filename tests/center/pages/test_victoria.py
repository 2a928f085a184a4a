"""The pages over VictoriaMetrics: what it cannot do is not offered."""

import pytest

from center.app import create_app
from center.context import EXTENSION
from tests.center.pages.test_every_page import PAGES
from tests.center_helpers import measured, seen_at_once, text_of, victoria_settings

pytestmark = pytest.mark.victoria


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with victoria_settings(tmp_path_factory.mktemp("victoria")) as settings:
        app = create_app(settings)
        app.config["WTF_CSRF_ENABLED"] = False
        center = app.extensions[EXTENSION]
        seen_at_once(center.telemetry)
        center.registry.register("pi-7", administrator=True)
        measured(center, "pi-7")
        yield app.test_client()
        center.close()


@pytest.mark.parametrize("path", [*PAGES, "/devices/pi-7", "/dashboards/pi-7", "/query?device=pi-7"])
def test_each_page_shows_what_is_there_and_says_where_it_is_kept(client, path):
    answer = client.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert "VictoriaMetrics" in text_of(answer)


def test_a_query_shows_values_and_offers_no_flux(client):
    words = text_of(client.get("/query?device=pi-7&range=6h&window=1h&fn=count"))
    assert "Temperature" in words
    assert "Flux" not in words


def test_a_text_is_refused_where_it_is_typed(client):
    answer = client.post("/write", data={"lines": 'environment,clientId=pi-7 Note="hello"'})
    assert answer.status_code in {200, 400}
    assert "keeps numbers only" in text_of(answer)
