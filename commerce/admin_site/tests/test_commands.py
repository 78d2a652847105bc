"""Admin of commands: what it shows of them, and the action that tries failed ones again."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from events.database_clock import database_now
from payments.messages import charge_payment
from payments.models import PaymentCommand
from shipping.messages import Item, book_shipment
from shipping.models import ShippingCommand

pytestmark = pytest.mark.django_db


def command(model: Any, **fields: Any) -> Any:
    command_id = uuid4()
    common: dict[str, Any] = {"command_id": command_id, "reference": 7, "source": "/shop", "sequence": 1}
    if model is PaymentCommand:
        message = charge_payment(amount=Decimal("50000.10"), payment_token="tok_of_a_card", **common)
    else:
        message = book_shipment(items=[Item(product_id=1234, quantity=2)], **common)
    return model.objects.create(
        command_id=command_id, command_type=message.event_type, reference=7, value=message.value, **fields
    )


def failed(model: Any) -> Any:
    return command(
        model, state="failed", finished_at=database_now(), reply_type="X_FAILED", reason="no <answer>", attempts=3
    )


def page(name: str, model: Any, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


@pytest.mark.parametrize("model", [PaymentCommand, ShippingCommand])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_lists_and_pages_show_commands(admin_client: Client, model: Any, language: str) -> None:
    row = failed(model)
    headers = {"accept-language": language}
    shown = admin_client.get(page("changelist", model), headers=headers).content.decode()
    assert row.command_type in shown
    details = admin_client.get(page("change", model, row.pk), headers=headers).content.decode()
    assert str(row.command_id) in details
    assert "no &lt;answer&gt;" in details
    assert "50000.10" in details if model is PaymentCommand else "1234" in details
    assert "tok_of_a_card" not in details


@pytest.mark.parametrize(("term", "count"), [("7", 1), ("8", 0), ("command", 1), (str(uuid4()), 0), ("x", 0)])
def test_a_command_is_found_by_reference_or_id(admin_client: Client, term: str, count: int) -> None:
    row = command(PaymentCommand)
    query = str(row.command_id) if term == "command" else term
    answer = admin_client.get(page("changelist", PaymentCommand), {"q": query})
    assert answer.context["cl"].result_count == count


@pytest.mark.parametrize("model", [PaymentCommand, ShippingCommand])
def test_failed_commands_can_be_tried_again(admin_client: Client, model: Any) -> None:
    row, done = failed(model), command(model, state="done", finished_at=database_now())
    admin_client.post(
        page("changelist", model),
        {"action": "try_again_selected", "_selected_action": [row.pk, done.pk], "confirmed": "yes"},
    )
    row.refresh_from_db()
    done.refresh_from_db()
    assert (row.state, row.attempts, done.state) == ("pending", 0, "done")
    assert row.deadline_at > database_now() + timedelta(minutes=1)


@pytest.mark.parametrize(("group", "may"), [("support", False), ("operator", True)])
@pytest.mark.parametrize("model", [PaymentCommand, ShippingCommand])
def test_support_sees_commands_and_operators_retry(client: Client, model: Any, group: str, may: bool) -> None:
    row = failed(model)
    user = User.objects.create_user(username="worker", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client.force_login(user)
    answer = client.get(page("change", model, row.pk))
    assert answer.status_code == 200
    assert ("try-again" in answer.content.decode()) == may
