"""What is wrong with a Celery app is found before a job is published by it."""

import pytest
from celery import Celery

from afterward import ConfigurationError
from afterward.celery.app import begins_with_smallest


def test_a_broker_for_which_a_package_is_missing_is_refused() -> None:
    """With the mend for the one of which the package is no part of Celery itself."""
    app = Celery("shop", broker="redis://host", set_as_current=False)
    app.conf.broker_transport = "no_such_package:Transport"
    with pytest.raises(ConfigurationError, match=r"app 'shop' needs .*'no_such_package'.*celery\[redis\]"):
        begins_with_smallest(app)
