"""The lag of counters: worst of a while, and what an outage or idleness does to it."""

from replicas.counter_lag import Lag, LagMeter


def test_the_worst_since_the_last_look_is_told_once():
    meter = LagMeter()
    meter.in_use(as_of=10.0, now=10.5, charged_since=[3.0, 40.0])
    meter.in_use(as_of=10.5, now=10.75, charged_since=[7.0])
    assert meter.take(now=10.75) == Lag(0.5, 40.0)
    assert meter.take(now=10.75) == Lag(0.25, 0.0)  # the age of what is in use


def test_while_nothing_is_heard_the_age_grows():
    meter = LagMeter()
    meter.in_use(as_of=1.0, now=1.0, charged_since=[])
    assert meter.take(now=9.0).seconds == 8.0


def test_who_charges_nobody_does_not_lag():
    meter = LagMeter()
    assert meter.take(now=5.0) == Lag()
    meter.in_use(as_of=1.0, now=1.0, charged_since=[])
    meter.idle()
    meter.take(now=2.0)
    assert meter.take(now=9.0) == Lag()
