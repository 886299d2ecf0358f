"""What a Celery app has of our tasks: those that its workers are to run, under the names that stand in messages."""

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject

from afterward import Afterward
from afterward.celery import pools
from afterward.celery.messages import arguments_of
from afterward.identity import new_id
from afterward.stores.handing import Start

STORE = "sqlite:///never-opened.db"


def do() -> None: ...


def test_all_that_are_for_celery_are_there_whenever_they_are_declared() -> None:
    tasks = Afterward(STORE, celery="memory://")
    tasks.task(name="before", executor="celery")(do)
    tasks.task(name="in a thread")(do)
    app: Any = tasks.celery
    tasks.task(name="after", executor="celery")(do)
    assert {"before", "after"} <= app.tasks.keys()
    assert "in a thread" not in app.tasks


def test_an_app_of_the_user_s_has_them_though_nobody_asks_for_it() -> None:
    """As its worker does, which is started by its own name."""
    app: Any = Celery("shop", broker="memory://", set_as_current=False)
    tasks = Afterward(STORE, celery=app)
    tasks.task(name="shop.pack", executor="celery")(do)
    assert "shop.pack" in app.tasks


def test_what_is_said_of_all_tasks_of_an_app_changes_nothing_in_how_ours_are_acknowledged_and_ended() -> None:
    app: Any = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(task_acks_late=False, task_time_limit=5, task_ignore_result=False, task_serializer="yaml")
    Afterward(STORE, celery=app).task(name="shop.pack", executor="celery")(do)
    task = app.tasks["shop.pack"]
    assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)
    assert task.serializer == "json"
    assert task.time_limit > 365 * 86400


def test_what_is_said_of_one_of_ours_counts() -> None:
    app: Any = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_annotations = {"shop.pack": {"acks_late": False}}
    Afterward(STORE, celery=app).task(name="shop.pack", executor="celery")(do)
    assert app.tasks["shop.pack"].acks_late is False


def test_a_pool_of_greenlets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message is done with: another worker is sent another."""
    monkeypatch.setattr(pools, "detect_environment", lambda: "gevent")
    tasks = Afterward(STORE, celery="memory://")
    tasks.task(name="shop.pack", executor="celery")(do)
    app: Any = tasks.celery
    with pytest.raises(Reject, match="start it with --pool prefork or threads") as refused:
        app.tasks["shop.pack"](*arguments_of(Start(new_id(), 1, new_id())))
    assert not vars(refused.value)["requeue"]
