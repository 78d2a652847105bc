"""Consumers and workers are killed at each step, then the provider, PostgreSQL, the web server and Kafka.

Each checkout still ends or is stuck, and the provider's payments agree with the orders.
"""

import re
import signal
from functools import partial

from testkit.apache_kafka import ApacheKafka
from testkit.participants.provider import ProviderProcess
from testkit.postgres import CrashingPostgres
from testkit.processes import ProductProcess
from testkit.waiting import wait_until
from tests.faults.checkouts import CONSUME_FULFILMENT, WORK_FULFILMENT, Checkouts
from tests.faults.conftest import Site, Start
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import (
    ANSWER_NOT_RECORDED,
    ANSWER_RECORDED,
    BEFORE_CHARGING,
    BOOKING,
    CANCELLING_A_SHIPMENT,
    COMMAND_CLAIMED,
    FULFILMENT_ADVANCED,
    OFFSETS_COMMITTED,
    PUBLISHER_HAS_IT,
    REFUNDING,
    SENT_BUT_NOT_RECORDED,
)
from tests.faults.short_lease import short_lease

DEATHS_OF_THE_CONSUMER = (
    sabotage("kill-after", COMMAND_CLAIMED, containing="'payments'"),
    sabotage("kill-after", COMMAND_CLAIMED, containing="'shipping'"),
    sabotage("kill-after", FULFILMENT_ADVANCED, containing="PAYMENT_CHARGED"),
    sabotage("kill-after", FULFILMENT_ADVANCED, containing="REFUNDED"),
    sabotage("kill-before", OFFSETS_COMMITTED),
    sabotage("kill-before", PUBLISHER_HAS_IT),
    sabotage("kill-before", SENT_BUT_NOT_RECORDED),
)
# With `always`, because a call that raises an error kills nothing. It raises one if the provider does not answer.
DEATHS_OF_THE_WORKER = (
    sabotage("kill-before", BEFORE_CHARGING),
    sabotage("kill-after", BEFORE_CHARGING, always=True),
    sabotage("kill-after", BOOKING, always=True),
    sabotage("kill-after", REFUNDING, always=True),
    sabotage("kill-after", CANCELLING_A_SHIPMENT, always=True),
    sabotage("kill-before", ANSWER_NOT_RECORDED, containing="PaymentCommand"),
    sabotage("kill-after", ANSWER_RECORDED, containing="PaymentCommand"),
)
CUSTOMERS = 4
DEATH_TIMEOUT_S = 90
"""Longest time that the test waits until a sabotaged process, or its child, is killed at its step, in seconds."""


def has_died(victim: ProductProcess) -> bool:
    """Return whether `victim` or its child process was killed. Raises AssertionError if `victim` ended otherwise.

    A consumer uses child processes for messages that may have killed an earlier consumer.
    """
    exit_code = victim.process.poll()
    assert exit_code in (None, -signal.SIGKILL), victim.log.read_text()
    return exit_code is not None or victim.says("ended its process with signal")


def test_checkouts_come_to_rest_whatever_is_killed(
    site: Site,
    oracle: Oracle,
    checkouts: Checkouts,
    provider: ProviderProcess,
    env: dict[str, str],
    start: Start,
    kafka: ApacheKafka,
    postgres: CrashingPostgres,
) -> None:
    """Consumers and workers are killed at each step, and then the provider, PostgreSQL, the web server and Kafka.

    The provider also fails at random. Meanwhile customers check out twice at one moment, pay, cancel, and try to see
    the orders of others.
    """
    consumer = start(*CONSUME_FULFILMENT, **env)
    worker = start(*WORK_FULFILMENT, launcher=short_lease(), **env)
    with checkouts.shopping(site.web.url, customers=CUSTOMERS, pause_s=0.4):
        for at_consumer, at_worker in zip(DEATHS_OF_THE_CONSUMER, DEATHS_OF_THE_WORKER, strict=True):
            # The victims share the work with a consumer and a worker that live.
            victims = [
                start(*CONSUME_FULFILMENT, launcher=at_consumer, **env),
                start(*WORK_FULFILMENT, launcher=[*short_lease(), *at_worker], **env),
            ]
            for victim in victims:
                wait_until(partial(has_died, victim), timeout=DEATH_TIMEOUT_S)
                victim.kill()
        provider.kill()
        checkouts.wait_for_more(5)
        provider.start()
        postgres.restart_immediately()
        site.web.kill()
        kafka.kill()
        site.web.start()
        checkouts.wait_for_more(5)
        kafka.start()
        # PostgreSQL must be back: a process that finds no database at its start ends, as documented.
        for process in (consumer, worker):
            process.kill()
            process.start()
        checkouts.wait_for_more(10)
    states = checkouts.settle_and_compare(provider)
    assert min(states[state] for state in ("COMPLETED", "CANCELLED", "STUCK_REFUND")) > 0, states
    assert len(checkouts.acknowledged) > 50
    # The command lists every stuck refund, also those of earlier tests.
    listed = start("django", "fulfilments", "--stuck")
    assert listed.process.wait(60) == 0
    stuck = re.findall(r"^order (\d+)  STUCK since .*REFUND", listed.log.read_text(), re.MULTILINE)
    assert len(checkouts.tokens.keys() & set(map(int, stuck))) == states["STUCK_REFUND"]
    figures = oracle.settle_and_compare()
    assert figures.dead_letters == 0
