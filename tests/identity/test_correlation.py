"""A phone is found behind an address by its connections, and not where two phones would fit."""

import numpy as np
import polars as pl

from relaywatch.identity.correlation import likenesses


def events(rng, device, ahead=0.0, count=40, endpoints=range(100)):
    chosen = rng.choice(list(endpoints), count)
    times = np.sort(rng.uniform(0, 3000, count))
    return pl.DataFrame(
        {"device": np.full(count, device, np.uint32), "endpoint": chosen.astype(np.uint64), "time": times + ahead}
    )


def seen_from(phone, device, behind=0.0):
    return phone.with_columns(pl.lit(device, pl.UInt32).alias("device"), pl.col("time") - behind)


def test_the_address_with_the_phones_connections_is_the_phone():
    rng = np.random.default_rng(1)
    phone, other = events(rng, 1), events(rng, 2)
    sensors = pl.concat([seen_from(phone, 11, 2.0), seen_from(other, 12, -1.0)])
    found = likenesses(pl.concat([phone, other]), sensors)
    assert [(like.phone, like.sensor) for like in found] == [(1, 11), (2, 12)]
    assert all(like.share > 0.9 for like in found)


def test_a_translated_address_behind_which_two_phones_are_is_left():
    rng = np.random.default_rng(2)
    phone, other = events(rng, 1), events(rng, 2)
    sensors = pl.concat([seen_from(phone, 11), seen_from(other, 11)])
    assert likenesses(pl.concat([phone, other]), sensors) == []


def test_other_peoples_connections_are_nobodys():
    rng = np.random.default_rng(3)
    assert likenesses(events(rng, 1), pl.concat([events(rng, 11), events(rng, 12)])) == []


def test_a_few_common_endpoints_are_not_enough():
    rng = np.random.default_rng(4)
    phone = events(rng, 1, count=4)
    assert likenesses(phone, seen_from(phone, 11)) == []
