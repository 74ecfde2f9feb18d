"""Which reference pages there are."""

from melodi.reference.cli import cli_page
from melodi.reference.metrics import metrics_page
from melodi.reference.page import Page
from melodi.reference.record import record_page
from melodi.reference.routes import routes_page
from melodi.reference.settings import settings_page


def pages() -> tuple[Page, ...]:
    """All of them, made anew."""
    return cli_page(), settings_page(), record_page(), metrics_page(), routes_page()
